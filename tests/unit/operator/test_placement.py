"""Where pods run whose workspace one node mounts at a time."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import FINGERPRINT, OWNER, Raw, a_ref, a_request, a_spec

from embedding_operator.objects.manifests.job import build_job, template_of
from embedding_operator.objects.manifests.serving import build_deployment
from embedding_operator.resource.api import Spec
from embedding_operator.resource.labels import WORKSPACE_LABEL
from embedding_operator.resource.placement import mounts_on_one_node, with_access_modes
from embedding_stages.contract import Stage

GPU_NODES = {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
SHARED = {"accessModes": ["ReadWriteMany"]}


def template(spec: Spec, stage: Stage) -> Raw:
    """Of the stage's Job, or of the server."""
    if stage is Stage.DEPLOY:
        made = build_deployment(OWNER, spec, FINGERPRINT, a_ref("model"), check_image="check:1")
    else:
        made = build_job(OWNER, spec, a_request(stage))
    found: Raw = made["spec"]["template"]
    return found


@pytest.mark.parametrize("stage", Stage)
def test_pods_come_to_the_node_that_has_the_workspace(stage: Stage) -> None:
    pod = template(a_spec(), stage)
    (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    selector = term["labelSelector"]["matchLabels"]
    assert selector == {WORKSPACE_LABEL: "handbook-workspace"}
    assert selector.items() <= pod["metadata"]["labels"].items()  # or the first pod would wait for another


@pytest.mark.parametrize("stage", Stage)
def test_a_workspace_that_many_nodes_mount_ties_nothing(stage: Stage) -> None:
    pod = template(a_spec(storage=SHARED, stages={"finetune": GPU_NODES}), stage)
    assert "affinity" not in pod["spec"]
    assert ("nodeSelector" in pod["spec"]) is (stage is Stage.FINETUNE)


@pytest.mark.parametrize(
    ("storage", "nodes", "one_node"),
    [
        ({}, 1, True),
        ({"accessModes": ["ReadWriteOnce"]}, 1, True),
        (SHARED, 1, False),
        ({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}, 1, False),
        ({"existingClaim": "shared"}, 1, True),
        ({"existingClaim": "shared", **SHARED}, 1, False),
        ({"existingClaim": "shared"}, 2, False),
    ],
)
def test_who_mounts_the_workspace(storage: Raw, nodes: int, one_node: bool) -> None:
    assert mounts_on_one_node(a_spec(storage=storage, stages={"finetune": {"nodes": nodes}})) is one_node


@pytest.mark.parametrize(("seen", "one_node"), [((), True), (("ReadWriteOnce",), True), (("ReadWriteMany",), False)])
def test_of_a_claim_that_exists_its_own_modes_count(seen: tuple[str, ...], one_node: bool) -> None:
    spec = a_spec(storage={"existingClaim": "shared"})
    assert mounts_on_one_node(with_access_modes(spec, seen)) is one_node
    assert mounts_on_one_node(with_access_modes(a_spec(), seen)) is True


PLACES: list[tuple[dict[str, Any], dict[Stage, str]]] = [
    ({}, dict.fromkeys(Stage, "")),
    ({"finetune": {"nodeSelector": {"at": "f"}}}, dict.fromkeys(Stage, "f")),
    (
        {"finetune": {"nodeSelector": {"at": "f"}}, "eval": {"nodeSelector": {"at": "e"}}},
        {**dict.fromkeys(Stage, "f"), Stage.EVAL: "e"},
    ),
    (
        {"finetune": {"nodeSelector": {"at": "f"}}, "deploy": {"nodeSelector": {"at": "d"}}},
        {**dict.fromkeys(Stage, "f"), Stage.DEPLOY: "d", Stage.VERIFY: "d"},
    ),
    ({"deploy": {"nodeSelector": {"at": "d"}}}, {**dict.fromkeys(Stage, ""), Stage.DEPLOY: "d", Stage.VERIFY: "d"}),
]


@pytest.mark.parametrize(("stages", "places"), PLACES)
def test_a_stage_without_a_place_of_its_own_goes_where_finetune_goes(
    stages: dict[str, Any], places: dict[Stage, str]
) -> None:
    """The first pod that runs decides where the volume is; `verify` goes where the server that it measures is."""
    spec = a_spec(stages=stages)
    found = {stage: template(spec, stage)["spec"].get("nodeSelector", {}).get("at", "") for stage in Stage}
    assert found == places


def test_tolerations_go_the_same_way() -> None:
    spec = a_spec(
        stages={"finetune": GPU_NODES, "sdg": {"provider": {"extractive": {}}, "tolerations": [{"key": "x"}]}}
    )
    assert template(spec, Stage.INPUTS)["spec"]["tolerations"] == GPU_NODES["tolerations"]
    assert template(spec, Stage.SDG)["spec"]["tolerations"] == [{"key": "x"}]


def test_a_job_that_waits_is_replaced_when_finetune_moves() -> None:
    here, there = (
        template_of(build_job(OWNER, a_spec(stages={"finetune": finetune}), a_request(Stage.INPUTS)))
        for finetune in ({}, GPU_NODES)
    )
    assert here != there


@pytest.mark.parametrize("claim", ["a", "a.b-c", "a" * 63, "a" * 64, "b" * 50 + "." * 10 + "c" * 100, "x" * 253])
def test_every_claim_has_a_label(claim: str) -> None:
    value = template(a_spec(storage={"existingClaim": claim}), Stage.SDG)["metadata"]["labels"][WORKSPACE_LABEL]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", value)
    assert len(claim) > 63 or value == claim
    other = a_spec(storage={"existingClaim": claim[:-1] + "z"})
    assert template(other, Stage.SDG)["metadata"]["labels"][WORKSPACE_LABEL] != value


def test_resources_that_share_a_claim_share_its_node() -> None:
    spec = a_spec(storage={"existingClaim": "shared"})
    other = build_job(replace(OWNER, name="other", uid="9"), spec, a_request())["spec"]["template"]
    ours = template(spec, Stage.SDG)
    assert other["spec"]["affinity"] == ours["spec"]["affinity"]
    assert other["metadata"]["labels"][WORKSPACE_LABEL] == ours["metadata"]["labels"][WORKSPACE_LABEL]
