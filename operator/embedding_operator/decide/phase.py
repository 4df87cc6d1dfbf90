"""One word and one line for people: the phase, the current stage, and how far it is. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from embedding_operator.decide.contract import differ
from embedding_operator.decide.gates import Gate
from embedding_operator.decide.verdict import Verdict
from embedding_operator.objects.deletion import DELETION_STUCK
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import ConditionStatus, Served, StageStatus, Status
from embedding_stages.contract import Stage

SUSPENDED: Final = "Suspended"
_REMEMBERED_CHARACTERS: Final = 400
OF_THE_SERVER: Final = frozenset({"EndpointRefused", "InvalidVectors", "ModelNameUnknown", "RolesSwapped"})


def lost(status: Status) -> bool:
    """Whether clients were sent somewhere, and nothing answers there."""
    return bool(status.served.active_fingerprint) and not status.served.url


def with_verdict(served: Served, verdict: Verdict) -> Served:
    """Remembers what was measured of the server that clients reach: an edit may make it another revision's."""
    if served.active_fingerprint != served.candidate_fingerprint:
        return served
    said = verdict.message[:_REMEMBERED_CHARACTERS]
    return replace(served, refused={} if verdict.within else {"reason": verdict.reason, "message": said})


def with_failure(served: Served, verified: StageStatus) -> Served:
    """The same of a measurement that ended because of what the server answers."""
    there = served.active_fingerprint != "" and served.active_fingerprint == served.candidate_fingerprint
    if not there or verified.state != "Failed" or verified.reason not in OF_THE_SERVER:
        return served
    return replace(served, refused={"reason": verified.reason, "message": verified.message[:_REMEMBERED_CHARACTERS]})


def serves_refused(status: Status) -> bool:
    """Whether what clients reach was measured last otherwise than was evaluated."""
    return bool(status.served.active_fingerprint and status.served.refused)


def is_unlike(status: Status) -> bool:
    """Whether what clients reach answers otherwise than what was verified, as far as is known."""
    return serves_refused(status) or bool(differ(status.served))


def judged(status: Status) -> bool:
    """Whether the deploy stage speaks of the server that clients talk to."""
    entry = status.stage(Stage.DEPLOY)
    return entry.state != "Pending" and entry.fingerprint == status.served.active_fingerprint


def current_stage(status: Status, gate: Gate | None, verdict: Verdict | None, *, activated: bool) -> Stage | None:
    """The first stage that is not done, or eval where the gate stops what it measured; None when all is done."""
    if gate is not None and gate.blocks:
        return Stage.EVAL
    for stage in Stage:
        if not status.stage(stage).done:
            return stage
    if verdict is None or not verdict.within or not activated:
        return Stage.VERIFY
    return None


def stuck_in(status: Status, gate: Gate | None, verdict: Verdict | None) -> bool:
    """Nothing will happen before somebody acts."""
    if gate is not None and gate.blocks:
        return True
    if verdict is not None and not verdict.within:
        return True
    if any(item.state == "Waiting" and item.reason == DELETION_STUCK for item in status.stages):
        return True
    return any(item.state == "Failed" and item.name is not Stage.DEPLOY for item in status.stages)


def phase_of(
    status: Status,
    spec: Spec,
    ready: ConditionStatus,
    current: Stage | None,
    *,
    stuck: bool,
    stopped: bool,
    lost: bool,
) -> str:
    """Blocked: somebody has to look, and nothing goes on by itself; the conditions say at what.

    `stopped`: an action was refused; `lost`: what clients were sent to does not answer, or not as it was verified.
    """
    if lost:
        return "Degraded"
    if stopped:
        return "Blocked"
    if spec.suspend:
        return SUSPENDED
    if ready == "True":
        return "Ready"
    if (
        not stuck
        and status.stage(Stage.DEPLOY).state == "Failed"
        and status.served.active_fingerprint
        and judged(status)
    ):
        return "Degraded"
    if stuck or ready == "False":
        return "Blocked"
    if current in (Stage.DEPLOY, Stage.VERIFY, None):
        return "Verifying"
    started = any(item.attempt or item.state != "Pending" for item in status.stages)
    return "Running" if started else "Pending"


def progress_of(status: Status, current: Stage | None, gate: Gate | None, *, suspended: bool) -> str:
    """How far the current stage is: one word, since the stage stands in the column before it."""
    if current is None:
        return "done"
    if gate is not None and gate.blocks:
        return gate.reason
    entry = status.stage(current)
    if entry.percent is not None and entry.state != "Waiting":
        return f"{entry.percent}%"
    if suspended and entry.state == "Pending":
        return SUSPENDED
    return entry.reason if entry.reason != "NotStarted" else "Pending"
