"""Whether a live object still says what was asked for, whatever the server added to it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from unit.operator.test_serving_manifests import deployment

from embedding_operator.objects.compare import difference, differs, quantity
from embedding_stages.contract import SERVED_MODEL_PATH


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("500m", "0.5"),
        ("2k", "2000"),
        ("1Ki", "1024"),
        ("1024Mi", str(2**30)),
        ("1Gi", str(2**30)),
        ("1.5Gi", str(3 * 2**29)),
        ("1e3", "1000"),
        ("1E", str(10**18)),
        ("1Ei", str(2**60)),
        ("100n", "1e-7"),
    ],
)
def test_quantities(text: str, value: str) -> None:
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "abc", "1Gx", "Gi", "1 Gi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ArithmeticError):
        quantity(text)


@pytest.mark.parametrize(
    ("desired", "live", "answer"),
    [
        ({"a": 1}, None, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, True),
        ({"a": {}}, {}, False),
        ({"a": ""}, {}, False),
        ({"a": 0}, {}, False),
        ({"a": "x"}, {}, True),
        ({"a": [1, 2]}, {"a": [1, 2]}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, True),
        ({"a": [1]}, {"a": [1, 2]}, True),
        ({"a": [{"n": 1}]}, {"a": [{"n": 1, "default": True}]}, False),
        ({"a": [1]}, {}, True),
        # A Service whose selector has one key more reaches no pod.
        ({"selector": {"a": "1"}}, {"selector": {"a": "1"}}, False),
        ({"selector": {"a": "1"}}, {"selector": {"a": "1", "b": "2"}}, True),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}, False),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "2Gi"}}, True),
        ({"limits": {"memory": "1Gi"}}, {"limits": {}}, True),
        ({"limits": {"memory": "lots"}}, {"limits": {"memory": "1Gi"}}, True),
        ({"requests": {"cpu": "1000m"}}, {"requests": {"cpu": "1", "memory": "1Gi"}}, False),
        ({"sizeLimit": "2048Mi"}, {"sizeLimit": "2Gi"}, False),
        ({"kind": "A", "ownerReferences": [1]}, {"kind": "B", "ownerReferences": [2]}, False),
        ({"readOnly": True}, {"readOnly": False}, True),
    ],
    ids=str,
)
def test_only_what_is_asked_for_counts(desired: dict[str, Any], live: Any, answer: bool) -> None:
    assert differs(desired, live) is answer


WRITER = {"name": "more", "volumeMounts": [{"name": "workspace", "mountPath": "/w"}]}
SAME_CLAIM = {"name": "again", "persistentVolumeClaim": {"claimName": "handbook-workspace"}}
OTHER_WRITER = {"name": "more", "volumeMounts": [{"name": "again", "mountPath": "/w"}]}
Edit = Callable[[dict[str, Any]], object]


def server(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["containers"][0]
    return found


def check(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["initContainers"][0]
    return found


@pytest.mark.parametrize(
    "edit",
    [
        lambda pod: server(pod).update(command=["python3", "-m", "other"]),
        lambda pod: server(pod).update(args=["--model=/elsewhere"]),
        lambda pod: server(pod).update(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
        lambda pod: server(pod).update(workingDir="/elsewhere"),
        lambda pod: check(pod).update(args=["sha256:other"]),
        lambda pod: check(pod).update(restartPolicy="Always"),
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod.update(serviceAccountName="other"),
        lambda pod: pod.update(shareProcessNamespace=True),
        lambda pod: server(pod).update(image="other:1"),
        lambda pod: server(pod).update(envFrom=[{"configMapRef": {"name": "other"}}]),
        lambda pod: server(pod)["env"].append({"name": "NIM_MODEL_PROFILE", "value": "other"}),
        lambda pod: check(pod).update(env=[{"name": "PYTHONPATH", "value": "/elsewhere"}]),
        lambda pod: check(pod).update(env=[{"name": "PATH", "value": "/elsewhere"}]),
        lambda pod: check(pod).update(command=["true"]),
        lambda pod: check(pod).update(image="other:1"),
        *(lambda pod, kind=kind: pod[kind].append(WRITER) for kind in ("initContainers", "containers")),
        lambda pod: pod["initContainers"].pop(),
        lambda pod: pod["volumes"].pop(),
        lambda pod: server(pod)["env"].pop(),
        lambda pod: server(pod)["env"].append({"name": "NIM_SERVED_MODEL_NAME", "value": "other"}),  # the last counts
        lambda pod: server(pod)["volumeMounts"].append({"name": "more", "mountPath": f"{SERVED_MODEL_PATH}/weights"}),
        lambda pod: check(pod)["volumeMounts"].append({"name": "more", "mountPath": SERVED_MODEL_PATH}),
        lambda pod: server(pod)["volumeMounts"].append({"name": "more", "mountPath": f"/.{SERVED_MODEL_PATH}/weights"}),
        lambda pod: check(pod)["volumeMounts"].append({"name": "more", "mountPath": "/app/embedding_stages"}),
        lambda pod: server(pod)["volumeMounts"].append({"name": "workspace", "mountPath": "/w"}),
        lambda pod: (pod["volumes"].append(SAME_CLAIM), pod["containers"].append(OTHER_WRITER)),
    ],
)
def test_another_server_is_not_what_was_asked_for(edit: Edit) -> None:
    desired, live = deployment({}), deployment({})
    assert not differs(desired, live)
    edit(live["spec"]["template"]["spec"])
    assert differs(desired, live)


@pytest.mark.parametrize(
    "edit",
    [
        lambda pod: pod.update(dnsPolicy="ClusterFirst", restartPolicy="Always", schedulerName="default-scheduler"),
        lambda pod: pod.update(tolerations=[{"operator": "Exists"}], nodeSelector={"pool": "a"}),
        lambda pod: pod["affinity"].update(nodeAffinity={"preferredDuringSchedulingIgnoredDuringExecution": []}),
        lambda pod: pod.update(imagePullSecrets=[{"name": "mirror"}]),
        lambda pod: check(pod).update(terminationMessagePath="/dev/termination-log", stdin=False),
        lambda pod: server(pod)["startupProbe"].update(successThreshold=1),
        lambda pod: server(pod)["env"].insert(0, {"name": "HTTPS_PROXY", "value": "http://proxy"}),
        lambda pod: check(pod).update(env=[{"name": "HTTPS_PROXY", "value": "http://proxy"}]),
        lambda pod: pod["containers"].insert(0, {"name": "a-proxy", "image": "proxy:1", "command": ["run"]}),
        lambda pod: pod["initContainers"].insert(0, {"name": "a-proxy-init", "image": "proxy:1"}),
        lambda pod: pod["volumes"].insert(0, {"name": "certificates", "secret": {"secretName": "ca"}}),
        lambda pod: server(pod)["volumeMounts"].insert(0, {"name": "certificates", "mountPath": "/etc/ssl/certs"}),
        lambda pod: pod.update(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a"]}]),
        lambda pod: server(pod)["ports"].append({"name": "metrics", "containerPort": 9000}),
    ],
)
def test_defaults_and_what_policies_add_are_left_alone(edit: Edit) -> None:
    desired, live = deployment({}), deployment({})
    edit(live["spec"]["template"]["spec"])
    assert not differs(desired, live)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda pod: server(pod).update(image="other:1"), "spec.template.spec.containers[server].image"),
        (lambda pod: server(pod).update(command=["sh"]), "spec.template.spec.containers[server].command"),
        (lambda pod: server(pod)["env"].pop(0), "spec.template.spec.containers[server].env[NIM_CUSTOM_MODEL]"),
        (lambda pod: pod.update(hostNetwork=True), "spec.template.spec.hostNetwork"),
        (lambda pod: check(pod).update(command=["true"]), "spec.template.spec.initContainers[check-artefact].command"),
    ],
)
def test_the_field_that_differs_is_named(edit: Edit, field: str) -> None:
    desired, live = deployment({}), deployment({})
    edit(live["spec"]["template"]["spec"])
    assert difference(desired, live) == field
