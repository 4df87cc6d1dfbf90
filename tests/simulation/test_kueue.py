"""Stages in Kueue's queue: they wait in its words, lose nothing when it evicts them, and are never let run past it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from simulation.endings import HANG
from simulation.fake_cluster import NAMESPACE, Call, Crash, Ref
from simulation.kueue import NO_QUOTA, PREEMPTED, Kueue
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import Forbidden, Rejected
from embedding_operator.resource.labels import QUEUE_LABEL, QUEUE_PRIORITY_LABEL
from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

QUEUED = {"scheduling": {"queueName": "team-a"}}


def in_a_queue(quota: int = 1, **sections: object) -> Scene:
    scene = a_scene(**{**QUEUED, **sections})
    scene.kueue = Kueue(scene.cluster, quota=quota)
    return scene


def kueue_of(scene: Scene) -> Kueue:
    assert scene.kueue is not None
    return scene.kueue


def says(scene: Scene, reason: str, words: str) -> bool:
    return reason in scene.condition("Trained") and words in scene.message("Trained")


def suspensions(scene: Scene) -> list[str]:
    return [call.verb for call in scene.cluster.calls if call.verb in ("suspend", "activate")]


def test_every_stage_is_created_suspended_and_admitted_in_turn() -> None:
    scene = in_a_queue(scheduling={"queueName": "team-a", "priorityClass": "low"})
    made: dict[str, object] = {}

    def look(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "after"):
            job = scene.cluster.object("Job", call.name)
            made[call.name] = job["spec"]["suspend"]
            assert job["metadata"]["labels"][QUEUE_LABEL] == "team-a"
            assert job["metadata"]["labels"][QUEUE_PRIORITY_LABEL] == "low"
            assert QUEUE_LABEL not in job["spec"]["template"]["metadata"]["labels"]

    scene.cluster.hook = look
    scene.run(is_ready)
    assert len(made) == len(PIPELINE)
    assert set(made.values()) == {True}
    assert kueue_of(scene).admissions == scene.cluster.created_jobs
    assert suspensions(scene) == []


def test_without_quota_it_waits_in_kueues_words_and_no_deadline_runs() -> None:
    scene = in_a_queue(quota=0, runPolicy={"startDeadlineSeconds": 60})
    scene.run(stage_is(Stage.INPUTS, "Waiting"))
    scene.run(lambda scene: NO_QUOTA in scene.status.stage(Stage.INPUTS).message)
    assert scene.status.stage(Stage.INPUTS).reason == "WaitingForQuota"
    writes, start = scene.writes(), scene.clock.now
    while scene.clock.now - start < timedelta(hours=1):
        scene.turn()
    assert scene.writes() == writes
    assert scene.events().count("WaitingForQuota") == 1
    kueue_of(scene).quota = 1
    scene.run(is_ready)
    assert {item.attempt for item in scene.status.stages if item.name is not Stage.DEPLOY} == {1}


def test_an_eviction_charges_no_attempt_and_the_job_goes_on_when_it_is_admitted_again() -> None:
    scene = in_a_queue(stages={"finetune": {"retries": 0}}).running(Stage.FINETUNE)
    (job,) = scene.attempts(Stage.FINETUNE)
    for _ in range(3):
        kueue_of(scene).evicting = {job}
        scene.run(lambda scene: says(scene, "WaitingForQuota", PREEMPTED))
        scene.will(Stage.FINETUNE, HANG)
        kueue_of(scene).evicting = set()
        scene.run(stage_is(Stage.FINETUNE, "Running"))
    scene.release()
    scene.run(is_ready)
    assert scene.attempts(Stage.FINETUNE) == [job]
    assert kueue_of(scene).admissions.count(job) == 4
    assert suspensions(scene) == []


def test_the_resources_own_suspension_deactivates_the_workload_and_takes_that_back() -> None:
    scene = in_a_queue().running(Stage.FINETUNE)
    (name,) = scene.attempts(Stage.FINETUNE)
    scene.edit(a_spec(**QUEUED, suspend=True))
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(5)
    assert scene.cluster.object("Job", name)["spec"]["suspend"] is True
    assert scene.cluster.object("Workload", f"job-{name}")["spec"]["active"] is False
    scene.edit(a_spec(**QUEUED))
    scene.run(is_ready)
    assert scene.attempts(Stage.FINETUNE) == [name]
    assert suspensions(scene) == ["activate", "activate"]


def test_what_waits_in_the_queue_is_not_admitted_while_the_resource_is_suspended() -> None:
    scene = in_a_queue(quota=0)
    scene.run(stage_is(Stage.INPUTS, "Waiting")).settle(2)
    scene.edit(a_spec(**QUEUED, suspend=True))
    scene.settle(3)
    kueue_of(scene).quota = 1
    scene.settle(10)
    assert kueue_of(scene).admissions == []
    scene.edit(a_spec(**QUEUED))
    scene.run(is_ready)


@pytest.mark.parametrize("suspended", [False, True])
def test_what_somebody_else_deactivated_stays_so(suspended: bool) -> None:
    scene = in_a_queue().running(Stage.FINETUNE)
    (name,) = scene.attempts(Stage.FINETUNE)
    deactivate = ("Workload", NAMESPACE, f"job-{name}")
    scene.cluster.change(*deactivate, lambda raw: raw["spec"].update(active=False))
    scene.run(lambda scene: "WorkloadDeactivated" in scene.condition("Trained"))
    if suspended:
        scene.edit(a_spec(**QUEUED, suspend=True))
        scene.settle(3)
        scene.edit(a_spec(**QUEUED))
    scene.settle(10)
    assert scene.cluster.object("Workload", f"job-{name}")["spec"]["active"] is False
    assert suspensions(scene) == []
    scene.cluster.change(*deactivate, lambda raw: raw["spec"].update(active=True))
    scene.run(is_ready)
    assert scene.attempts(Stage.FINETUNE) == [name]


def test_who_activates_a_workload_of_a_suspended_resource_is_not_fought() -> None:
    scene = in_a_queue().running(Stage.FINETUNE)
    (name,) = scene.attempts(Stage.FINETUNE)
    scene.edit(a_spec(**QUEUED, suspend=True))
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(3)
    for _ in range(5):
        scene.cluster.change("Workload", NAMESPACE, f"job-{name}", lambda raw: raw["spec"].update(active=True))
        scene.settle(2)
    assert suspensions(scene) == ["activate"]


def suspended_and_let_run_by_somebody_else() -> tuple[Scene, Ref]:
    """The Workload with it."""
    scene = in_a_queue().running(Stage.FINETUNE)
    (name,) = scene.attempts(Stage.FINETUNE)
    scene.edit(a_spec(**QUEUED, suspend=True))
    scene.settle(5)
    scene.will(Stage.FINETUNE, HANG)
    activate(scene, workload := ("Workload", NAMESPACE, f"job-{name}"), True)
    scene.settle(3)
    return scene, workload


def activate(scene: Scene, workload: Ref, active: bool) -> None:
    """As a person does, or Kueue."""
    scene.cluster.change(*workload, lambda raw: raw["spec"].update(active=active))


@pytest.mark.parametrize("when", ["before the edit", "during its dry runs"])
def test_what_somebody_else_activated_and_deactivated_meanwhile_stays_so(when: str) -> None:
    scene, workload = suspended_and_let_run_by_somebody_else()

    def hook(call: Call, _: str) -> None:
        if call.verb == "try":
            activate(scene, workload, False)

    if when == "before the edit":
        activate(scene, workload, False)
        scene.settle(3)
    else:
        scene.cluster.hook = hook
    scene.edit(a_spec(**QUEUED, stages={"deploy": {"replicas": 2}}))
    scene.settle(5)
    assert scene.cluster.objects[workload]["spec"]["active"] is False
    assert suspensions(scene) == ["activate"]


REFUSED = {"stages": {"deploy": {"replicas": 2}}}
INVALID = {"stages": {"deploy": {"pinRevision": 77}}}


@pytest.mark.parametrize("edit", [REFUSED, INVALID], ids=["refused", "not valid"])
def test_an_edit_that_is_refused_takes_the_note_off_all_the_same(edit: dict[str, object]) -> None:
    scene, workload = suspended_and_let_run_by_somebody_else()
    scene.cluster.hook = refusing("try", "Deployment", Rejected)
    scene.edit(a_spec(**QUEUED, **edit))
    scene.settle(5)
    assert scene.status.phase == "Blocked"
    scene.cluster.hook = lambda call, when: None
    activate(scene, workload, False)
    scene.edit(a_spec(**QUEUED))
    scene.settle(10)
    assert scene.cluster.objects[workload]["spec"]["active"] is False


def test_a_note_that_could_not_be_taken_off_is_read_until_it_is() -> None:
    scene, workload = suspended_and_let_run_by_somebody_else()
    scene.cluster.hook = refusing("forget", "Workload", Forbidden)
    scene.edit(a_spec(**QUEUED))
    scene.settle(5)
    scene.cluster.hook = lambda call, when: None
    scene.settle(5)
    notes = scene.cluster.objects[workload]["metadata"]["annotations"]
    assert notes == {}


def test_without_kueue_it_says_that_nobody_admits_the_job() -> None:
    scene = a_scene(**QUEUED)
    scene.run(lambda scene: scene.status.stage(Stage.INPUTS).reason == "NobodyAdmits")
    message = scene.status.stage(Stage.INPUTS).message
    assert "is Kueue installed" in message
    assert "LocalQueue 'team-a'" in message
    assert scene.condition("Ready") == "False NobodyAdmits"
    scene.settle(10)  # the pod that tries the images is removed meanwhile
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    scene.kueue = Kueue(scene.cluster)
    scene.run(is_ready)


def test_without_the_queue_the_waiting_job_is_replaced_by_one_that_runs() -> None:
    scene = in_a_queue(quota=0)
    scene.run(stage_is(Stage.INPUTS, "Waiting")).settle(2)
    scene.edit(a_spec())
    scene.run(is_ready)
    assert kueue_of(scene).admissions == []


def test_a_missing_right_on_workloads_stops_nothing() -> None:
    scene = in_a_queue(quota=0)

    def hook(call: Call, when: str) -> None:
        if (call.verb, call.kind) == ("list", "Workload"):
            raise Forbidden("list", "Workload", NAMESPACE, "", "workloads is forbidden")

    scene.cluster.hook = hook
    scene.run(lambda scene: "workloads is forbidden" in scene.status.stage(Stage.INPUTS).message)
    assert scene.status.stage(Stage.INPUTS).reason == "Queued"
    kueue_of(scene).quota = 1
    scene.run(is_ready)


def test_a_crash_at_any_write_lets_nothing_run_past_the_queue() -> None:
    """The operator dies at each write of a run with an eviction and a suspension in it; FakeCluster looks at each."""
    for number in range(0, 60, 3):
        scene = in_a_queue()
        writes = 0

        def hook(call: Call, when: str, stop: int = number) -> None:
            nonlocal writes
            if call.writes and when == "after":
                writes += 1
                if writes == stop:
                    raise Crash

        scene.cluster.hook = hook
        scene.running(Stage.PREP)
        (job,) = scene.attempts(Stage.PREP)
        kueue_of(scene).evicting = {job}
        scene.run(stage_is(Stage.PREP, "Waiting"))
        scene.edit(a_spec(**QUEUED, suspend=True))
        scene.settle(3)
        scene.edit(a_spec(**QUEUED))
        scene.settle(2)
        kueue_of(scene).evicting = set()
        scene.run(is_ready)
        assert scene.crashes == (1 if 1 <= number <= writes else 0)
        assert len(scene.cluster.created_jobs) == len(PIPELINE)
