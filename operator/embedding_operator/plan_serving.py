"""From an exported model to an endpoint that clients may trust: deploy, verify, move the traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from embedding_operator.api import Spec
from embedding_operator.compare import differs
from embedding_operator.decision import Apply, DeleteObject, Draft, Observed
from embedding_operator.manifests.common import Owner
from embedding_operator.manifests.serving import (
    CHECK_CONTAINER,
    build_deployment,
    build_service,
    clients_url,
    service_url,
    serving_name,
)
from embedding_operator.stages import serving_fingerprint
from embedding_operator.status import Served, StageStatus, State
from embedding_operator.views import (
    SERVING_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
    DeploymentView,
    PodView,
    parse_time,
)
from embedding_operator.waiting import explain_wait
from embedding_stages.contract import Artefact, ArtefactRef, Stage

_POLL_S: Final = 3.0


def serving_model(draft: Draft) -> ArtefactRef:
    """The exported artefact; only to be asked for once export is done."""
    return draft.status.stage(Stage.EXPORT).artefacts[Artefact.SERVING_MODEL]


def deploy(draft: Draft, spec: Spec, owner: Owner, observed: Observed, *, check_image: str) -> bool:
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
    live = next((d for d in observed.deployments if d.serving == serving[:16] and not d.deleting), None)
    others = [d for d in observed.deployments if d.serving != serving[:16]]
    entry = _entry(draft, spec, serving, f"{observed.now:%Y-%m-%dT%H:%M:%SZ}")
    if spec.deploy.strategy == "Recreate" and live is None:
        _make_room(draft, others)
    if spec.deploy.strategy == "Recreate" and live is None and others:
        _put(
            draft,
            replace(
                entry,
                state="Waiting",
                reason="ReplacingRevision",
                message="waiting for the previous revision's server to end (strategy Recreate)",
            ),
        )
        return False
    _drop_refused(draft, others)
    name = serving_name(owner.name, serving)
    desired = build_deployment(owner, spec, serving, model, check_image=check_image)
    if live is None or differs(desired, live.raw):
        if live is not None and _asked_for(live.raw) == _asked_for(desired):
            draft.event("Warning", "DriftCorrected", f"Deployment {name} was changed by somebody; restored")
        draft.actions.append(Apply(manifest=desired, why="serve the exported model"))
    service = build_service(owner, name, serving)
    if differs(service, observed.services.get(name)):
        draft.actions.append(Apply(manifest=service, why="the address that verify measures"))
    if live is not None:
        return _follow(draft, spec, entry, live, observed)
    if _served_once(entry):
        _fail(draft, entry, "Unavailable", f"Deployment {name} was gone and is being created again")
    else:
        _put(draft, replace(entry, state="Running", reason="Starting", message=f"Deployment {name} is being created"))
    return False


def _make_room(draft: Draft, others: Sequence[DeploymentView]) -> None:
    """Remove every other server, the one that clients talk to included: from now on none is active."""
    for other in others:
        if not other.deleting:
            why = "strategy Recreate frees its place first"
            draft.actions.append(DeleteObject(kind="Deployment", name=other.name, why=why))
    served = draft.status.served
    if served.active_fingerprint == served.candidate_fingerprint:
        return
    left = Served(candidate_fingerprint=served.candidate_fingerprint, candidate_revision=served.candidate_revision)
    draft.status = replace(draft.status, served=left)


def _asked_for(raw: Mapping[str, Any]) -> str:
    """The hash of the manifest that a Deployment was last applied from."""
    return str((raw["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))


def _drop_refused(draft: Draft, others: Sequence[DeploymentView]) -> None:
    """A candidate that was replaced before it got any traffic would only hold its place and its GPU."""
    active = draft.status.served.active_fingerprint[:16]
    for other in others:
        if other.serving != active and not other.deleting:
            why = "its revision was replaced before it served"
            draft.actions.append(DeleteObject(kind="Deployment", name=other.name, why=why))


def _entry(draft: Draft, spec: Spec, serving: str, now: str) -> StageStatus:
    entry = draft.status.stage(Stage.DEPLOY)
    if entry.fingerprint != serving:
        entry = StageStatus(
            name=Stage.DEPLOY,
            fingerprint=serving,
            image=spec.stages[Stage.DEPLOY].pod.image,
            revision=draft.status.revision,
        )
    if entry.state == "Pending":  # every revision has the whole time to start, also with an older one's server
        return replace(entry, started_at=now, finished_at="")
    return entry


def _served_once(entry: StageStatus) -> bool:
    """Unavailable is a failure for clients then, not progress."""
    return entry.state in ("Succeeded", "Failed") and bool(entry.finished_at)


def _follow(draft: Draft, spec: Spec, entry: StageStatus, live: DeploymentView, observed: Observed) -> bool:
    wanted = spec.deploy.replicas
    if live.observed and live.updated >= wanted and live.available >= wanted:
        if entry.state != "Succeeded":
            draft.event("Normal", "Available", f"deploy: {live.available} of {wanted} replicas are available")
        finished = entry.finished_at or f"{observed.now:%Y-%m-%dT%H:%M:%SZ}"
        _put(
            draft,
            replace(
                entry,
                state="Succeeded",
                reason="Available",
                finished_at=finished,
                details={},
                message=f"{live.available} of {wanted} replicas of {live.name} are available",
            ),
        )
        return True
    pod = max((p for p in live.pods if not p.deleting), key=lambda p: p.created, default=None)
    if pod is not None and (failure := _failure_of(pod, entry)) is not None:
        _fail(draft, entry, *failure)
        return False
    wait = explain_wait(pod, observed.pod_warnings.get(pod.uid, ()) if pod else (), spec, Stage.DEPLOY)
    reason, message = wait.reason, wait.message
    if pod is not None and pod.started:
        reason, message = "Starting", f"pod {pod.name} is loading the model"
    since = parse_time(entry.started_at) or live.created
    if _served_once(entry):
        _fail(draft, entry, "Unavailable", f"{live.available} of {wanted} replicas are available: {message}")
    elif (observed.now - since).total_seconds() > spec.deploy.start_timeout_s:
        limit = f"{spec.deploy.start_timeout_s} s (spec.stages.deploy.timeoutSeconds)"
        _fail(draft, entry, "StartTimeout", f"not available after {limit}: {message}")
    else:
        state: State = "Waiting" if wait.broken else "Running"
        details = {"broken": True} if wait.broken else {}
        _put(draft, replace(entry, state=state, reason=reason, message=message, details=details))
    return False


def _failure_of(pod: PodView, entry: StageStatus) -> tuple[str, str] | None:
    """(reason, message) when the pod will not come up as it is."""
    if pod.failed_init == CHECK_CONTAINER:
        said = pod.termination_message.strip()[:600]
        return "ArtefactMismatch", f"the mounted model is not the exported one and was not started: {said}"
    # Between two crashes the server runs for a while: that is not a recovery before it answers.
    crashing = pod.waiting_reason == "CrashLoopBackOff" or entry.reason == "ServerCrashed"
    if pod.exit_code not in (None, 0) and crashing:
        said = pod.termination_message.strip()[-600:]
        return "ServerCrashed", f"the server ends with exit code {pod.exit_code}: {said}"
    return None


def verification(draft: Draft, owner: Owner, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(identity, settings) of the verify stage: it is bound to what is served, not to when.

    Unless its last answer is distrusted: then the endpoint is measured anew, not the old report found again.
    """
    serving = draft.status.served.candidate_fingerprint
    settings = {
        "url": service_url(owner, serving_name(owner.name, serving)),
        "model": spec.deploy.model_name,
        "expectedDigest": serving_model(draft).digest,
    }
    distrusted = draft.status.stage(Stage.VERIFY).distrusted
    identity: dict[str, Any] = {"serving": serving}
    return (identity | {"distrusted": distrusted} if distrusted else identity), settings


def activate(draft: Draft, owner: Owner, spec: Spec, observed: Observed) -> bool:
    """Point the clients' Service at the verified revision in one write; True once it points there."""
    served = draft.status.served
    serving = served.candidate_fingerprint
    desired = build_service(owner, owner.name, serving)
    live = observed.services.get(owner.name)
    if differs(desired, live):
        draft.actions.append(Apply(manifest=desired, why="the verified revision takes the traffic"))
        draft.look_again_in(1.0)
        return False
    export = draft.status.stage(Stage.EXPORT)
    if served.active_fingerprint != serving:
        draft.event("Normal", "Activated", f"{service_url(owner, owner.name)} serves revision {draft.status.revision}")
    draft.status = replace(
        draft.status,
        served=replace(
            served,
            active_fingerprint=serving,
            active_revision=draft.status.stage(Stage.DEPLOY).revision,
            candidate_fingerprint="",
            candidate_revision=0,
            artefact_digest=serving_model(draft).digest,
            url=clients_url(owner),
            model=spec.deploy.model_name,
            contract=export.details.get("contract", {}),
        ),
    )
    if served.active_fingerprint == serving:  # recorded: whatever happens now, the Service is kept there
        _retire(draft, owner, observed, serving)
    return True


def _retire(draft: Draft, owner: Owner, observed: Observed, serving: str) -> None:
    """Remove what served before; it gets no traffic any more."""
    for other in observed.deployments:
        if other.serving != serving[:16] and not other.deleting:
            draft.actions.append(DeleteObject(kind="Deployment", name=other.name, why="a newer revision serves"))
    for name, raw in observed.services.items():
        labels = raw["metadata"].get("labels") or {}
        # Those of stages are no addresses of servers; see plan_meeting.py.
        if name != owner.name and labels.get(SERVING_LABEL) != serving[:16] and STAGE_LABEL not in labels:
            draft.actions.append(DeleteObject(kind="Service", name=name, why="a newer revision serves"))


def _fail(draft: Draft, entry: StageStatus, reason: str, message: str) -> None:
    if entry.reason != reason:
        draft.event("Warning", reason, f"deploy: {message}")
    _put(draft, replace(entry, state="Failed", reason=reason, message=message))


def _put(draft: Draft, entry: StageStatus) -> None:
    draft.look_again_in(_POLL_S) if entry.state != "Succeeded" else None
    draft.status = draft.status.with_stage(entry)
