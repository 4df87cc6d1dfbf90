"""Who set a field, as `metadata.managedFields` tells it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Raw = Mapping[str, Any]


def managers_of(managed: Iterable[Raw], field: str) -> list[str]:
    """The managers that own `field`, a path as objects/compare.py names it, or something below it.

    A Service's port that somebody gave another number is a new item in place of ours: its owner is meant.
    """
    known = [(str(item.get("manager", "")), item.get("fieldsV1") or {}) for item in managed]
    items, _, item = field.partition("[")
    fields = [field, items] if item.endswith("]") and "[" not in item else [field]
    owners = ({name for name, owned in known if name and _owns(owned, path)} for path in fields)
    return sorted(next((found for found in owners if found), ()))


def _owns(fields: Raw, path: str) -> bool:
    """`fields` has `f:NAME` for a field, `k:{...}` for an item of a list; what has nothing below it is owned whole."""
    if not path:
        return True
    for key, below in fields.items():
        for name in _names(key):
            if path == name or path.startswith((f"{name}.", f"{name}[")):
                rest = path[len(name) :].removeprefix(".")
                if not below or _owns(below, rest):
                    return True
    return False


def _names(key: str) -> list[str]:
    """What a key of `fieldsV1` may be called in a path. An item is named by one of its keys: `[8000]`, `[server]`."""
    kind, _, said = key.partition(":")
    if kind == "f":
        return [said]
    if kind != "k":
        return []
    try:
        return [f"[{value}]" for value in json.loads(said).values()]
    except (ValueError, AttributeError):
        return []
