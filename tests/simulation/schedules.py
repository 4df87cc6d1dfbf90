"""A resource whose sources are looked at by spec.schedule, and how the tests come to the time of a look."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from simulation.scene import Scene, a_scene, is_ready

from embedding_stages.contract import Stage

MONDAYS = {"cron": "0 3 * * 1", "timeZone": "Europe/Berlin"}
NIGHTLY = {"cron": "0 3 * * *"}
WEEK = timedelta(weeks=1)


def ready(**schedule: Any) -> Scene:
    return a_scene(schedule=MONDAYS | schedule).run(is_ready).settle(5)


def until(scene: Scene, time: datetime, so: Callable[[Scene], bool] = lambda _: False) -> Scene:
    """Turn to a time, or until it is so; where nothing is to be done for long, go on as the queue does, in one step."""
    for _ in range(2000):
        if scene.clock.now >= time or so(scene):
            return scene
        began = scene.clock.now
        scene.turn()
        if scene.asked_s is None or scene.asked_s > 60:  # see Scene.turn
            asked = timedelta(seconds=scene.asked_s or 86_400)
            scene.clock.now = max(scene.clock.now, min(began + asked, time))
    raise AssertionError(f"stuck at {scene.clock.now}: {scene.summary()}")


def looks(scene: Scene) -> int:
    return sum("look" in request.settings for request in scene.ran(Stage.INPUTS))


def a_corpus(version: str) -> dict[str, Any]:
    return {"source": {"configMap": {"name": "docs"}}, "version": version}
