"""ConfigMaps beside the status: what serves does not depend on them, and they are written once they may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Raw, Scene, a_scene, a_spec, is_ready, is_stalled

from embedding_operator.cluster.errors import ClusterError, Forbidden, QuotaExceeded, Rejected
from embedding_stages.contract import Artefact, Stage

CONTRACT, FIRST = f"{NAME}-contract", f"{NAME}-revision-1"


class Refuses:
    """A hook that refuses objects of one kind until it is taken down."""

    def __init__(self, kind: str, error: type[ClusterError]) -> None:
        self.kind, self.error = kind, error

    def __call__(self, call: Call, when: str) -> None:
        if when == "before" and (call.verb, call.kind) == ("apply", self.kind):
            raise self.error(call.verb, call.kind, NAMESPACE, call.name, "no")


def a_strangers(name: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"theirs": "yes"}}


def written(scene: Scene) -> bool:
    raw = scene.cluster.objects.get(("ConfigMap", NAMESPACE, CONTRACT))
    told = json.loads(raw["data"]["contract.json"]) if raw is not None else {}
    return ("ConfigMap", NAMESPACE, FIRST) in scene.cluster.objects and "canaries" in told


@pytest.mark.parametrize("error", [Forbidden, Rejected, QuotaExceeded])
def test_records_that_are_refused_are_told_of_and_written_once_they_may_be(error: type[ClusterError]) -> None:
    scene = a_scene()
    scene.cluster.hook = Refuses("ConfigMap", error)
    scene.run(is_ready).settle(5)
    assert scene.condition("Validated") == "True RecordNotWritten"
    assert FIRST in scene.message("Validated")
    assert scene.status.history == ()
    assert scene.status.served.contract_map == ""
    written_before = len(scene.history)
    scene.settle(20)
    assert len(scene.history) == written_before
    assert scene.events().count("RecordNotWritten") == 1
    scene.cluster.hook = lambda call, when: None
    scene.settle(5)
    assert written(scene)
    assert scene.condition("Validated") == "True Valid"


def test_records_that_were_not_tried_behind_another_refusal_are_written_later() -> None:
    scene = a_scene().run(is_ready).settle(5)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.status.served.active_revision == 2)
    scene.cluster.remove("PersistentVolumeClaim", NAMESPACE, f"{NAME}-workspace")
    scene.cluster.hook = Refuses("PersistentVolumeClaim", Forbidden)
    scene.settle(5)
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready).settle(5)
    assert all(
        ("ConfigMap", NAMESPACE, f"{NAME}-revision-{item['revision']}") in scene.cluster.objects
        for item in scene.status.history
    )
    assert len(scene.status.history) == 2


@pytest.mark.parametrize("name", [CONTRACT, FIRST])
def test_a_strangers_config_map_is_left_alone_and_stops_nothing(name: str) -> None:
    scene = a_scene()
    scene.cluster.add(a_strangers(name))
    scene.run(is_ready).settle(5)
    assert scene.condition("Validated") == "True RecordNotWritten"
    assert name in scene.message("Validated")
    for epochs in range(4, 13):
        scene.edit(a_spec(stages={"finetune": {"epochs": epochs}}))
        scene.run(is_ready).settle(5)
    assert scene.cluster.objects["ConfigMap", NAMESPACE, name]["data"] == {"theirs": "yes"}


def test_eight_revisions_are_recorded() -> None:
    scene = a_scene().run(is_ready).settle(3)
    for epochs in range(4, 14):
        scene.edit(a_spec(stages={"finetune": {"epochs": epochs}}))
        scene.run(is_ready).settle(8)
    names = {raw["metadata"]["name"] for raw in scene.cluster.find("ConfigMap")}
    assert names == {CONTRACT, *(f"{NAME}-revision-{number}" for number in range(4, 12))}
    assert [item["revision"] for item in scene.status.history] == list(range(4, 12))
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes


def served_by(backend: str, **deploy: Any) -> dict[str, Any]:
    return a_spec(stages={"deploy": {"backend": {backend: {}}, **deploy}})


def test_a_pinned_revision_that_was_never_exported_names_the_backend() -> None:
    scene = Scene(served_by("torch")).run(is_ready).settle(5)
    scene.edit(served_by("onnx", pinRevision=1))
    scene.run(is_stalled)
    assert scene.condition("Validated") == "False PinnedRevisionNotExported"
    assert "spec.stages.deploy.backend: revision 1" in scene.message("Validated")
    assert scene.status.served.url
    scene.edit(served_by("torch", pinRevision=1))
    scene.run(is_ready)


def test_a_pinned_revision_is_served_from_its_checkpoint_by_a_backend_that_does_so() -> None:
    scene = Scene(served_by("onnx")).run(is_ready).settle(5)
    scene.edit(served_by("torch", pinRevision=1))
    scene.run(is_ready)
    assert scene.status.served.artefact_digest == scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT)


def test_a_record_that_somebody_emptied_is_none() -> None:
    scene = Scene(served_by("onnx")).run(is_ready).settle(5)

    def empty(raw: Raw) -> None:
        stages = json.loads(raw["data"]["stages.json"])
        raw["data"]["stages.json"] = json.dumps([{**stage, "artefacts": {}} for stage in stages])

    scene.cluster.change("ConfigMap", NAMESPACE, FIRST, empty)
    scene.edit(served_by("onnx", pinRevision=1))
    scene.run(is_stalled)
    assert scene.condition("Validated") == "False PinnedRevisionMissing"


def test_an_endpoint_that_the_operator_cannot_reach_costs_a_pass_now_and_then() -> None:
    scene = a_scene()
    scene.operator.reconciler.ask = lambda url, contract: None
    scene.run(is_ready).settle(5)
    before = scene.writes()
    assert [scene.operator.reconcile() for _ in range(3)] == [300.0] * 3
    assert scene.writes() == before
    scene.restart()
    scene.settle(3)
    assert written(scene)


@pytest.mark.parametrize(
    "vector", ["", "no base64", "AACAfwAAgP8AAMB/AACAPwAAgD8AAIA/AACAPwAAgD8="], ids=["none", "text", "inf"]
)
def test_canaries_that_somebody_spoiled_are_taken_again(vector: str) -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(5)

    def spoil(raw: Raw) -> None:
        told = json.loads(raw["data"]["contract.json"])
        told["canaries"]["texts"][3]["vector"] = vector
        raw["data"]["contract.json"] = json.dumps(told)

    before = scene.cluster.objects["ConfigMap", NAMESPACE, CONTRACT]["data"]
    scene.cluster.change("ConfigMap", NAMESPACE, CONTRACT, spoil)
    scene.settle(20)
    assert scene.cluster.objects["ConfigMap", NAMESPACE, CONTRACT]["data"] == before
    assert is_ready(scene)
