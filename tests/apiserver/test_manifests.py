"""The objects that the operator builds, shown to a real API server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from apiserver.api import Api, at, merge, pod_of, until
from apiserver.manifests import JOB_STAGES, SPECS, deployment, job, kept_objects, made

from embedding_operator.cluster.client import KubeCluster
from embedding_operator.cluster.errors import Forbidden
from embedding_operator.objects.compare import differs
from embedding_operator.objects.manifests.image_check import build_image_check
from embedding_operator.objects.manifests.storage import build_workspace
from embedding_operator.resource.api import Spec
from embedding_stages.contract import Stage


@pytest.mark.parametrize("row", SPECS)
def test_every_pod_of_ours_is_admitted_by_the_restricted_standard(api: Api, namespace: str, row: str) -> None:
    owner, spec = made(api, namespace, SPECS[row])
    templates = [job(owner, spec, stage)["spec"]["template"] for stage in JOB_STAGES]
    templates.append(deployment(owner, spec)["spec"]["template"])
    for template in templates:
        assert api.objection(f"/api/v1/namespaces/{namespace}/pods", pod_of(template, "pod", namespace)) == ""
    images = build_image_check(owner, spec, 1, ["r/a:1", "r/b:1"], list(Stage), longest_s=60)
    assert api.objection(f"/api/v1/namespaces/{namespace}/pods", images) == ""


def test_the_standard_is_in_force_in_these_tests(api: Api, namespace: str) -> None:
    owner, spec = made(api, namespace)
    template = deployment(owner, spec)["spec"]["template"]
    del template["spec"]["securityContext"]["seccompProfile"]
    objection = api.objection(f"/api/v1/namespaces/{namespace}/pods", pod_of(template, "pod", namespace))
    assert "violates PodSecurity" in objection


def test_a_quota_on_limits_takes_every_pod_whose_stage_says_its_own(api: Api, namespace: str) -> None:
    room = dict.fromkeys(("requests.cpu", "requests.memory", "limits.cpu", "limits.memory"), "999Gi")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "compute", "namespace": namespace},
        "spec": {"hard": room},
    }
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    live = api.make(path, quota)
    # The controller that counts is not running here, and without its numbers a quota refuses nothing.
    live["status"] = {"hard": room, "used": dict.fromkeys(room, "0")}
    assert api.send("PUT", f"{path}/compute/status", live)[0] == 200
    said = {"resources": {"limits": {"cpu": "2", "memory": "4Gi"}}}
    patch = copy.deepcopy(SPECS["sources from images, a Secret for the LLM"])
    owner, silent = made(api, namespace, patch)
    merge(patch, at("stages", {stage.value: said for stage in Stage}))
    _, spoken = made(api, namespace, patch, "spoken")
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def objections(spec: Spec) -> set[str]:
        templates = [job(owner, spec, stage)["spec"]["template"] for stage in JOB_STAGES]
        templates.append(deployment(owner, spec)["spec"]["template"])
        return {api.objection(pods, pod_of(template, "pod", namespace)) for template in templates}

    refused = until("the quota to be in force", lambda: objections(silent) - {""})
    assert all("must specify limits.cpu for: " in text for text in refused)
    assert objections(spoken) == {""}
    assert api.objection(pods, build_image_check(owner, silent, 1, ["r/a:1"], list(Stage), longest_s=60)) == ""


@pytest.mark.parametrize("row", SPECS)
def test_every_object_is_taken_as_it_is_without_an_unknown_field(api: Api, namespace: str, row: str) -> None:
    owner, spec = made(api, namespace, SPECS[row])
    for stage in JOB_STAGES:
        assert api.objection(f"/apis/batch/v1/namespaces/{namespace}/jobs", job(owner, spec, stage)) == ""
    paths = {
        "Deployment": f"/apis/apps/v1/namespaces/{namespace}/deployments",
        "Service": f"/api/v1/namespaces/{namespace}/services",
        "PersistentVolumeClaim": f"/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    }
    for item in kept_objects(owner, spec):
        assert api.objection(paths[item["kind"]], item) == ""


def test_the_longest_name_of_a_job_of_many_nodes_is_taken(api: Api, namespace: str) -> None:
    """The API server refuses an Indexed Job whose pods' host names would be too long."""
    patch = {"stages": {"finetune": {"nodes": 64}}, "storage": {"existingClaim": "shared"}}
    owner, spec = made(api, namespace, patch, "a" * 37)
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    assert api.objection(path, job(owner, spec, Stage.FINETUNE, attempt=9999)) == ""
    assert "invalid DNS label" in api.objection(path, job(owner, spec, Stage.FINETUNE, attempt=99999))


@pytest.mark.parametrize("row", SPECS)
def test_what_was_just_applied_does_not_differ(api: Api, namespace: str, cluster: KubeCluster, row: str) -> None:
    """Or the operator would apply it in every pass, for ever."""
    owner, spec = made(api, namespace, SPECS[row])
    for desired in kept_objects(owner, spec):
        name, kind = desired["metadata"]["name"], desired["kind"]
        assert not differs(desired, cluster.apply(desired)), kind
        live = cluster.get(kind, namespace, name)
        assert live is not None
        assert not differs(desired, live)
        if kind == "PersistentVolumeClaim":  # applied while there is none, and never again
            continue
        again = cluster.apply(desired)
        assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"], f"{kind} is written again"


Edit = Callable[[dict[str, Any]], None]


def _pod(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = raw["spec"]["template"]["spec"]
    return found


def _server(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _pod(raw)["containers"][0]
    return found


def _port(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = raw["spec"]["ports"][0]
    return found


DRIFTS: dict[str, tuple[str, Edit]] = {
    "another image": ("Deployment", lambda raw: _server(raw).update(image="other:2")),
    "no replicas": ("Deployment", lambda raw: raw["spec"].update(replicas=0)),
    "another model in the environment": ("Deployment", lambda raw: _server(raw)["env"][0].update(value="/elsewhere")),
    "a variable more that the server reads": (
        "Deployment",
        lambda raw: _server(raw)["env"].append({"name": "NIM_MODEL_PROFILE", "value": "other"}),
    ),
    "another command": ("Deployment", lambda raw: _server(raw).update(command=["python3", "-m", "other"])),
    "arguments": ("Deployment", lambda raw: _server(raw).update(args=["--model=/elsewhere"])),
    "variables from elsewhere": (
        "Deployment",
        lambda raw: _server(raw).update(envFrom=[{"configMapRef": {"name": "other"}}]),
    ),
    "a check that imports something else": (
        "Deployment",
        lambda raw: _pod(raw)["initContainers"][0].update(env=[{"name": "PYTHONPATH", "value": "/elsewhere"}]),
    ),
    "another account": ("Deployment", lambda raw: _pod(raw).update(serviceAccountName="other")),
    "less memory": ("Deployment", lambda raw: _server(raw)["resources"]["requests"].update(memory="1Mi")),
    "a writable root": (
        "Deployment",
        lambda raw: _server(raw)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    "no check of the artefact": ("Deployment", lambda raw: _pod(raw).pop("initContainers")),
    "no server while it changes": ("Deployment", lambda raw: raw["spec"].update(strategy={"type": "Recreate"})),
    "fewer servers while it changes": (
        "Deployment",
        lambda raw: raw["spec"].update(strategy={"type": "RollingUpdate"}),
    ),
    "another port": ("Service", lambda raw: _port(raw).update(port=9999)),
    "traffic to other pods": ("Service", lambda raw: raw["spec"].update(selector={"app": "other"})),
    "traffic to no pod": ("Service", lambda raw: raw["spec"]["selector"].update(app="other")),
    "open to the world": ("Service", lambda raw: raw["spec"].update(type="LoadBalancer")),
}


@pytest.mark.parametrize("row", DRIFTS)
def test_drift_is_seen_and_restored(api: Api, namespace: str, cluster: KubeCluster, row: str) -> None:
    kind, edit = DRIFTS[row]
    owner, spec = made(api, namespace)
    desired = next(item for item in kept_objects(owner, spec) if item["kind"] == kind)
    _drift(api, cluster, desired, edit)


MEETING_DRIFTS: dict[str, Edit] = {
    "another port": lambda raw: _port(raw).update(port=9999),
    "other pods": lambda raw: raw["spec"].update(selector={"app": "other"}),
    "one label more": lambda raw: raw["spec"]["selector"].update(app="other"),
    "ready pods alone": lambda raw: raw["spec"].update(publishNotReadyAddresses=False),
}


@pytest.mark.parametrize("row", MEETING_DRIFTS)
def test_where_pods_of_several_nodes_meet_is_restored(api: Api, namespace: str, cluster: KubeCluster, row: str) -> None:
    owner, spec = made(api, namespace, SPECS["training on two nodes"])
    desired = next(item for item in kept_objects(owner, spec) if item["spec"].get("clusterIP") == "None")
    _drift(api, cluster, desired, MEETING_DRIFTS[row])


def _drift(api: Api, cluster: KubeCluster, desired: dict[str, Any], edit: Edit) -> None:
    """Somebody edits an object of ours: that is seen, and undone."""
    kind, name, namespace = desired["kind"], desired["metadata"]["name"], desired["metadata"]["namespace"]
    live = cluster.apply(desired)
    edit(live)
    plural = {"Deployment": "/apis/apps/v1/namespaces/{}/deployments", "Service": "/api/v1/namespaces/{}/services"}[
        kind
    ]
    status, answer = api.send("PUT", f"{plural.format(namespace)}/{name}", live)
    assert status == 200, answer
    assert differs(desired, cluster.get(kind, namespace, name))
    assert not differs(desired, cluster.apply(desired))


def test_what_others_add_is_left_alone(api: Api, namespace: str, cluster: KubeCluster) -> None:
    """Meshes and people annotate; an autoscaler's labels are none of ours; policies add variables and sidecars."""
    owner, spec = made(api, namespace)
    desired = deployment(owner, spec)
    cluster.apply(desired)
    name = desired["metadata"]["name"]
    api.kubectl("annotate", "deployment", name, "-n", namespace, "mesh.example/inject=false")
    assert not differs(desired, cluster.get("Deployment", namespace, name))
    assert cluster.apply(desired)["metadata"]["annotations"]["mesh.example/inject"] == "false"
    api.kubectl("set", "env", f"deployment/{name}", "-n", namespace, "HTTPS_PROXY=http://proxy")
    live = cluster.get("Deployment", namespace, name)
    assert not differs(desired, live)
    assert live is not None
    _pod(live)["containers"].append({"name": "more", "image": "proxy:1"})
    status, answer = api.send("PUT", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}", live)
    assert status == 200, answer
    assert [item["name"] for item in _pod(cluster.apply(desired))["containers"]] == ["server", "more"]


def test_a_bound_claim_grows_and_one_that_cannot_says_why(api: Api, namespace: str, cluster: KubeCluster) -> None:
    classes = {"grows": True, "stays": False}
    for name, expands in classes.items():
        api.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": name},
                "provisioner": "none.test",
                "allowVolumeExpansion": expands,
            }
        )
        sizes = [{"storageClassName": name, "size": size} for size in ("1Gi", "2Gi")]
        owner, spec = made(api, namespace, {"storage": sizes[0]}, name)
        larger = replace(spec, storage=replace(spec.storage, size=sizes[1]["size"]))
        claim = cluster.apply(build_workspace(owner, spec))["metadata"]["name"]
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}/status"
        bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
        assert api.send("PATCH", path, bound, "application/merge-patch+json")[0] == 200
        if expands:
            grown = cluster.apply(build_workspace(owner, larger))
            assert grown["spec"]["resources"]["requests"]["storage"] == "2Gi"
        else:
            with pytest.raises(Forbidden, match="must support resize"):
                cluster.apply(build_workspace(owner, larger))
