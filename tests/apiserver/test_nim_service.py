"""A NIMService as the operator makes it, shown to a real API server, without the NIM Operator's CRD and with one."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver.api import ROOT, Api, at, until
from apiserver.manifests import made

from embedding_operator.cluster.client import KubeCluster
from embedding_operator.cluster.errors import Rejected
from embedding_operator.objects.compare import differs
from embedding_operator.objects.manifests.nim_service import build_nim_service
from embedding_operator.objects.nim_services import NIM_SERVICE, view_nim_service
from embedding_stages.contract import ArtefactRef

CRD = ROOT / "tests" / "apiserver" / "nimservices.yaml"
DEPLOY = {
    "image": "mirror.example/nim:2.4.0",
    "backend": {"nimService": {"ngcKeySecretRef": {"name": "ngc", "key": "NGC_API_KEY"}, "sharedMemory": "2048Mi"}},
    "resources": {"limits": {"memory": "8192Mi", "nvidia.com/gpu": 1}},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "nodeSelector": {"zone": "a"},
}


def nim_service(api: Api, namespace: str, name: str = "docs") -> dict[str, Any]:
    owner, spec = made(api, namespace, at("stages.deploy", DEPLOY), name)
    model = ArtefactRef(path="finetune/0/checkpoint", digest=f"sha256:{'a' * 64}")
    return build_nim_service(owner, spec, "b" * 64, model, check_image="serve:1")


@pytest.fixture
def crd(api: Api) -> None:
    api.kubectl("apply", "-f", str(CRD))
    until("the CRD to be served", lambda: api.attempt("get", "nimservices", "-A").returncode == 0)


def test_without_the_crd_a_dry_run_says_the_cure_and_there_are_none(
    api: Api, namespace: str, cluster: KubeCluster
) -> None:
    desired = nim_service(api, namespace)
    for ask in (lambda: cluster.try_out(desired, within_s=5), lambda: cluster.apply(desired)):
        with pytest.raises(Rejected, match="install NVIDIA's NIM Operator, or take backend nim"):
            ask()
    assert cluster.list(NIM_SERVICE, namespace) == []
    assert cluster.get(NIM_SERVICE, namespace, "docs") is None
    cluster.delete(NIM_SERVICE, namespace, "docs")


def test_it_is_taken_as_it_is_and_does_not_differ_afterwards(
    api: Api, namespace: str, cluster: KubeCluster, crd: None
) -> None:
    desired = nim_service(api, namespace)
    path = f"/apis/apps.nvidia.com/v1alpha1/namespaces/{namespace}/nimservices"
    assert api.objection(path, desired) == "", "without an unknown field"
    cluster.try_out(desired, within_s=5)
    assert cluster.list(NIM_SERVICE, namespace) == []
    live = cluster.apply(desired)
    assert not differs(desired, live)
    assert live["spec"]["inferencePlatform"] == "standalone", "the CRD fills in what nobody said"
    again = cluster.apply(desired)
    assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
    (listed,) = cluster.list(NIM_SERVICE, namespace, labels="embedding-operator.dev/owner=docs")
    view = view_nim_service(listed, None, ())
    assert view is not None
    assert (view.name, view.kind, view.observed) == (desired["metadata"]["name"], "NIMService", False)


@pytest.mark.parametrize(
    "edit",
    [
        {"spec": {"env": [{"name": "NIM_ENGINE_PRECISION", "value": "fp8"}]}},
        {"spec": {"storage": {"readOnly": False}}},
        {"spec": {"replicas": 3}},
    ],
    ids=str,
)
def test_what_somebody_changed_is_taken_back(
    api: Api, namespace: str, cluster: KubeCluster, crd: None, edit: dict[str, Any]
) -> None:
    desired = nim_service(api, namespace)
    live = cluster.apply(desired)
    path = f"/apis/apps.nvidia.com/v1alpha1/namespaces/{namespace}/nimservices/{live['metadata']['name']}"
    body = {**live, "spec": {**live["spec"], **edit["spec"]}}
    if "storage" in edit["spec"]:
        body["spec"]["storage"] = {**live["spec"]["storage"], "readOnly": False}
    if "env" in edit["spec"]:
        body["spec"]["env"] = [*live["spec"]["env"], *edit["spec"]["env"]]
    status, changed = api.send("PUT", path, body)
    assert status == 200
    assert differs(desired, changed)
    assert not differs(desired, cluster.apply(desired))
