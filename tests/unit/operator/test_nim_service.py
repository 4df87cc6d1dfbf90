"""The NIMService that is made, and how it is seen together with what the NIM Operator made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from unit.operator.builders import FINGERPRINT, OWNER, Raw, a_ref, a_spec

from embedding_operator.objects.compare import difference, differs
from embedding_operator.objects.manifests.nim_service import build_nim_service, build_server
from embedding_operator.objects.nim_services import as_ours, is_made_by_one, made_by, view_nim_service
from embedding_operator.resource.api import SpecError
from embedding_operator.resource.labels import OWNER_UID_LABEL, SERVING_LABEL, TEMPLATE_ANNOTATION

KEY = {"ngcKeySecretRef": {"name": "ngc", "key": "NGC_API_KEY"}}


def a_deploy(image: str = "mirror.example/nim:2.4.0", nim: Raw | None = None, **more: Any) -> Raw:
    return {"image": image, "backend": {"nimService": nim or {}}, **more}


def built(deploy: Raw | None = None, check_image: str = "serve:1", **sections: Any) -> Raw:
    spec = a_spec(stages={"deploy": deploy or a_deploy()}, **sections)
    return build_nim_service(OWNER, spec, FINGERPRINT, a_ref("model"), check_image=check_image)


def test_the_kind_of_object_follows_from_the_backend() -> None:
    for deploy, kind in (({}, "Deployment"), (a_deploy(), "NIMService")):
        spec = a_spec(stages={"deploy": deploy})
        assert build_server(OWNER, spec, FINGERPRINT, a_ref("model"), check_image="c:1")["kind"] == kind


def test_the_models_folder_is_mounted_read_only_and_checked_where_the_image_finds_it() -> None:
    for image, path, variable in (
        ("nim:1.13.0", "/model-store", "NIM_CUSTOM_MODEL"),
        ("nim:2.2.2", "/model", "NIM_ENGINE_MODEL_PATH"),
        ("nim:2.4.0", "/model", "NIM_ENGINE_MODEL_PATH"),
    ):
        spec = built(a_deploy(image))["spec"]
        assert spec["storage"]["readOnly"] is True
        assert spec["storage"]["pvc"]["create"] is False
        assert spec["storage"]["pvc"]["subPath"].endswith(a_ref("model").path)
        assert spec["initContainers"][0]["command"][-2:] == [path, a_ref("model").digest]
        assert {item["name"]: item["value"] for item in spec["env"]}[variable] == path


def test_its_pods_are_found_by_the_labels_of_ours() -> None:
    spec = built(a_deploy(podLabels={"team": "a"}, podAnnotations={"note": "b"}))["spec"]
    assert {"team": "a", OWNER_UID_LABEL: OWNER.uid, SERVING_LABEL: FINGERPRINT[:16]}.items() <= spec["labels"].items()
    assert spec["annotations"]["note"] == "b"


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("nim:2.4.0", "nim", "2.4.0"),
        ("localhost:5000/a/nim:2.4.0", "localhost:5000/a/nim", "2.4.0"),
        (f"a/nim:2.4.0@sha256:{'c' * 64}", "a/nim:2.4.0@sha256", "c" * 64),
    ],
)
def test_repository_and_tag_joined_by_a_colon_are_the_image(image: str, repository: str, tag: str) -> None:
    made = built(a_deploy(image))["spec"]["image"]
    assert (made["repository"], made["tag"]) == (repository, tag)
    assert f"{made['repository']}:{made['tag']}" == image


def test_an_image_of_the_check_without_a_tag_is_the_latest() -> None:
    made = built(check_image="localhost:5000/serve")["spec"]["initContainers"][0]["image"]
    assert (made["repository"], made["tag"]) == ("localhost:5000/serve", "latest")


def test_the_key_is_a_secret_that_the_nim_operator_reads() -> None:
    spec = built(a_deploy(nim=KEY))["spec"]
    assert spec["authSecret"] == "ngc"
    assert "NGC_API_KEY" not in json.dumps(spec["env"])
    assert "authSecret" not in built()["spec"]


@pytest.mark.parametrize(
    ("deploy", "field", "words"),
    [
        (a_deploy("nim", KEY), "spec.stages.deploy.image", "must have a tag"),
        (
            a_deploy(nim={"ngcKeySecretRef": {"name": "ngc", "key": "api-key"}}),
            "spec.stages.deploy.backend.nimService.ngcKeySecretRef.key",
            "must be NGC_API_KEY",
        ),
        (
            a_deploy("nim:2.2.0"),
            "spec.stages.deploy.backend.nimService.generation",
            "version 2.2.0 is of no generation",
        ),
        (a_deploy("nim:2.0.0"), "spec.stages.deploy.backend.nimService.generation", "'1' or '2.2' or '2.4'"),
    ],
)
def test_what_the_nim_operator_has_no_place_for_is_refused(deploy: Raw, field: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        a_spec(stages={"deploy": deploy})
    assert caught.value.field == field
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"resources": {"limits": {"memory": "9Gi"}}},
        {"podLabels": {"team": "search"}},
        {"nodeSelector": {"a": "b"}},
        {"env": [{"name": "A", "value": "b"}]},
    ],
    ids=str,
)
def test_what_the_manifest_no_longer_asks_for_is_a_difference(more: Raw) -> None:
    assert not differs(built(), built())
    assert differs(built(), built(a_deploy(**more)))


@pytest.mark.parametrize(
    ("added", "field"),
    [
        ({"args": ["x"]}, "spec.args"),
        ({"sidecarContainers": [{"name": "x"}]}, "spec.sidecarContainers"),
        ({"multiNode": {"backendType": "lws"}}, "spec.multiNode"),
        ({"scale": {"enabled": True}}, "spec.scale.enabled"),
        ({"metrics": {"enabled": True}, "schedulerName": "x", "inferencePlatform": "standalone"}, ""),
    ],
)
def test_what_makes_it_another_server_is_a_difference(added: Raw, field: str) -> None:
    live = built()
    live["spec"] = {**live["spec"], **added}
    assert difference(built(), live) == field


def live(state: str, *, template: str = "", failed: str = "") -> tuple[Raw, Raw]:
    """(a NIMService, the Deployment made of it)."""
    raw = built()
    meta = {"uid": "nim-uid", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
    raw["metadata"] |= meta
    conditions = [{"type": "Failed", "status": "True", "message": failed}] if failed else []
    raw["status"] = {"state": state, "conditions": conditions}
    hashed = template or raw["spec"]["annotations"][TEMPLATE_ANNOTATION]
    made: Raw = {
        "metadata": {
            **raw["metadata"],
            "uid": "made",
            "labels": raw["spec"]["labels"],
            "annotations": {TEMPLATE_ANNOTATION: hashed},
            "ownerReferences": [{"kind": "NIMService", "uid": "nim-uid"}],
        },
        "spec": {"replicas": 1},
        "status": {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "observedGeneration": 1},
    }
    return raw, made


@pytest.mark.parametrize(
    ("state", "template", "rolled_out"),
    [("Ready", "", True), ("NotReady", "", False), ("Ready", "older", False), ("Failed", "", False)],
)
def test_its_status_and_the_hash_of_what_was_made_decide_the_rollout(
    state: str, template: str, rolled_out: bool
) -> None:
    view = view_nim_service(*live(state, template=template), ())
    assert view is not None
    assert view.rolled_out(1) is rolled_out
    assert view.available == 1, "clients may be answered meanwhile"
    assert (view.kind, view.port_name) == ("NIMService", "api")


def test_what_its_operator_says_of_a_failure_is_told() -> None:
    view = view_nim_service(live("Failed", failed="no such claim")[0], None, ())
    assert view is not None
    assert (view.available, view.replica_failure) == (0, "the NIM Operator says: no such claim")


def test_what_belongs_to_it_is_known_by_its_owner() -> None:
    raw, made = live("Ready")
    assert made_by(raw, [built(), made]) == made
    assert made_by(raw, [built()]) is None
    assert is_made_by_one(made)
    assert not is_made_by_one(raw)


def test_the_main_container_of_its_pods_is_called_as_ours() -> None:
    statuses = [{"name": "handbook-1-ctr", "ready": True}, {"name": "proxy"}]
    pod = as_ours({"metadata": {"name": "p"}, "status": {"containerStatuses": statuses}}, "handbook-1")
    assert [item["name"] for item in pod["status"]["containerStatuses"]] == ["server", "proxy"]
