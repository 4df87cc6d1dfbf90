"""Times that the status tells: somebody made something else of one, or it was noted under a clock that was ahead."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import DRAINED, HANG, TRANSIENT
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, stage_is
from simulation.schedules import MONDAYS, WEEK, looks, ready, until
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import Unavailable
from embedding_operator.decide.refusals import CLUSTER_UNAVAILABLE
from embedding_operator.resource.api import KIND
from embedding_stages.contract import Progress, Stage, progress_line

A_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
EPOCHS = {"finetune": {"epochs": 5}}
CANARIES = {"verification": {"intervalSeconds": 600}}
HOUR = 3600
AHEAD = timedelta(days=30)


def bend_service(scene: Scene) -> None:
    """Lead clients elsewhere, as a person does."""
    scene.cluster.change("Service", NAMESPACE, NAME, lambda raw: raw["spec"]["selector"].update(app="other"))


def is_bent(scene: Scene) -> bool:
    selector: dict[str, str] = scene.cluster.object("Service", NAME)["spec"]["selector"]
    return selector.get("app") == "other"


def say(scene: Scene, percent: int, step: int) -> None:
    """Another line of progress ends every log."""
    line = progress_line(Progress(percent=percent, step=step, total_steps=10))
    scene.cluster.logs.update(dict.fromkeys(scene.cluster.logs, line))


def draining() -> Scene:
    scene = a_scene().run(is_ready).settle(3)
    scene.edit(a_spec(stages=EPOCHS))
    return scene.run(lambda scene: bool(scene.status.served.draining_until))


def restored() -> Scene:
    scene = a_scene().run(is_ready).settle(3)
    bend_service(scene)
    return scene.run(lambda scene: bool(scene.status.restored) and not is_bent(scene)).settle(1)


def running() -> Scene:
    return a_scene(limits={"gpuSeconds": HOUR}).running(Stage.FINETUNE).settle(3)


def waiting_again() -> Scene:
    scene = a_scene()
    scene.will(Stage.FINETUNE, DRAINED)
    return scene.running(Stage.FINETUNE)


def looking() -> Scene:
    scene = ready()
    scene.clock.now += WEEK
    scene.will(Stage.INPUTS, HANG)
    return scene.run(lambda scene: scene.status.schedule.look is not None).settle(4)


def looked() -> Scene:
    scene = ready(onCorpusChange="Report")
    scene.world.corpus = "second edition"
    return until(scene, scene.clock.now + WEEK)


def failed_once() -> Scene:
    scene = a_scene()
    scene.will(Stage.PREP, TRANSIENT, TRANSIENT)
    return scene.run(lambda scene: scene.status.stage(Stage.PREP).reason == "EndpointUnavailable")


def scaling() -> Scene:
    scene = a_scene().run(is_ready).settle(3)
    scene.world.server = "loading"
    scene.edit(a_spec(stages={"deploy": {"replicas": 2}}))
    return scene.settle(3)


STATES: dict[str, Callable[[], Scene]] = {
    "draining": draining,
    "restored": restored,
    "running": running,
    "waiting again": waiting_again,
    "looking": looking,
    "looked": looked,
    "failed once": failed_once,
    "scaling": scaling,
}


def rewrite_times(scene: Scene, text: str) -> None:
    """In the whole status, the record too; of conditions the API server takes nothing but a time."""

    def edit(raw: dict[str, Any]) -> None:
        status = raw["status"]
        others = json.dumps({key: value for key, value in status.items() if key != "conditions"})
        raw["status"] = {**json.loads(A_TIME.sub(text, others)), "conditions": status["conditions"]}

    scene.cluster.change(KIND, NAMESPACE, NAME, edit)


@pytest.mark.parametrize("text", ["now", "2026-01-05T02:00:00", "", "9999-99-99T99:99:99Z"])
@pytest.mark.parametrize("state", STATES.values(), ids=list(STATES))
def test_a_time_that_somebody_made_something_else_of_ends_no_pass(state: Callable[[], Scene], text: str) -> None:
    scene = state()
    rewrite_times(scene, text)
    scene.settle(3)
    scene.world.server = "ready"
    scene.release()
    scene.run(is_ready).settle(3)
    assert scene.refusals == []
    assert len(scene.cluster.find("Deployment")) == 1


@pytest.mark.parametrize("time", ["now", "2026-01-05T02:00:00"])
def test_looks_go_on_where_somebody_wrote_when_the_next_one_is(time: str) -> None:
    scene = ready()
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw["status"]["schedule"].update(nextLookTime=time))
    until(scene, scene.clock.now + 2 * WEEK)
    assert looks(scene) == 2


def passed_s(scene: Scene, so: Callable[[Scene], bool]) -> float:
    """Until it is so, by the scene's clock."""
    begun = scene.clock.now
    scene.run(so, turns=600)
    return (scene.clock.now - begun).total_seconds()


def set_right(scene: Scene, ahead: timedelta) -> None:
    """The clock was ahead, and the operator goes on."""
    scene.clock.now -= ahead


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(days=365)], ids=["hours", "a year"])
def test_a_clock_that_was_ahead_delays_no_look(ahead: timedelta) -> None:
    scene = ready()
    scene.clock.now += ahead
    scene.settle(12)
    set_right(scene, ahead)
    done = looks(scene)
    until(scene, scene.clock.now + 3 * WEEK)
    assert looks(scene) >= done + 2
    assert scene.status.schedule.last_look <= f"{scene.clock.now:%Y-%m-%dT%H:%M:%SZ}"


def test_inputs_that_ran_while_the_clock_was_ahead_are_no_look() -> None:
    scene = a_scene(schedule=MONDAYS)
    scene.clock.now += AHEAD
    scene.run(stage_is(Stage.INPUTS, "Succeeded"))
    set_right(scene, AHEAD)
    scene.run(is_ready)
    until(scene, scene.clock.now + 2 * WEEK)
    assert looks(scene) == 2


def test_a_retry_does_not_wait_for_a_clock_that_was_set_back() -> None:
    scene = a_scene().running(Stage.PREP)
    scene.clock.now += AHEAD
    scene.release(TRANSIENT)
    scene.step()
    set_right(scene, AHEAD)
    assert passed_s(scene, is_ready) < HOUR


def test_a_service_is_restored_after_the_clock_was_set_back() -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.clock.now += AHEAD
    bend_service(scene)
    scene.run(lambda scene: not is_bent(scene)).settle(2)
    set_right(scene, AHEAD)
    scene.settle(2)
    bend_service(scene)
    assert passed_s(scene, lambda scene: not is_bent(scene)) < HOUR


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), AHEAD], ids=["minutes", "days"])
def test_a_drained_server_goes_after_the_clock_was_set_back(ahead: timedelta) -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.edit(a_spec(stages=EPOCHS))
    scene.clock.now += ahead
    scene.run(is_ready)
    assert len(scene.cluster.find("Deployment")) == 2
    set_right(scene, ahead)
    assert passed_s(scene, lambda scene: len(scene.cluster.find("Deployment")) == 1) < 120


def test_a_shorter_drain_counts_for_the_one_under_way() -> None:
    def asked(seconds: int) -> dict[str, Any]:
        return a_spec(stages={**EPOCHS, "deploy": {"drainSeconds": seconds}})

    scene = a_scene().run(is_ready).settle(3)
    scene.edit(asked(HOUR))
    scene.run(is_ready).settle(3)
    assert len(scene.cluster.find("Deployment")) == 2
    scene.edit(asked(30))
    assert passed_s(scene, lambda scene: len(scene.cluster.find("Deployment")) == 1) < 120


def test_a_run_that_began_while_the_clock_was_ahead_has_its_limits() -> None:
    limits = {"limits": {"gpuSeconds": HOUR}}
    scene = a_scene(**limits).run(stage_is(Stage.SDG, "Succeeded"))
    scene.clock.now += AHEAD
    scene.edit(a_spec(**limits, tolerance={"atOne": "0.2"}))
    scene.operator.hear()
    scene.operator.reconcile()
    set_right(scene, AHEAD)
    scene.running(Stage.FINETUNE)
    begun = scene.clock.now
    scene.run(lambda scene: scene.condition("Trained") == "False GPUBudgetSpent", turns=1000)
    assert (scene.clock.now - begun).total_seconds() < 2 * HOUR


def test_progress_is_told_after_the_clock_was_set_back() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    ahead = timedelta(hours=3)  # less than the stage may take
    scene.clock.now += ahead
    say(scene, 60, 2)
    scene.settle(2)
    assert scene.status.stage(Stage.FINETUNE).percent == 60
    set_right(scene, ahead)
    scene.restart()  # which reads logs by a clock that is never set back
    scene.clock.now += timedelta(hours=1)
    say(scene, 90, 3)
    scene.settle(2)
    assert scene.status.stage(Stage.FINETUNE).percent == 90


def test_canaries_are_asked_after_the_clock_was_set_back() -> None:
    scene = a_scene(**CANARIES).run(is_ready).settle(3)
    scene.clock.now += AHEAD
    scene.settle(3)
    set_right(scene, AHEAD)
    scene.settle(3)
    assert scene.status.served.canaries["checkedAt"] <= f"{scene.clock.now:%Y-%m-%dT%H:%M:%SZ}"


def test_a_server_that_does_not_come_up_is_told_after_the_clock_was_set_back() -> None:
    scene = a_scene(stages={"deploy": {"timeoutSeconds": 600}}).running(Stage.EXPORT)
    scene.world.server = "loading"
    scene.clock.now += AHEAD
    scene.release()
    scene.step()
    scene.run(stage_is(Stage.DEPLOY, "Running")).settle(2)
    set_right(scene, AHEAD)
    assert passed_s(scene, lambda scene: scene.status.stage(Stage.DEPLOY).reason == "StartTimeout") < HOUR


def test_an_api_server_that_is_away_is_told_after_the_clock_was_set_back() -> None:
    scene = a_scene().running(Stage.FINETUNE).settle(3)
    scene.cluster.hook = refusing("delete", "Job", Unavailable)
    scene.clock.now += AHEAD
    scene.edit(a_spec(stages={"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}))
    scene.settle(2)
    set_right(scene, AHEAD)
    scene.settle(60)
    assert scene.condition("Ready") == f"Unknown {CLUSTER_UNAVAILABLE}"


# What runs has used up its time by such a clock.
@pytest.mark.parametrize("state", [name for name in STATES if name != "running"])
def test_whatever_was_noted_while_the_clock_was_ahead_the_end_is_the_same(state: str) -> None:
    scene = STATES[state]()
    scene.clock.now += AHEAD
    scene.settle(3)
    set_right(scene, AHEAD)
    scene.world.server = "ready"
    scene.release()
    scene.run(is_ready).settle(30)
    written = len(scene.history)
    scene.settle(10)
    assert len(scene.history) == written
    assert scene.refusals == []
    assert len(scene.cluster.find("Deployment")) == 1
