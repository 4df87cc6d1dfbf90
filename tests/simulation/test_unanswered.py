"""An action that nobody answers, such as one whose webhook is away, holds up only what has to wait for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of
from simulation.endings import HANG
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, stage_is
from simulation.test_image_check import OWN
from simulation.test_kueue import QUEUED, in_a_queue
from simulation.test_refused_passes import alive, refusing

from embedding_operator.cluster.errors import ClusterError, Conflict, Forbidden, Unavailable
from embedding_operator.resource.api import KIND
from embedding_stages.contract import Stage

EPOCHS = {"stages": {"finetune": {"epochs": 5}}}
RECREATE = {"strategy": "Recreate"}


def trains_beside_what_serves(scene: Scene, **sections: Any) -> Scene:
    scene.run(is_ready)
    scene.edit(a_spec(**EPOCHS, **sections))
    return scene.running(Stage.FINETUNE)


def nobody_answers(scene: Scene, verb: str, kind: str) -> None:
    scene.cluster.hook = refusing(verb, kind, Unavailable, "failed calling webhook: request {}")


def a_workload_is_not_deactivated() -> Scene:
    scene = trains_beside_what_serves(in_a_queue(), **QUEUED)
    nobody_answers(scene, "activate", "Workload")
    scene.edit(a_spec(**EPOCHS, **QUEUED, suspend=True))
    return scene


def a_job_is_not_suspended() -> Scene:
    scene = trains_beside_what_serves(a_scene())
    nobody_answers(scene, "suspend", "Job")
    scene.edit(a_spec(**EPOCHS, suspend=True))
    return scene


def a_job_is_not_deleted() -> Scene:
    scene = trains_beside_what_serves(a_scene())
    nobody_answers(scene, "delete", "Job")
    scene.edit(a_spec(stages={"finetune": {"epochs": 7}}))
    return scene


def a_drained_server_is_not_deleted() -> Scene:
    scene = a_scene().run(is_ready)
    nobody_answers(scene, "delete", "Deployment")
    scene.edit(a_spec(**EPOCHS))
    return scene.run(lambda scene: scene.status.served.active_revision == 2)


ROWS = [
    a_workload_is_not_deactivated,
    a_job_is_not_suspended,
    a_job_is_not_deleted,
    a_drained_server_is_not_deleted,
]


@pytest.mark.parametrize("made", ROWS, ids=lambda made: made.__name__)
def test_clients_get_their_service_back(made: Callable[[], Scene]) -> None:
    scene = made().settle(3)
    scene.cluster.mark_deleted("Service", NAMESPACE, NAME)
    scene.settle(3)
    assert ("Service", NAMESPACE, NAME) in scene.cluster.objects
    written = scene.settle(40).writes()
    scene.settle(20)
    assert scene.writes() == written
    scene.cluster.hook = lambda call, when: None
    scene.settle(10)
    assert scene.condition("Validated") == "True Valid"


def test_a_pod_that_tries_images_holds_up_no_stage_and_goes_at_last() -> None:
    scene = a_scene(stages=OWN)
    nobody_answers(scene, "delete", "Pod")
    scene.run(is_ready)
    assert scene.refusals == []
    written = len(scene.history)
    scene.settle(20)
    assert len(scene.history) == written
    assert (pods := images_pods(scene))
    scene.cluster.hook = lambda call, when: None
    scene.settle(5)
    assert images_pods(scene) == []
    assert len(pods) == 1


def images_pods(scene: Scene) -> list[str]:
    names = [raw["metadata"]["name"] for raw in scene.cluster.find("Pod")]
    return [name for name in names if "-images-" in name]


def test_no_server_is_made_in_the_place_of_one_that_may_still_be_there() -> None:
    scene = Scene(a_spec_of(3, **RECREATE)).run(is_ready).settle(3)
    nobody_answers(scene, "delete", "Deployment")
    scene.edit(a_spec_of(5, **RECREATE))
    scene.run(stage_is(Stage.EXPORT, "Succeeded")).settle(20)
    assert len(scene.cluster.find("Deployment")) == 1
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)


def test_no_job_follows_one_that_may_still_run() -> None:
    scene = a_job_is_not_deleted().settle(20)
    assert alive(scene) == ["finetune"]
    assert len(scene.attempts(Stage.FINETUNE)) == 2
    scene.cluster.hook = lambda call, when: None
    scene.will(Stage.FINETUNE, HANG)
    scene.run(lambda scene: len(scene.attempts(Stage.FINETUNE)) == 3)
    assert alive(scene) == ["finetune"]


def test_the_service_of_clients_holds_up_no_suspension() -> None:
    scene = trains_beside_what_serves(a_scene())
    nobody_answers(scene, "apply", "Service")
    scene.cluster.mark_deleted("Service", NAMESPACE, NAME)
    scene.edit(a_spec(**EPOCHS, suspend=True))
    scene.settle(2)
    assert scene.cluster.object("Job", scene.attempts(Stage.FINETUNE)[-1])["spec"]["suspend"] is True


def test_where_nobody_is_there_at_all_a_pass_asks_for_two_things() -> None:
    """Each that is not answered may take a quarter of a minute."""
    scene = a_scene(stages={"deploy": {"drainSeconds": 60}}).run(is_ready)
    scene.edit(a_spec(stages={"deploy": {"drainSeconds": 60}, "finetune": {"epochs": 5}}))
    scene.run(is_ready).settle(1)
    scene.clock.now += timedelta(seconds=90)
    scene.cluster.mark_deleted("Service", NAMESPACE, NAME)
    scene.edit(a_spec(stages={"deploy": {"drainSeconds": 60}, "finetune": {"epochs": 5}}, retention={"revisions": 1}))
    asked = list[str]()

    def hook(call: Call, when: str) -> None:
        if call.writes and when == "before" and call.kind != KIND:
            asked.append(f"{call.verb} {call.kind}")
            raise Unavailable(call.verb, call.kind, NAMESPACE, call.name, "timed out")

    scene.cluster.hook = hook
    for _ in range(5):
        asked.clear()
        scene.turn()
        assert 1 <= len(asked) <= 2, asked


@pytest.mark.parametrize("known", [True, False], ids=["on record", "new"])
@pytest.mark.parametrize("error", [Unavailable, Forbidden])
def test_no_server_makes_room_while_something_else_does_not_go(error: type[ClusterError], known: bool) -> None:
    """Nothing could be made in its place."""

    def spec(epochs: int) -> dict[str, Any]:
        return {**a_spec_of(epochs, **RECREATE), "retention": {"succeededSeconds": 600}}

    scene = Scene(spec(3)).run(is_ready).settle(3)
    scene.edit(spec(5))
    scene.running(Stage.EXPORT)
    scene.clock.now += timedelta(seconds=700)
    scene.cluster.hook = refusing("delete", "Job", error)
    if known:
        scene.settle(10)
    scene.release()
    scene.settle(40)
    assert [raw for raw in scene.cluster.find("Deployment") if "deletionTimestamp" not in raw["metadata"]]


def test_a_409_to_the_service_of_clients_holds_up_no_suspension() -> None:
    scene = trains_beside_what_serves(a_scene())
    scene.cluster.hook = refusing("apply", "Service", Conflict, "a webhook says so: {}")
    scene.cluster.mark_deleted("Service", NAMESPACE, NAME)
    scene.edit(a_spec(**EPOCHS, suspend=True))
    scene.settle(10)
    assert scene.cluster.object("Job", scene.attempts(Stage.FINETUNE)[-1])["spec"]["suspend"] is True


def test_a_pod_that_does_not_go_is_asked_to_each_minute() -> None:
    scene = a_scene(stages=OWN)
    asked = []

    def hook(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("delete", "Pod", "before"):
            asked.append(scene.clock.now)
            raise Unavailable("delete", "Pod", NAMESPACE, call.name, "timed out")

    scene.cluster.hook = hook
    scene.running(Stage.FINETUNE).settle(5)
    asked.clear()
    began = scene.clock.now
    while scene.clock.now - began < timedelta(minutes=20):
        scene.turn()
    assert 10 <= len(asked) <= 22
