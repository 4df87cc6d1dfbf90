"""Parts of the status as one text of JSON each.

`kubectl describe` prints every value on a line of its own: what the operator remembers would be hundreds of them,
between what people look at. An earlier release wrote all out; both are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

RECORD: Final = "record"


def folded(whole: Mapping[str, Any], seen: Iterable[str]) -> dict[str, Any]:
    """What people look at by its name, the rest as one text under `record`."""
    shown = {key: whole[key] for key in seen if key in whole}
    rest = {key: value for key, value in whole.items() if key not in shown}
    return shown | ({RECORD: _text(rest)} if rest else {})


def written_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What `folded` was made of. Raises ValueError and TypeError where somebody made something else of it."""
    return {**_object(raw.get(RECORD)), **_beside(raw)}


def readable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """As `written_out`; without the text where somebody made something else of it."""
    try:
        return written_out(raw)
    except (ValueError, TypeError):
        return _beside(raw)


def folded_each(whole: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Each object under one of `keys` as a text of its own."""
    found = dict(whole)
    for key in keys:
        if isinstance(found.get(key), Mapping):
            found[key] = {name: _text(item) for name, item in found[key].items()}
    return found


def readable_each(raw: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """What `folded_each` was made of, without what cannot be read."""
    found = dict(raw)
    for key in keys:
        if isinstance(found.get(key), Mapping):
            found[key] = dict(_objects(found[key]))
    return found


def _objects(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, item in raw.items():
        try:
            yield name, dict(_object(item))
        except (ValueError, TypeError):
            continue


def _beside(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != RECORD}


def _text(value: Any) -> str:
    """A stage may say a number that JSON has no word for: Python reads it again."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _object(item: Any) -> Mapping[str, Any]:
    found = json.loads(item) if isinstance(item, str) else {} if item is None else item
    if not isinstance(found, Mapping):
        raise TypeError("not an object")
    return found
