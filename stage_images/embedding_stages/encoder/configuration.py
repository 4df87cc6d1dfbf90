"""Reading a model folder's JSON files, with errors that name the file. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from embedding_stages import git_lfs
from embedding_stages.errors import BadInput

FIELD: Final = "spec.baseModel"  # of the manifest: where errors about a model point
Config: TypeAlias = Mapping[str, Any]  # config.json as found


def positive(config: Config, key: str) -> int:
    """A whole number above 0. Raises BadInput `ModelDamaged`."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput("ModelDamaged", f"config.json: {key} is {value!r}, expected a number > 0", field=FIELD)
    return value


def read_json(path: Path, name: str | None = None) -> Any:
    """`name` is what messages call the file; its own name when absent. Raises BadInput `ModelDamaged`."""
    name = name or path.name
    content = path.read_bytes()
    if git_lfs.is_pointer(content):
        raise BadInput("ModelDamaged", f"{name} {git_lfs.CURE}", field=FIELD)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # the latter for brackets in thousands of brackets
        what = "empty" if not content.strip() else f"not JSON, it may have been cut off: {error}"
        raise BadInput("ModelDamaged", f"{name} is {what}; fetch it again", field=FIELD) from error


def read_object(path: Path, *, required: bool = False) -> dict[str, Any]:
    """The JSON object in a file; an empty one when the file is absent and not `required`.

    Raises BadInput `ModelIncomplete` or `ModelDamaged`.
    """
    if not path.is_file():
        if required:
            raise BadInput("ModelIncomplete", f"the model has no {path.name}; add it", field=FIELD)
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput("ModelDamaged", f"{path.name} is not a JSON object; fetch it again", field=FIELD)
    return value


def for_library(config: Config) -> dict[str, Any]:
    """config.json as keywords for a transformers configuration class: without what names classes or code."""
    return {key: value for key, value in config.items() if key not in ("auto_map", "model_type", "architectures")}


def for_saving(config: Config, dtype: str | None = None) -> dict[str, Any]:
    """config.json as a checkpoint gets it: without the model's code, and with `dtype`, that of the weights beside it;
    with the one that it names where these weights are the base model's own.

    transformers 5 writes rotary positions into `rope_parameters` alone; what version 4 reads stands beside it, or that
    version would turn by the angles of its defaults and say nothing.
    """
    saved = {key: value for key, value in config.items() if key not in ("auto_map", "dtype", "_name_or_path")}
    dtype = dtype or config.get("torch_dtype") or config.get("dtype")
    rope = saved.get("rope_parameters")
    if isinstance(rope, dict) and not any(isinstance(value, dict) for value in rope.values()):
        if "rope_theta" in rope:
            saved.setdefault("rope_theta", rope["rope_theta"])
        if rope.get("rope_type", "default") != "default":
            saved.setdefault("rope_scaling", {key: value for key, value in rope.items() if key != "rope_theta"})
    return saved | ({"torch_dtype": dtype} if dtype else {})


def rotations(config: Config) -> Iterator[Mapping[str, Any]]:
    """What config.json says of rotary positions: the older way, the newer one, or one a kind of layer."""
    for told in (config.get("rope_scaling"), config.get("rope_parameters")):
        if isinstance(told, dict):
            kinds = [value for value in told.values() if isinstance(value, dict)]
            yield from kinds or [told]
