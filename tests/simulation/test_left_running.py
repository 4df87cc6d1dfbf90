"""What an edit leaves running keeps to its limits, though no stage of the new manifest asks after it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import BAD_INPUT, HANG
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled, stage_is
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import Forbidden, Rejected
from embedding_stages.contract import Stage

HOUR = 3600
GPU_HOUR = {"limits": {"gpuSeconds": HOUR}}
TIMEOUT = {"stages": {"finetune": {"timeoutSeconds": HOUR}}}
DEADLINE = {"runPolicy": {"activeDeadlineSeconds": HOUR}}
REASONS = {"GPUBudgetSpent": GPU_HOUR, "Timeout": TIMEOUT, "DeadlineExceeded": DEADLINE}


def another_corpus(version: str) -> dict[str, Any]:
    return {"corpus": {"source": {"configMap": {"name": "docs"}}, "version": version}}


def inputs_hang(scene: Scene, section: dict[str, Any]) -> None:
    scene.will(Stage.INPUTS, HANG)
    scene.edit(a_spec(**section, **another_corpus("2")))
    scene.run(stage_is(Stage.INPUTS, "Running"))


def inputs_fail(scene: Scene, section: dict[str, Any]) -> None:
    scene.will(Stage.INPUTS, BAD_INPUT)
    scene.edit(a_spec(**section, **another_corpus("2")))
    scene.run(stage_is(Stage.INPUTS, "Failed"))


def not_valid(scene: Scene, section: dict[str, Any]) -> None:
    scene.edit(a_spec(**section, schedule={"cron": "0 3 * * 1", "timeZone": "Europe/Berlim"}))
    scene.run(is_stalled)


def not_valid_and_without_limits(scene: Scene, section: dict[str, Any]) -> None:
    not_valid(scene, {})


def refused(scene: Scene, section: dict[str, Any]) -> None:
    scene.cluster.hook = refusing("try", "Job", Rejected)
    stages = section.get("stages", {})
    stages = {**stages, "finetune": {**stages.get("finetune", {}), "epochs": 9}}
    scene.edit(a_spec(**{**section, "stages": stages}))
    scene.run(is_stalled)


def refused_of_another_stage(scene: Scene, section: dict[str, Any]) -> None:
    scene.cluster.hook = refusing("try", "Job", Rejected)
    scene.edit(a_spec(**section, evaluation={"kValues": [1, 10]}))
    scene.run(is_stalled)


def suspended_and_resumed_by_somebody(scene: Scene, section: dict[str, Any]) -> None:
    scene.edit(a_spec(**section, suspend=True))
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(3)
    (job,) = going(scene)
    scene.will(Stage.FINETUNE, HANG)
    scene.cluster.change("Job", NAMESPACE, job, lambda raw: raw["spec"].update(suspend=False))
    scene.settle(3)


def going(scene: Scene) -> list[str]:
    """Jobs of finetune that have not ended."""
    jobs = [raw for raw in scene.cluster.find("Job") if "-finetune-" in raw["metadata"]["name"]]
    return [raw["metadata"]["name"] for raw in jobs if not raw.get("status", {}).get("conditions")]


@pytest.mark.parametrize("reason", list(REASONS))
@pytest.mark.parametrize(
    "edit",
    [
        inputs_hang,
        inputs_fail,
        not_valid,
        not_valid_and_without_limits,
        refused,
        refused_of_another_stage,
        suspended_and_resumed_by_somebody,
    ],
)
def test_what_an_edit_leaves_running_keeps_to_its_limits(
    edit: Callable[[Scene, dict[str, Any]], None], reason: str
) -> None:
    section = REASONS[reason]
    scene = a_scene(**section).running(Stage.FINETUNE)
    begun = scene.clock.now
    edit(scene, section)
    assert going(scene)
    edited = scene.clock.now
    while going(scene) and (scene.clock.now - edited).total_seconds() < 3 * HOUR:
        scene.turn()
    least = HOUR / 2 if (edit, reason) == (inputs_hang, "DeadlineExceeded") else HOUR  # inputs use as much
    assert (scene.clock.now - begun).total_seconds() >= least - 60
    assert (scene.clock.now - edited).total_seconds() <= HOUR + 15
    said = {"stage": "finetune", "reason": reason}.items()
    told = [status for status in scene.history if said <= status.get("lastFailure", {}).items()]
    assert told, "the reason is on record"
    assert reason in scene.events()
    used = next(item for item in told[0]["stages"] if item["name"] == "finetune")["usage"]
    assert used["activeSeconds"] >= least - 300
    scene.settle(5)
    assert not [item for item in scene.status.stages if item.name is Stage.FINETUNE and item.state == "Running"]
    written, events = len(scene.history), scene.events()
    scene.settle(30)
    assert len(scene.history) - written <= 1  # inputs that go on tell what they use
    assert scene.events() == events


def test_the_reason_is_on_record_before_what_an_edit_left_running_is_stopped() -> None:
    section = {**GPU_HOUR, "stages": {"inputs": {"timeoutSeconds": 24 * HOUR}}}
    scene = a_scene(**section).running(Stage.FINETUNE)
    inputs_hang(scene, section)
    edited = scene.clock.now

    def crash(call: Call, when: str) -> None:
        late = (scene.clock.now - edited).total_seconds() >= HOUR - 60
        if (call.verb, when) == ("status", "before") and late:
            raise Crash

    scene.cluster.hook = crash
    scene.run(lambda scene: scene.crashes > 3, turns=1000)
    assert going(scene)
    scene.cluster.hook = lambda call, when: None
    scene.settle(5)
    assert not going(scene)
    scene.release()
    scene.run(is_stalled)
    assert scene.condition("Trained") == "False GPUBudgetSpent"


def test_an_edit_that_is_not_valid_and_another_begin_no_end_of_writes() -> None:
    scene = a_scene(**GPU_HOUR).running(Stage.FINETUNE)
    not_valid(scene, GPU_HOUR)
    begun, written = scene.clock.now, len(scene.history)
    while (scene.clock.now - begun).total_seconds() < HOUR - 300:
        scene.turn()
    assert len(scene.history) - written <= 3
    scene.run(lambda scene: not going(scene), turns=100)
    scene.edit(a_spec(**GPU_HOUR))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


def test_a_delete_that_is_refused_is_no_hot_loop() -> None:
    scene = a_scene(**GPU_HOUR).running(Stage.FINETUNE)
    not_valid(scene, GPU_HOUR)
    scene.cluster.hook = refusing("delete", "Job", Forbidden)
    scene.run(lambda scene: scene.status.last_failure.get("reason") == "GPUBudgetSpent", turns=500).settle(5)
    written, calls = len(scene.history), len(scene.cluster.calls)
    begun = scene.clock.now
    scene.settle(20)
    assert (scene.clock.now - begun).total_seconds() >= 200
    assert len(scene.history) == written
    assert len(scene.cluster.calls) - calls <= 60
    scene.cluster.hook = lambda call, when: None
    scene.settle(3)
    assert not going(scene)


def trained_and_not_on_record(scene: Scene, section: dict[str, Any]) -> None:
    """The pass that has made the Job of an edit dies before its status, and the next edit is not valid."""
    scene.will(Stage.FINETUNE, HANG)

    def hook(call: Call, when: str) -> None:
        if (call.verb, when) == ("status", "before") and len(scene.attempts(Stage.FINETUNE)) == 2:
            raise Crash

    scene.cluster.hook = hook
    scene.edit(a_spec(**section, stages={"finetune": {"epochs": 9}}))
    scene.run(lambda scene: scene.crashes > 0)
    scene.cluster.hook = lambda call, when: None
    not_valid(scene, {**section, "stages": {"finetune": {"epochs": 9}}})


def test_what_no_status_tells_of_yet_is_counted_by_no_other_run() -> None:
    scene = a_scene().run(is_ready).settle(5)
    trained_and_not_on_record(scene, {})
    scene.settle(4)
    scene.clock.now += timedelta(seconds=1300)
    written, hours = len(scene.history), scene.status.run.get("gpuHours")
    scene.settle(20)
    assert len(scene.history) - written <= 2
    assert scene.status.run.get("gpuHours") == hours


def test_it_is_not_ended_by_what_an_earlier_run_has_used() -> None:
    scene = a_scene(**DEADLINE).running(Stage.EXPORT)
    scene.clock.now += timedelta(seconds=HOUR - 100)
    scene.release()
    scene.world.step()
    scene.run(is_ready).settle(5)
    scene.clock.now += timedelta(days=3)
    trained_and_not_on_record(scene, DEADLINE)
    begun = scene.clock.now
    while scene.clock.now - begun < timedelta(seconds=1500):
        scene.turn()
    assert not scene.status.last_failure


def test_two_that_use_up_one_limit_are_looked_at_in_time() -> None:
    long = {"stages": {"inputs": {"timeoutSeconds": 24 * HOUR}, "finetune": {"timeoutSeconds": 24 * HOUR}}}
    section = {"runPolicy": {"activeDeadlineSeconds": 10 * HOUR}, **long}
    scene = a_scene(**section).running(Stage.FINETUNE)
    inputs_hang(scene, section)
    not_valid(scene, {**section, **another_corpus("2")})
    scene.settle(3)
    assert scene.asked_s is not None
    assert scene.asked_s <= 5 * HOUR + 60
