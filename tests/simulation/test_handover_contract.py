"""What clients are told of a vector space, and whether it stays true."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from simulation.clients import contract
from simulation.endings import HANG
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready

from embedding_operator.cluster.errors import Forbidden
from embedding_stages.contract import Artefact, Stage

# What clients are told, and whether it stays true.


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


def _edit(scene: Scene) -> None:
    """The server stays as it is."""
    scene.edit(a_spec(verification={"intervalSeconds": 60}, retention={"succeededSeconds": 86400}))
    scene.run(is_ready).settle(20)


def _bend(scene: Scene) -> None:
    scene.cluster.change("ConfigMap", NAMESPACE, f"{NAME}-contract", lambda raw: raw.update(data={}))


def _remove(scene: Scene) -> None:
    scene.cluster.remove("ConfigMap", NAMESPACE, f"{NAME}-contract")


@pytest.mark.parametrize("lose", [_remove, _bend])
@pytest.mark.parametrize("known", [True, False], ids=["found to differ", "not looked at yet"])
@pytest.mark.parametrize("edited", [True, False])
def test_a_contract_is_not_renewed_from_a_server_that_answers_otherwise(
    lose: Callable[[Scene], None], *, known: bool, edited: bool
) -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(20)
    if edited:
        _edit(scene)
    scene.cluster.swapped = "other weights"
    if known:
        scene.run(lambda scene: scene.status.phase == "Degraded")
    lose(scene)
    scene.run(lambda scene: scene.status.phase == "Degraded")
    seen = len(scene.history)
    scene.settle(60)
    assert {status["phase"] for status in scene.history[seen:]} <= {"Degraded"}
    assert scene.condition("Verified") == "False CanariesDiffer"
    told = contract(scene)
    assert "canaries" not in told
    assert told["vectorSpace"] == scene.status.served.vector_space
    before = scene.writes()
    scene.settle(200)
    assert scene.writes() == before
    scene.cluster.swapped = ""
    scene.run(is_ready, turns=300).settle(20)
    assert len(contract(scene)["canaries"]["texts"]) == 16
    assert scene.status.served.canaries["cosine"] == "1.000000"


def test_the_cure_stays_while_what_differs_is_measured_again() -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(20)
    scene.cluster.swapped = "other weights"
    scene.run(lambda scene: scene.status.phase == "Degraded")
    told = scene.message("Verified")
    assert "delete its Deployment" in told
    scene.will(Stage.VERIFY, HANG)
    scene.world.image_id = "sha256:moved"
    scene.cluster.remove("Deployment", NAMESPACE, scene.cluster.find("Deployment")[0]["metadata"]["name"])
    scene.run(lambda scene: scene.states()["verify"] == "Running")
    assert scene.message("Verified").startswith(told)
    scene.cluster.swapped = ""
    scene.release()
    scene.run(is_ready)


def _another_vector(told: dict[str, Any]) -> None:
    first, second = told["canaries"]["texts"][0], told["canaries"]["texts"][-1]
    first["vector"] = second["vector"]


def _another_space(told: dict[str, Any]) -> None:
    told["vectorSpace"] = "0123456789abcdef"


@pytest.mark.parametrize("bend", [_another_vector, _another_space])
def test_a_contract_that_somebody_bent_is_written_again_and_says_nothing_of_what_serves(
    bend: Callable[[dict[str, Any]], None],
) -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(20)
    was, seen = contract(scene), len(scene.history)
    bent = contract(scene)
    bend(bent)
    data = {"contract.json": json.dumps(bent)}
    scene.cluster.change("ConfigMap", NAMESPACE, f"{NAME}-contract", lambda raw: raw.update(data=data))
    scene.settle(60)
    assert contract(scene) == was
    assert scene.events().count("DriftCorrected") == 1
    assert {status["phase"] for status in scene.history[seen:]} == {"Ready"}


def test_what_serves_is_not_measured_by_the_contract_of_what_served_before() -> None:
    often = {"verification": {"intervalSeconds": 60}}
    scene = a_scene(**often).run(is_ready).settle(20)

    def refuse(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("apply", "ConfigMap", "before"):
            raise Forbidden("apply", call.kind, NAMESPACE, call.name, "not allowed")

    scene.cluster.hook = refuse
    scene.edit(a_spec(**often, stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.status.served.active_revision == 2).settle(40)
    assert contract(scene)["revision"] == 1
    assert "CanariesDiffer" not in scene.events()
    assert is_ready(scene)
    scene.cluster.hook = lambda call, when: None
    scene.settle(20)
    assert contract(scene)["revision"] == 2
    assert scene.status.served.canaries["cosine"] == "1.000000"


def test_nobody_asks_where_the_manifest_does_not() -> None:
    scene = a_scene().run(is_ready).settle(10)
    scene.cluster.swapped = "other weights"
    scene.settle(60)
    assert scene.status.phase == "Ready"
    assert "cosine" not in scene.status.served.canaries
