"""What clients are told of a vector space, and whether it stays true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, is_ready

from embedding_stages.contract import Artefact, Stage

# What clients are told, and whether it stays true.


def contract(scene: Scene) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(
        scene.cluster.objects["ConfigMap", NAMESPACE, f"{NAME}-contract"]["data"]["contract.json"]
    )
    return raw


@pytest.mark.parametrize("backend", [{"onnx": {}}, {"torch": {}}, {"nim": {"generation": 2}}], ids=str)
def test_the_contract_says_everything_whatever_serves(backend: dict[str, Any]) -> None:
    image = {"image": "nim:2"} if "nim" in backend else {}
    scene = a_scene(stages={"deploy": {"backend": backend, **image}}).run(is_ready).settle(5)
    told = contract(scene)
    served = scene.status.served
    assert told["vectorSpace"] == served.vector_space
    assert told["artefactDigest"] == scene.digest(Stage.EXPORT, Artefact.SERVING_MODEL)
    assert told["pooling"] == "mean"
    assert len(told["canaries"]["texts"]) == 16
    assert served.contract_map == f"{NAME}-contract"


def test_what_answers_other_vectors_than_it_did_is_degraded() -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(20)
    assert scene.status.served.canaries["cosine"] == "1.000000"
    scene.cluster.swapped = "other weights"
    scene.run(lambda scene: scene.status.phase == "Degraded")
    assert scene.condition("Verified") == "False CanariesDiffer"
    assert scene.status.served.canaries["cosine"] in scene.message("Verified")
    scene.cluster.swapped = ""
    scene.run(is_ready)


def test_a_contract_that_somebody_removed_is_written_again_at_the_next_look() -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(5)
    scene.cluster.remove("ConfigMap", NAMESPACE, f"{NAME}-contract")
    scene.settle(20)
    assert len(contract(scene)["canaries"]["texts"]) == 16


def test_nobody_asks_where_the_manifest_does_not() -> None:
    scene = a_scene().run(is_ready).settle(10)
    scene.cluster.swapped = "other weights"
    scene.settle(60)
    assert scene.status.phase == "Ready"
    assert "cosine" not in scene.status.served.canaries
