"""How the inputs stage gets at its sources, and what the containers that help it ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.operator.builders import Raw, a_spec
from unit.operator.job_pods import HUB, JOBS, RICH, a_claim, pod, replace_resources

from embedding_stages.contract import Stage


@pytest.mark.parametrize("stage", JOBS)
def test_sources_are_read_by_inputs_alone(stage: Stage) -> None:
    names = {volume["name"] for volume in pod(RICH, stage)["volumes"]}
    sources = {"source-corpus", "source-model", "source-beir", "tools"}
    assert names & sources == (sources if stage is Stage.INPUTS else set())


def test_each_kind_of_source_is_mounted_read_only_where_the_stage_looks() -> None:
    body = pod(a_spec(evaluation={"beir": {"pvc": {"claimName": "labelled"}}}), Stage.INPUTS)
    volumes = {item["name"]: item for item in body["volumes"]}
    assert volumes["source-corpus"]["configMap"] == {"name": "docs"}
    assert volumes["source-model"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert volumes["source-beir"]["persistentVolumeClaim"]["claimName"] == "labelled"
    mounts = {item["name"]: item for item in body["containers"][0]["volumeMounts"]}
    for name in ("corpus", "model", "beir"):
        assert mounts[f"source-{name}"]["mountPath"] == f"/sources/{name}"
        assert mounts[f"source-{name}"]["readOnly"] is True
    assert "initContainers" not in body


def test_guards_are_mounted_and_copied_by_their_names() -> None:
    guards = [
        {"name": "general", "beir": {"pvc": {"claimName": "labelled", "path": "general"}}},
        {"name": "law", "beir": {"image": {"reference": "registry.test/law:1", "path": "/beir"}}},
    ]
    body = pod(a_spec(evaluation={"guards": guards}), Stage.INPUTS)
    mounts = {item["mountPath"] for item in body["containers"][0]["volumeMounts"]}
    assert {"/sources/guard-general", "/sources/guard-law"} <= mounts
    assert [item["name"] for item in body["initContainers"]] == ["tools", "copy-guard-law"]


def claims_of(body: Raw) -> list[str]:
    found = [item["persistentVolumeClaim"] for item in body["volumes"] if "persistentVolumeClaim" in item]
    return [item["claimName"] for item in found]


ONE_CLAIM: dict[str, tuple[Raw, list[str]]] = {
    "documents and model": (
        {"baseModel": a_claim("data", "model"), "corpus": {"source": {"pvc": {"claimName": "data", "path": "docs"}}}},
        ["handbook-workspace", "data"],
    ),
    "documents, model and labelled set": (
        {
            "baseModel": a_claim("data", "model"),
            "corpus": {"source": {"pvc": {"claimName": "data", "path": "docs"}}},
            "evaluation": {"beir": {"pvc": {"claimName": "data", "path": "beir"}}},
        },
        ["handbook-workspace", "data"],
    ),
    "everything in the workspace's claim": (
        {
            "baseModel": a_claim("data", "model"),
            "corpus": {"source": {"pvc": {"claimName": "data", "path": "docs"}}},
            "storage": {"existingClaim": "data"},
        },
        ["data"],
    ),
    "the model in the claim that the operator made": (
        {"baseModel": a_claim("handbook-workspace", "m")},
        ["handbook-workspace"],
    ),
    "two claims": (
        {"baseModel": a_claim("models", "m"), "corpus": {"source": {"pvc": {"claimName": "docs"}}}},
        ["handbook-workspace", "docs", "models"],
    ),
}


@pytest.mark.parametrize("row", ONE_CLAIM)
def test_a_claim_is_one_volume_however_often_it_is_mounted(row: str) -> None:
    """The kubelet never mounts a pod that has two volumes of one claim."""
    sections, claims = ONE_CLAIM[row]
    body = pod(a_spec(**sections), Stage.INPUTS)
    assert claims_of(body) == claims
    names = [item["name"] for item in body["volumes"]]
    assert len(names) == len(set(names))
    mounts = {item["mountPath"]: item for item in body["containers"][0]["volumeMounts"]}
    volumes = {item["name"]: item for item in body["volumes"]}
    for purpose, source in (("corpus", sections.get("corpus")), ("model", sections["baseModel"])):
        mount = mounts[f"/sources/{purpose}"]
        assert mount["readOnly"] is True
        assert "subPath" not in mount  # the stage says which folder is missing; the kubelet would not
        if source is not None:
            claim = volumes[mount["name"]]["persistentVolumeClaim"]
            assert claim["claimName"] == source["source"]["pvc"]["claimName"]
            assert claim.get("readOnly", False) is (mount["name"] != "workspace")
    assert mounts["/workspace"].get("readOnly") is None


def test_an_image_is_copied_by_a_program_that_the_image_need_not_have() -> None:
    body = pod(RICH, Stage.INPUTS)
    names = [item["name"] for item in body["initContainers"]]
    assert names == ["tools", "copy-corpus", "copy-model"]
    copy = body["initContainers"][1]
    assert copy["image"] == "files:1"
    assert copy["imagePullPolicy"] == "Never"
    assert copy["command"] == ["/tools/busybox", "cp", "-r", "/data/docs/.", "/sources/corpus"]
    volumes = {item["name"]: item for item in body["volumes"]}
    assert volumes["source-corpus"]["emptyDir"] == {"sizeLimit": "50Gi"}
    assert volumes["tools"]["emptyDir"] == {"sizeLimit": "16Mi"}


def test_a_copied_source_is_bounded_by_the_workspace_that_it_goes_into() -> None:
    spec = replace(RICH, storage=replace(RICH.storage, size="2Ti"))
    volumes = {item["name"]: item for item in pod(spec, Stage.INPUTS)["volumes"]}
    assert volumes["source-model"]["emptyDir"] == {"sizeLimit": "2Ti"}


GPU = {"nvidia.com/gpu": "1"}
RESOURCES: dict[str, tuple[Raw, Raw]] = {  # the stage's own -> its helpers'
    "requests alone": (
        {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {}},
        {"requests": {"cpu": "1", "memory": "2Gi"}},
    ),
    "for a quota of limits": (
        {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
        {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
    ),
    "accelerators": (
        {"requests": {"cpu": "1", **GPU}, "limits": {"memory": "4Gi", **GPU}},
        {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}},
    ),
    # A limit of theirs alone would be the pod's, and evict it.
    "disk": (
        {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "9Gi"}},
        {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "9Gi"}},
    ),
}


@pytest.mark.parametrize("row", RESOURCES)
def test_what_lets_a_stage_through_lets_its_helpers_through(row: str) -> None:
    """Whatever a ResourceQuota or a LimitRange asks of every container, the manifest has a field for it."""
    own, wanted = RESOURCES[row]
    helpers = pod(replace_resources(RICH, Stage.INPUTS, own), Stage.INPUTS)["initContainers"]
    assert [item["name"] for item in helpers] == ["tools", "copy-corpus", "copy-model"]
    assert [item["resources"] for item in helpers] == [wanted] * 3


@pytest.mark.parametrize("stage", JOBS)
def test_no_container_goes_without_requests(stage: Stage) -> None:
    body = pod(RICH, stage)
    for container in [*body.get("initContainers", ()), *body["containers"]]:
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, container["name"]


def test_a_model_from_the_hub_needs_no_volume() -> None:
    assert "source-model" not in str(pod(a_spec(baseModel=HUB), Stage.INPUTS))
