"""Backend nimService: a NIMService in the place of a Deployment, through the same life of revisions."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, stage_is

from embedding_operator.resource.labels import OWNER_LABEL, SERVING_LABEL
from embedding_stages.contract import Stage

Raw = dict[str, Any]
NIM: Raw = {"image": "mirror.example/nim:2.4.0", "backend": {"nimService": {}}, "strategy": "BlueGreen"}


def deploying(**more: Any) -> Raw:
    return a_spec(stages={"deploy": {**NIM, **more}})


def a_nim_scene(**more: Any) -> Scene:
    scene = Scene(deploying(**more))
    scene.cluster.has_nim_operator = True
    return scene


def nims(scene: Scene) -> list[Raw]:
    return scene.cluster.find("NIMService")


def clients(scene: Scene) -> tuple[str, str]:
    """(served fingerprint, port) behind the clients' Service."""
    spec = scene.cluster.object("Service", NAME)["spec"]
    return spec["selector"][SERVING_LABEL], spec["ports"][0]["targetPort"]


def test_without_the_nim_operator_it_is_refused_with_the_cure_before_anything_runs() -> None:
    scene = Scene(deploying())
    scene.run(lambda scene: scene.condition("Validated") == "False Rejected")
    said = scene.message("Validated")
    assert "spec.stages.deploy.backend.nimService: the CRD nimservices.apps.nvidia.com is not installed" in said
    assert "install NVIDIA's NIM Operator, or take backend nim" in said
    assert scene.cluster.created_jobs == []
    scene.cluster.has_nim_operator = True
    scene.run(is_ready)


def test_a_nim_service_serves() -> None:
    scene = a_nim_scene().run(is_ready).settle(5)
    (nim,) = nims(scene)
    assert nim["metadata"]["ownerReferences"][0]["controller"] is True
    assert clients(scene) == (nim["metadata"]["labels"][SERVING_LABEL], "api")
    assert scene.resource["status"]["served"]["url"] == f"http://{NAME}.{NAMESPACE}:8000/v1/embeddings"
    verify = scene.ran(Stage.VERIFY)[-1].settings
    assert (verify["url"], verify["server"]) == (
        f"http://{nim['metadata']['name']}.{NAMESPACE}:8000",
        "nim-service-2.4",
    )
    assert scene.states()["export"] == "Skipped"
    kinds = {call.kind for call in scene.cluster.calls if call.verb == "apply"}
    assert "NIMService" in kinds
    assert "Deployment" not in kinds
    before = scene.writes()
    assert scene.settle(20).writes() == before


def test_clients_stay_with_the_old_one_until_the_new_one_is_verified_and_nothing_is_left() -> None:
    scene = a_nim_scene(drainSeconds=0).run(is_ready)
    old = clients(scene)
    scene.edit(deploying(drainSeconds=0, modelName="renamed"))
    scene.run(stage_is(Stage.VERIFY, "Running"))
    assert len(nims(scene)) == 2
    assert clients(scene) == old
    scene.run(is_ready).settle(20)
    assert clients(scene)[0] != old[0]
    names = {raw["metadata"]["name"] for raw in nims(scene)}
    assert len(names) == 1
    assert {raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")} == names
    assert {raw["metadata"]["name"] for raw in scene.cluster.find("Service")} == {NAME, *names}


def test_shadow_offers_it_beside_what_serves() -> None:
    scene = a_nim_scene(strategy="Shadow").run(is_ready)
    old = clients(scene)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}, "deploy": {**NIM, "strategy": "Shadow"}}))
    scene.run(lambda scene: "AwaitingAcknowledgement" in scene.condition("Deployed") + scene.condition("Ready"))
    offered = scene.cluster.object("Service", f"{NAME}-next")["spec"]
    assert offered["ports"][0]["targetPort"] == "api"
    assert clients(scene) == old
    assert len(nims(scene)) == 2


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_it_may_take_the_place_of_a_deployment_and_give_it_back(strategy: str) -> None:
    scene = a_scene(stages={"deploy": {"strategy": strategy, "drainSeconds": 0}})
    scene.cluster.has_nim_operator = True
    scene.run(is_ready)
    scene.edit(deploying(strategy=strategy, drainSeconds=0))
    scene.run(is_ready).settle(20)
    assert clients(scene)[1] == "api"
    assert len(scene.cluster.find("Deployment")) == len(nims(scene)) == 1
    scene.restart()
    scene.edit(a_spec(stages={"deploy": {"strategy": strategy, "drainSeconds": 0}}))
    scene.run(is_ready).settle(20)
    assert clients(scene)[1] == "http"
    assert nims(scene) == []
    assert len(scene.cluster.find("Deployment")) == 1
    assert len(scene.cluster.find("Service")) == 2


def test_a_pinned_revision_is_served_again_by_a_nim_service() -> None:
    scene = a_nim_scene().run(is_ready)
    first = clients(scene)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}, "deploy": NIM}))
    scene.run(is_ready)
    assert clients(scene) != first
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}, "deploy": {**NIM, "pinRevision": 1}}))
    scene.run(is_ready)
    assert clients(scene) == first


def test_its_operators_words_are_said_when_it_fails() -> None:
    scene = a_nim_scene()
    scene.world.nim_operator = "fails"
    scene.run(lambda scene: "no such claim" in scene.status.stage(Stage.DEPLOY).message)
    assert "the NIM Operator says" in scene.status.stage(Stage.DEPLOY).message
    scene.world.nim_operator = "runs"
    scene.run(is_ready)


def test_it_fails_in_the_end_where_no_nim_operator_acts() -> None:
    scene = a_nim_scene(timeoutSeconds=60)
    scene.world.nim_operator = "down"
    scene.run(lambda scene: scene.condition("Deployed") == "False StartTimeout")
    assert scene.condition("Ready").startswith("False")


def test_a_ready_of_the_manifest_before_is_not_believed() -> None:
    """A NIMService carries no observedGeneration: its Deployment has to be of the latest manifest."""
    scene = a_nim_scene().run(is_ready)
    scene.world.nim_operator = "down"
    scene.edit(deploying(resources={"limits": {"memory": "9Gi"}}))
    scene.settle(10)
    assert nims(scene)[0]["status"]["state"] == "Ready"
    assert scene.condition("Ready").startswith("Unknown")
    assert scene.status.stage(Stage.DEPLOY).state == "Running"
    scene.world.nim_operator = "runs"
    scene.run(is_ready)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda spec: spec["env"].append({"name": "NIM_ENGINE_PRECISION", "value": "fp8"}), "NIM_ENGINE_PRECISION"),
        (lambda spec: spec.update(args=["--other"]), "args"),
        (lambda spec: spec["storage"].update(readOnly=False), "readOnly"),
        (lambda spec: spec.update(scale={"enabled": True}), "scale"),
    ],
)
def test_what_somebody_changes_is_taken_back(edit: Any, field: str) -> None:
    scene = a_nim_scene().run(is_ready)
    name = nims(scene)[0]["metadata"]["name"]
    good = nims(scene)[0]["spec"]
    scene.cluster.change("NIMService", NAMESPACE, name, lambda raw: edit(raw["spec"]))
    scene.settle(3)
    calls = [call for call in scene.cluster.calls if (call.verb, call.kind) == ("apply", "NIMService")]
    assert len(calls) >= 2, field
    assert good.items() <= nims(scene)[0]["spec"].items()
    assert "DriftCorrected" in scene.events()


def test_a_server_that_crashes_says_its_words() -> None:
    scene = a_nim_scene()
    scene.world.server = "crash"
    scene.run(lambda scene: scene.condition("Deployed") == "False ServerCrashed")
    assert "no such profile" in scene.message("Deployed")


def test_a_swapped_artefact_does_not_start() -> None:
    scene = a_nim_scene().run(stage_is(Stage.DEPLOY, "Running"))
    for path in scene.world.volume:
        scene.world.volume[path] = "another"
    scene.run(lambda scene: scene.condition("Deployed") == "False ArtefactMismatch")


def test_who_removes_it_sees_it_made_again() -> None:
    scene = a_nim_scene().run(is_ready)
    scene.cluster.mark_deleted("NIMService", NAMESPACE, nims(scene)[0]["metadata"]["name"])
    scene.run(lambda scene: not is_ready(scene))
    scene.run(is_ready)
    assert len(nims(scene)) == 1


def test_deleting_the_resource_leaves_nothing_behind() -> None:
    scene = a_nim_scene().run(is_ready)
    scene.cluster.remove("EmbeddingFineTune", NAMESPACE, NAME)
    scene.settle_without_resource()
    assert [raw for raw in scene.cluster.objects.values() if OWNER_LABEL in raw["metadata"].get("labels", {})] == []


@pytest.mark.parametrize("lag", [1, 4])
def test_with_a_late_watch_and_a_restart_the_end_is_the_same(lag: int) -> None:
    scene = a_nim_scene()
    scene.lag = lag
    scene.run(stage_is(Stage.DEPLOY, "Running"))
    scene.restart()
    scene.run(is_ready).settle(10)
    assert len(nims(scene)) == 1


def test_what_does_not_go_is_named_by_its_kind() -> None:
    scene = a_nim_scene(strategy="Recreate").run(is_ready).settle(3)
    (name,) = (raw["metadata"]["name"] for raw in nims(scene))
    kept = ["somebody.example/keeps"]
    scene.cluster.change("NIMService", NAMESPACE, name, lambda raw: raw["metadata"].update(finalizers=kept))
    scene.edit(deploying(strategy="Recreate", modelName="renamed"))
    scene.settle(60)
    assert f"NIMService {name} is in the way" in scene.message("Deployed")
