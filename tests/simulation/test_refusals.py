"""What the API server does not do for us is said where people look, and work goes on when it does again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from simulation.endings import TRANSIENT
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, is_ready, stage_is

from embedding_operator.cluster.errors import ClusterError, Forbidden, QuotaExceeded, Unavailable
from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

FULL = "exceeded quota: team-a, requested: count/jobs.batch=1, used: 9, limited: 9"
WEBHOOK = "failed calling webhook policy.example: connection refused"


class Wall:
    """A hook that refuses some calls until it is taken down."""

    def __init__(self, verb: str, kind: str, make: Callable[[Call], ClusterError]) -> None:
        self.verb, self.kind, self.make, self.stands = verb, kind, make, True
        self.hits = 0

    def __call__(self, call: Call, when: str) -> None:
        if self.stands and when == "before" and (call.verb, call.kind) == (self.verb, self.kind):
            self.hits += 1
            raise self.make(call)


def no_room(call: Call) -> ClusterError:
    return QuotaExceeded(call.verb, call.kind, NAMESPACE, call.name, FULL, 15)


def away(call: Call) -> ClusterError:
    return Unavailable(call.verb, call.kind, NAMESPACE, call.name, WEBHOOK)


def not_allowed(call: Call) -> ClusterError:
    return Forbidden(call.verb, call.kind, NAMESPACE, call.name, "services is forbidden")


def quiet(scene: Scene, wall: Wall, turns: int = 10) -> None:
    """It is tried again, and nothing is written."""
    writes, hits = scene.writes(), wall.hits
    scene.settle(turns)
    assert scene.writes() == writes
    assert wall.hits > hits


@pytest.mark.parametrize(
    ("verb", "kind", "condition"),
    [
        ("create", "Job", "DataReady"),
        ("apply", "PersistentVolumeClaim", "DataReady"),
        ("apply", "Deployment", "Deployed"),
    ],
)
def test_a_full_quota_is_waited_for_by_name(verb: str, kind: str, condition: str) -> None:
    scene = a_scene()
    scene.cluster.hook = wall = Wall(verb, kind, no_room)
    scene.run(lambda scene: scene.condition(condition) == "Unknown WaitingForQuota")
    assert FULL in scene.message("Ready")
    assert scene.condition("Reconciling") == "True WaitingForQuota"
    assert scene.condition("Stalled") == "absent"
    quiet(scene, wall)
    wall.stands = False
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert {name[-2:] for name in scene.cluster.created_jobs} == {"-1"}
    assert scene.refusals == []


def test_a_full_quota_between_two_attempts_costs_none() -> None:
    scene = a_scene()
    scene.will(Stage.INPUTS)
    scene.will(Stage.FINETUNE, TRANSIENT, TRANSIENT)  # the pause after the second is long enough to be seen
    scene.run(lambda scene: scene.condition("Trained") == "Unknown EndpointUnavailable")
    scene.cluster.hook = wall = Wall("create", "Job", no_room)
    scene.run(lambda scene: scene.condition("Trained") == "Unknown WaitingForQuota")
    quiet(scene, wall)
    wall.stands = False
    scene.run(is_ready)
    assert [name[-2:] for name in scene.attempts(Stage.FINETUNE)] == ["-1", "-2", "-3"]


@pytest.mark.parametrize("kind", ["Service", "PersistentVolumeClaim", "Deployment"])
@pytest.mark.parametrize("late", [False, True])
def test_a_right_to_read_that_is_missing_is_named(kind: str, late: bool) -> None:
    scene = a_scene()
    if late:
        scene.run(is_ready)
    scene.cluster.hook = wall = Wall("list", kind, not_allowed)
    scene.restart()
    scene.run(lambda scene: scene.condition("Validated") == "False Forbidden")
    assert f"cannot list {kind}" in scene.message("Ready")
    quiet(scene, wall)
    wall.stands = False
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize(
    ("verb", "kind"), [("create", "Job"), ("apply", "Deployment"), ("apply", "Service"), ("list", "Service")]
)
def test_what_is_away_for_long_is_reported_once(verb: str, kind: str) -> None:
    scene = a_scene()
    if verb == "list":  # what passes read themselves, where it may not be watched
        scene.cluster.hook = Wall(verb, kind, not_allowed)
        scene.restart()
    scene.cluster.hook = wall = Wall(verb, kind, away)
    scene.run(lambda _: wall.hits == 20)  # a second each
    assert scene.condition("Reconciling") != "True ClusterUnavailable"
    scene.run(lambda scene: scene.condition("Validated") == "Unknown ClusterUnavailable")
    assert WEBHOOK in scene.message("Ready")
    assert scene.condition("Ready") == "Unknown ClusterUnavailable"
    assert scene.condition("Reconciling") == "True ClusterUnavailable"
    quiet(scene, wall, 40)
    wall.stands = False
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert scene.events().count("ClusterUnavailable") == 1


def test_what_is_away_for_long_takes_ready_with_it() -> None:
    scene = a_scene().run(is_ready)
    scene.cluster.hook = wall = Wall("apply", "Service", away)
    scene.cluster.remove("Service", NAMESPACE, NAME)  # which clients talk to
    scene.run(lambda scene: scene.condition("Ready") == "Unknown ClusterUnavailable")
    wall.stands = False
    scene.run(is_ready)


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: team-a, requested: cpu=1', "Unknown", "WaitingForQuota"),
        ('pods "x" is forbidden: violates PodSecurity "restricted"', "False", "PodCreationFailed"),
        ("Internal error occurred: failed calling webhook", "Unknown", "PodCreationFailed"),
    ],
)
@pytest.mark.parametrize("when", ["training", "serving"])
def test_pods_that_cannot_be_created_are_explained(said: str, status: str, reason: str, when: str) -> None:
    scene = a_scene()
    if when == "serving":
        scene.run(stage_is(Stage.EXPORT, "Succeeded"))
    scene.world.refuses_pods = said
    kind = "Deployed" if when == "serving" else "DataReady"
    scene.run(lambda scene: scene.condition(kind) == f"{status} {reason}")
    assert said.replace('pods "x"', "the pod") in scene.message("Ready")  # each try has a pod of another name
    assert scene.condition("Reconciling") == f"True {reason}"
    scene.settle(3)  # the images of later stages are tried meanwhile
    writes = scene.writes()
    scene.settle(10)
    assert scene.writes() == writes
    scene.world.refuses_pods = ""
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
