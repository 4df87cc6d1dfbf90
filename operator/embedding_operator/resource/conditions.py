"""Conditions: their names, how one changes, and what Ready means. Pure.

Conditions are positive: True is good, Unknown is "not yet", False is a real failure that somebody must look at.
`Reconciling` and `Stalled` exist only while they are True (kstatus).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from embedding_operator.resource.status import Condition, ConditionStatus
from embedding_stages.contract import Stage

VALIDATED: Final = "Validated"
DATA_READY: Final = "DataReady"
TRAINED: Final = "Trained"
EVALUATED: Final = "Evaluated"
QUALITY_GATE: Final = "QualityGatePassed"
EXPORTED: Final = "Exported"
DEPLOYED: Final = "Deployed"
VERIFIED: Final = "Verified"
READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"

# Ready is the conjunction of these, in the order in which a reader wants to hear of a failure.
DEPENDENTS: Final = (VALIDATED, DATA_READY, TRAINED, EVALUATED, QUALITY_GATE, EXPORTED, DEPLOYED, VERIFIED)
ORDER: Final = (READY, *DEPENDENTS, RECONCILING, STALLED)

# Which stages a condition speaks for; QUALITY_GATE judges what EVALUATED has found.
STAGES_OF: Final[dict[str, tuple[Stage, ...]]] = {
    DATA_READY: (Stage.INPUTS, Stage.SDG, Stage.PREP),
    TRAINED: (Stage.FINETUNE,),
    EVALUATED: (Stage.EVAL,),
    EXPORTED: (Stage.EXPORT,),
    DEPLOYED: (Stage.DEPLOY,),
    VERIFIED: (Stage.VERIFY,),
}
_MESSAGE_CHARACTERS: Final = 1024
NOTE_NOT_REMOVED: Final = "NoteNotRemoved"  # a reason of VALIDATED: of a suspension, see decide/queue.py
GATES_PASSED: Final = "Passed"  # the reason of QUALITY_GATE that says so; True has others


def set_condition(
    conditions: Sequence[Condition],
    kind: str,
    status: ConditionStatus,
    reason: str,
    message: str,
    *,
    generation: int,
    now: str,
) -> tuple[Condition, ...]:
    """Add or replace one condition. Its time moves only when its status does. `now` is RFC 3339."""
    old = next((item for item in conditions if item.type == kind), None)
    since = old.last_transition_time if old is not None and old.status == status else now
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:_MESSAGE_CHARACTERS],
        observed_generation=generation,
        last_transition_time=since,
    )
    return _ordered([item for item in conditions if item.type != kind] + [new])


def drop_condition(conditions: Sequence[Condition], kind: str) -> tuple[Condition, ...]:
    """Remove a condition that is no longer true."""
    return tuple(item for item in conditions if item.type != kind)


def compute_ready(conditions: Sequence[Condition], generation: int) -> tuple[ConditionStatus, str, str]:
    """(status, reason, message) of Ready: False wins over Unknown, a missing or outdated dependent is Unknown."""
    by_type = {item.type: item for item in conditions}
    unknown: Condition | None = None
    missing = ""
    for kind in DEPENDENTS:
        item = by_type.get(kind)
        if item is None or item.observed_generation != generation:
            missing = missing or kind
        elif item.status == "False":
            return "False", item.reason, f"{kind}: {item.message}"
        elif item.status == "Unknown" and unknown is None:
            unknown = item
    if unknown is not None:
        return "Unknown", unknown.reason, f"{unknown.type}: {unknown.message}"
    if missing:
        return "Unknown", "InProgress", f"{missing} is not known yet for generation {generation}"
    gate = by_type[QUALITY_GATE]
    good = "the model passed its gates" if gate.reason == GATES_PASSED else gate.message
    same = "the served one measured the same as the evaluated one, within tolerance"
    return "True", "Verified", f"{good[: _MESSAGE_CHARACTERS // 2]}; {same}"


def _ordered(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    return tuple(sorted(conditions, key=lambda item: ORDER.index(item.type) if item.type in ORDER else len(ORDER)))
