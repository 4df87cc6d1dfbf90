"""The operator's client and the builders' objects against a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apiserver.api import Api, resource

from embedding_operator.cluster import KubeCluster, child_selector
from embedding_operator.compare import differs
from embedding_operator.errors import Conflict, ForeignObject, Rejected
from embedding_operator.manifests.common import Owner
from embedding_operator.manifests.job import build_job
from embedding_operator.manifests.serving import build_deployment, build_service
from embedding_operator.manifests.storage import build_workspace
from embedding_operator.spec import parse_spec
from embedding_operator.views import OWNER_UID_LABEL, view_job
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest

IMAGES = dict.fromkeys(Stage, "image:1")
MODEL = ArtefactRef(path="export/f/servingModel", digest="sha256:" + "0" * 64)
FINGERPRINT = "0123456789abcdef" * 4
IMAGE_SOURCE = {"reference": "files:1", "path": "/files"}
SECRET = {"name": "s", "key": "k"}
OPEN_AI = {"baseURL": "http://llm:8000/v1", "model": "m", "apiKeySecretRef": SECRET}

SPECS: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "sources from images, a Secret for the LLM": {
        "baseModel": {"source": {"pvc": None, "image": IMAGE_SOURCE}},
        "corpus": {"source": {"configMap": None, "image": IMAGE_SOURCE}},
        "evaluation": {"beir": {"image": IMAGE_SOURCE}},
        "stages": {"sdg": {"provider": {"extractive": None, "openAI": OPEN_AI}}},
    },
    "a model from a hub, everything about pods said": {
        "baseModel": {"source": {"pvc": None, "huggingFace": {"revision": "a" * 40, "tokenSecretRef": SECRET}}},
        "imagePullSecrets": [{"name": "pull"}],
        "stages": {
            "finetune": {
                "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"memory": "2Gi"}},
                "nodeSelector": {"gpu": "big"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "env": [{"name": "A", "value": "$(B)"}],
            }
        },
    },
    "a NIM": {
        "stages": {
            "deploy": {
                "image": "nim:1",
                "backend": {"nim": {"ngcKeySecretRef": SECRET, "sharedMemory": "2048Mi"}},
                "resources": {"limits": {"memory": "8192Mi", "nvidia.com/gpu": 1}},
            }
        }
    },
}


def _owner(api: Api, namespace: str, patch: dict[str, Any] | None = None) -> tuple[Owner, Any]:
    api.apply(resource(namespace, patch))
    live = api.get("eft", "docs", namespace)
    return Owner(namespace=namespace, name="docs", uid=live["metadata"]["uid"]), parse_spec(live["spec"], IMAGES)


def _request(stage: Stage, attempt: int = 1) -> StageRequest:
    return StageRequest(
        stage=stage,
        fingerprint=FINGERPRINT,
        attempt=attempt,
        revision=1,
        image="image:1",
        settings={"text": "$(HOME) and $$"},
        inputs={Artefact.CORPUS: MODEL},
    )


JOB_STAGES = [stage for stage in Stage if stage is not Stage.DEPLOY]


@pytest.mark.parametrize("row", SPECS)
def test_every_pod_of_ours_is_admitted_by_the_restricted_standard(api: Api, namespace: str, row: str) -> None:
    owner, spec = _owner(api, namespace, SPECS[row])
    templates = [build_job(owner, spec, _request(stage))["spec"]["template"] for stage in JOB_STAGES]
    deployment = build_deployment(owner, spec, FINGERPRINT, MODEL, check_image="image:1")
    templates.append(deployment["spec"]["template"])
    for number, template in enumerate(templates):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": f"pod-{number}", "namespace": namespace},
            "spec": template["spec"],
        }
        api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


@pytest.mark.parametrize("row", SPECS)
def test_what_was_just_applied_does_not_differ(api: Api, namespace: str, cluster: KubeCluster, row: str) -> None:
    """Or the operator would apply it in every pass, for ever."""
    owner, spec = _owner(api, namespace, SPECS[row])
    objects = [
        build_deployment(owner, spec, FINGERPRINT, MODEL, check_image="image:1"),
        build_service(owner, "docs", FINGERPRINT),
        build_workspace(owner, spec),
    ]
    for desired in objects:
        assert not differs(desired, cluster.apply(desired)), desired["kind"]
        live = cluster.get(desired["kind"], namespace, desired["metadata"]["name"])
        assert not differs(desired, live)


def test_drift_is_seen_and_restored(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = _owner(api, namespace)
    desired = build_deployment(owner, spec, FINGERPRINT, MODEL, check_image="image:1")
    name = desired["metadata"]["name"]
    cluster.apply(desired)
    api.kubectl("set", "image", f"deployment/{name}", "-n", namespace, "server=other:2")
    assert differs(desired, cluster.get("Deployment", namespace, name))
    assert not differs(desired, cluster.apply(desired))


def test_a_job_is_made_once_and_adopted_after_a_lost_reply(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = _owner(api, namespace)
    manifest = build_job(owner, spec, _request(Stage.SDG))
    first, second = cluster.create_job(manifest), cluster.create_job(manifest)
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    view = view_job(first, [])
    assert view is not None
    assert (view.stage, view.attempt, view.fingerprint) == (Stage.SDG, 1, FINGERPRINT)
    sent = first["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"]
    assert "$$(HOME)" in sent, "the kubelet turns $$( back into $("


def test_foreign_objects_are_never_touched(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = _owner(api, namespace)
    stranger = Owner(namespace=namespace, name="docs", uid="00000000-0000-0000-0000-000000000000")
    cluster.create_job(build_job(stranger, spec, _request(Stage.PREP)))
    with pytest.raises(ForeignObject, match="belongs to somebody else"):
        cluster.create_job(build_job(owner, spec, _request(Stage.PREP)))
    cluster.apply(build_service(stranger, "docs", FINGERPRINT))
    with pytest.raises(ForeignObject):
        cluster.apply(build_service(owner, "docs", FINGERPRINT))


def test_a_status_write_after_somebody_elses_is_a_conflict(api: Api, namespace: str, cluster: KubeCluster) -> None:
    _owner(api, namespace)
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    written = cluster.write_status(read, {"observedGeneration": 1, "phase": "Running"})
    assert written["status"]["phase"] == "Running"
    with pytest.raises(Conflict):
        cluster.write_status(read, {"observedGeneration": 1, "phase": "Failed"})


def test_an_impossible_job_is_rejected_with_the_servers_reason(api: Api, namespace: str, cluster: KubeCluster) -> None:
    impossible = {"requests": {"memory": "4Gi"}, "limits": {"memory": "1Gi"}}
    owner, spec = _owner(api, namespace, {"stages": {"prep": {"resources": impossible}}})
    with pytest.raises(Rejected, match="must be less than or equal to memory limit"):
        cluster.create_job(build_job(owner, spec, _request(Stage.PREP)))


def test_lists_are_paged_and_selected(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = _owner(api, namespace)
    for attempt in range(3):
        cluster.create_job(build_job(owner, spec, _request(Stage.SDG, attempt + 1)))
    assert len(cluster.list("Job", namespace, labels=child_selector("docs"))) == 3
    assert cluster.list("Job", namespace, labels=child_selector("other")) == []
    assert len(cluster.list("Job", None, labels=f"{OWNER_UID_LABEL}={owner.uid}")) == 3


def test_suspend_delete_events_and_logs(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = _owner(api, namespace)
    job = cluster.create_job(build_job(owner, spec, _request(Stage.SDG)))
    name = job["metadata"]["name"]
    suspended = cluster.suspend_job(namespace, name, suspend=True)
    assert suspended is not None
    assert suspended["spec"]["suspend"] is True
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    cluster.post_event(read, "Normal", "Completed", "sdg: done", "2026-01-01T00:00:00Z")
    events = cluster.list("Event", namespace, fields=f"involvedObject.uid={owner.uid},type=Normal")
    assert [event["reason"] for event in events] == ["Completed"]
    cluster.delete("Job", namespace, name)
    cluster.delete("Job", namespace, name)
    assert cluster.suspend_job(namespace, "gone", suspend=True) is None
    assert cluster.log_tail(namespace, "no-such-pod", lines=5) == ""
