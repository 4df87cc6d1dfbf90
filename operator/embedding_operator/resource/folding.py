"""What of the status people do not look at, as one text of JSON: its field `record`.

`kubectl describe` prints every value on a line of its own: what the operator remembers would be hundreds of them,
between what people look at. An earlier release wrote all out; both are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from embedding_operator.resource.stage_status import DONE_STATES
from embedding_stages.contract import Stage

RECORD: Final = "record"
# Of these parts the fields that are shown; all of the others stands in the record.
_SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "verification": frozenset({"withinTolerance", "evaluatedIn", "queries", "changedQueries"}),
    "metrics": frozenset({"base", "fineTuned", "served"}),
    "evaluationSet": frozenset(),
    "imageCheck": frozenset({"note"}),
    "resolved": frozenset(),
    "restored": frozenset(),
    "run": frozenset({"activeSeconds", "gpuHours", "llmTokens", "etaSeconds"}),
    "schedule": frozenset(
        {"nextLookTime", "lastLookTime", "lastChangeTime", "result", "message", "waits", "drift", "revisions"}
    ),
}
_REMEMBERED_OF_SERVED: Final = frozenset(
    {"astray", "canaries", "checkpoint", "contract", "evaluatedOn", "movedTo", "refused"}
)
_SHOWN_OF_A_STAGE: Final = ("name", "state", "reusedFrom")  # that is done, while another one is not
_SHOWN_OF_A_REVISION: Final = ("revision", "ndcg@10")  # of the history
_STAGES: Final = "stages"
_HISTORY: Final = "history"
_ORDER: Final = {stage.value: number for number, stage in enumerate(Stage)}


def folded(body: Mapping[str, Any]) -> dict[str, Any]:
    """The status as it is written. A stage that waits, runs or has failed is shown field by field."""
    shown, record = dict(body), dict[str, Any]()
    for part, whole in body.items():
        shown[part], rest = _split(part, whole)
        record |= {part: rest} if rest else {}
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
        if part not in (_STAGES, _HISTORY) and isinstance(rest, Mapping):
            whole[part] = {**rest, **(whole.get(part) or {})}
    lists = {
        _STAGES: list(_stages(raw.get(_STAGES) or (), _mapping(record.get(_STAGES)))),
        _HISTORY: list(_history(raw.get(_HISTORY) or (), _mapping(record.get(_HISTORY)))),
    }
    return whole | {part: items for part, items in lists.items() if items or part in raw}


def _split(part: str, whole: Any) -> tuple[Any, Mapping[str, Any]]:
    """(what is shown of a part, what stands in the record)."""
    if part == _STAGES:
        return _split_stages(whole)
    if part == _HISTORY:
        rest = {str(item["revision"]): _rest(item, _SHOWN_OF_A_REVISION) for item in whole if "revision" in item}
        return [_only(item, _SHOWN_OF_A_REVISION) if "revision" in item else item for item in whole], rest
    if not isinstance(whole, Mapping):
        return whole, {}
    seen = _shown_of(part, whole)
    return _only(whole, seen), _rest(whole, seen)


def _split_stages(whole: Sequence[Mapping[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    """Once all are done, the conditions say it, and none is shown."""
    done = [item for item in whole if item["state"] in DONE_STATES]
    if len(done) == len(whole):
        return [], {item["name"]: _rest(item, ("name",)) for item in done}
    rest = {item["name"]: _rest(item, _SHOWN_OF_A_STAGE) for item in done}
    return [_only(item, _SHOWN_OF_A_STAGE) if item in done else item for item in whole], rest


def _stages(shown: Sequence[Any], record: Mapping[str, Any]) -> list[Any]:
    """In the order of the pipeline; what is no stage comes last."""
    names = {item.get("name") for item in shown}
    found = [{**_mapping(record.get(item.get("name"))), **item} for item in shown]
    found += [{**_mapping(rest), "name": name} for name, rest in record.items() if name not in names]
    # A stage that is done and of which nothing is known is forgotten: its work is found again. So is one that somebody
    # took out of the status.
    known = (
        item
        for item in found
        if "state" in item and (item["state"] not in DONE_STATES or len(item) > len(_SHOWN_OF_A_STAGE))
    )
    return sorted(known, key=lambda item: _ORDER.get(str(item.get("name")), len(_ORDER)))


def _history(shown: Sequence[Any], record: Mapping[str, Any]) -> Iterator[Any]:
    for item in shown:
        yield {**item, **_mapping(record.get(str(item.get("revision"))))} if isinstance(item, Mapping) else item


def _shown_of(part: str, whole: Mapping[str, Any]) -> frozenset[str]:
    """The fields of a part that are shown."""
    every, nothing = frozenset(whole), frozenset[str]()
    if part == "served":
        return every - _REMEMBERED_OF_SERVED
    if part == "preflight":  # over, and without anything to tell
        return nothing if whole.get("state") == "Done" and "untried" not in whole else every
    if part == "verification" and whole.get("withinTolerance") is True:  # the condition tells the figures
        return nothing
    return _SHOWN.get(part, every)


def _only(whole: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key in keys}


def _rest(whole: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key not in keys}


def _text(value: Any) -> str:
    """A stage may say a number that JSON has no word for: Python reads it again."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _mapping(item: Any) -> Mapping[str, Any]:
    return item if isinstance(item, Mapping) else {}


def _object(item: Any) -> Mapping[str, Any]:
    found = json.loads(item) if item is not None else {}
    if not isinstance(found, Mapping):
        raise TypeError("not an object")
    return found
