"""What a pass writes: conditions of one generation at one time, and the plan that they are part of. Pure."""

from __future__ import annotations

from dataclasses import replace

from embedding_operator.decide.decision import Draft, Observed, Plan
from embedding_operator.decide.refusals import RETRY_S
from embedding_operator.decide.traffic import loss
from embedding_operator.decide.words import counts_as_told
from embedding_operator.resource import conditions as c
from embedding_operator.resource.status import ConditionStatus, Status
from embedding_operator.resource.times import stamp


class Conditions:
    """Writes conditions of one generation at one time."""

    def __init__(self, draft: Draft, observed: Observed) -> None:
        self.draft, self.generation = draft, observed.generation
        self.now = stamp(observed.now)

    def put(self, kind: str, status: ConditionStatus, reason: str, message: str) -> None:
        updated = c.set_condition(
            self.draft.status.conditions,
            kind,
            status,
            reason,
            message,
            generation=self.generation,
            now=self.now,
        )
        self.draft.status = replace(self.draft.status, conditions=updated)

    def drop(self, kind: str) -> None:
        self.draft.status = replace(self.draft.status, conditions=c.drop_condition(self.draft.status.conditions, kind))

    def present(self, kind: str, reason: str, message: str, *, true: bool) -> None:
        """Reconciling and Stalled exist only while they are true."""
        if true:
            self.put(kind, "True", reason, message)
        else:
            self.drop(kind)

    def not_valid(self, status: ConditionStatus, reason: str, message: str) -> None:
        """Validated, told once. `message` keeps the words of the first refusal; see refusals.py."""
        known = self.draft.status.condition(c.VALIDATED)
        if known is None or known.message != message[:1024]:
            self.draft.event("Warning", reason, message)
        self.put(c.VALIDATED, status, reason, message)


def planned(draft: Draft, status: Status, requeue_s: float | None, *, at_once: bool = False) -> Plan:
    return Plan(
        status=status,
        actions=tuple(draft.actions),
        events=tuple(draft.events),
        requeue_after_s=requeue_s,
        ended_run=draft.ended_run,
        at_once=at_once,
    )


def loss_as_told(draft: Draft, observed: Observed) -> tuple[str, str]:
    """(reason, message): why clients do not reach what serves; the scheduler's counts may be in it."""
    reason, words = loss(draft.status.served, observed)
    known = draft.status.condition(c.DEPLOYED)
    if known is None or known.reason != reason:
        return reason, words
    poll_s = min([*draft.requeue_s, RETRY_S["refused"]])
    return reason, counts_as_told(words, known.message, draft.status, observed.now, poll_s=poll_s)
