"""From an exported model to an endpoint that can be measured: deploy, and what verify is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedding_operator.decide.decision import Apply, Draft, Observed, delete_server
from embedding_operator.decide.drift import DRIFT_NOT_CORRECTED, Drift, asked_for, drift_of
from embedding_operator.decide.lost import held_server
from embedding_operator.decide.refusals import RETRY_S, refusal_wait, was_refused
from embedding_operator.decide.rollout import STARTING, fail, follow, record, scales, was_available
from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.nim_service import build_server
from embedding_operator.objects.manifests.serving import (
    as_made_before,
    build_service,
    in_its_queue,
    service_url,
    serving_label,
    serving_name,
)
from embedding_operator.objects.views import DeploymentView
from embedding_operator.resource.api import Spec
from embedding_operator.resource.pipeline import serving_fingerprint
from embedding_operator.resource.status import Served, StageStatus, State
from embedding_operator.resource.times import is_ahead, noted_time, stamp
from embedding_stages.contract import Artefact, ArtefactRef, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledServer:
    """What a server's pods were first made with, beside what the manifest says."""

    check_image: str
    vector_space: str  # told to the server; empty for one of an earlier release, whose pods stay as they are


def serving_model(draft: Draft) -> ArtefactRef:
    """The exported artefact; only to be asked for once export is done."""
    return draft.status.stage(Stage.EXPORT).artefacts[Artefact.SERVING_MODEL]


def deploy(draft: Draft, spec: Spec, owner: Owner, observed: Observed, settled: SettledServer) -> bool:
    """Have the exported model served by a Deployment of its own; True while it is available.

    Judged anew in every pass, never remembered: a server that goes away takes Ready with it.
    """
    model = serving_model(draft)
    serving = serving_fingerprint(spec, model)
    draft.status = replace(
        draft.status,
        served=replace(
            draft.status.served,
            candidate_fingerprint=serving,
            candidate_revision=draft.status.revision,
        ),
    )
    live = next((d for d in observed.deployments if d.serving == serving_label(serving) and not d.deleting), None)
    others = [d for d in observed.deployments if d.serving != serving_label(serving)]
    entry = _entry(draft, spec, serving, observed)
    wait = refusal_wait(observed)
    if spec.deploy.strategy == "Recreate" and live is None:
        if wait is not None and observed.stopped is not None:  # a place for what is not made stays with what serves
            _refused(draft, entry, live, wait)
            return False
        _make_room(draft, others)
        if others:
            message = "waiting for the previous revision's server to end (strategy Recreate)"
            going = Wait(reason="ReplacingRevision", message=message, broken=False)
            held = held_server(others, observed.now)
            if held is not None and entry.reason != held.reason:
                draft.event("Warning", held.reason, f"deploy: {held.message}")
            why = held or going
            record(draft, replace(entry, state="Waiting", reason=why.reason, message=why.message, broken=why.broken))
            return False
    drop_candidates(draft, others)
    name = serving_name(owner.name, serving)
    desired = build_server(
        owner,
        spec,
        serving,
        model,
        check_image=settled.check_image,
        vector_space=settled.vector_space,
        scaled_to=_scaled_to(draft, live, others),
    )
    desired = in_its_queue(as_made_before(desired, live.raw, spec), live.raw) if live is not None else desired
    # The manifest may ask for something new.
    edited = live is not None and asked_for(live.raw) not in ("", asked_for(desired))
    drift = drift_of(draft, live.raw if live is not None else None, desired, observed, new=edited)
    if drift.apply:
        draft.actions.append(Apply(manifest=desired, why="serve the exported model"))
    address = _address(draft, owner, serving, desired, observed)
    if wait is not None and drift.apply and (live is None or observed.stopped is not None):
        _refused(draft, entry, live, wait)
        return False
    if (lasting := drift.wait or address.wait) is not None:  # what is measured is not what was asked for
        waits = replace(entry, state="Waiting", reason=lasting.reason, message=lasting.message, broken=True)
        record(draft, waits, poll_s=60)
        return False
    if address.stale and not address.apply:
        message = f"Service {name} was changed by somebody again, and is restored in a moment"
        record(draft, replace(entry, state="Running", reason="Applied", message=message))
        return False
    if live is not None:
        goes_on = scales(draft, spec, entry, live, desired, observed)
        return goes_on or follow(draft, spec, entry, live, observed, applied=drift.stale)
    what = f"{desired['kind']} {name}"
    if was_available(entry):
        fail(draft, entry, "Unavailable", f"{what} was gone and is being created again")
    else:
        record(draft, replace(entry, state="Running", reason=STARTING, message=f"{what} is being created"))
    return False


def _address(draft: Draft, owner: Owner, serving: str, server: Mapping[str, Any], observed: Observed) -> Drift:
    """The Service that verify measures; the NIM Operator makes one of the NIMService's name itself."""
    if server["kind"] != "Deployment":
        return Drift()
    service = build_service(owner, server["metadata"]["name"], serving)
    drift = drift_of(draft, observed.services.get(server["metadata"]["name"]), service, observed)
    if drift.apply:
        draft.actions.append(Apply(manifest=service, why="the address that verify measures"))
    return drift


def _scaled_to(draft: Draft, live: DeploymentView | None, others: Sequence[DeploymentView]) -> int:
    """How many pods there are. A new server begins with as many as the one that it is to take clients from."""
    active = serving_label(draft.status.served.active_fingerprint)
    last = draft.status.served.replicas or 1
    before = next((item.asked for item in others if item.serving == active and not item.deleting), last)
    return live.asked if live is not None else before


def _refused(draft: Draft, entry: StageStatus, live: DeploymentView | None, wait: Wait) -> None:
    """The Deployment cannot be created, or not be changed: a server that answers goes on, and its entry says so."""
    if was_available(entry) and live is not None and live.available:
        record(draft, entry)
        return
    state: State = "Failed" if was_available(entry) and wait.broken else "Waiting"
    refused = replace(entry, state=state, reason=wait.reason, message=wait.message, broken=wait.broken)
    record(draft, refused, poll_s=RETRY_S["quota"])


def _make_room(draft: Draft, others: Sequence[DeploymentView]) -> None:
    """Remove every other server, the one that clients talk to included: from now on none is active."""
    for other in others:
        if not other.deleting:
            why = "strategy Recreate frees its place first"
            draft.actions.append(delete_server(other, why))
    served = draft.status.served
    if served.active_fingerprint == served.candidate_fingerprint:
        return
    left = Served(
        active_revision=served.active_revision,  # what was served is not judged by gates that came later
        candidate_fingerprint=served.candidate_fingerprint,
        candidate_revision=served.candidate_revision,
        vector_space=served.vector_space,
        replicas=served.replicas,
    )
    draft.status = replace(draft.status, served=left)


def drop_candidates(draft: Draft, servers: Sequence[DeploymentView]) -> None:
    """One of an older revision that never got traffic only holds its place, and the GPU that its successor needs."""
    served = draft.status.served
    goes_on = (served.active_fingerprint, served.draining_fingerprint, served.moved_to)
    kept = {serving_label(fingerprint) for fingerprint in goes_on}
    if served.candidate_revision == draft.status.revision:
        kept.add(serving_label(served.candidate_fingerprint))
    for other in servers:
        if other.serving not in kept and not other.deleting:
            why = "its revision was replaced before it served"
            draft.actions.append(delete_server(other, why))


def _entry(draft: Draft, spec: Spec, serving: str, observed: Observed) -> StageStatus:
    now = stamp(observed.now)
    entry = draft.status.stage(Stage.DEPLOY)
    if entry.fingerprint != serving:
        entry = StageStatus(
            name=Stage.DEPLOY,
            fingerprint=serving,
            image=spec.stages[Stage.DEPLOY].pod.image,
            revision=draft.status.revision,
        )
    # The start timer begins anew with each revision, also where its Deployment exists already, and after a refusal.
    held_up = was_refused(entry) or entry.reason == DRIFT_NOT_CORRECTED
    if entry.state == "Pending" or (held_up and refusal_wait(observed) is None):
        return replace(entry, started_at=now, finished_at="")
    since = noted_time(entry.started_at)
    if since is not None and is_ahead(since, observed.now):
        entry = replace(entry, started_at=now)
        draft.status = draft.status.with_stage(entry)
    return entry


def verification(draft: Draft, owner: Owner, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(identity, settings) of the verify stage: it is bound to what is served, not to when.

    Unless its last answer is distrusted: then the endpoint is measured anew, not the old report found again.
    """
    serving = draft.status.served.candidate_fingerprint
    settings = {
        "url": service_url(owner, serving_name(owner.name, serving)),
        "server": spec.deploy.profile.name,
        "model": spec.deploy.model_name,
        "expectedDigest": serving_model(draft).digest,
    }
    distrusted = draft.status.stage(Stage.VERIFY).distrusted
    # The image of a release is not part of the served fingerprint, but what was measured with another image was
    # another server. It is settled with the Deployment, so an upgrade does not change it.
    identity: dict[str, Any] = {"serving": serving, "image": spec.stages[Stage.DEPLOY].pod.image}
    return (identity | {"distrusted": distrusted} if distrusted else identity), settings
