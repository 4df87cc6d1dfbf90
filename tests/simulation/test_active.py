"""What clients talk to is guarded also while this revision's own server is not what matters yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulation.endings import BAD_INPUT
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.cluster.errors import Forbidden, QuotaExceeded, Rejected
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import Stage

EPOCHS = a_spec(stages={"finetune": {"epochs": 5}})


def ready() -> Scene:
    return a_scene().run(is_ready)


def retraining() -> Scene:
    scene = ready()
    scene.edit(EPOCHS)
    return scene.running(Stage.FINETUNE)


def failed() -> Scene:
    scene = ready()
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.edit(EPOCHS)
    return scene.run(is_stalled)


def suspended() -> Scene:
    scene = ready()
    scene.edit(a_spec(suspend=True))
    return scene.settle(5)


def not_valid() -> Scene:
    scene = ready()
    scene.edit(a_spec() | {"evaluation": {"kValues": [10, 5]}})
    return scene.run(is_stalled)


def verifying() -> Scene:
    scene = ready()
    scene.edit(EPOCHS)
    return scene.running(Stage.VERIFY)


def refused_beforehand(kind: str = "Job") -> Scene:
    scene = ready()

    def refuse(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("try", kind, "before") and scene.resource["spec"] == EPOCHS:
            raise Rejected("try", call.kind, NAMESPACE, call.name, "no PriorityClass with name soon was found")

    scene.cluster.hook = refuse
    scene.edit(EPOCHS)
    return scene.run(is_stalled)


def waiting_for_quota() -> Scene:
    scene = ready()

    def refuse(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "before"):
            raise QuotaExceeded("create", "Job", NAMESPACE, call.name, "exceeded quota: team")

    scene.cluster.hook = refuse
    scene.edit(EPOCHS)
    return scene.run(lambda scene: scene.condition("Ready") == "Unknown WaitingForQuota")


WHILE: dict[str, Callable[[], Scene]] = {
    "another revision is trained": retraining,
    "another revision has failed": failed,
    "it is suspended": suspended,
    "the manifest is not valid": not_valid,
    "another revision is verified": verifying,
    "another revision is refused beforehand": refused_beforehand,
    "a Service is refused beforehand": lambda: refused_beforehand("Service"),
    "another revision waits for quota": waiting_for_quota,
}


def active_server(scene: Scene) -> str:
    serving = scene.status.served.active_fingerprint[:16]
    found = (raw for raw in scene.cluster.find("Deployment") if raw["metadata"]["labels"][SERVING_LABEL] == serving)
    name: str = next(found)["metadata"]["name"]
    return name


@pytest.mark.parametrize("situation", WHILE)
@pytest.mark.parametrize("how", ["bent", "removed"])
def test_the_clients_service_comes_back_while(situation: str, how: str) -> None:
    scene = WHILE[situation]()
    wanted = scene.cluster.object("Service", NAME)["spec"]["selector"]
    if how == "bent":
        scene.cluster.change(
            "Service", NAMESPACE, NAME, lambda raw: raw["spec"]["selector"].update({SERVING_LABEL: "x"})
        )
    else:
        scene.cluster.remove("Service", NAMESPACE, NAME)
    scene.settle(2)
    assert scene.cluster.object("Service", NAME)["spec"]["selector"] == wanted
    writes = scene.writes()
    scene.settle(5)
    assert scene.writes() == writes


@pytest.mark.parametrize("kind", ["Job", "ConfigMap"])
def test_the_clients_service_comes_back_while_something_else_is_refused(kind: str) -> None:
    """The revision of the manifest serves; what has nothing to do with its server cannot be done."""
    scene = a_scene(retention={"succeededSeconds": 0}).run(stage_is(Stage.VERIFY, "Running"))

    def refuse(call: Call, when: str) -> None:
        if (call.kind, when) == (kind, "before") and call.verb in ("delete", "apply"):
            raise Forbidden(call.verb, kind, NAMESPACE, call.name, "no right")

    scene.cluster.hook = refuse
    scene.settle(20)
    wanted = scene.cluster.object("Service", NAME)["spec"]["selector"]
    scene.cluster.change("Service", NAMESPACE, NAME, lambda raw: raw["spec"]["selector"].update({SERVING_LABEL: "x"}))
    scene.settle(3)
    assert scene.cluster.object("Service", NAME)["spec"]["selector"] == wanted


@pytest.mark.parametrize("situation", WHILE)
def test_a_lost_server_is_said_while(situation: str) -> None:
    scene = WHILE[situation]()
    assert scene.resource["status"]["served"]["url"]
    assert scene.status.phase != "Degraded"
    scene.cluster.mark_deleted("Deployment", NAMESPACE, active_server(scene))
    scene.settle(3)
    assert scene.status.phase == "Degraded"
    assert scene.condition("Deployed") == "False ActiveUnavailable"
    assert scene.condition("Ready").startswith("False")
    assert "url" not in scene.resource["status"]["served"]
    assert scene.events().count("ActiveUnavailable") == 1
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    scene.edit(a_spec())
    scene.release()
    scene.run(is_ready)
    assert scene.resource["status"]["served"]["url"]


@pytest.mark.parametrize("situation", WHILE)
def test_a_server_that_is_stopped_and_started_again_is_lost_and_back_while(situation: str) -> None:
    scene = WHILE[situation]()
    before = scene.condition("Deployed"), scene.status.phase
    name = active_server(scene)
    for replicas, phase in ((0, "Degraded"), (1, before[1])):
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw, n=replicas: raw["spec"].update(replicas=n))
        scene.settle(6)
        assert scene.status.phase == phase
    assert scene.resource["status"]["served"]["url"]
    assert scene.condition("Deployed").split()[0] in (before[0].split()[0], "absent")


def test_a_server_that_recreate_removes_is_not_missed_and_no_longer_active() -> None:
    torch = {"deploy": {"backend": {"torch": {}}}}
    scene = a_scene(stages=torch).run(is_ready)
    scene.edit(a_spec(stages=torch | {"finetune": {"epochs": 5}}))
    scene.run(stage_is(Stage.DEPLOY, "Waiting"))
    scene.settle(1)
    assert not scene.status.served.active_fingerprint
    assert not scene.status.served.url
    scene.run(is_ready)
    assert "ActiveUnavailable" not in scene.events()
    assert "Degraded" not in [status["phase"] for status in scene.history]


def test_a_server_is_removed_only_once_its_successor_is_on_record() -> None:
    """Or a status write that fails would leave clients to a revision whose server is gone."""
    scene = ready()
    old = active_server(scene)
    scene.edit(EPOCHS)
    while old in [raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")]:
        recorded = scene.status.served.active_fingerprint
        scene.turn()
    assert not recorded.startswith(old[-8:])


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {"conditions": [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]},
            "node node-1 does not answer",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [],
                "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available."}],
            },
            "has no node: 0/1 nodes are available.",
        ),
    ],
)
def test_the_cause_is_named_of_a_server_that_is_there_and_does_not_answer(status: dict[str, Any], said: str) -> None:
    """As after the loss or the drain of its node."""
    scene = retraining()
    name = active_server(scene)
    uid = scene.cluster.objects[("Deployment", NAMESPACE, name)]["metadata"]["uid"]
    of_it = {
        raw["metadata"]["name"]
        for raw in scene.cluster.find("Pod")
        if raw["metadata"]["ownerReferences"][0]["uid"] == uid
    }
    for pod in of_it:
        scene.cluster.change("Pod", NAMESPACE, pod, lambda raw: raw["status"].update(status))
    assert of_it
    unavailable = {"availableReplicas": 0}
    scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["status"].update(unavailable))
    scene.turn()
    assert scene.condition("Deployed") == "False ActiveUnavailable"
    assert said in scene.message("Deployed")
