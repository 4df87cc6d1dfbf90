"""The preflight: once a revision, what its stages are going to create is shown to the API server in a dry run. Pure.

What it refuses late, after hours of training, it refuses early here: a request above a limit, a PriorityClass that
does not exist, a policy, a Service of somebody else under the clients' name. Beside each Job and the server's
Deployment goes a pod of their template, because LimitRanges, classes and policies are asked about pods alone. What a
dry run cannot tell (a webhook that knows none, a right that the operator lacks) is left out, and `status.preflight`
says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed, TryOut
from embedding_operator.decide.handover import next_name
from embedding_operator.decide.serving import verification
from embedding_operator.decide.settle import due_stages, settle_server
from embedding_operator.decide.waiting import secrets_of
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.job import build_job
from embedding_operator.objects.manifests.nim_service import build_server
from embedding_operator.objects.manifests.serving import build_service
from embedding_operator.objects.manifests.workers import build_rendezvous_service
from embedding_operator.resource.api import Spec
from embedding_operator.resource.pipeline import fingerprint, inputs_of
from embedding_operator.resource.status import Status
from embedding_stages.contract import ArtefactRef, Stage, StageRequest

_UNKNOWN: Final = "0" * 64  # of work whose inputs are not there yet
_MODEL: Final = ArtefactRef(path="preflight", digest=f"sha256:{_UNKNOWN}")
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"  # a dry run makes nothing that could be looked for
_CONTROLLERS: Final[Mapping[str, Mapping[str, str]]] = {  # what a pod of each kind belongs to
    "Job": {"apiVersion": "batch/v1", "kind": "Job"},
    "Deployment": {"apiVersion": "apps/v1", "kind": "ReplicaSet"},
}
_DUE: Final = "Due"
_DONE: Final = "Done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the revision has of what it asks for, so that no dry run is made of it: an edit may create nothing."""

    models: bool  # every stage before the server is done
    everything: bool  # the server too is there, and measured


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What is tried out for a stage."""

    stage: Stage
    manifest: Mapping[str, Any]
    field: str = ""  # that names a Secret


def ask_for_preflight(status: Status, revision: int) -> Status:
    """A new revision's has not been made. One that began before there were preflights goes on without."""
    return replace(status, preflight={"revision": revision, "state": _DUE})


def preflight(
    draft: Draft,
    spec: Spec,
    owner: Owner,
    observed: Observed,
    images: Mapping[str, str],
    made: Made,
    *,
    look_for_secrets: bool = False,
) -> None:
    """Try out what the revision may create, unless it was done. `images` are the operator's default images by stage."""
    record = draft.status.preflight
    if record.get("revision") != draft.status.revision or record.get("state") != _DUE:
        return
    refused = (item for item in observed.refusals if item.of_preflight and item.kind != "untried")
    if any(refused) or observed.refusal("late") is not None:
        return
    for trial in () if made.everything else _trials(spec, owner, draft.status, images, made):
        if trial.field and not look_for_secrets:
            continue
        why = f"what stage {trial.stage} is going to {'mount' if trial.field else 'create'}"
        draft.actions.append(TryOut(manifest=trial.manifest, stage=trial.stage, why=why, field=trial.field))
    done: dict[str, Any] = {"revision": draft.status.revision, "state": _DONE}
    if untried := observed.refusal("untried"):
        done["untried"] = untried.message[:512]
    draft.status = replace(draft.status, preflight=done)


def _trials(spec: Spec, owner: Owner, status: Status, images: Mapping[str, str], made: Made) -> Iterator[_Trial]:
    due = [] if made.models else due_stages(spec, status)
    for stage in (*due, Stage.DEPLOY):
        for ref in secrets_of(spec, stage):
            where = {"name": ref.name, "namespace": owner.namespace}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": where}
            yield _Trial(stage=stage, manifest=secret, field=f"{ref.field}.name")
    if not made.models or not _measured(spec, owner, status, images):
        due.append(Stage.VERIFY)
    for stage in due:
        yield from _of_job(spec, owner, stage, status.revision)
    yield from _of_server(spec, owner, images)


def _measured(spec: Spec, owner: Owner, status: Status, images: Mapping[str, str]) -> bool:
    """Whether verify has measured the server that the revision's model is deployed in."""
    scratch = Draft(status=status)
    spec, _ = settle_server(scratch, spec, images)
    identity, _ = verification(scratch, owner, spec)
    entry, inputs = status.stage(Stage.VERIFY), inputs_of(Stage.VERIFY, spec, status)
    if inputs is None or not entry.finished_at or not entry.artefacts:
        return False
    return entry.fingerprint == fingerprint(Stage.VERIFY, spec, inputs, extra=identity)


def _of_job(spec: Spec, owner: Owner, stage: Stage, revision: int) -> Iterator[_Trial]:
    item = spec.stages[stage]
    request = StageRequest(
        stage=stage,
        fingerprint=_UNKNOWN,
        attempt=1,
        revision=revision,
        image=item.pod.image,
        settings=item.settings,
        inputs={},
    )
    job = build_job(owner, spec, request)
    yield _Trial(stage=stage, manifest=job)
    yield _Trial(stage=stage, manifest=_pod(job))
    if item.pod.workers.nodes > 1:
        yield _Trial(stage=stage, manifest=build_rendezvous_service(owner, job["metadata"]["name"], stage))


def _of_server(spec: Spec, owner: Owner, images: Mapping[str, str]) -> Iterator[_Trial]:
    names = [owner.name, *([next_name(owner)] if spec.deploy.strategy == "Shadow" else ())]
    for name in names:
        yield _Trial(stage=Stage.DEPLOY, manifest=build_service(owner, name, _UNKNOWN))
    server = build_server(owner, spec, _UNKNOWN, _MODEL, check_image=images[Stage.DEPLOY])
    yield _Trial(stage=Stage.DEPLOY, manifest=server)
    if server["kind"] in _CONTROLLERS:  # the pods of another are made by somebody else
        yield _Trial(stage=Stage.DEPLOY, manifest=_pod(server))


def _pod(owner: Mapping[str, Any]) -> dict[str, Any]:
    """A pod as the controller of a Job or a Deployment makes it: policies refuse pods that belong to nothing."""
    meta, template = owner["metadata"], owner["spec"]["template"]
    kind = _CONTROLLERS[owner["kind"]]
    where = {
        "name": f"{meta['name']}-dry-run"[:253],
        "namespace": meta["namespace"],
        "ownerReferences": [{**kind, "name": meta["name"], "uid": _NOBODY, "controller": True}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], **where}, "spec": template["spec"]}
