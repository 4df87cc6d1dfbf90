"""What belongs before queries and passages, as a model's files say it. Standard library only.

sentence-transformers keeps prompts by name in config_sentence_transformers.json. Some names say which texts they are
for; the one that `default_prompt_name` names is put before all others. What no file says is told as a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from embedding_stages.encoder.configuration import FIELD, Config, read_object

_FILE: Final = "config_sentence_transformers.json"
_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({  # by role; the first that a model has counts
    "query": ("query", "search_query", "retrieval_query", "web_search_query", "s2p_query"),
    "passage": ("passage", "document", "corpus", "search_document", "retrieval_passage", "retrieval_document"),
})  # fmt: skip
_E5 = re.compile(r"(?<![a-z0-9])e5(?![a-z0-9])", re.IGNORECASE)
_MOST_NAMED: Final = 5


def own_prefixes(folder: Path) -> dict[str, str] | None:
    """The prefix of each role, query and passage; None where the files name neither.

    Raises BadInput `ModelDamaged`.
    """
    settings = read_object(folder / _FILE)
    prompts = _prompts(settings)
    found = {role: next((prompts[name] for name in names if name in prompts), None) for role, names in _NAMES.items()}
    default = _plain(settings.get("default_prompt_name") or "")
    for role, names in _NAMES.items():
        # sentence-transformers would also put a default that is meant for queries before passages; no model wants that.
        of_other = any(default in other for other in _NAMES.values() if other is not names)
        if found[role] is None and default in prompts and not of_other:
            found[role] = prompts[default]
    if all(text is None for text in found.values()):
        return None
    return {role: text or "" for role, text in found.items()}


def unused_prompts(folder: Path, config: Config, name: str, prefixes: Mapping[str, str]) -> list[str]:
    """Warnings that the model called `name`, used with these prefixes of its own, may want others."""
    prompts = _as_written(read_object(folder / _FILE))
    unused = sorted(prompt for prompt, text in prompts.items() if text and text not in prefixes.values())
    if unused and not any(text and text in prompts.values() for text in prefixes.values()):
        named = ", ".join(ascii(prompt[:40]) for prompt in unused[:_MOST_NAMED])
        what = f"the model has prompts that are not used ({named}): no file says whether they belong before queries or"
        return [f"{what} passages; write the right ones in {FIELD}.prefixes"]
    names = (name, str(config.get("_name_or_path") or ""))
    if any(_E5.search(text) for text in names) and not any(prefixes.values()):
        what = "E5 models want 'query: ' and 'passage: ' before texts; this one's files do not say so, and none is used"
        return [f"{what}: write them in {FIELD}.prefixes, or empty ones where the model wants none"]
    return []


def _prompts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Prompts by name, in the form that `_NAMES` has."""
    return {_plain(name): text for name, text in _as_written(settings).items()}


def _as_written(settings: Mapping[str, Any]) -> dict[str, str]:
    prompts = settings.get("prompts")
    if not isinstance(prompts, dict):
        return {}
    return {str(name): str(text) for name, text in prompts.items() if text is not None}


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower())
