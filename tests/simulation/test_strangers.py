"""Objects that are not ours, manifests that cannot be, resources that come again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import OWNER_LABEL, OWNER_UID_LABEL, SERVING_LABEL
from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

NOT_VALID = {"evaluation": {"kValues": [10, 5]}}


def names_of_a_run() -> dict[str, str]:
    """The names that a run gives to its objects; they are the same in every run."""
    scene = a_scene().run(is_ready)
    return {
        "Job": scene.attempts(Stage.SDG)[0],
        "Deployment": scene.cluster.find("Deployment")[0]["metadata"]["name"],
        "Service": NAME,
    }


@pytest.mark.parametrize("kind", ["Job", "Deployment", "Service"])
def test_an_object_of_somebody_else_is_named_and_never_touched(kind: str) -> None:
    scene = a_scene()
    name = names_of_a_run()[kind]
    pod = {"spec": {"containers": [], "volumes": []}}
    body: dict[str, Any] = {"replicas": 0, "selector": {}, "template": pod | {"metadata": {"labels": {}}}}
    stranger = scene.cluster.add(
        {"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": body | {"suspend": True}}
    )
    if kind == "Service":
        scene.cluster.change(kind, NAMESPACE, name, lambda raw: raw.update(spec={"selector": {"app": "theirs"}}))
        stranger = scene.cluster.object(kind, name)
    scene.run(lambda scene: scene.condition("Validated") == "False ForeignObject")
    assert f"{kind} {NAMESPACE}/{name}" in scene.message("Ready")
    assert scene.status.phase == "Blocked"
    scene.settle(10)
    assert scene.cluster.object(kind, name)["spec"] == stranger["spec"]
    assert scene.events().count("ForeignObject") == 1
    scene.cluster.remove(kind, NAMESPACE, name)
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize("kind", ["Job", "Deployment", "Service"])
def test_a_strangers_object_that_does_not_go_is_said(kind: str) -> None:
    scene = a_scene()
    meta = {"name": names_of_a_run()[kind], "namespace": NAMESPACE, "finalizers": ["theirs.example/keep"]}
    pod = {"spec": {"containers": [], "volumes": []}}
    body: dict[str, Any] = {"replicas": 0, "selector": {}, "template": pod | {"metadata": {"labels": {}}}}
    scene.cluster.add({"kind": kind, "metadata": meta, "spec": body | {"suspend": True}})
    scene.cluster.change(kind, NAMESPACE, meta["name"], lambda raw: raw["spec"].update(selector={"app": "theirs"}))
    scene.cluster.mark_deleted(kind, NAMESPACE, str(meta["name"]))
    scene.run(lambda scene: scene.condition("Validated") == "False DeletionStuck")
    assert "theirs.example/keep" in scene.message("Ready")
    assert (scene.condition("Stalled"), scene.status.phase) == ("True DeletionStuck", "Blocked")
    scene.settle(10)
    assert scene.events().count("DeletionStuck") == 1
    scene.cluster.remove(kind, NAMESPACE, str(meta["name"]))
    scene.run(is_ready)


def test_a_job_of_ours_that_does_not_go_is_said() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    name = scene.attempts(Stage.FINETUNE)[0]
    scene.cluster.change("Job", NAMESPACE, name, lambda raw: raw["metadata"].update(finalizers=["theirs.example/keep"]))
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.condition("Trained") == "False DeletionStuck")
    assert "theirs.example/keep" in scene.message("Ready")
    assert (scene.condition("Stalled"), scene.status.phase) == ("True DeletionStuck", "Blocked")
    scene.cluster.change("Job", NAMESPACE, name, lambda raw: raw["metadata"].pop("finalizers"))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


def test_a_server_of_ours_that_does_not_go_is_said_once() -> None:
    deploy = {"strategy": "Recreate"}
    scene = a_scene(stages={"deploy": deploy}).run(is_ready).settle(3)
    kept = {"finalizers": ["theirs.example/keep"]}
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["metadata"].update(kept))
    scene.edit(a_spec(stages={"deploy": deploy, "finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.condition("Deployed") == "False DeletionStuck")
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["metadata"].pop("finalizers"))
    scene.run(is_ready)


def test_a_manifest_that_is_not_valid_waits_for_an_edit() -> None:
    scene = Scene(a_spec() | NOT_VALID)
    scene.run(is_stalled)
    assert scene.condition("Validated") == "False InvalidSpec"
    assert scene.message("Validated").startswith("spec.evaluation.kValues:")
    assert scene.cluster.created_jobs == []
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    scene.edit(a_spec())
    scene.run(is_ready)
    assert scene.condition("Validated") == "True Valid"


def test_an_edit_that_is_not_valid_leaves_what_serves_and_is_undone_by_the_next() -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec() | NOT_VALID)
    scene.run(is_stalled)
    assert scene.condition("Ready") == "False InvalidSpec"
    assert scene.status.served.active_fingerprint
    assert len(scene.cluster.find("Deployment")) == 1
    scene.edit(a_spec())
    scene.run(is_ready)
    assert scene.status.revision == 3
    assert len(scene.cluster.created_jobs) == len(PIPELINE)  # nothing is looked at again for an edit and back


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("stage", [Stage.INPUTS, Stage.FINETUNE, Stage.VERIFY])
def test_a_resource_made_again_under_its_name_ignores_its_predecessors_children(stage: Stage, foreground: bool) -> None:
    scene = a_scene(foreground=foreground).running(stage)
    old = scene.resource["metadata"]["uid"]
    scene.cluster.remove(KIND, NAMESPACE, NAME)
    scene.create(a_spec())  # before the garbage collector came by
    scene.operator.hear()
    scene.operator.reconcile()
    assert scene.states() in ({"inputs": "Pending"}, {"inputs": "Waiting"}, {})
    scene.run(is_ready)
    assert scene.resource["metadata"]["uid"] != old
    assert "ForeignObject" not in scene.events()
    assert "Stalled" not in [item["type"] for status in scene.history[-20:] for item in status["conditions"]]
    assert len(set(scene.cluster.created_jobs)) == len(scene.cluster.created_jobs)
    mine = [raw for raw in scene.cluster.objects.values() if OWNER_LABEL in raw["metadata"].get("labels", {})]
    assert {raw["metadata"]["labels"][OWNER_UID_LABEL] for raw in mine} == {scene.resource["metadata"]["uid"]}


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "Deployment", "Service"])
def test_what_a_predecessor_left_is_waited_for(kind: str) -> None:
    name = {**names_of_a_run(), "PersistentVolumeClaim": f"{NAME}-workspace"}[kind]
    scene = a_scene()
    scene.cluster.collect_garbage = lambda: None  # type: ignore[method-assign]  # it is late
    predecessor = {"kind": KIND, "name": NAME, "uid": "old"}
    meta = {"name": name, "namespace": NAMESPACE, "ownerReferences": [predecessor]}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [], "volumes": []}}
    body = {"replicas": 0, "strategy": {"type": "Recreate"}, "template": template}
    scene.cluster.add({"kind": kind, "metadata": meta, "spec": body})
    scene.run(lambda scene: scene.condition("Reconciling") == "True NotYetGone")
    assert f"{kind} {NAMESPACE}/{name}" in scene.message("Ready")
    written = len(scene.history)
    scene.settle(5)
    assert len(scene.history) == written
    scene.cluster.remove(kind, NAMESPACE, name)
    scene.run(is_ready)
    assert "ForeignObject" not in scene.events()


def test_a_status_that_somebody_emptied_is_found_again_from_the_jobs() -> None:
    scene = a_scene().run(is_ready)
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw.update(status={"observedGeneration": -1}))
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


def test_a_status_with_nonsense_in_it_is_replaced() -> None:
    scene = a_scene().run(stage_is(Stage.FINETUNE, "Running"))

    def spoil(raw: dict[str, Any]) -> None:
        raw["status"]["stages"][1] = {"name": "sdg", "attempt": "many", "artefacts": {"unknown": {}}}
        raw["status"]["stages"].append({"name": "distil", "state": "Running"})

    scene.cluster.change(KIND, NAMESPACE, NAME, spoil)
    scene.run(is_ready)
    assert "distil" not in scene.states()
    assert len(scene.attempts(Stage.SDG)) == 1


def test_labels_that_somebody_removed_from_a_job_do_not_stop_the_operator() -> None:
    scene = a_scene().run(stage_is(Stage.SDG, "Running"))
    name = scene.attempts(Stage.SDG)[0]
    scene.cluster.change("Job", NAMESPACE, name, lambda raw: raw["metadata"]["labels"].clear())
    scene.run(is_ready)


KINDS_OF_A_RUN = ["Job", "Pod", "PersistentVolumeClaim"]


def take_label(scene: Scene, kind: str) -> tuple[str, str]:
    """A stranger takes the label of the resource off the newest object of a kind; its name, and the label."""
    name = scene.cluster.find(kind)[-1]["metadata"]["name"]
    label = str(scene.cluster.object(kind, name)["metadata"]["labels"][OWNER_LABEL])
    scene.cluster.change(kind, NAMESPACE, name, lambda raw: raw["metadata"]["labels"].pop(OWNER_LABEL))
    return name, label


def give_label(scene: Scene, kind: str, name: str, label: str) -> None:
    scene.cluster.change(kind, NAMESPACE, name, lambda raw: raw["metadata"]["labels"].update({OWNER_LABEL: label}))


@pytest.mark.parametrize("turns", [0, 1, 4], ids=["between passes", "for a pass", "for passes"])
@pytest.mark.parametrize("stage", [Stage.SDG, Stage.FINETUNE, Stage.VERIFY])
@pytest.mark.parametrize("kind", KINDS_OF_A_RUN)
def test_no_stage_runs_twice_when_a_label_is_taken_off_and_put_back(kind: str, stage: Stage, turns: int) -> None:
    scene = a_scene().running(stage)
    name, label = take_label(scene, kind)
    scene.settle(turns)
    give_label(scene, kind, name, label)
    scene.settle(3)
    scene.release()
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize("kind", KINDS_OF_A_RUN)
def test_no_stage_runs_twice_beside_a_label_that_stays_off(kind: str) -> None:
    scene = a_scene().running(Stage.FINETUNE)
    take_label(scene, kind)
    scene.settle(4)
    scene.release()
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


def test_a_pod_without_its_label_runs_for_as_long_as_it_may() -> None:
    """It is not taken for one that never came."""
    scene = a_scene().running(Stage.FINETUNE)
    take_label(scene, "Pod")
    for _ in range(20):
        scene.clock.now += timedelta(minutes=10)
        scene.turn()
    assert scene.states()["finetune"] == "Running"
    scene.release()
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_what_clients_reach_without_its_owner_stays(kind: str) -> None:
    scene = a_scene().run(is_ready).settle(3)
    for raw in scene.cluster.find(kind):
        name = raw["metadata"]["name"]
        scene.cluster.change(kind, NAMESPACE, name, lambda raw: raw["metadata"].pop("ownerReferences"))
    seen = len(scene.history)
    scene.settle(5)
    assert {status["phase"] for status in scene.history[seen:]} <= {"Ready"}
    assert is_ready(scene)


def test_a_service_that_somebody_exposed_stays() -> None:
    """`kubectl expose` copies the labels of what it exposes."""
    scene = a_scene().run(is_ready).settle(3)
    server = scene.cluster.find("Deployment")[0]
    meta = {"name": "theirs", "namespace": NAMESPACE, "labels": dict(server["metadata"]["labels"])}
    spec = {"selector": server["spec"]["selector"]["matchLabels"], "type": "NodePort", "ports": [{"port": 8000}]}
    scene.cluster.add({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    scene.settle(3)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    scene.clock.now += timedelta(seconds=60)
    scene.settle(10)
    assert ("Deployment", NAMESPACE, server["metadata"]["name"]) not in scene.cluster.objects
    assert ("Service", NAMESPACE, "theirs") in scene.cluster.objects


@pytest.mark.parametrize("at_once", [True, False], ids=["as it is given up", "before"])
def test_a_job_without_its_label_is_deleted_with_its_stage(at_once: bool) -> None:
    """It would hold its GPU for as long as its own deadline allows."""
    scene = a_scene(runPolicy={"activeDeadlineSeconds": 7200}).running(Stage.FINETUNE)
    name = scene.attempts(Stage.FINETUNE)[-1]
    if not at_once:
        take_label(scene, "Job")
        scene.settle(2)
    scene.clock.now += timedelta(hours=3)
    scene.run(stage_is(Stage.FINETUNE, "Failed"))
    if at_once:
        assert ("Job", NAMESPACE, name) in scene.cluster.objects
        take_label(scene, "Job")
    scene.settle(5)
    assert ("Job", NAMESPACE, name) not in scene.cluster.objects


@pytest.mark.parametrize("labels", [{OWNER_LABEL}, {OWNER_LABEL, OWNER_UID_LABEL, SERVING_LABEL}], ids=["one", "all"])
def test_what_serves_without_its_labels_goes_on_and_goes_when_clients_have_left_it(labels: set[str]) -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.running(Stage.FINETUNE)
    (server,) = scene.cluster.find("Deployment")
    name, written = server["metadata"]["name"], len(scene.history)

    def take(raw: dict[str, Any]) -> None:
        raw["metadata"]["labels"] = {key: said for key, said in raw["metadata"]["labels"].items() if key not in labels}

    scene.cluster.change("Deployment", NAMESPACE, name, take)
    scene.settle(4)
    scene.release()
    scene.run(is_ready).settle(20)
    assert "Degraded" not in {status["phase"] for status in scene.history[written:]}
    assert name not in [raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")]
