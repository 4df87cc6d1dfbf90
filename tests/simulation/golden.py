"""A story without a fault, copies of it from before each write, and the same story with a fault at one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulation.endings import OUT_OF_MEMORY, TRANSIENT
from simulation.fake_cluster import Call
from simulation.scene import Scene, is_ready

from embedding_operator.resource.labels import OWNER_LABEL
from embedding_stages.contract import Stage

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

DRAINED = 12  # turns after which the server that clients have left is gone


class Nth:
    """A hook that raises at the nth write, once: before it takes effect, or after."""

    def __init__(self, number: int, when: str, error: BaseException) -> None:
        self.left, self.when, self.error = number, when, error

    def __call__(self, call: Call, when: str) -> None:
        if call.writes and when == self.when:
            self.left -= 1
            if self.left == 0:
                raise self.error


def story(scene: Scene, edited: Mapping[str, Any]) -> Scene:
    """To Ready, through an edit, to Ready again, with two failures on the way."""
    scene.will(Stage.PREP, TRANSIENT)
    scene.will(Stage.FINETUNE, OUT_OF_MEMORY)
    scene.run(is_ready).edit(edited)
    return scene.run(is_ready).settle(DRAINED)


def end_state(scene: Scene) -> str:
    """Everything that is left, without times and what the server numbers."""
    objects = [
        [raw["kind"], raw["metadata"]["name"], raw.get("spec", {}).get("selector")]
        for raw in scene.cluster.objects.values()
        if OWNER_LABEL in raw["metadata"].get("labels", {}) and raw["kind"] != "Pod"
    ]
    status: dict[str, Any] = {k: v for k, v in scene.resource["status"].items() if k not in ("lastFailure", "run")}
    status["record"] = _without_durations(status.get("record", "{}"))
    text = json.dumps([sorted(objects, key=str), status], sort_keys=True, indent=1)
    return TIME.sub("<time>", text)


def _without_durations(record: str) -> str:
    found = json.loads(record)
    found.pop("run", None)
    for stage in found.get("stages", {}).values():
        for duration in ("usage", "tookSeconds"):
            stage.pop(duration, None)
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass
class Golden:
    """The story without a fault, and copies of the scene from before each write."""

    end: Scene
    edited: Mapping[str, Any]
    before: list[Scene]
    wanted: str

    @classmethod
    def of(cls, scene: Scene, edited: Mapping[str, Any]) -> Golden:
        before: list[Scene] = []

        def turn() -> None:
            earlier = scene.fork()
            scene.turn()
            before.extend([earlier] * (scene.writes() - len(before)))

        scene.will(Stage.PREP, TRANSIENT)
        scene.will(Stage.FINETUNE, OUT_OF_MEMORY)
        for change in (None, edited):
            if change is not None:
                scene.edit(change)
            while not is_ready(scene):
                turn()
        for _ in range(DRAINED):
            turn()
        return cls(scene, edited, before, end_state(scene))

    def with_error(self, number: int, when: str, error: BaseException) -> Scene:
        """The story with an error at one write, told from the pass before it."""
        scene = self.before[number].fork()
        scene.cluster.hook = Nth(number + 1 - scene.writes(), when, error)
        if scene.resource["spec"] != self.edited:
            scene.run(is_ready).edit(self.edited)
        return scene.run(is_ready).settle(DRAINED)

    def check_end(self, scene: Scene) -> None:
        assert end_state(scene) == self.wanted
        assert sorted(scene.cluster.created_jobs) == sorted(self.end.cluster.created_jobs)
        assert scene.writes() <= self.end.writes() + 3
