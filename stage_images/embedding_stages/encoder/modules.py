"""What sentence-transformers' own files say of a model: its modules, its pooling, its texts. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from embedding_stages.encoder.configuration import FIELD, Config, read_json, read_object
from embedding_stages.encoder.families import Family, pooling_in, unpoolable, unsupported
from embedding_stages.encoder.pooling import POOLINGS, Pooling
from embedding_stages.errors import BadInput

MODULES_FILE: Final = "modules.json"
_POOLING: Final = "1_Pooling"  # where it lies when modules.json does not say
_REPRODUCED: Final = ("Transformer", "Pooling", "Dense", "Normalize")  # and in this order
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def module_folders(folder: Path) -> list[str]:
    """Names of the folders beside config.json that hold a module's config.json, as modules.json says.

    Raises BadInput `ModelDamaged`, `BaseModelUnsupported`.
    """
    return [path for _, path in modules_in(folder) if path]


def modules_in(folder: Path) -> list[tuple[str, str]]:
    """(kind, folder) of each module in order, as modules.json says; none where there is no such file.

    Raises BadInput `ModelDamaged`, `BaseModelUnsupported`.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return []
    raw = read_json(path)
    if not isinstance(raw, list) or not all(isinstance(module, dict) for module in raw):
        raise BadInput("ModelDamaged", f"{MODULES_FILE} is no list of modules; fetch it again", field=FIELD)
    found = [(_kind(str(module.get("type", ""))), str(module.get("path") or "")) for module in raw]
    for _, name in found:
        if name and not is_folder(name):
            raise unsupported(f"{MODULES_FILE} names {name!r}, which is no folder beside it")
    return found


def is_folder(name: str) -> bool:
    """Whether it can be the name of a folder beside config.json."""
    return _FOLDER.fullmatch(name) is not None


def pooling_of(folder: Path, config: Config, family: Family, prefixes: Mapping[str, str]) -> Pooling:
    """The Pooling module's, else config.json's, else the family's own.

    Of the other modules only Transformer, Dense (see `dense.dense_of`) and Normalize can be reproduced; so can a
    pooling that leaves the prefix's tokens out only where there is no prefix. Raises BadInput `BaseModelUnsupported`,
    `ModelIncomplete`, `ModelDamaged`.
    """
    modules = modules_in(folder)
    _check_kinds(modules)
    named = next((path for kind, path in modules if kind == "Pooling" and path), None)
    module = read_object(folder / (named or _POOLING) / "config.json")
    if named and not module:
        raise BadInput(
            "ModelIncomplete",
            f"{MODULES_FILE} names {named}/config.json, which is missing or empty; add it",
            field=FIELD,
        )
    if module.get("include_prompt") is False and any(prefixes.values()):
        raise unsupported(
            "its pooling leaves out the tokens of prefixes (include_prompt: false), which cannot be reproduced; "
            f"where it works without prefixes, give empty ones in {FIELD}.prefixes"
        )
    if not any(key.startswith("pooling_mode") for key in module):
        return "mean" if module and "mean" in family.poolings else pooling_in(config, family)
    return _named(module, family)


def text_settings(folder: Path) -> dict[str, Any]:
    """sentence_bert_config.json, or what older versions called it: max_seq_length, do_lower_case."""
    found = sorted(folder.glob("sentence_*_config.json"))
    return read_object(found[0]) if found else {}


def _named(module: Mapping[str, Any], family: Family) -> Pooling:
    flags = [key for key, value in module.items() if key.startswith("pooling_mode_") and value is True]
    mode = module.get("pooling_mode")
    for pooling in family.poolings:
        rule = POOLINGS[pooling]
        if mode == rule.module_mode or (mode is None and flags == [rule.module_flag]):
            return pooling
    raise unpoolable(str(mode or ", ".join(flags)), family)


def _kind(name: str) -> str:
    """The last word of what is sentence-transformers' own, in the form of any release; else the whole: a class of the
    model's own code may be called Transformer as well.
    """
    package, _, kind = name.rpartition(".")
    return kind if package.partition(".")[0] == "sentence_transformers" else name


def _check_kinds(modules: Sequence[tuple[str, str]]) -> None:
    """Raises BadInput `BaseModelUnsupported` for modules that cannot be reproduced, or not in their order."""
    for kind, path in modules:
        if kind not in _REPRODUCED:
            known = f"{', '.join(_REPRODUCED[:-1])} and {_REPRODUCED[-1]}"
            raise unsupported(
                f"its module {kind[:80]} ({MODULES_FILE}) cannot be reproduced; of sentence-transformers' own modules "
                f"{known} can be used"
            )
        if kind == "Transformer" and path:
            raise unsupported(f"its files lie in the folder {path}; put them beside {MODULES_FILE}")
    kinds = [kind for kind, _ in modules]
    if kinds != sorted(kinds, key=_REPRODUCED.index) or kinds.count("Transformer") > 1 or kinds.count("Pooling") > 1:
        raise unsupported(
            f"sentence-transformers modules {', '.join(kinds)}; only one Transformer, one Pooling, Dense and Normalize "
            "in this order can be used"
        )
