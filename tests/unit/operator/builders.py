"""Small builders of what the operator's decisions are about. Every argument has a harmless default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import TORCH_SERVER, Spec
from embedding_operator.resource.pipeline import BY_STAGE
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Condition, StageStatus
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest, StageResult

Raw = dict[str, Any]
IMAGES: Mapping[str, str] = {name: f"registry.test/{name}:1" for name in (*Stage, TORCH_SERVER)}
OWNER = Owner(namespace="team-a", name="handbook", uid="0f1e2d3c-aaaa")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CREATED = "2026-01-01T12:00:00Z"  # noon, as Kubernetes writes it
FINGERPRINT = "ab" * 32
SECRET = {"name": "llm", "key": "token"}
OPEN_AI = {"openAI": {"baseURL": "https://llm.test/v1", "model": "judge", "apiKeySecretRef": SECRET}}


def a_manifest(**sections: Any) -> Raw:
    """A raw spec; keyword arguments replace its sections, `stages` is merged stage by stage."""
    stages = {"sdg": {"provider": {"extractive": {}}}} | sections.pop("stages", {})
    return {
        "baseModel": {"name": "tiny", "source": {"pvc": {"claimName": "models", "path": "tiny"}}},
        "corpus": {"source": {"configMap": {"name": "docs"}}},
        "stages": stages,
        **sections,
    }


def a_spec(**sections: Any) -> Spec:
    return parse_spec(a_manifest(**sections), IMAGES)


def a_ref(name: Artefact | str = "x") -> ArtefactRef:
    return ArtefactRef(path=f"somewhere/{name}", digest=f"sha256:{name}")


def refs(stage: Stage) -> dict[Artefact, ArtefactRef]:
    """Everything that a stage reads."""
    definition = BY_STAGE[stage]
    return {name: a_ref(name) for name in definition.inputs}


def a_request(stage: Stage = Stage.SDG, **changes: Any) -> StageRequest:
    request = StageRequest(
        stage=stage,
        fingerprint=FINGERPRINT,
        attempt=1,
        revision=1,
        image=IMAGES[stage],
        settings={"seed": 42},
        inputs=refs(stage),
    )
    return replace(request, **changes)


def a_result(stage: Stage = Stage.SDG, **changes: Any) -> StageResult:
    outputs = {name: a_ref(name) for name in BY_STAGE[stage].outputs}
    return replace(StageResult(stage=stage, fingerprint=FINGERPRINT, artefacts=outputs), **changes)


def a_pod(**changes: Any) -> PodView:
    """A pod that has been created and has said nothing."""
    pod = PodView(
        name="pod-1",
        index=0,
        uid="uid-1",
        created=NOON,
        phase="Pending",
        node="node-1",
        started=False,
        exit_code=None,
        ended=None,
        termination_reason="",
        termination_message="",
        failed_init="",
        waiting_reason="",
        waiting_message="",
        waiting_container="",
        unschedulable="",
        image_id="",
        evicted="",
        blocked_by="",
        sidecars=(),
        disrupted=False,
        deleting=False,
    )
    return replace(pod, **changes)


def an_ended_pod(exit_code: int, message: str | StageResult = "", reason: str = "", **changes: Any) -> PodView:
    text = message.to_json() if isinstance(message, StageResult) else message
    return a_pod(
        phase="Succeeded" if exit_code == 0 else "Failed",
        started=True,
        exit_code=exit_code,
        termination_reason=reason,
        termination_message=text,
        **changes,
    )


def a_job(stage: Stage = Stage.SDG, **changes: Any) -> JobView:
    """A Job that was just created."""
    job = JobView(
        name=f"handbook-{stage}-1",
        uid="uid-job",
        stage=stage,
        fingerprint=FINGERPRINT,
        template="t",
        attempt=1,
        revision=1,
        created=NOON,
        started=NOON,
        ended=None,
        succeeded=False,
        failed=False,
        failure_reason="",
        suspended=False,
        deleting=False,
        nodes=1,
        pods=(a_pod(),),
        disrupted=False,
    )
    return replace(job, **changes)


def a_done_job(pod: PodView | None, stage: Stage = Stage.SDG, **changes: Any) -> JobView:
    return a_job(stage, succeeded=True, ended=NOON, pods=(pod,) if pod else (), **changes)


def a_failed_job(pod: PodView | None, reason: str = "BackoffLimitExceeded", **changes: Any) -> JobView:
    return a_job(failed=True, ended=NOON, failure_reason=reason, pods=(pod,) if pod else (), **changes)


def a_job_of_several(*pods: PodView, stage: Stage = Stage.FINETUNE, **changes: Any) -> JobView:
    """A Job of two nodes and what is left of their pods."""
    indexed = tuple(sorted(pods, key=lambda pod: pod.index))
    return a_job(stage, nodes=2, pods=indexed, disrupted=any(pod.disrupted for pod in pods), **changes)


def a_condition(kind: str, status: Any = "True", generation: int = 1, reason: str = "Because") -> Condition:
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=f"{kind} says so",
        observed_generation=generation,
        last_transition_time="2026-01-01T00:00:00Z",
    )


def a_stage(name: Stage = Stage.EVAL, **changes: Any) -> StageStatus:
    return replace(StageStatus(name=name, state="Succeeded", fingerprint=FINGERPRINT, attempt=1, revision=1), **changes)
