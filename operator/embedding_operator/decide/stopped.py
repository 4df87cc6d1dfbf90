"""A pass that goes no further: the manifest is not valid, or something was refused, or has to be waited for. Pure."""

from __future__ import annotations

from dataclasses import replace

from embedding_operator.decide.decision import Draft, Event, Observed, Plan
from embedding_operator.decide.drift import DRIFT_NOT_CORRECTED
from embedding_operator.decide.phase import is_unlike, lost
from embedding_operator.decide.refusals import RETRY_S, TRIED_AGAIN, with_first_words
from embedding_operator.decide.traffic import ACTIVE_UNAVAILABLE, tell_gap
from embedding_operator.decide.usage import figures
from embedding_operator.decide.written import Conditions, loss_as_told, planned
from embedding_operator.resource import conditions as c
from embedding_operator.resource.api import SpecError
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage


def invalid(draft: Draft, observed: Observed, error: SpecError) -> Plan:
    """A manifest that cannot be acted on: say so and wait for an edit. Whatever serves goes on serving."""
    # No stage has been shown to be done for this manifest.
    draft.status = replace(
        draft.status,
        observed_generation=observed.generation,
        current_stage=Stage.INPUTS.value,
        run=figures(draft.status, None),
    )
    return refused(draft, observed, error.reason, str(error), retry_s=None)


def unread(status: Status, observed: Observed) -> Plan:
    """What a decision needs could not be read: say why, and go on with what the status knows."""
    observed = with_first_words(status, observed)
    stop = observed.stopped
    if stop is None:
        raise ValueError("nothing was refused")
    draft = Draft(status=replace(status, observed_generation=observed.generation))
    return refused(draft, observed, stop.reason, stop.message, retry_s=RETRY_S[stop.kind])


def unrecorded(why: str) -> Event:
    """No status can tell it."""
    message = (
        f"nothing goes on, since the status cannot be written: {why}; install the CRD of the operator's release, and "
        "let its ServiceAccount update embeddingfinetunes/status"
    )
    return Event(type="Warning", reason="StatusNotWritten", message=message[:1000])


def refused(draft: Draft, observed: Observed, reason: str, message: str, *, retry_s: float | None) -> Plan:
    """The manifest, or the API server's answer to a read, stops everything."""
    write = Conditions(draft, observed)
    write.not_valid("False", reason, message)
    gone = lost(draft.status) or draft.status.served.is_gap
    if draft.status.served.is_gap:
        tell_gap(draft)
    deployed = draft.status.condition(c.DEPLOYED)
    if gone:
        write.put(c.DEPLOYED, "False", *loss_as_told(draft, observed))
    elif deployed is not None and deployed.reason in (ACTIVE_UNAVAILABLE, DRIFT_NOT_CORRECTED):
        write.drop(c.DEPLOYED)
    write.put(c.READY, *c.compute_ready(draft.status.conditions, observed.generation))
    write.drop(c.RECONCILING)
    write.put(c.STALLED, "True", reason, message)
    status = replace(
        draft.status,
        phase="Degraded" if gone or is_unlike(draft.status) else "Blocked",
        current_stage=draft.status.current_stage or Stage.INPUTS.value,
        progress=reason,
    )
    again_s = min(draft.requeue_s, default=None) if retry_s is None else retry_s
    return planned(draft, status, again_s)


def held_up(status: Status, observed: Observed, reason: str, message: str, *, retry_s: float | None) -> Plan:
    """Nothing is known to be wrong, and nothing goes on before something else has happened.

    It is said once: the exact words may change from one attempt to the next.
    """
    known = status.condition(c.VALIDATED)
    if known is not None and (known.reason, known.observed_generation) == (reason, observed.generation):
        return Plan(status=status, requeue_after_s=retry_s)
    draft = Draft(status=replace(status, observed_generation=observed.generation))
    write = Conditions(draft, observed)
    message = f"{message}{TRIED_AGAIN}"
    draft.event("Warning", reason, message)
    write.put(c.VALIDATED, "Unknown", reason, message)
    ready = c.compute_ready(draft.status.conditions, observed.generation)
    write.put(c.READY, *ready)
    write.drop(c.STALLED)
    write.put(c.RECONCILING, "True", reason, message)
    goes_on = {"Ready": "Verifying", **({} if ready[0] == "False" else {"Blocked": "Running", "Failed": "Running"})}
    phase = goes_on.get(status.phase, status.phase)
    return Plan(status=replace(draft.status, phase=phase), events=tuple(draft.events), requeue_after_s=retry_s)
