"""The server: our own and NIM's two generations, checked before it starts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from unit.operator.builders import FINGERPRINT, OWNER, Raw, a_ref, a_spec

from embedding_operator.objects.compare import differs
from embedding_operator.objects.manifests.serving import as_made_before, build_deployment, build_service, serving_name
from embedding_operator.resource.labels import FINGERPRINT_ANNOTATION, SERVING_LABEL, TEMPLATE_ANNOTATION
from embedding_stages.contract.servers import RESERVED_VARIABLES, VLLM

MODEL = a_ref("model")
NGC = {"ngcKeySecretRef": {"name": "ngc", "key": "apikey"}}
BACKENDS: dict[str, Raw] = {
    "onnx": {},
    "torch": {"backend": {"torch": {}}},
    "nim 1": {"image": "nim:1", "backend": {"nim": {"sharedMemory": "4Gi", **NGC}}},
    "nim 2": {"image": "nim:2", "backend": {"nim": {"generation": 2}}},
    "nim 2.2": {"image": "nvcr.io/nim/nvidia/nemotron-3-embed-1b:2.2.0", "backend": {"nim": {}}},
    "nim 2.4": {"image": "nim:mirrored", "modelName": "handbook", "backend": {"nim": {"generation": "2.4"}}},
    "vllm": {"image": "vllm:1", "backend": {"vllm": {}}},
}


def deployment(deploy: Raw, **sections: Any) -> Raw:
    spec = a_spec(stages={"deploy": deploy}, **sections)
    return build_deployment(OWNER, spec, FINGERPRINT, MODEL, check_image="check:1")


def pod(deploy: Raw) -> Raw:
    found: Raw = deployment(deploy)["spec"]["template"]["spec"]
    return found


def env(deploy: Raw) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in pod(deploy)["containers"][0]["env"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_server_satisfies_the_restricted_standard(backend: str) -> None:
    body = pod(BACKENDS[backend])
    assert body["securityContext"]["runAsNonRoot"] is True
    assert body["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert body["automountServiceAccountToken"] is False
    for container in [*body["initContainers"], *body["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {kind for volume in body["volumes"] for kind in volume} <= {"name", "persistentVolumeClaim", "emptyDir"}


@pytest.mark.parametrize(
    ("backend", "variable", "path", "read_only_root"),
    [
        ("onnx", "NIM_CUSTOM_MODEL", "/opt/nim/custom_model", True),
        ("torch", "NIM_CUSTOM_MODEL", "/opt/nim/custom_model", True),
        ("nim 1", "NIM_CUSTOM_MODEL", "/opt/nim/custom_model", False),
        ("nim 2", "NIM_MODEL_PATH", "/opt/nim/model", False),
        ("nim 2.2", "NIM_ENGINE_MODEL_PATH", "/model", False),
        ("nim 2.4", "NIM_ENGINE_MODEL_PATH", "/model", False),
    ],
)
def test_the_model_lies_where_the_server_is_told(backend: str, variable: str, path: str, read_only_root: bool) -> None:
    body = pod(BACKENDS[backend])
    server = body["containers"][0]
    assert env(BACKENDS[backend])[variable] == path
    assert {"NIM_CUSTOM_MODEL", "NIM_MODEL_PATH", "NIM_ENGINE_MODEL_PATH"} & env(BACKENDS[backend]).keys() == {variable}
    mount = next(item for item in server["volumeMounts"] if item["name"] == "workspace")
    assert (mount["mountPath"], mount["readOnly"]) == (path, True)
    assert mount["subPath"].endswith(f"/{MODEL.path}")
    assert server["securityContext"]["readOnlyRootFilesystem"] is read_only_root


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_artefact_is_checked_with_our_image_before_any_server_starts(backend: str) -> None:
    body = pod(BACKENDS[backend])
    (check,) = body["initContainers"]
    assert check["image"] == "check:1"
    mount = next(item for item in body["containers"][0]["volumeMounts"] if item["name"] == "workspace")
    assert check["volumeMounts"] == [mount]
    assert check["command"][-2:] == [mount["mountPath"], MODEL.digest]


@pytest.mark.parametrize(
    ("limits", "wanted"), [({}, None), ({"cpu": "2", "memory": "3Gi"}, {"cpu": "2", "memory": "3Gi"})]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lets_a_server_through_a_quota_lets_its_check_through(
    backend: str, limits: Raw, wanted: Raw | None
) -> None:
    body = pod(BACKENDS[backend] | {"resources": {"limits": limits}})
    check, server = body["initContainers"][0]["resources"], body["containers"][0]["resources"]
    assert check["requests"] == {key: server["requests"][key] for key in ("cpu", "memory")}
    assert check.get("limits") == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_variable_is_given_twice_and_all_of_ours_are_reserved(backend: str) -> None:
    names = [item["name"] for item in pod(BACKENDS[backend])["containers"][0]["env"]]
    assert len(names) == len(set(names))
    assert set(names) <= RESERVED_VARIABLES | VLLM.defaults.keys()


def test_a_default_of_the_servers_is_the_manifests_to_change() -> None:
    """What a manifest of an earlier release may say already is not reserved."""
    assert not VLLM.defaults.keys() & RESERVED_VARIABLES
    chosen = {**BACKENDS["vllm"], "env": [{"name": "TRITON_CACHE_DIR", "value": "/elsewhere"}]}
    names = [item["name"] for item in pod(chosen)["containers"][0]["env"]]
    assert len(names) == len(set(names))
    assert env(chosen)["TRITON_CACHE_DIR"] == "/elsewhere"
    assert env(BACKENDS["vllm"])["TRITON_CACHE_DIR"] == "/cache/triton"


@pytest.mark.parametrize(
    ("deploy", "strategy"),
    [
        ({}, {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}),
        ({"strategy": "Recreate"}, {"type": "Recreate"}),
        ({"backend": {"torch": {}}}, {"type": "Recreate"}),
    ],
)
def test_pods_of_one_artefact_take_each_others_place_as_revisions_do(deploy: Raw, strategy: Raw) -> None:
    assert deployment(deploy)["spec"]["strategy"] == strategy


def test_the_ngc_key_is_a_reference_and_only_for_a_nim() -> None:
    assert env(BACKENDS["nim 1"])["NGC_API_KEY"] == {"secretKeyRef": {"name": "ngc", "key": "apikey"}}
    assert "NGC_API_KEY" not in env(BACKENDS["onnx"])


def test_shared_memory_is_the_manifests() -> None:
    def shared(deploy: Raw) -> Any:
        return next(item for item in pod(deploy)["volumes"] if item["name"] == "shm")["emptyDir"]

    assert shared(BACKENDS["nim 1"]) == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert shared({}) == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod({})["containers"][0]["volumeMounts"]


def test_a_slow_start_is_no_crash() -> None:
    server = pod({"timeoutSeconds": 600})["containers"][0]
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    assert startup["httpGet"]["path"] == server["readinessProbe"]["httpGet"]["path"] == "/v1/health/ready"
    assert server["livenessProbe"]["httpGet"]["path"] == "/v1/health/live"
    assert deployment({"timeoutSeconds": 600})["spec"]["progressDeadlineSeconds"] == 600


def test_the_service_finds_the_pods_of_one_resource_and_one_fingerprint() -> None:
    body = deployment({})
    service = build_service(OWNER, serving_name(OWNER.name, FINGERPRINT), FINGERPRINT)
    selector = service["spec"]["selector"]
    assert body["spec"]["selector"]["matchLabels"] == selector
    assert selector.items() <= body["spec"]["template"]["metadata"]["labels"].items()
    assert selector[SERVING_LABEL] == FINGERPRINT[:16]
    assert OWNER.uid in selector.values()
    assert (
        service["spec"]["ports"][0]["targetPort"]
        == body["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"]
    )


@pytest.mark.parametrize(
    ("deploy", "scaled_to", "replicas"),
    [({}, 1, 1), ({}, 4, 4), ({}, 0, 1), ({"replicas": 2}, 4, 2), ({"replicas": 2}, 0, 2)],
)
def test_replicas_are_the_manifests_or_those_that_there_are(deploy: Raw, scaled_to: int, replicas: int) -> None:
    spec = a_spec(stages={"deploy": deploy})
    built = build_deployment(OWNER, spec, FINGERPRINT, MODEL, check_image="check:1", scaled_to=scaled_to)
    assert built["spec"]["replicas"] == replicas
    assert built["metadata"]["annotations"] == deployment(deploy)["metadata"]["annotations"]


def test_the_same_arguments_give_the_same_deployment() -> None:
    assert json.dumps(deployment(BACKENDS["nim 1"])) == json.dumps(deployment(BACKENDS["nim 1"]))


@pytest.mark.parametrize(
    "more",
    [
        {"nodeSelector": {"a": "b"}},
        {"resources": {"limits": {"memory": "9Gi"}}},
        {"runtimeClassName": "x"},
        {"podLabels": {"team": "search"}},
        {"podAnnotations": {"team": "search"}},
    ],
)
def test_what_the_manifest_no_longer_asks_for_is_a_difference(more: Raw) -> None:
    """All that is asked for is still there; the hash tells that there is more."""
    assert differs(deployment({}), deployment(more))
    assert deployment({})["metadata"]["annotations"][FINGERPRINT_ANNOTATION] == FINGERPRINT
    hashes = {deployment(item)["metadata"]["annotations"][TEMPLATE_ANNOTATION] for item in ({}, more)}
    assert len(hashes) == 2


CHECK_BEFORE = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
MADE_BEFORE: dict[str, tuple[Raw, str]] = {  # hashes that the release before wrote
    "onnx": ({}, "4641729ce267b3ed"),
    "torch": (BACKENDS["torch"], "6d5d0e39e18dfd11"),
    "nim 1": (BACKENDS["nim 1"], "7aac47652ca56b32"),
    "nim 2": (BACKENDS["nim 2"], "ac9eb2f7360b2c96"),
    "three replicas": ({"replicas": 3}, "7badb13f19832cd4"),
}


def made_before(deploy: Raw, noted: str) -> Raw:
    body = deployment(deploy)
    body["metadata"]["annotations"][TEMPLATE_ANNOTATION] = noted
    body["spec"]["template"]["spec"]["initContainers"][0]["resources"] = CHECK_BEFORE
    return body


@pytest.mark.parametrize("row", MADE_BEFORE)
def test_a_server_of_the_release_before_is_not_made_anew(row: str) -> None:
    deploy, noted = MADE_BEFORE[row]
    live = made_before(deploy, noted)
    spec = a_spec(stages={"deploy": deploy})
    assert not differs(as_made_before(deployment(deploy), live, spec), live)


@pytest.mark.parametrize(
    "edit",
    [
        {"resources": {"requests": {"cpu": "2"}}},
        {"resources": {"limits": {"memory": "4Gi"}}},
        {"nodeSelector": {"a": "b"}},
        {"podLabels": {"team": "a"}},
        {"replicas": 2},
    ],
    ids=str,
)
def test_a_server_of_the_release_before_follows_the_manifest(edit: Raw) -> None:
    live = made_before(*MADE_BEFORE["onnx"])
    assert as_made_before(deployment(edit), live, a_spec(stages={"deploy": edit})) == deployment(edit)
    # The other way round: what the manifest does not ask for any more is noticed too.
    edited = deployment(edit)
    assert as_made_before(deployment({}), edited, a_spec()) == deployment({})


def test_what_somebody_changed_in_the_check_is_no_earlier_release() -> None:
    live = deployment({})
    live["spec"]["template"]["spec"]["initContainers"][0]["resources"] = {}
    assert differs(as_made_before(deployment({}), live, a_spec()), live)
