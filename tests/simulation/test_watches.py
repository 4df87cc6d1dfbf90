"""What a pass reads from the watches, and what it asks the API server all the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Operator, Scene, a_scene, a_spec, is_ready, stage_is

from embedding_operator.cluster.errors import Conflict
from embedding_operator.cluster.lists import Lists
from embedding_operator.resource.api import KIND
from embedding_stages.contract import Stage

KEY = (NAMESPACE, NAME)


@pytest.fixture(scope="module")
def ready() -> Scene:
    return a_scene().run(is_ready).settle(15)


def calls_of(scene: Scene, what: Any) -> list[Call]:
    before = len(scene.cluster.calls)
    what()
    return scene.cluster.calls[before:]


def test_a_pass_over_a_resource_at_rest_asks_nothing(ready: Scene) -> None:
    scene = ready.fork()
    assert calls_of(scene, lambda: scene.settle(5)) == []
    assert scene.operator.reconciler.rests(KEY)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PersistentVolumeClaim", KIND])
def test_what_changes_ends_the_rest(ready: Scene, kind: str) -> None:
    scene = ready.fork().settle(1)
    assert scene.operator.reconciler.rests(KEY)
    one = scene.cluster.find(kind)[0]["metadata"]["name"]
    scene.cluster.change(kind, NAMESPACE, one, lambda raw: raw["metadata"].setdefault("labels", {}).update(a="b"))
    scene.operator.hear()
    assert not scene.operator.reconciler.rests(KEY)
    scene.settle(2)
    assert scene.operator.reconciler.rests(KEY)


def test_a_status_that_was_written_is_known_before_the_watch_tells_of_it() -> None:
    scene = a_scene()
    scene.lag = 3
    scene.run(is_ready)
    assert scene.refusals == []


@pytest.mark.parametrize("later", [False, True], ids=["in the same moment", "later"])
def test_who_knows_too_little_asks_once_and_goes_on(ready: Scene, *, later: bool) -> None:
    """Only what it was answered a moment ago is taken for true: its own status write ends in the conflict then."""
    scene = ready.fork()
    other = Operator(scene.cluster)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    other.hear()  # of the edit, and of nothing that follows
    other.reconciler.cache.put(KIND, scene.resource)  # as an answer
    now = scene.clock.now
    scene.turn()
    if not later:
        scene.clock.now = now

    def passes() -> None:
        with pytest.raises(Conflict):
            other.reconcile()
        other.reconcile()

    asked = calls_of(scene, passes)
    assert [call for call in asked if call.verb == "get" and call.kind == KIND] == [Call("get", KIND, NAME)]
    assert any(call.writes for call in asked[: asked.index(Call("get", KIND, NAME))]) == (not later)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


def test_what_is_under_way_is_read_anew_by_who_takes_over() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    standby = Operator(scene.cluster)
    standby.reconcile()
    scene.release()
    scene.run(stage_is(Stage.EVAL, "Pending"))
    standby.reconciler.begin()
    asked = calls_of(scene, standby.reconcile)
    assert asked[0] == Call("get", KIND, NAME)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.EVAL)) == 1


def test_the_end_of_a_job_is_found_though_its_watch_says_nothing() -> None:
    scene = a_scene()
    scene.deaf_to = "Job"
    scene.run(is_ready)
    assert all(len(scene.attempts(stage)) == 1 for stage in (Stage.INPUTS, Stage.FINETUNE, Stage.VERIFY))


def lists(scene: Scene) -> Lists:
    return Lists(cluster=scene.cluster, cache=scene.operator.reconciler.cache, rest=lambda _: False)


def test_a_resync_asks_for_versions_and_nothing_of_a_single_resource(ready: Scene) -> None:
    scene = ready.fork()
    scene.operator.hear()
    scene.operator.reconcile()
    asked = calls_of(scene, lambda: lists(scene).catch_up())
    assert {call.verb for call in asked} == {"list"}
    assert len(asked) == len({call.kind for call in asked})
    assert scene.operator.reconciler.rests(KEY)


def test_a_resync_finds_what_the_watches_missed(ready: Scene) -> None:
    scene = ready.fork()
    server = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    scene.cluster.change("Deployment", NAMESPACE, server, lambda raw: raw["spec"].update(replicas=3))
    scene.cluster.remove("Service", NAMESPACE, NAME)
    scene.cluster.add({"kind": KIND, "metadata": {"name": "other", "namespace": NAMESPACE}, "spec": a_spec()})
    scene.operator.heard = len(scene.cluster.watch)  # and so it never hears of them
    assert lists(scene).catch_up() == {KEY, (NAMESPACE, "other")}
    scene.run(lambda scene: (scene.cluster.objects.get(("Service", NAMESPACE, NAME))) is not None)
    assert scene.operator.reconciler.cache.resource((NAMESPACE, "other")) is not None
    scene.operator.hear()
    assert lists(scene).catch_up() == set()


def test_only_the_object_that_was_looked_at_is_deleted() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(suspend=False, stages={"finetune": {"epochs": 7}}))
    scene.operator.hear()
    (job,) = [raw for raw in scene.cluster.find("Job") if "-finetune-" in raw["metadata"]["name"]]
    name = job["metadata"]["name"]
    scene.cluster.change("Job", NAMESPACE, name, lambda raw: raw["metadata"]["labels"].update(a="b"))
    scene.operator.hear()
    scene.cluster.remove("Job", NAMESPACE, name)
    twin = scene.cluster.add({**job, "status": {}})
    with pytest.raises(Conflict):
        scene.operator.reconcile()
    assert scene.cluster.object("Job", name)["metadata"]["uid"] == twin["metadata"]["uid"]
    scene.run(is_ready)


def test_who_leads_again_does_not_tell_of_what_it_read_in_its_earlier_term() -> None:
    scene = a_scene()
    scene.world.progress = {"percent": 40, "step": 4, "totalSteps": 10}
    scene.running(Stage.FINETUNE).settle(3)
    first, later = scene.operator, list[Callable[[], None]]()
    scene.restart()  # another replica
    for name, text in scene.cluster.logs.items():
        scene.cluster.logs[name] = text.replace('"percent": 40, "step": 4', '"percent": 75, "step": 7')
    scene.run(lambda scene: scene.status.stage(Stage.FINETUNE).percent == 75)
    scene.operator = first
    first.reconciler.logs.submit = later.append
    first.hear()
    first.reconciler.begin()
    scene.clock.now += timedelta(minutes=20)  # by then progress is told again
    scene.settle(3)
    assert scene.status.stage(Stage.FINETUNE).percent == 75
    for work in later:
        work()
    scene.settle(2)
    assert scene.status.stage(Stage.FINETUNE).percent == 75


def test_a_job_that_is_complete_before_its_deletion_stays_and_its_work_is_not_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = a_scene().running(Stage.EXPORT)
    was, delete = dict(scene.resource["spec"]), scene.cluster.delete

    def too_late(kind: str, namespace: str, name: str, **known: str) -> None:
        if not scene.refusals:
            scene.release()
            for _ in range(5):
                scene.step()
        delete(kind, namespace, name, **known)

    monkeypatch.setattr(scene.cluster, "delete", too_late)
    scene.edit(a_spec(stages={"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}))
    scene.run(lambda scene: bool(scene.refusals))
    assert isinstance(scene.refusals[-1], Conflict)
    scene.edit(was)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.EXPORT)) == 1


@pytest.mark.parametrize("told", [True, False], ids=["the watch tells of it", "nobody has heard"])
def test_a_job_that_becomes_complete_in_the_middle_of_a_pass_stays(told: bool) -> None:
    """The dry runs of an edit may take half a minute."""
    scene = a_scene().running(Stage.EXPORT)
    was, released = dict(scene.resource["spec"]), list[str]()

    def completes(call: Call, when: str) -> None:
        if (call.verb, when) == ("try", "after") and not released:
            released.append(call.name)
            scene.release()
            for _ in range(5):
                scene.step()
            if told:
                scene.operator.hear()

    scene.cluster.hook = completes
    scene.edit(a_spec(stages={"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}))
    scene.run(lambda _: bool(released))
    scene.edit(was)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.EXPORT)) == 1


def made_in(scene: Scene, *, since_s: float = 20) -> list[Call]:
    """What passes make for a resource whose own watch has told nothing more for so long."""
    scene.clock.now += timedelta(seconds=since_s)

    def passes() -> None:
        for _ in range(3):
            scene.operator.hear(deaf_to=KIND)
            with suppress(Conflict):
                scene.operator.reconcile()

    return [call for call in calls_of(scene, passes) if call.verb in ("create", "apply")]


@pytest.mark.parametrize("late", [True, False], ids=["a late event", "no event"])
@pytest.mark.parametrize("stage", [Stage.INPUTS, Stage.EVAL, Stage.VERIFY])
def test_nothing_is_made_for_a_resource_that_is_gone(stage: Stage, *, late: bool) -> None:
    """Its children go first, and the watch of the resource is behind: what is missing is not made again."""
    scene = a_scene().running(stage)
    known = scene.resource
    scene.cluster.remove(KIND, NAMESPACE, NAME)
    scene.cluster.collect_garbage()
    if late:
        scene.operator.be_told("MODIFIED", KIND, known)
    assert made_in(scene, since_s=0 if late else 20) == []


def test_nothing_is_made_for_a_resource_that_is_being_removed() -> None:
    scene = a_scene().running(Stage.EVAL)
    gone = {"deletionTimestamp": f"{scene.clock():%Y-%m-%dT%H:%M:%SZ}", "finalizers": ["foregroundDeletion"]}
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw["metadata"].update(gone))
    for raw in scene.cluster.find("Job"):
        scene.cluster.remove("Job", NAMESPACE, raw["metadata"]["name"])
    assert made_in(scene) == []


def test_a_server_of_a_resource_that_is_gone_is_not_made_again(ready: Scene) -> None:
    scene = ready.fork()
    scene.cluster.remove(KIND, NAMESPACE, NAME)
    scene.cluster.collect_garbage()
    assert made_in(scene) == []


def test_a_stage_that_an_edit_changes_does_not_begin_as_it_was() -> None:
    scene = a_scene().running(Stage.SDG)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}, suspend=True))
    scene.release()
    scene.world.step()
    assert made_in(scene) == []


def test_a_server_of_an_edit_that_was_not_heard_of_is_not_removed(ready: Scene) -> None:
    """Who takes over knows the resource as Ready, and the edit's server from a later list."""
    scene = ready.fork()
    later = Operator(scene.cluster)
    later.reconcile()
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: len(scene.cluster.find("Deployment")) == 2)
    later.hear(deaf_to=KIND)
    later.reconciler.begin()
    scene.clock.now += timedelta(seconds=20)

    def passes() -> None:
        for _ in range(3):
            with suppress(Conflict):
                later.reconcile()

    assert [call for call in calls_of(scene, passes) if call.verb == "delete"] == []
    assert len(scene.cluster.find("Deployment")) == 2


def test_an_edit_that_is_heard_of_in_the_middle_of_a_pass_ends_it() -> None:
    """The pass has read the resource before, and what it makes would be as it was."""
    scene = a_scene()
    heard = False

    def hook(call: Call, when: str) -> None:
        nonlocal heard
        if (call.verb, when, heard) == ("try", "before", False):
            heard = True
            scene.edit(a_spec(suspend=True))
            scene.operator.hear()

    scene.cluster.hook = hook

    def one_pass() -> None:
        with pytest.raises(Conflict):
            scene.operator.reconcile()

    calls = calls_of(scene, one_pass)
    assert heard
    assert [call for call in calls if call.verb in ("create", "apply")] == []
