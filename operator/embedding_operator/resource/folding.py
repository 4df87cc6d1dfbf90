"""What of the status people do not look at, as one text of JSON: its field `record`.

`kubectl describe` prints every value on a line of its own: what the operator remembers would be hundreds of them,
between what people look at. An earlier release wrote all out; both are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from embedding_operator.resource.stage_status import DONE_STATES

RECORD: Final = "record"
# Of these parts the fields that are shown; all of the others stands in the record.
_SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "verification": frozenset({"withinTolerance", "evaluatedIn", "queries", "changedQueries"}),
    "evaluationSet": frozenset(),
    "resolved": frozenset(),
}
_REMEMBERED_OF_SERVED: Final = frozenset({"canaries", "checkpoint", "contract"})
_SHOWN_OF_A_STAGE: Final = ("name", "state", "reusedFrom")  # that is done
_STAGES: Final = "stages"


def folded(body: Mapping[str, Any]) -> dict[str, Any]:
    """The status as it is written. A stage that waits, runs or has failed is shown field by field."""
    shown, record = dict(body), dict[str, Any]()
    for part, whole in body.items():
        if part == _STAGES:
            done = [item for item in whole if item["state"] in DONE_STATES]
            record |= {_STAGES: {item["name"]: _rest(item, _SHOWN_OF_A_STAGE) for item in done}} if done else {}
            shown[part] = [_only(item, _SHOWN_OF_A_STAGE) if item in done else item for item in whole]
            continue
        seen = _shown_of(part, whole)
        if rest := _rest(whole, seen) if isinstance(whole, Mapping) else {}:
            record[part] = rest
            shown[part] = _only(whole, seen)
    found = {key: value for key, value in shown.items() if value not in ({}, [])}
    return found | ({RECORD: _text(record)} if record else {})


def written_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What `folded` was made of. Where somebody made something else of the record, without what it held."""
    try:
        record = _object(raw.get(RECORD))
    except (ValueError, TypeError):
        record = {}
    whole = {key: value for key, value in raw.items() if key != RECORD}
    for part, rest in record.items():
        if part != _STAGES and isinstance(rest, Mapping):
            whole[part] = {**rest, **(whole.get(part) or {})}
    stages = record.get(_STAGES)
    return whole | {_STAGES: list(_stages(raw.get(_STAGES) or (), stages if isinstance(stages, Mapping) else {}))}


def _stages(shown: Any, record: Mapping[str, Any]) -> Iterator[Any]:
    for item in shown:
        rest = record.get(item.get("name"))
        whole = {**rest, **item} if isinstance(rest, Mapping) else item
        # A stage that is done and of which nothing is known is forgotten: its work is found again.
        if whole.get("state") not in DONE_STATES or len(whole) > len(_SHOWN_OF_A_STAGE):
            yield whole


def _shown_of(part: str, whole: Any) -> frozenset[str]:
    """The fields of a part that are shown."""
    every = frozenset(whole) if isinstance(whole, Mapping) else frozenset[str]()
    if part == "served":
        return every - _REMEMBERED_OF_SERVED
    return _SHOWN.get(part, every)


def _only(whole: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key in keys}


def _rest(whole: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key not in keys}


def _text(value: Any) -> str:
    """A stage may say a number that JSON has no word for: Python reads it again."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _object(item: Any) -> Mapping[str, Any]:
    found = json.loads(item) if item is not None else {}
    if not isinstance(found, Mapping):
        raise TypeError("not an object")
    return found
