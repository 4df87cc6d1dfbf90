"""How long a stage may wait and how long it may run are two limits; a node that is lost is neither."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import DEADLINE, DRAINED, HANG, PENDING
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is

from embedding_stages.contract import Stage

DAY = 86400


def job_of(scene: Scene, stage: Stage) -> dict[str, Any]:
    return next(raw for raw in scene.cluster.find("Job") if f"-{stage}-" in raw["metadata"]["name"])


@pytest.mark.parametrize(
    ("wait_s", "limit_s"), [(1800, 6 * 3600 + 1800), (DAY, 6 * 3600 + DAY), (604800, 6 * 3600 + 604800)]
)
def test_a_job_has_time_to_wait_and_time_to_run(wait_s: int, limit_s: int) -> None:
    timeout_s = 6 * 3600
    spec = {"runPolicy": {"startDeadlineSeconds": wait_s}, "stages": {"sdg": {"timeoutSeconds": timeout_s}}}
    spec["stages"]["sdg"] |= {"provider": {"extractive": {}}}  # type: ignore[index]
    scene = a_scene(**spec).running(Stage.SDG)
    assert job_of(scene, Stage.SDG)["spec"]["activeDeadlineSeconds"] == 3 * limit_s


def test_a_stage_that_waited_over_night_still_has_its_time_to_run() -> None:
    scene = a_scene(runPolicy={"startDeadlineSeconds": DAY})
    scene.will(Stage.PREP, PENDING)
    scene.run(stage_is(Stage.PREP, "Waiting"))
    scene.clock.now += timedelta(seconds=DAY - 60)
    scene.turn()
    assert scene.states()["prep"] == "Waiting"
    scene.world.ending_of.update({raw["metadata"]["uid"]: HANG for raw in scene.cluster.find("Pod")})
    scene.run(stage_is(Stage.PREP, "Running"))
    scene.clock.now += timedelta(hours=5)
    scene.turn()
    assert scene.states()["prep"] == "Running"
    scene.clock.now += timedelta(hours=1)
    scene.run(stage_is(Stage.PREP, "Failed"))
    assert scene.condition("DataReady") == "False Timeout"
    assert scene.message("DataReady") == "prep: spec.stages.prep.timeoutSeconds: not done after 21600 s: raise it"
    assert scene.status.last_failure["reason"] == "Timeout"
    assert scene.events().count("Timeout") == 1
    scene.settle(5)
    assert "prep" not in [raw["metadata"]["name"].split("-")[1] for raw in scene.cluster.find("Job")]
    assert len(scene.attempts(Stage.PREP)) == 1
    scene.edit(a_spec(stages={"prep": {"timeoutSeconds": 50000}}))
    scene.run(is_ready)


def lose_the_node(scene: Scene, kind: str) -> None:
    """The pods of Jobs or Deployments are asked to end, and nothing is ever heard of them again."""
    scene.cluster.collect_garbage = lambda: None  # type: ignore[method-assign]
    gone_by = f"{scene.clock.now + timedelta(seconds=120):%Y-%m-%dT%H:%M:%SZ}"
    target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    silent = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    for pod in scene.cluster.find("Pod"):
        if pod["metadata"]["ownerReferences"][0]["kind"] == kind and pod["status"]["phase"] == "Running":
            scene.cluster.change(
                "Pod",
                NAMESPACE,
                pod["metadata"]["name"],
                lambda raw: (
                    raw["metadata"].update(deletionTimestamp=gone_by),
                    raw["status"].update(conditions=[target, *silent]),
                ),
            )


def test_a_lost_node_is_no_run() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    lose_the_node(scene, "Job")
    scene.turn()
    assert scene.states()["finetune"] == "Running"  # the pod has time to write a checkpoint
    scene.run(stage_is(Stage.FINETUNE, "Waiting"))
    assert scene.condition("Trained") == "False NodeLost"
    assert "node-1" in scene.message("Trained")
    assert "node.kubernetes.io/out-of-service" in scene.message("Trained")
    written = len(scene.history)
    scene.settle(30)
    assert len(scene.history) == written
    assert scene.events().count("NodeLost") == 2  # that it does not answer, and the cure once its time is over


def test_a_pod_that_replaces_one_on_a_lost_node_has_all_the_time() -> None:
    """Kubernetes fails a pod whose Node object was removed, and leaves its containers running in its status."""
    scene = a_scene().running(Stage.FINETUNE)
    collect, jobs = scene.cluster.collect_garbage, list(scene.cluster.created_jobs)
    lose_the_node(scene, "Job")
    scene.run(stage_is(Stage.FINETUNE, "Waiting"))
    scene.clock.now += timedelta(days=3)
    scene.settle(3)
    (name,) = [raw["metadata"]["name"] for raw in scene.cluster.find("Pod") if "finetune" in raw["metadata"]["name"]]
    scene.cluster.change("Pod", NAMESPACE, name, lambda raw: raw["status"].update(phase="Failed"))
    scene.operator.hear()
    scene.operator.reconcile()  # before the Job's controller has seen it
    scene.cluster.remove("Pod", NAMESPACE, name)
    scene.operator.hear()
    scene.operator.reconcile()
    scene.cluster.collect_garbage = collect  # type: ignore[method-assign]
    scene.run(is_ready)
    assert scene.cluster.created_jobs[: len(jobs)] == jobs
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_kubernetes_own_deadline_costs_no_attempt_where_pods_were_replaced() -> None:
    """It counts over all of them."""
    scene = a_scene()
    scene.will(Stage.FINETUNE, DRAINED, DEADLINE)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2
    assert "Timeout" not in scene.events()


@pytest.mark.parametrize("new", ["another epoch", "another server"])
def test_a_lost_node_in_the_way_of_a_new_revision_is_said(new: str) -> None:
    if new == "another epoch":
        scene = a_scene().running(Stage.FINETUNE)
        edited = a_spec(stages={"finetune": {"epochs": 5}})
    else:
        recreate = {"deploy": {"strategy": "Recreate"}}
        scene = a_scene(stages=recreate).run(is_ready)
        edited = a_spec(stages={"deploy": {"strategy": "Recreate", "image": "server:2"}})
    lose_the_node(scene, "Job" if new == "another epoch" else "Deployment")
    scene.edit(edited)
    kind = "Trained" if new == "another epoch" else "Deployed"
    scene.run(lambda scene: scene.condition(kind) == "False NodeLost")
    assert "node-1" in scene.message(kind)


def test_a_node_that_does_not_answer_for_a_while_is_said_and_costs_nothing() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    (name,) = [raw["metadata"]["name"] for raw in scene.cluster.find("Pod") if "finetune" in raw["metadata"]["name"]]

    def ready(status: str) -> None:
        conditions = [{"type": "Ready", "status": status}, {"type": "ContainersReady", "status": "True"}]
        scene.cluster.change("Pod", NAMESPACE, name, lambda raw: raw["status"].update(conditions=conditions))

    ready("False")
    scene.run(lambda scene: scene.condition("Trained") == "Unknown NodeLost")
    assert "node-1 does not answer" in scene.message("Trained")
    scene.settle(5)
    assert scene.events().count("NodeLost") == 1
    ready("True")
    scene.run(lambda scene: scene.condition("Trained") == "Unknown Running")
    scene.release()
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_a_node_that_goes_on_not_to_answer_is_said_until_its_pod_is_given_up() -> None:
    """Between the two the pod has its grace period: nobody knows that it runs."""
    scene = a_scene().running(Stage.FINETUNE)
    (name,) = [raw["metadata"]["name"] for raw in scene.cluster.find("Pod") if "finetune" in raw["metadata"]["name"]]
    silent = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    scene.cluster.change("Pod", NAMESPACE, name, lambda raw: raw["status"].update(conditions=silent))
    scene.run(lambda scene: scene.condition("Trained") == "Unknown NodeLost")
    lose_the_node(scene, "Job")
    given_up = [*silent, {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]
    scene.cluster.change("Pod", NAMESPACE, name, lambda raw: raw["status"].update(conditions=given_up))
    scene.turn()
    assert scene.condition("Trained") == "Unknown NodeLost"
    assert "asked to end" in scene.message("Trained")
    scene.run(stage_is(Stage.FINETUNE, "Waiting"))
    assert scene.condition("Trained") == "False NodeLost"
    cures = [event for event in scene.cluster.find("Event") if "out-of-service" in event.get("message", "")]
    assert len(cures) == 1, "the cure is told, though the reason is the same"
