"""How the inputs stage gets at its sources, and what the containers that help it ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.operator.builders import Raw, a_spec
from unit.operator.job_pods import HUB, JOBS, RICH, a_claim, pod, replace_resources

from embedding_operator.objects.compare import quantity
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


@pytest.mark.parametrize("stage", JOBS)
def test_every_container_says_what_a_quota_may_ask_for(stage: Stage) -> None:
    """Where a ResourceQuota counts limits the manifest has to give those of the stage's container, and of no other."""
    body = pod(RICH, stage)
    (main,) = body["containers"]
    assert main["resources"]["requests"].keys() >= {"cpu", "memory"}
    for helper in body.get("initContainers", ()):
        for kind in ("requests", "limits"):
            assert helper["resources"][kind].keys() == {"cpu", "memory"}, helper["name"]
        for name, amount in helper["resources"]["requests"].items():  # a pod asks for the larger of the two
            assert quantity(amount) <= quantity(main["resources"]["requests"][name])


def test_helpers_ask_for_as_much_disk_as_the_stage() -> None:
    """A limit of theirs alone would be the pod's, and evict it."""
    disk = {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "9Gi"}}
    body = pod(replace_resources(RICH, Stage.INPUTS, disk), Stage.INPUTS)
    for helper in body["initContainers"]:
        for kind, values in disk.items():
            assert helper["resources"][kind]["ephemeral-storage"] == values["ephemeral-storage"]


def test_a_model_from_the_hub_needs_no_volume() -> None:
    assert "source-model" not in str(pod(a_spec(baseModel=HUB), Stage.INPUTS))
