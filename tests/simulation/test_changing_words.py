"""Counts in the words of others change all the time: a wait of hours makes few writes, and still tells the latest."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest
from simulation import kueue
from simulation.endings import PENDING
from simulation.fake_cluster import NAMESPACE, Call
from simulation.kueue import Kueue
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is
from simulation.test_kueue import QUEUED

from embedding_operator.cluster.errors import QuotaExceeded
from embedding_stages.contract import Stage

FULL = 'pods "x" is forbidden: exceeded quota: team-a, requested: cpu=1, used: cpu={}'
MOST_S = 330


def of_kueue(scene: Scene, number: int) -> None:
    words = (
        f"couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor a, {number} more needed"
    )
    kueue.NO_QUOTA = words


def of_the_scheduler(scene: Scene, number: int) -> None:
    message = f"0/{number} nodes are available: {number} Insufficient nvidia.com/gpu"
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    for pod in scene.cluster.find("Pod"):
        if pod["status"]["phase"] == "Pending":
            scene.cluster.change(
                "Pod", NAMESPACE, pod["metadata"]["name"], lambda raw: raw["status"].update(conditions=[said])
            )


def of_the_quota_for_pods(scene: Scene, number: int) -> None:
    scene.world.refuses_pods = FULL.format(number)


def of_the_quota_for_jobs(scene: Scene, number: int) -> None:
    def hook(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "before"):
            raise QuotaExceeded("create", "Job", NAMESPACE, call.name, FULL.format(number))

    scene.cluster.hook = hook


def a_queue_without_quota() -> Scene:
    scene = a_scene(**QUEUED)
    scene.kueue = Kueue(scene.cluster, quota=0)
    return scene


def a_pod_without_a_node() -> Scene:
    scene = a_scene(runPolicy={"startDeadlineSeconds": 86400})
    scene.will(Stage.INPUTS, PENDING)
    return scene


def at_the_server() -> Scene:
    return a_scene(stages={"deploy": {"timeoutSeconds": 86400}}).run(stage_is(Stage.EXPORT, "Succeeded"))


def at_a_server_that_was_there() -> Scene:
    """Its pod is gone, and no other one can be made."""
    scene = a_scene().run(is_ready).settle(3)
    of_the_quota_for_pods(scene, 0)
    lose_servers(scene)
    return scene


def lose_servers(scene: Scene) -> None:
    for server in scene.cluster.find("Deployment"):
        for pod in scene.world.pods_of(server):
            scene.cluster.remove("Pod", NAMESPACE, pod["metadata"]["name"])
        name = server["metadata"]["name"]
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["status"].update(availableReplicas=0))


ROWS: dict[str, tuple[Callable[[], Scene], Callable[[Scene, int], None], Stage]] = {
    "Kueue": (a_queue_without_quota, of_kueue, Stage.INPUTS),
    "the scheduler": (a_pod_without_a_node, of_the_scheduler, Stage.INPUTS),
    "a quota for Jobs": (a_scene, of_the_quota_for_jobs, Stage.INPUTS),
    "a quota for the server's pods": (at_the_server, of_the_quota_for_pods, Stage.DEPLOY),
    "a quota for the pods of what serves": (at_a_server_that_was_there, of_the_quota_for_pods, Stage.DEPLOY),
}


@pytest.mark.parametrize("row", ROWS)
def test_words_that_change_in_each_pass_are_told_every_five_minutes(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, say, stage = ROWS[row]
    monkeypatch.setattr(kueue, "NO_QUOTA", "")
    scene, numbers = made(), count(1000)
    for _ in range(15):
        say(scene, next(numbers))
        scene.turn()
    history, began = len(scene.history), scene.clock.now
    told, late = began, timedelta()
    last = scene.status.stage(stage).message
    assert re.search(r"\b10\d\d\b", last)
    while scene.clock.now - began < timedelta(minutes=30):
        say(scene, next(numbers))
        scene.turn()
        if scene.status.stage(stage).message != last:
            last, told = scene.status.stage(stage).message, scene.clock.now
        late = max(late, scene.clock.now - told)
    assert len(scene.history) - history <= 8
    assert late < timedelta(seconds=MOST_S)


def test_another_reason_is_told_at_once() -> None:
    scene = a_pod_without_a_node()
    scene.run(lambda scene: scene.status.stage(Stage.INPUTS).reason == "Unschedulable").settle(3)
    pod = scene.cluster.find("Pod")[0]["metadata"]["name"]
    message = "0/3 nodes are available: 3 node(s) had volume node affinity conflict"
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    scene.cluster.change("Pod", NAMESPACE, pod, lambda raw: raw["status"].update(conditions=[said]))
    scene.operator.hear()
    scene.operator.reconcile()
    assert scene.condition("DataReady") == "Unknown VolumeOnAnotherNode"
    assert message in scene.message("Ready")


def test_an_edit_is_answered_in_the_words_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kueue, "NO_QUOTA", "")
    scene = a_queue_without_quota()
    of_kueue(scene, 2)
    scene.run(lambda scene: "2 more" in scene.status.stage(Stage.INPUTS).message).settle(5)
    of_kueue(scene, 3)
    scene.settle(2)
    assert "2 more" in scene.status.stage(Stage.INPUTS).message
    scene.edit(a_spec(**QUEUED, stages={"finetune": {"epochs": 5}}))
    scene.settle(1)
    assert "3 more" in scene.status.stage(Stage.INPUTS).message


def test_of_a_server_that_was_lost_beside_a_training_counts_are_told_every_five_minutes() -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.running(Stage.FINETUNE).settle(3)
    (pod,) = scene.world.pods_of(scene.cluster.find("Deployment")[0])
    numbers = count(1000)

    def say() -> None:
        message = f"0/{next(numbers)} nodes are available"
        said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        where = ("Pod", NAMESPACE, pod["metadata"]["name"])
        scene.cluster.change(*where, lambda raw: raw.update(status={"phase": "Pending", "conditions": [said]}))
        name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["status"].update(availableReplicas=0))
        scene.turn()

    for _ in range(5):
        say()
    assert re.search(r"\b0/10\d\d nodes", scene.message("Deployed"))
    history, began = len(scene.history), scene.clock.now
    while scene.clock.now - began < timedelta(minutes=30):
        say()
    assert len(scene.history) - history <= 15
