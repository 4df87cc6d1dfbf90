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
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready
from simulation.test_schedule import WEEK, looks, ready, until

from embedding_operator.resource.api import KIND
from embedding_stages.contract import Stage

A_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
EPOCHS = {"finetune": {"epochs": 5}}
CANARIES = {"verify": {"canaryIntervalSeconds": 600}}
HOUR = 3600
AHEAD = timedelta(days=30)


def bend_service(scene: Scene) -> None:
    """Lead clients elsewhere, as a person does."""
    scene.cluster.change("Service", NAMESPACE, NAME, lambda raw: raw["spec"]["selector"].update(app="other"))


def is_bent(scene: Scene) -> bool:
    selector: dict[str, str] = scene.cluster.object("Service", NAME)["spec"]["selector"]
    return selector.get("app") == "other"


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
