"""Revisions that train queries' side alone share the base model's vector space: nobody fills an index anew for them."""

from __future__ import annotations

import json
from typing import Any

from simulation.clients import led_to
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_spec, is_ready, is_stalled
from simulation.test_handover import NEXT, waits

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import ENV_VECTOR_SPACE, Artefact, Stage, vector_space_of


def shadow(side: str = "query", epochs: int = 3, **deploy: Any) -> dict[str, Any]:
    """A manifest with strategy Shadow; `verification` is said too, so that canaries are compared."""
    finetune = {"epochs": epochs, "side": side}
    stages = {"finetune": finetune, "deploy": {"strategy": "Shadow", **deploy}}
    return a_spec(stages=stages, verification={"intervalSeconds": 600})


def contract_of(scene: Scene) -> dict[str, Any]:
    raw = scene.cluster.objects["ConfigMap", NAMESPACE, f"{NAME}-contract"]
    found: dict[str, Any] = json.loads(raw["data"]["contract.json"])
    return found


def told_spaces(scene: Scene) -> set[str]:
    """What the servers that exist were told of their vector space."""
    containers = [raw["spec"]["template"]["spec"]["containers"][0] for raw in scene.cluster.find("Deployment")]
    return {item["value"] for one in containers for item in one["env"] if item["name"] == ENV_VECTOR_SPACE}


def test_the_space_is_the_base_models_and_the_contract_says_whose_side_was_trained() -> None:
    scene = Scene(shadow()).run(is_ready).settle(3)
    space = vector_space_of(scene.digest(Stage.INPUTS, Artefact.BASE_MODEL))
    assert scene.status.served.vector_space == space
    assert told_spaces(scene) == {space}
    assert contract_of(scene)["vectorSpace"] == space
    assert contract_of(scene)["side"] == "query"
    assert scene.status.served.contract["side"] == "query"
    assert scene.status.served.checkpoint is not None
    assert scene.status.served.checkpoint.digest == scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT)


def test_a_newer_map_of_the_same_base_model_moves_clients_without_a_word() -> None:
    scene = Scene(shadow()).run(is_ready).settle(3)
    first, before, space = led_to(scene), contract_of(scene), scene.status.served.vector_space
    scene.edit(shadow(epochs=5))
    scene.run(is_ready).settle(80)
    assert len(scene.ran(Stage.FINETUNE)) == 2
    assert led_to(scene) != first
    assert not led_to(scene, NEXT)
    assert scene.status.served.vector_space == space
    assert scene.status.served.reindex.get("required") is not True
    assert "ReindexRequired" not in scene.events()
    assert "AwaitingAcknowledgement" not in scene.events()
    assert [item["vectorSpace"] for item in scene.status.history] == [space, space]
    after = contract_of(scene)
    assert (after["revision"], after["vectorSpace"]) == (2, before["vectorSpace"])
    assert after["canaries"] != before["canaries"], "taken anew: queries are answered otherwise now"


def test_gates_compare_a_newer_map_with_the_one_that_serves() -> None:
    scene = Scene(shadow()).run(is_ready).settle(3)
    active = scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT)
    scene.edit(shadow(epochs=5))
    scene.run(is_ready)
    assert scene.ran(Stage.EVAL)[-1].inputs[Artefact.ACTIVE_CHECKPOINT].digest == active


def test_the_way_from_one_side_to_both_and_back_takes_an_index_each_time() -> None:
    scene = Scene(shadow("both")).run(is_ready).settle(3)
    whole = scene.status.served.vector_space
    assert "side" not in contract_of(scene)
    scene.edit(shadow("query"))
    scene.run(waits)
    base = scene.status.served.candidate_vector_space
    assert base == vector_space_of(scene.digest(Stage.INPUTS, Artefact.BASE_MODEL)) != whole
    scene.edit(shadow("query", acknowledgedVectorSpace=base))
    scene.run(is_ready).settle(60)
    assert scene.status.served.vector_space == base
    scene.edit(shadow("query", pinRevision=1, acknowledgedVectorSpace=base))
    scene.run(waits)
    assert scene.status.served.candidate_vector_space == whole


def test_an_older_map_is_pinned_without_a_word() -> None:
    scene = Scene(shadow()).run(is_ready).settle(3)
    first = led_to(scene)
    scene.edit(shadow(epochs=5))
    scene.run(is_ready).settle(80)
    scene.edit(shadow(epochs=5, pinRevision=1))
    scene.run(is_ready).settle(80)
    assert led_to(scene) == first
    assert scene.status.served.active_revision == 1
    assert contract_of(scene)["side"] == "query"
    assert [raw["metadata"]["labels"][SERVING_LABEL] for raw in scene.cluster.find("Deployment")] == [first]


def test_a_pinned_map_names_the_backend_that_cannot_apply_it() -> None:
    torch = {"backend": {"torch": {}}}
    scene = Scene(shadow(**torch)).run(is_ready).settle(3)
    nim = {"image": "nim:2", "backend": {"nim": {"generation": 2}}}
    scene.edit(shadow("both", pinRevision=1, **nim))
    scene.run(is_stalled)
    assert scene.condition("Validated") == "False InvalidSpec"
    assert "spec.stages.deploy.backend: of revision 1 queries alone were trained" in scene.message("Validated")
    assert scene.status.served.url
