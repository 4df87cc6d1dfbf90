"""What the API server refused in this pass, as reasons to wait and words that stay the same. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from embedding_operator.decide.decision import Observed, Refusal
from embedding_operator.decide.waiting import POLL_QUOTA_S, WAITING_FOR_QUOTA, Wait, quota_message
from embedding_operator.objects.deletion import DELETION_STUCK
from embedding_operator.resource.conditions import VALIDATED
from embedding_operator.resource.status import StageStatus, Status

RETRY_S: Final = {"refused": 15.0, "late": 3.0, "quota": POLL_QUOTA_S, "record": 60.0}
TRIED_AGAIN: Final = "; it is tried again until it works"
CLUSTER_UNAVAILABLE: Final = "ClusterUnavailable"
_REASONS: Final = frozenset(
    {CLUSTER_UNAVAILABLE, DELETION_STUCK, "Forbidden", "ForeignObject", "NotYetGone", "Rejected", WAITING_FOR_QUOTA}
)


def with_first_words(status: Status, observed: Observed) -> Observed:
    """A refusal that the status reports already keeps the words it had there.

    A webhook may put a number of its own into every answer. New words would make every pass write the status, and the
    write's own watch event would start the next pass at once.
    """
    known = status.condition(VALIDATED)
    if known is None or known.observed_generation != observed.generation:
        return observed

    def as_known(refusal: Refusal) -> Refusal:
        start = f"{refusal.tried}: "
        if known.reason != refusal.reason or not known.message.startswith(start):
            return refusal
        return replace(refusal, detail=known.message.removeprefix(start).removesuffix(TRIED_AGAIN))

    return replace(observed, refusals=tuple(as_known(item) for item in observed.refusals))


def not_written(observed: Observed, name: str) -> bool:
    """Whether the ConfigMap `name` is not written in this pass, so that nothing may say that it was."""
    records = (item for item in observed.refusals if item.kind == "record")
    return refusal_wait(observed) is not None or any(item.tried.endswith(f"/{name}") for item in records)


def refusal_wait(observed: Observed) -> Wait | None:
    """Why nothing can be created in this pass."""
    stop, full = observed.stopped, observed.refusal("quota")
    if stop is not None:
        return Wait(reason=stop.reason, message=stop.message, broken=stop.kind == "refused")
    if full is not None:
        return Wait(reason=WAITING_FOR_QUOTA, message=quota_message(full.message), broken=False)
    return None


def as_it_is_refused(observed: Observed, kind: str, namespace: str, name: str) -> Observed:
    """As an object sees it that waits for nothing else: with refusals of it, and one after which nothing is done."""
    its = f"{kind} {namespace}/{name}"
    refusals = (
        item
        for item in observed.refusals
        if item.reason == CLUSTER_UNAVAILABLE or (item.tried.endswith(its) and not item.of_preflight)
    )
    return replace(observed, refusals=tuple(refusals))


def was_refused(entry: StageStatus) -> bool:
    """Whether the stage waits because the API server refused its object in an earlier pass."""
    return entry.state == "Waiting" and entry.reason in _REASONS
