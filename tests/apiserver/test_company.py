"""What others add to the operator's objects stays when the operator applies them again; what takes them over goes.

Two field managers and a real API server: its rules for merging are not those of a test.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from apiserver.api import Api
from apiserver.manifests import deployment, made, service

from embedding_operator.cluster.client import KubeCluster
from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.drift import drift_of
from embedding_operator.objects.compare import difference
from embedding_operator.objects.slim import slim
from embedding_operator.resource.status import Status

Raw = dict[str, Any]
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
}
POD = "/spec/template/spec"
# Asked for in the manifest, so that lists and maps of one owner are the operator's own.
PLACED = {
    "stages": {
        "deploy": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "nodeSelector": {"pool": "a"}, "replicas": 1}
    }
}
TOLERATION = {"key": "spot", "operator": "Exists"}
SIDECAR = {"name": "proxy", "image": "proxy:1"}
WRITER = {"name": "writer", "image": "writer:1"}
OURS = {"claimName": "docs-workspace"}


def add(path: str, value: Any) -> Raw:
    return {"op": "add", "path": path, "value": value}


ADDED: dict[str, list[Raw]] = {
    "a sidecar": [add(f"{POD}/containers/0", SIDECAR)],
    "an init container": [add(f"{POD}/initContainers/0", SIDECAR)],
    "a volume and its mount": [
        add(f"{POD}/volumes/0", {"name": "ca", "secret": {"secretName": "ca"}}),
        add(f"{POD}/containers/0/volumeMounts/0", {"name": "ca", "mountPath": "/etc/ssl/certs"}),
    ],
    "a variable": [add(f"{POD}/containers/0/env/0", {"name": "HTTPS_PROXY", "value": "http://proxy"})],
    "a port of the container": [add(f"{POD}/containers/0/ports/0", {"name": "metrics", "containerPort": 9000})],
    "a toleration": [add(f"{POD}/tolerations/-", TOLERATION)],
    "a node selector": [add(f"{POD}/nodeSelector/zone", "b")],
    "a scheduling gate": [add(f"{POD}/schedulingGates", [{"name": "queue.test/admission"}])],
    "a priority class": [add(f"{POD}/priorityClassName", "system-cluster-critical")],
    "a pod label": [add("/spec/template/metadata/labels/team", "a")],
    "a pod annotation": [add("/spec/template/metadata/annotations", {"sidecar.test/inject": "true"})],
    "a label": [add("/metadata/labels/team", "a")],
    "an annotation": [add("/metadata/annotations/owner", "a")],
    "a finalizer": [add("/metadata/finalizers", ["example.test/audit"])],
}
TAKEN_OVER: dict[str, list[Raw]] = {
    "a command": [add(f"{POD}/containers/0/command", ["sh"])],
    "arguments": [add(f"{POD}/containers/0/args", ["--model=/elsewhere"])],
    "an image": [add(f"{POD}/containers/0/image", "other:1")],
    "a hook": [add(f"{POD}/containers/0/lifecycle", {"postStart": {"exec": {"command": ["sh"]}}})],
    "variables from elsewhere": [add(f"{POD}/containers/0/envFrom", [{"configMapRef": {"name": "other"}}])],
    "a variable that loads code": [add(f"{POD}/containers/0/env/-", {"name": "LD_PRELOAD", "value": "/x.so"})],
    "our variable from elsewhere": [
        add(f"{POD}/containers/0/env/0/valueFrom", {"configMapKeyRef": {"name": "other", "key": "x"}}),
        {"op": "remove", "path": f"{POD}/containers/0/env/0/value"},
    ],
    "another source of our volume": [{"op": "replace", "path": f"{POD}/volumes/0", "value": None}],
    "a mount over the code": [
        add(f"{POD}/volumes/-", {"name": "more", "emptyDir": {}}),
        add(f"{POD}/initContainers/0/volumeMounts/-", {"name": "more", "mountPath": "/app"}),
    ],
    "another writer of the workspace": [
        add(f"{POD}/volumes/-", {"name": "again", "persistentVolumeClaim": OURS}),
        add(f"{POD}/containers/-", {**WRITER, "volumeMounts": [{"name": "again", "mountPath": "/w"}]}),
    ],
    "another probe": [add(f"{POD}/containers/0/readinessProbe", {"exec": {"command": ["true"]}})],
    "another port": [add(f"{POD}/containers/0/ports/0/containerPort", 9000)],
    "the host's network": [add(f"{POD}/hostNetwork", True)],
    "another strategy": [add("/spec/strategy", {"type": "Recreate"})],
}


def change(api: Api, live: Raw, operations: list[Raw]) -> Raw:
    """Somebody else's edit."""
    path = PATHS[live["kind"]].format(live["metadata"]["namespace"], live["metadata"]["name"])
    code, answer = api.send("PATCH", path, operations, "application/json-patch+json", fieldManager="somebody")
    assert code == 200, answer
    return answer


def without_what_moves(raw: Raw) -> Raw:
    kept = {key: value for key, value in raw.items() if key != "status"}
    moving = ("resourceVersion", "generation", "managedFields")
    return {**kept, "metadata": {key: value for key, value in raw["metadata"].items() if key not in moving}}


@pytest.mark.parametrize("what", ADDED)
def test_what_somebody_added_is_no_drift_and_stays(api: Api, namespace: str, cluster: KubeCluster, what: str) -> None:
    owner, spec = made(api, namespace, PLACED)
    wanted = deployment(owner, spec)
    live = change(api, cluster.apply(wanted), ADDED[what])
    assert difference(wanted, live) == ""
    scaled = {**wanted, "spec": {**wanted["spec"], "replicas": 3}}
    again = cluster.apply(scaled)
    assert again["spec"]["replicas"] == 3
    live["spec"]["replicas"] = 3
    assert without_what_moves(again) == without_what_moves(live)
    assert without_what_moves(cluster.apply(scaled)) == without_what_moves(live)
    api.kubectl(
        "patch", "deployment", wanted["metadata"]["name"], "-n", namespace, "-p", '{"metadata":{"finalizers":null}}'
    )


@pytest.mark.parametrize("what", TAKEN_OVER)
def test_what_would_make_it_another_server_is_undone(api: Api, namespace: str, cluster: KubeCluster, what: str) -> None:
    owner, spec = made(api, namespace, PLACED)
    wanted = deployment(owner, spec)
    first = cluster.apply(wanted)
    operations = TAKEN_OVER[what]
    if operations[0].get("value", "") is None:
        name = first["spec"]["template"]["spec"]["volumes"][0]["name"]
        operations = [{**operations[0], "value": {"name": name, "hostPath": {"path": "/elsewhere"}}}]
    live = change(api, change(api, first, operations), ADDED["a sidecar"] + ADDED["a toleration"])
    assert difference(wanted, live) != ""
    again = cluster.apply(wanted)
    assert difference(wanted, again) == ""
    pod = again["spec"]["template"]["spec"]
    assert "proxy" in [item["name"] for item in pod["containers"]]
    assert TOLERATION in pod["tolerations"]


def test_an_edited_manifest_takes_back_what_it_said_before(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = made(api, namespace, PLACED)
    cluster.apply(deployment(owner, spec))
    _, edited = made(api, namespace, {"stages": {"deploy": {"nodeSelector": {"disk": "ssd"}}}}, name="other")
    pod = cluster.apply(deployment(owner, edited))["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert "tolerations" not in pod


def test_a_service_keeps_the_ports_of_others_and_its_own(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, _ = made(api, namespace)
    wanted = service(owner)
    more = {"name": "metrics", "port": 9000, "targetPort": "metrics", "protocol": "TCP"}
    live = change(
        api, cluster.apply(wanted), [add("/spec/ports/-", more), add("/metadata/annotations", {"lb.test/x": "1"})]
    )
    assert difference(wanted, live) == ""
    moved = change(api, live, [add("/spec/ports/0/port", 8080), add("/spec/selector/track", "canary")])
    assert difference(wanted, moved) != ""
    again = cluster.apply(wanted)
    assert difference(wanted, again) == ""
    assert sorted(port["port"] for port in again["spec"]["ports"]) == sorted([wanted["spec"]["ports"][0]["port"], 9000])
    assert again["metadata"]["annotations"]["lb.test/x"] == "1"
    assert again["spec"]["selector"] == wanted["spec"]["selector"]


CHANGED: dict[str, tuple[str, list[Raw]]] = {
    "a Service's selector": ("spec.selector", [add("/spec/selector/track", "canary")]),
    "a Service's port": ("spec.ports[8000].targetPort", [add("/spec/ports/0/targetPort", 15001)]),
    "a Service's port by another number": ("spec.ports[8000]", [add("/spec/ports/0/port", 8080)]),
    "a server's image": (f"{POD}/containers[server]/image", TAKEN_OVER["an image"]),
    "a server's hook": (f"{POD}/containers[server]/lifecycle", TAKEN_OVER["a hook"]),
    "a server's variable": (f"{POD}/containers[server]/env[LD_PRELOAD]", TAKEN_OVER["a variable that loads code"]),
    "a server's replicas": ("spec.replicas", [add("/spec/replicas", 3)]),
}


@pytest.mark.parametrize("what", CHANGED)
def test_who_changed_a_field_is_named_and_nobody_else(
    api: Api, namespace: str, cluster: KubeCluster, what: str
) -> None:
    """From what the API server notes, and from what is kept of that."""
    owner, spec = made(api, namespace, PLACED)
    wanted = service(owner) if "Service" in what else deployment(owner, spec)
    field, operations = CHANGED[what]
    field = field.removeprefix("/").replace("/", ".")
    live = cluster.apply(wanted)
    path = PATHS[live["kind"]].format(namespace, live["metadata"]["name"])
    innocent = [add("/metadata/labels/team", "a")]
    code, _ = api.send("PATCH", path, innocent, "application/json-patch+json", fieldManager="innocent")
    assert code == 200
    live = change(api, live, operations)
    for raw in (live, slim(live["kind"], live)):
        assert difference(wanted, raw).startswith(field)
        draft, observed = Draft(status=Status()), Observed(now=datetime(2026, 1, 1, tzinfo=UTC), generation=1)
        drift = drift_of(draft, raw, wanted, observed)
        assert drift.apply
        (event,) = draft.events
        assert "changed by somebody: " in event.message
    again = cluster.apply(wanted)
    assert difference(wanted, again) == ""
