"""No server goes while clients are sent to it, whatever is late: the status of a move, its write, an edit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import led_to
from simulation.fake_cluster import Call, Crash, Ref
from simulation.scene import NAME, Scene, a_spec, is_ready

from embedding_operator.cluster.errors import Forbidden, Unavailable
from embedding_operator.resource.labels import SERVING_LABEL


def spec(epochs: int, **deploy: Any) -> dict[str, Any]:
    return a_spec(stages={"deploy": {"drainSeconds": 600, **deploy}, "finetune": {"epochs": epochs}})


def servers(scene: Scene) -> dict[str, str]:
    """Label -> uid, of those that are not being removed."""
    metas = [raw["metadata"] for raw in scene.cluster.find("Deployment")]
    return {meta["labels"][SERVING_LABEL]: meta["uid"] for meta in metas if "deletionTimestamp" not in meta}


class Watchful:
    """A hook under which no server is deleted that clients are sent to; `more` may lose requests."""

    def __init__(self, scene: Scene, more: Callable[[Call, str], None] = lambda *_: None) -> None:
        self.scene, self.more, self.deleted = scene, more, list[str]()

    def __call__(self, call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("delete", "Deployment", "before"):
            label = self.scene.cluster.object("Deployment", call.name)["metadata"]["labels"][SERVING_LABEL]
            assert label != led_to(self.scene), "clients are sent to it"
            self.deleted.append(label)
        if (call.verb, call.name, when) == ("apply", NAME, "after"):
            assert led_to(self.scene) in servers(self.scene), "clients are sent to what goes"
        self.more(call, when)


def drained_by_another() -> tuple[Scene, str]:
    """Clients have moved to a second revision, and the first one's server drains; its label.

    The way back is one pass: only the name of the model is another.
    """
    scene = Scene(spec(3)).run(is_ready).settle(3)
    first = led_to(scene)
    scene.edit(spec(3, modelName="renamed"))
    scene.run(is_ready).settle(3)
    assert led_to(scene) != first
    assert first in servers(scene)
    return scene, first


def test_a_server_that_an_edit_asks_for_again_stays_when_its_drain_is_over() -> None:
    """The operator was away from before the end of the drain until after the edit."""
    scene, first = drained_by_another()
    scene.cluster.hook = Watchful(scene)
    scene.clock.now += timedelta(seconds=700)
    scene.edit(spec(3))
    scene.run(is_ready).settle(3)
    scene.clock.now += timedelta(seconds=700)
    scene.settle(5)
    assert list(servers(scene)) == [first]


@pytest.mark.parametrize("lost", ["crash", "conflict"])
def test_a_server_that_clients_came_back_to_stays_when_that_is_not_on_record(lost: str) -> None:
    """The status that tells of the way back is lost, and the drain ends before the next pass."""
    scene, first = drained_by_another()
    uid, lost_once = servers(scene)[first], list[str]()

    def loses(call: Call, when: str) -> None:
        if (call.verb, when) == ("status", "before") and led_to(scene) == first and not lost_once:
            lost_once.append(lost)
            scene.clock.now += timedelta(seconds=700)
            raise Crash if lost == "crash" else Unavailable("update", "EmbeddingFineTune", "", NAME, "away")

    scene.cluster.hook = Watchful(scene, loses)
    scene.edit(spec(3))
    scene.run(lambda _: bool(lost_once)).run(is_ready).settle(3)
    assert servers(scene)[first] == uid


@pytest.mark.parametrize("away", [0, 1, 3])
def test_a_candidate_that_clients_were_sent_to_goes_once_they_are_sent_back(away: int) -> None:
    """The move is not on record, an edit follows, and the write that sends clients back fails at first."""
    scene = Scene(spec(3)).run(is_ready).settle(3)
    first, left = led_to(scene), away

    def dies(call: Call, when: str) -> None:
        if (call.verb, when) == ("status", "before") and led_to(scene) != first:
            scene.edit(spec(7))
            scene.cluster.hook = Watchful(scene, fails)
            raise Crash

    def fails(call: Call, when: str) -> None:
        nonlocal left
        if (call.verb, call.kind, call.name, when) == ("apply", "Service", NAME, "before") and left:
            left -= 1
            raise Unavailable("apply", "Service", "", NAME, "away")

    scene.cluster.hook = dies
    scene.edit(spec(5))
    scene.run(lambda scene: scene.crashes > 0)
    second = led_to(scene)
    assert second != first
    scene.run(lambda scene: led_to(scene) == first).settle(5)
    assert second not in servers(scene), "its place is free for the training"
    scene.run(is_ready)


def test_a_server_that_clients_cannot_be_led_away_from_stays_and_nothing_is_written_for_it() -> None:
    """A stranger leads them back to it, the operator may not write Services, and the manifest is not valid."""
    scene, first = drained_by_another()
    scene.edit(spec(3, modelName="renamed", pinRevision=77))
    scene.settle(5)

    def refuses(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("apply", "Service", "before"):
            raise Forbidden("patch", "Service", "team-a", call.name, "no right")

    scene.cluster.hook = Watchful(scene, refuses)
    scene.clock.now += timedelta(seconds=700)
    ref: Ref = ("Service", "team-a", NAME)
    scene.cluster.change(*ref, lambda raw: raw["spec"]["selector"].update({SERVING_LABEL: first}))
    scene.settle(5)
    writes, begun = scene.writes(), scene.clock.now
    scene.settle(20)
    assert scene.writes() == writes
    assert scene.clock.now - begun > timedelta(seconds=200)
    assert first in servers(scene)
    scene.cluster.hook = Watchful(scene)
    scene.settle(5)
    assert first not in servers(scene)


def test_nothing_drains_for_ever_beside_a_manifest_that_is_not_valid() -> None:
    """A stranger leads clients to the server that has drained."""
    scene, first = drained_by_another()
    scene.edit(spec(3, modelName="renamed", pinRevision=77))
    scene.settle(5)
    ref: Ref = ("Service", "team-a", NAME)
    scene.clock.now += timedelta(seconds=700)
    scene.cluster.change(*ref, lambda raw: raw["spec"]["selector"].update({SERVING_LABEL: first}))
    scene.cluster.hook = Watchful(scene)
    scene.settle(10)
    assert led_to(scene) != first
    assert first not in servers(scene)
