"""A stage on several nodes: its pods find each other, and one that fails or waits speaks for all."""

from __future__ import annotations

import re

import pytest
from simulation.endings import (
    BAD_INPUT,
    BUG,
    DEADLINE,
    DONE,
    DRAINED,
    LOST,
    OOM_KILLED,
    OUT_OF_MEMORY,
    PENDING,
    STOPPED,
    TRANSIENT,
    Ending,
)
from simulation.fake_cluster import NAMESPACE, Crash
from simulation.golden import Golden, end_state, story
from simulation.scene import NAME, Raw, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.resource.labels import JOB_NAME_LABEL, SERVING_LABEL
from embedding_stages.contract import Stage

SHARED = {"accessModes": ["ReadWriteMany"]}


def a_manifest(nodes: int = 2, **finetune: object) -> Raw:
    return a_spec(stages={"finetune": {"nodes": nodes, **finetune}}, storage=SHARED)


EDITED = a_manifest(epochs=5)


def rendezvous_services(scene: Scene) -> list[str]:
    """Services that are no addresses of servers."""
    found = [raw["metadata"] for raw in scene.cluster.find("Service")]
    return [meta["name"] for meta in found if SERVING_LABEL not in meta["labels"]]


def finetune_job(scene: Scene) -> Raw:
    return scene.cluster.object("Job", scene.attempts(Stage.FINETUNE)[-1])


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.of(Scene(a_manifest()), EDITED)


def test_the_story_is_that_of_one_node_and_leaves_no_more_behind(golden: Golden) -> None:
    alone = story(Scene(a_spec(storage=SHARED)), a_spec(stages={"finetune": {"epochs": 5}}, storage=SHARED))
    of_several = re.compile(r'\\"(nodes|parallelism|processesPerNode|asked)\\":[^,]+,')  # in texts of status.resolved
    ours, theirs = (of_several.sub("", end_state(scene)) for scene in (golden.end, alone))
    assert ours == theirs
    assert sorted(golden.end.cluster.created_jobs) == sorted(alone.cluster.created_jobs)
    assert rendezvous_services(golden.end) == []


def test_a_crash_after_any_write_changes_nothing_in_the_end(golden: Golden) -> None:
    for number in range(len(golden.before)):
        scene = golden.with_error(number, "after", Crash())
        assert scene.crashes == 1, f"write {number}"
        golden.check_end(scene)
        assert rendezvous_services(scene) == []


def test_a_crash_before_a_write_changes_nothing_in_the_end(golden: Golden) -> None:
    for number in range(0, len(golden.before), 7):
        golden.check_end(golden.with_error(number, "before", Crash()))


@pytest.mark.parametrize("lag", [2, 5])
def test_a_watch_that_lags_behind_never_makes_a_stage_run_twice(golden: Golden, lag: int) -> None:
    scene = Scene(a_manifest())
    scene.lag = lag
    story(scene, EDITED)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)
    assert rendezvous_services(scene) == []


def test_pods_that_are_heard_of_later_than_their_jobs_are_no_lost_results(golden: Golden) -> None:
    scene = Scene(a_manifest())
    scene.deaf_to = "Pod"
    story(scene, EDITED)
    assert end_state(scene) == golden.wanted


def test_the_service_is_there_before_the_job_and_gone_after_it() -> None:
    scene = Scene(a_manifest()).running(Stage.FINETUNE)
    name = scene.attempts(Stage.FINETUNE)[0]
    assert rendezvous_services(scene) == [name]
    assert scene.status.stage(Stage.FINETUNE).message == "attempt 1 is running on 2 nodes"
    assert scene.status.progress == "50%"
    assert len(scene.world.pods_of(finetune_job(scene))) == 2
    calls = [(call.verb, call.kind) for call in scene.cluster.calls if call.writes and call.name == name]
    assert calls == [("apply", "Service"), ("create", "Job")]
    scene.release()
    scene.run(stage_is(Stage.EVAL, "Running"))
    assert rendezvous_services(scene) == []


def test_a_service_that_somebody_changes_or_removes_is_restored() -> None:
    scene = Scene(a_manifest()).running(Stage.FINETUNE)
    (name,) = rendezvous_services(scene)
    wanted = scene.cluster.object("Service", name)["spec"]
    scene.cluster.change("Service", NAMESPACE, name, lambda raw: raw["spec"]["selector"].update({JOB_NAME_LABEL: "x"}))
    scene.settle(2)
    assert scene.cluster.object("Service", name)["spec"] == wanted
    scene.cluster.remove("Service", NAMESPACE, name)
    scene.settle(2)
    assert scene.cluster.object("Service", name)["spec"] == wanted


def test_deleting_the_resource_leaves_nothing_behind() -> None:
    scene = Scene(a_manifest()).running(Stage.FINETUNE)
    scene.cluster.remove("EmbeddingFineTune", NAMESPACE, NAME)
    scene.settle_without_resource()
    assert scene.cluster.find("Service") == scene.cluster.find("Job") == scene.cluster.find("Pod") == []


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize(
    ("ending", "times", "reason"),
    [
        (BAD_INPUT, 1, "CorpusEmpty"),
        (STOPPED, 1, "TokenBudgetSpent"),
        (TRANSIENT, 4, "EndpointUnavailable"),
        (OUT_OF_MEMORY, 4, "OutOfMemory"),
        (BUG, 2, "StageCrashed"),
        (OOM_KILLED, 2, "OOMKilled"),
        (DEADLINE, 1, "Timeout"),
        (LOST, 4, "PeerLost"),
    ],
    ids=lambda value: getattr(value, "reason", "") or getattr(value, "how", None),
)
def test_a_failure_of_any_pod_is_the_failure_of_the_stage(bad: int, ending: Ending, times: int, reason: str) -> None:
    """Its peer fails too, says so, and is heard of first."""
    scene = Scene(a_manifest())
    scene.will(Stage.FINETUNE, *([ending, DONE] if bad == 0 else [DONE, ending]) * 5)
    scene.run(is_stalled, turns=300)
    assert len(scene.attempts(Stage.FINETUNE)) == times
    assert scene.condition("Trained") == f"False {reason}"
    assert rendezvous_services(scene) == []
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes


def test_out_of_memory_on_any_node_halves_the_micro_batch() -> None:
    scene = Scene(a_manifest(microBatchSize=8))
    scene.will(Stage.FINETUNE, DONE, OUT_OF_MEMORY)
    scene.run(is_ready)
    assert [request.settings["microBatchSize"] for request in scene.ran(Stage.FINETUNE)] == [8, 4]


def test_drained_nodes_cost_nothing_however_often() -> None:
    scene = Scene(a_manifest(retries=0))
    scene.will(Stage.FINETUNE, *[DONE, DRAINED] * 6)
    scene.run(is_ready, turns=400)
    assert len(scene.attempts(Stage.FINETUNE)) == 7
    assert scene.events().count("PodDisrupted") == 6


@pytest.mark.parametrize("waiting", [0, 1])
def test_one_pod_that_waits_for_a_gpu_is_said(waiting: int) -> None:
    scene = Scene(a_manifest() | {"runPolicy": {"startDeadlineSeconds": 60}})
    scene.will(Stage.FINETUNE, *([PENDING, DONE] if waiting == 0 else [DONE, PENDING]))
    scene.run(lambda scene: scene.condition("Trained") == "Unknown GPUUnschedulable")
    assert "1 of 2 pods wait" in scene.message("Trained")
    scene.run(is_stalled)
    assert scene.condition("Trained") == "False StartDeadlineExceeded"
    scene.settle(5)
    assert rendezvous_services(scene) == []


@pytest.mark.parametrize(
    "edited", [a_manifest(nodes=1), a_manifest(nodes=3), a_manifest(gpusPerNode=2), a_manifest(parallelism="FSDP")]
)
def test_an_edit_of_how_many_share_the_work_replaces_a_job_that_waits(edited: Raw) -> None:
    scene = Scene(a_manifest())
    scene.will(Stage.FINETUNE, DONE, PENDING)
    scene.run(lambda scene: scene.condition("Trained") == "Unknown GPUUnschedulable")
    scene.edit(edited)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2
    assert finetune_job(scene)["spec"]["completions"] == edited["stages"]["finetune"]["nodes"]
    assert rendezvous_services(scene) == []


def test_an_edit_of_something_else_leaves_a_job_that_waits() -> None:
    scene = Scene(a_manifest())
    scene.will(Stage.FINETUNE, DONE, PENDING)
    scene.run(lambda scene: scene.condition("Trained") == "Unknown GPUUnschedulable")
    scene.edit(a_manifest() | {"tolerance": {"atOne": "0.2"}})
    scene.settle(10)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_an_edit_of_how_many_share_the_work_gives_a_failed_stage_another_chance() -> None:
    scene = Scene(a_manifest())
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.run(is_stalled)
    scene.edit(a_manifest(nodes=1, gpusPerNode=2))
    scene.run(is_ready)
    assert finetune_job(scene)["spec"]["completions"] == 1


def test_an_edit_of_how_many_share_the_work_lets_a_job_that_runs_go_on_and_trains_nothing_anew() -> None:
    scene = Scene(a_manifest()).running(Stage.FINETUNE)
    scene.edit(a_manifest(nodes=1))
    scene.settle(5)
    assert len(rendezvous_services(scene)) == 1
    scene.release()
    scene.run(is_ready)
    scene.edit(a_manifest(nodes=4))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_suspending_keeps_the_service_for_the_job_that_goes_on() -> None:
    scene = Scene(a_manifest()).running(Stage.FINETUNE)
    scene.edit(a_manifest() | {"suspend": True})
    scene.settle(5)
    assert scene.world.pods_of(finetune_job(scene)) == []
    assert len(rendezvous_services(scene)) == 1
    scene.edit(a_manifest())
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_a_service_of_somebody_else_is_named_and_never_touched() -> None:
    name = Scene(a_manifest()).running(Stage.FINETUNE).attempts(Stage.FINETUNE)[0]
    scene = Scene(a_manifest())
    theirs = {"kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"selector": {"app": "x"}}}
    scene.cluster.add(theirs)
    scene.run(lambda scene: scene.condition("Validated") == "False ForeignObject")
    scene.settle(5)
    assert scene.attempts(Stage.FINETUNE) == []
    assert scene.cluster.object("Service", name)["spec"]["selector"] == {"app": "x"}


def test_nodes_that_cannot_share_the_workspace_are_an_error_of_the_manifest() -> None:
    scene = a_scene(stages={"finetune": {"nodes": 2}}).run(is_stalled)
    assert scene.condition("Validated") == "False InvalidSpec"
    assert scene.message("Validated").startswith("spec.storage.accessModes: must hold ReadWriteMany")
