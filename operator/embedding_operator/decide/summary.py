"""From what the stages say to what people and machines read: conditions, phase, progress, metrics. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from embedding_operator.decide.contract import CANARIES_DIFFER, differ
from embedding_operator.decide.decision import Draft, Observed, Plan
from embedding_operator.decide.drift import DRIFT_NOT_CORRECTED
from embedding_operator.decide.figures import metrics_of, shown
from embedding_operator.decide.gates import GATE_DISABLED, PASSED, Gate, gate_of
from embedding_operator.decide.handover import MOVING, Traffic
from embedding_operator.decide.phase import (
    SUSPENDED,
    current_stage,
    is_unlike,
    judged,
    lost,
    phase_of,
    progress_of,
    serves_refused,
    stuck_in,
)
from embedding_operator.decide.pulling import IMAGE_PULL_FAILED
from embedding_operator.decide.refusals import RETRY_S, TRIED_AGAIN
from embedding_operator.decide.traffic import gap_message, tell_gap
from embedding_operator.decide.usage import figures
from embedding_operator.decide.verdict import Verdict
from embedding_operator.decide.waiting import WAITING_FOR_QUOTA
from embedding_operator.decide.warnings import warn
from embedding_operator.decide.written import Conditions, loss_as_told, planned
from embedding_operator.resource import conditions as c
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import Condition, ConditionStatus, Status
from embedding_stages.contract import Stage

CLAIM_NOT_EXPANDED: Final = "ClaimNotExpanded"
RECORD_NOT_WRITTEN: Final = "RecordNotWritten"
_Said = tuple[ConditionStatus, str, str]  # status, reason, message


def as_recorded(decided: Plan, recorded: Status) -> Plan:
    """Of several looks in a pass, what is news beside the status on record: what was so only between them is not."""
    stays = all(_is_ready(status) for status in (recorded, decided.status))
    conditions = tuple(_since(item, recorded.condition(item.type)) for item in decided.status.conditions)
    return replace(
        decided,
        status=replace(decided.status, conditions=conditions),
        events=tuple(event for event in decided.events if not (stays and event.reason == c.READY)),
    )


def _is_ready(status: Status) -> bool:
    known = status.condition(c.READY)
    return known is not None and known.status == "True"


def _since(item: Condition, known: Condition | None) -> Condition:
    same = known is not None and known.status == item.status
    return replace(item, last_transition_time=known.last_transition_time) if known is not None and same else item


def conclude(draft: Draft, spec: Spec, observed: Observed, verdict: Verdict | None, traffic: Traffic | None) -> Plan:
    """Write conditions, phase and figures from the stages' states. Ready is computed, never assigned."""
    activated = traffic is not None and traffic.state == "active"
    write = Conditions(draft, observed)
    _valid(write, observed)
    gate, stop = judged_by_gate(draft.status, spec), observed.stopped
    stopped = stop is not None and stop.kind == "refused"
    stuck = stopped or stuck_in(draft.status, gate, verdict) or (traffic is not None and traffic.broken)
    current = current_stage(draft.status, gate, verdict, activated=activated)
    reached = True
    elsewhere = bool(draft.status.served.astray) or (lost(draft.status) and not judged(draft.status))
    elsewhere |= draft.status.served.is_gap and (spec.suspend or stopped)
    otherwise = None if activated else _serves_otherwise(draft.status)
    for kind, stages in c.STAGES_OF.items():
        if kind == c.DEPLOYED and elsewhere:
            write.put(kind, "False", *loss_as_told(draft, observed))
            reached = reached and draft.status.stage(Stage.DEPLOY).done
            continue
        if kind == c.VERIFIED and verdict is not None and reached:
            _verified(write, verdict, traffic, otherwise)
            continue
        said = _of_stages(draft.status, stages, reached=reached, suspended=spec.suspend)
        reached = said[0] == "True"
        write.put(kind, *(_with(said, otherwise, draft.status) if kind == c.VERIFIED else said))
        if kind == c.EVALUATED:
            _gate_condition(write, gate)
            reached = gate is not None and gate.passed
    without_room = draft.status.stage(Stage.DEPLOY).reason == WAITING_FOR_QUOTA
    held = spec.suspend or without_room or (traffic is not None and traffic.state == "waiting")
    unserved = draft.status.served.is_gap and _gap_goes_on(write, held=held)
    if draft.reused:
        draft.event("Normal", "Reused", f"unchanged since an earlier revision: {', '.join(draft.reused)}")
    was_ready = _is_ready(draft.status)
    ready = c.compute_ready(draft.status.conditions, observed.generation)
    write.put(c.READY, *ready)
    if ready[0] == "True" and not was_ready:
        draft.event("Normal", c.READY, ready[2])
    told = stop is not None or any(event.reason == ready[1] for event in draft.events)  # as a refusal, or by the stage
    if was_ready and ready[0] == "False" and not told:
        draft.event("Warning", ready[1], ready[2])
    write.present(c.STALLED, ready[1], ready[2], true=stuck)
    warn(draft, spec)
    ndcg, uplift = shown(draft.status, activated=activated)
    moving = ready[0] != "True" and not stuck and not spec.suspend
    write.present(c.RECONCILING, ready[1], ready[2], true=moving)
    unserved |= lost(draft.status) and (stuck or ready[0] == "False")
    draft.status = replace(
        draft.status,
        phase=phase_of(
            draft.status,
            spec,
            ready[0],
            current,
            stuck=stuck,
            stopped=stopped,
            lost=elsewhere or unserved or is_unlike(draft.status),
        ),
        current_stage=current.value if current is not None else "",
        progress=progress_of(draft.status, current, gate, suspended=spec.suspend)[:128],
        metrics=metrics_of(draft.status),
        run=figures(draft.status, spec),
        ndcg=ndcg,
        uplift=uplift,
        verification=verdict.report if verdict is not None else {},
    )
    requeue = min(draft.requeue_s) if draft.requeue_s else None
    if stop is not None:
        requeue = min([RETRY_S[stop.kind], *draft.limits_s])
    return planned(draft, draft.status, requeue, at_once=draft.at_once and stop is None)


def _serves_otherwise(status: Status) -> tuple[str, str] | None:
    """(reason, message) where what clients reach does not answer as it was verified."""
    served = status.served
    if other := differ(served, newer=not judged(status)):
        return CANARIES_DIFFER, other
    if not serves_refused(status):
        return None
    return served.refused["reason"], (
        f"revision {served.active_revision}, which serves clients, was measured again and refused: "
        f"{served.refused['message']}; let the revision of this manifest take its place, or set "
        f"spec.stages.deploy.pinRevision: {served.active_revision} to measure it once more"
    )


def _with(said: _Said, otherwise: tuple[str, str] | None, status: Status) -> _Said:
    """What is said of this revision, where clients reach what does not answer as it was verified: that comes first, but
    for a failure of this revision's own, which somebody has to know of.
    """
    if otherwise is None or said[0] == "False":
        return said
    reason, message = otherwise
    waits = "" if said[1] == "Pending" else f"; revision {status.revision}: {said[2]}"
    return "False", reason, f"{message}{waits}"


def _valid(write: Conditions, observed: Observed) -> None:
    """A claim that cannot grow or a record that cannot be written is no reason to stop; nor is an image that a later
    stage will not get, but somebody has to look.
    """
    stop, claim = observed.stopped, observed.refusal("claim")
    if stop is not None and stop.kind == "refused":
        write.not_valid("False", stop.reason, stop.message)
        return
    if stop is not None:
        write.not_valid("Unknown", stop.reason, f"{stop.message}{TRIED_AGAIN}")
        return
    if write.draft.unpulled:
        write.not_valid("False", IMAGE_PULL_FAILED, write.draft.unpulled)
        return
    record, note = observed.refusal("record"), observed.refusal("note")
    if claim is not None:
        _less(write, observed, CLAIM_NOT_EXPANDED, f"the workspace claim stays as small as it is: {claim.message}")
    elif record is not None:
        why = f"{record.message}; remove or rename what is in the way, or allow it{TRIED_AGAIN}"
        _less(write, observed, RECORD_NOT_WRITTEN, why)
    elif note is not None:
        why = f"what it says of a suspension stays noted at what somebody else lets run: {note.message}{TRIED_AGAIN}"
        _less(write, observed, c.NOTE_NOT_REMOVED, why)
    elif write.draft.unkept:
        _less(write, observed, DRIFT_NOT_CORRECTED, write.draft.unkept, told=True)
    else:
        write.put(c.VALIDATED, "True", "Valid", "the manifest is valid")


def _less(write: Conditions, observed: Observed, reason: str, what: str, *, told: bool = False) -> None:
    """Something is refused that work goes on without; told once, where it is not `told` already."""
    message = f"the manifest is valid, but {what}"
    known = write.draft.status.condition(c.VALIDATED)
    if known is None or known.reason != reason:
        if not told:
            write.draft.event("Warning", reason, message)
    elif known.observed_generation == observed.generation:
        message = known.message  # the words may change from pass to pass
    write.put(c.VALIDATED, "True", reason, message)


def judged_by_gate(status: Status, spec: Spec) -> Gate | None:
    """None: there is nothing to judge yet."""
    before = tuple(Stage)[: tuple(Stage).index(Stage.EVAL) + 1]
    if not all(status.stage(stage).done for stage in before):
        return None
    return gate_of(status, spec)


def _gate_condition(write: Conditions, gate: Gate | None) -> None:
    if gate is None:
        write.put(c.QUALITY_GATE, "Unknown", "Pending", "an earlier stage comes first")
        return
    status: ConditionStatus = "True" if gate.passed else "False"
    known = write.draft.status.condition(c.QUALITY_GATE)
    if known is None or (known.status, known.reason) != (status, gate.reason):
        good = gate.reason in (PASSED, GATE_DISABLED)
        write.draft.event("Normal" if good else "Warning", gate.reason, f"eval: {gate.message}")
    write.put(c.QUALITY_GATE, status, gate.reason, gate.message)


def _gap_goes_on(write: Conditions, *, held: bool) -> bool:
    """Clients reach nothing since room was made for this revision. True where it does not come: then that is said.

    `held`: nothing has failed, and it may wait for ever.
    """
    draft = write.draft
    open_ = [item for item in draft.status.conditions if item.type in c.DEPENDENTS and item.status != "True"]
    failed = [item for item in open_ if item.status == "False"]
    if not failed and not held:
        return False
    tell_gap(draft)
    said = gap_message(draft.status.served)
    # Of Validated the words are compared.
    first = next((item for item in failed or open_ if item.type != c.VALIDATED), None)
    if first is not None and said not in first.message:
        write.put(first.type, first.status, first.reason, f"{first.message[:700]}; {said}")
    return True


def _of_stages(status: Status, stages: tuple[Stage, ...], *, reached: bool, suspended: bool) -> _Said:
    """True when everything up to and including these stages is done."""
    if not reached:
        return "Unknown", "Pending", "an earlier stage comes first"
    for stage in stages:
        entry = status.stage(stage)
        if entry.done:
            continue
        failed = entry.state == "Failed" or entry.broken
        if suspended and not failed:
            return "Unknown", SUSPENDED, _suspended(status)
        return "False" if failed else "Unknown", entry.reason, f"{stage}: {entry.message}"
    last = status.stage(stages[-1])
    return "True", last.reason, last.message


def _suspended(status: Status) -> str:
    serves = f"; revision {status.served.active_revision} goes on serving" if status.served.url else ""
    return f"spec.suspend is true: set it to false to go on{serves}"


def _verified(write: Conditions, verdict: Verdict, traffic: Traffic | None, otherwise: tuple[str, str] | None) -> None:
    status = write.draft.status
    if not verdict.within:
        there = bool(status.served.active_fingerprint)
        serves = there and status.served.active_fingerprint == status.served.candidate_fingerprint
        fate = "it serves clients since an earlier revision and goes on" if serves else "the revision gets no traffic"
        message = f"{verdict.told}; {fate}"
        _not_verified(write, verdict.reason, message)
    elif traffic is None or traffic.state != "active":
        waits = traffic or MOVING
        if waits.broken:
            _not_verified(write, waits.reason, waits.message)
        else:
            write.put(c.VERIFIED, *_with(("Unknown", waits.reason, waits.message), otherwise, status))
    elif other := differ(status.served):
        write.put(c.VERIFIED, "False", CANARIES_DIFFER, other)
    else:
        write.put(c.VERIFIED, "True", verdict.reason, verdict.message)


def _not_verified(write: Conditions, reason: str, message: str) -> None:
    """Told once, where nothing else in this pass has told it."""
    known = write.draft.status.condition(c.VERIFIED)
    told = any(event.reason == reason for event in write.draft.events)
    if not told and (known is None or (known.status, known.reason) != ("False", reason)):
        write.draft.event("Warning", reason, f"verify: {message}")
    write.put(c.VERIFIED, "False", reason, message)
