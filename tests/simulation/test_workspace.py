"""The claim of the workspace: it grows with the manifest, and where it cannot, work goes on."""

from __future__ import annotations

import pytest
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready

from embedding_operator.cluster.errors import ClusterError, Forbidden, QuotaExceeded, Rejected

CLAIM = f"{NAME}-workspace"


def size(scene: Scene) -> str:
    found: str = scene.cluster.object("PersistentVolumeClaim", CLAIM)["spec"]["resources"]["requests"]["storage"]
    return found


def test_a_larger_size_makes_the_claim_larger() -> None:
    scene = a_scene().run(is_ready)
    assert size(scene) == "50Gi"
    scene.edit(a_spec(storage={"size": "100Gi"}))
    scene.run(is_ready)
    assert size(scene) == "100Gi"
    assert scene.condition("Validated") == "True Valid"
    writes = scene.writes()
    scene.settle(5)
    assert scene.writes() == writes


def test_a_claim_that_somebody_made_larger_stays_as_it_is() -> None:
    scene = a_scene().run(is_ready)
    scene.cluster.change(
        "PersistentVolumeClaim",
        NAMESPACE,
        CLAIM,
        lambda raw: raw["spec"]["resources"]["requests"].update(storage="1Ti"),
    )
    scene.settle(5)
    assert size(scene) == "1Ti"


@pytest.mark.parametrize("kind", [Forbidden, Rejected, QuotaExceeded])
def test_a_claim_that_cannot_grow_is_said_and_stops_nothing(kind: type[ClusterError]) -> None:
    scene = a_scene().run(is_ready)

    def hook(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("apply", "PersistentVolumeClaim", "before"):
            raise kind("patch", call.kind, NAMESPACE, call.name, "the storageclass must support resize")

    scene.cluster.hook = hook
    scene.edit(a_spec(storage={"size": "100Gi"}, stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    assert scene.condition("Validated") == "True ClaimNotExpanded"
    assert "must support resize" in scene.message("Validated")
    assert scene.events().count("ClaimNotExpanded") == 1
    scene.settle(10)  # until the older server has drained
    written = len(scene.history)
    scene.settle(5)
    assert len(scene.history) == written


@pytest.mark.parametrize(("modes", "tied"), [(["ReadWriteOnce"], True), (["ReadWriteMany"], False), ([], True)])
def test_pods_are_tied_to_one_node_by_what_an_existing_claim_can_do(modes: list[str], tied: bool) -> None:
    scene = a_scene(storage={"existingClaim": "shared"})
    if modes:
        claim = {"metadata": {"name": "shared", "namespace": NAMESPACE}, "spec": {"accessModes": modes}}
        scene.cluster.add({"kind": "PersistentVolumeClaim", **claim})
    scene.run(is_ready)
    made = [*scene.cluster.find("Job"), *scene.cluster.find("Deployment")]
    assert {"affinity" in raw["spec"]["template"]["spec"] for raw in made} == {tied}
