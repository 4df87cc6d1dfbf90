"""From an exported model to an endpoint that clients may trust: deploy, verify, move the traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping
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
    service_url,
    serving_name,
)
from embedding_operator.stages import serving_fingerprint
from embedding_operator.status import StageStatus
from embedding_operator.views import SERVING_LABEL, DeploymentView
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
    entry = _entry(draft, spec, serving)
    if spec.deploy.strategy == "Recreate" and others and (live is None):
        for other in others:
            if not other.deleting:
                draft.actions.append(
                    DeleteObject(kind="Deployment", name=other.name, why="strategy Recreate frees its place first")
                )
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
    name = serving_name(owner.name, serving)
    desired = build_deployment(owner, spec, serving, model, check_image=check_image)
    if live is None or differs(desired, live.raw):
        if live is not None:
            draft.event("Warning", "DriftCorrected", f"Deployment {name} was changed by somebody; restored")
        draft.actions.append(Apply(manifest=desired, why="serve the exported model"))
    service = build_service(owner, name, serving)
    if differs(service, observed.services.get(name)):
        draft.actions.append(Apply(manifest=service, why="the address that verify measures"))
    if live is None:
        _put(
            draft,
            replace(
                entry,
                state="Running",
                reason="Starting",
                message=f"Deployment {name} is being created",
                started_at=f"{observed.now:%Y-%m-%dT%H:%M:%SZ}",
            ),
        )
        return False
    return _follow(draft, spec, entry, live, observed)


def _entry(draft: Draft, spec: Spec, serving: str) -> StageStatus:
    entry = draft.status.stage(Stage.DEPLOY)
    if entry.fingerprint == serving:
        return entry
    return StageStatus(
        name=Stage.DEPLOY,
        fingerprint=serving,
        image=spec.stages[Stage.DEPLOY].pod.image,
        revision=draft.status.revision,
    )


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
    draft.look_again_in(_POLL_S)
    pod = max((p for p in live.pods if not p.deleting), key=lambda p: p.created, default=None)
    if pod is not None and pod.failed_init == CHECK_CONTAINER:
        _fail(
            draft,
            entry,
            "ArtefactMismatch",
            f"the mounted model is not the exported one and was not started: {pod.termination_message.strip()[:600]}",
        )
        return False
    if pod is not None and pod.exit_code not in (None, 0) and pod.waiting_reason == "CrashLoopBackOff":
        _fail(
            draft,
            entry,
            "ServerCrashed",
            f"the server ends with exit code {pod.exit_code}: {pod.termination_message.strip()[-600:]}",
        )
        return False
    wait = explain_wait(pod, observed.pod_warnings.get(pod.uid, ()) if pod else (), spec, Stage.DEPLOY)
    started = entry.started_at or f"{observed.now:%Y-%m-%dT%H:%M:%SZ}"
    reason, message = wait.reason, wait.message
    if pod is not None and pod.started:
        reason, message = "Starting", f"pod {pod.name} is loading the model"
    late = (observed.now - live.created).total_seconds() > spec.deploy.start_timeout_s
    if late and entry.state not in ("Succeeded", "Failed"):
        _fail(
            draft,
            entry,
            "StartTimeout",
            f"not available after {spec.deploy.start_timeout_s} s (spec.stages.deploy.timeoutSeconds): {message}",
        )
        return False
    if entry.state in ("Succeeded", "Failed") and entry.finished_at:
        # It served once: unavailable now is a failure for clients, not progress.
        _fail(draft, entry, "Unavailable", f"{live.available} of {wanted} replicas are available: {message}")
        return False
    _put(
        draft,
        replace(
            entry,
            state="Waiting" if wait.broken else "Running",
            reason=reason,
            message=message,
            started_at=started,
            details={"broken": True} if wait.broken else {},
        ),
    )
    return False


def verification(draft: Draft, owner: Owner, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(identity, settings) of the verify stage: it is bound to what is served, not to when."""
    serving = draft.status.served.candidate_fingerprint
    settings = {
        "url": service_url(owner, serving_name(owner.name, serving)),
        "modelName": spec.deploy.model_name,
        "expectedDigest": serving_model(draft).digest,
    }
    return {"serving": serving}, settings


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
            url=f"{service_url(owner, owner.name)}/v1/embeddings",
            model=spec.deploy.model_name,
            contract=export.details.get("contract", {}),
        ),
    )
    _retire(draft, owner, observed, serving)
    return True


def _retire(draft: Draft, owner: Owner, observed: Observed, serving: str) -> None:
    """Remove what served before; it gets no traffic any more."""
    for other in observed.deployments:
        if other.serving != serving[:16] and not other.deleting:
            draft.actions.append(DeleteObject(kind="Deployment", name=other.name, why="a newer revision serves"))
    for name, raw in observed.services.items():
        label = raw["metadata"].get("labels", {}).get(SERVING_LABEL)
        if name != owner.name and label != serving[:16]:
            draft.actions.append(DeleteObject(kind="Service", name=name, why="a newer revision serves"))


def _fail(draft: Draft, entry: StageStatus, reason: str, message: str) -> None:
    if entry.reason != reason:
        draft.event("Warning", reason, f"deploy: {message}")
    _put(draft, replace(entry, state="Failed", reason=reason, message=message))


def _put(draft: Draft, entry: StageStatus) -> None:
    draft.look_again_in(_POLL_S) if entry.state != "Succeeded" else None
    draft.status = draft.status.with_stage(entry)
