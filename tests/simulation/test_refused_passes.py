"""A pass whose action is refused: its deletes are done, what it has learnt is on record, and it is no hot loop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to
from simulation.endings import HANG, PENDING, Ending
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.cluster.answers import error_of
from embedding_operator.cluster.errors import (
    ClusterError,
    Forbidden,
    ForeignObject,
    NotYetGone,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from embedding_operator.resource.api import KIND
from embedding_stages.contract import Stage

TORCH = {"deploy": {"backend": {"torch": {}}}}
FULL = "exceeded quota: team-a, requested: count/jobs.batch=1, used: 9, limited: 9"


def refusing(
    verb: str, kind: str, error: type[ClusterError], words: str = "denied", name: str = ""
) -> Callable[[Call, str], None]:
    """A hook that refuses some calls; `{}` in `words` is the number of the refusal."""
    count = iter(range(10**6))

    def hook(call: Call, when: str) -> None:
        if when == "before" and (call.verb, call.kind) == (verb, kind) and name in call.name:
            raise error(call.verb, call.kind, NAMESPACE, call.name, words.format(next(count)))

    return hook


def unauthorized(verb: str, kind: str, name: str = "") -> Callable[[Call, str], None]:
    """A hook that answers the first of these calls 401."""
    answered = []

    def hook(call: Call, when: str) -> None:
        if when == "before" and (call.verb, call.kind) == (verb, kind) and name in call.name and not answered:
            answered.append(call)
            raise error_of(401, verb, (kind, NAMESPACE, call.name), {}, b'{"message": "Unauthorized"}')

    return hook


def alive(scene: Scene) -> list[str]:
    """Stages whose Jobs have not ended."""
    jobs = [raw for raw in scene.cluster.find("Job") if not raw.get("status", {}).get("conditions")]
    return [raw["metadata"]["name"].split("-")[1] for raw in jobs if "deletionTimestamp" not in raw["metadata"]]


@pytest.mark.parametrize("error", [QuotaExceeded, Rejected, Forbidden])
def test_a_job_of_an_outdated_input_is_deleted_although_its_successor_is_refused(error: type[ClusterError]) -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(stages={"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}))
    scene.cluster.hook = refusing("create", "Job", error, FULL, "-sdg-")
    scene.run(lambda scene: scene.status.revision == 2 and scene.status.stage(Stage.SDG).state == "Waiting")
    assert alive(scene) == []


@pytest.mark.parametrize("error", [QuotaExceeded, Rejected])
def test_a_refused_server_frees_its_gpu_although_the_job_that_corrects_it_is_refused(error: type[ClusterError]) -> None:
    scene = a_scene()
    scene.world.served_offset = -0.1
    scene.run(is_stalled)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.cluster.hook = refusing("create", "Job", error, FULL, "-finetune-")
    scene.run(lambda scene: scene.status.stage(Stage.FINETUNE).state == "Waiting")
    scene.settle(2)
    assert scene.cluster.find("Deployment") == []


def test_deletes_come_first() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(stages={"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}))
    before = len(scene.cluster.calls)
    scene.run(stage_is(Stage.SDG, "Running"))
    writes = [call.verb for call in scene.cluster.calls[before:] if call.writes and call.name.startswith("handbook-")]
    assert writes.index("delete") < [i for i, verb in enumerate(writes) if verb == "create"][-1]


@pytest.mark.parametrize("error", [Forbidden, Rejected, ForeignObject])
def test_what_a_refused_pass_has_learnt_is_recorded(error: type[ClusterError]) -> None:
    scene = a_scene(stages=TORCH)
    scene.cluster.hook = refusing("apply", "Deployment", error)
    scene.run(lambda scene: scene.condition("Validated") == f"False {error.__name__}")
    assert scene.states()["eval"] == "Succeeded"
    assert scene.status.metrics["fineTuned"]
    assert scene.condition("Evaluated") == "True Completed"
    assert scene.condition("Deployed") == f"False {error.__name__}"
    assert scene.condition("Ready") == f"False {error.__name__}"
    assert scene.condition("Stalled") == f"True {error.__name__}"
    assert scene.condition("Reconciling") == "absent"
    assert scene.status.phase == "Blocked"
    assert scene.events().count(error.__name__) == 1
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)
    assert {name[-2:] for name in scene.cluster.created_jobs} == {"-1"}


def test_a_result_is_recorded_also_while_an_object_of_a_predecessor_is_in_the_way() -> None:
    scene = a_scene(stages=TORCH)
    scene.cluster.hook = refusing("apply", "Deployment", NotYetGone)
    scene.run(lambda scene: scene.condition("Validated") == "Unknown NotYetGone")
    assert scene.states()["eval"] == "Succeeded"
    assert scene.condition("Reconciling") == "True NotYetGone"
    assert scene.condition("Stalled") == "absent"
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)


def test_a_result_is_recorded_also_while_a_webhook_is_away_for_long() -> None:
    scene = a_scene(stages=TORCH)
    scene.cluster.hook = refusing("apply", "Deployment", Unavailable, "webhook {}")
    scene.run(lambda scene: scene.condition("Validated") == "Unknown ClusterUnavailable")
    assert scene.states()["eval"] == "Succeeded"
    assert scene.condition("Reconciling") == "True ClusterUnavailable"
    written = len(scene.history)
    scene.settle(10)
    assert len(scene.history) == written
    assert scene.events().count("ClusterUnavailable") == 1
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)


@pytest.mark.parametrize("when", ["a Job", "the first server", "a change of the server", "the clients' Service"])
@pytest.mark.parametrize("words", ["denied", "denied, request {}"])
def test_a_refusal_is_said_once_whatever_its_words(words: str, when: str) -> None:
    scene = a_scene()
    verb, kind, name = {
        "a Job": ("create", "Job", "-inputs-"),
        "the first server": ("apply", "Deployment", ""),
        "a change of the server": ("apply", "Deployment", ""),
        "the clients' Service": ("apply", "Service", ""),
    }[when]
    if when == "a change of the server":
        scene.run(is_ready)
        scene.edit(a_spec(stages={"deploy": {"replicas": 2}}))
    scene.cluster.hook = refusing(verb, kind, Rejected, words, name)
    scene.run(lambda scene: scene.condition("Validated") == "False Rejected").settle(3)
    assert words.partition("{")[0] in scene.message("Validated")
    written, events = len(scene.history), len(scene.events())
    scene.settle(10)
    assert (len(scene.history), len(scene.events())) == (written, events)
    assert scene.events().count("Rejected") == 1
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)


def test_another_object_that_is_refused_for_the_same_reason_is_said() -> None:
    scene = a_scene()
    scene.cluster.hook = refusing("create", "Job", Rejected, "no, {}", "-inputs-")
    scene.run(lambda scene: scene.condition("Validated") == "False Rejected")
    assert "-inputs-" in scene.message("Validated")
    scene.cluster.hook = refusing("apply", "PersistentVolumeClaim", Rejected, "no, {}")
    scene.cluster.remove("PersistentVolumeClaim", NAMESPACE, "handbook-workspace")
    scene.settle(2)
    assert "PersistentVolumeClaim" in scene.message("Validated")


@pytest.mark.parametrize("words", ["denied", "denied, request {}"])
@pytest.mark.parametrize("error", [Forbidden, Rejected, QuotaExceeded])
def test_a_claim_that_cannot_grow_is_said_once_whatever_the_words(error: type[ClusterError], words: str) -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(storage={"size": "100Gi"}))
    scene.cluster.hook = refusing("apply", "PersistentVolumeClaim", error, words)
    scene.run(is_ready)
    written = len(scene.history)
    scene.settle(10)
    assert len(scene.history) == written
    assert scene.condition("Validated") == "True ClaimNotExpanded"


@pytest.mark.parametrize(("error", "turns"), [(Forbidden, 2), (Unavailable, 60)])
@pytest.mark.parametrize("ending", [HANG, PENDING])
def test_a_job_whose_delete_is_refused_does_not_outlive_its_failed_stage(
    ending: Ending, error: type[ClusterError], turns: int
) -> None:
    scene = a_scene()
    scene.will(Stage.PREP, ending)
    scene.run(lambda scene: scene.states().get("prep") in ("Running", "Waiting") and alive(scene) == ["prep"])
    scene.clock.now += timedelta(days=1)
    scene.cluster.hook = refusing("delete", "Job", error)
    scene.settle(turns)
    assert (scene.states()["prep"], alive(scene)) == ("Failed", ["prep"])
    scene.cluster.hook = lambda call, when: None
    scene.settle(5)
    assert (scene.states()["prep"], alive(scene)) == ("Failed", [])
    assert len(scene.attempts(Stage.PREP)) == 1


@pytest.mark.parametrize("error", [Rejected, Forbidden, QuotaExceeded])
def test_a_suspended_resource_stops_its_job_although_the_clients_service_is_refused(error: type[ClusterError]) -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.running(Stage.FINETUNE)
    scene.cluster.delete("Service", NAMESPACE, NAME)
    scene.cluster.hook = refusing("apply", "Service", error)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}, suspend=True))
    scene.settle(5)
    job = next(
        raw for raw in scene.cluster.find("Job") if raw["metadata"]["name"] == scene.attempts(Stage.FINETUNE)[-1]
    )
    assert job["spec"].get("suspend") is True


@pytest.mark.parametrize("error", [Rejected, Forbidden])
def test_nothing_goes_on_that_could_not_be_remembered(error: type[ClusterError]) -> None:
    """As with a CRD of an earlier release, or without the right on the status."""
    scene = a_scene().run(is_ready).settle(3)
    was, jobs, history = led_to(scene), len(scene.cluster.created_jobs), len(scene.history)
    scene.cluster.hook = refusing("status", KIND, error)
    scene.edit(a_spec_of(5))
    scene.settle(80)
    assert led_to(scene) == was
    assert len(scene.cluster.created_jobs) <= jobs + 1, "one, before it was known"
    assert len(scene.history) == history
    assert scene.events().count("StatusNotWritten") == 1
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)
    assert led_to(scene) != was


@pytest.mark.parametrize(("verb", "kind"), [("create", "Job"), ("try", "Deployment"), ("apply", "Deployment")])
def test_one_answer_401_is_no_missing_right(verb: str, kind: str) -> None:
    """An API server refuses the right token while it cannot check it."""
    scene = a_scene().running(Stage.SDG)
    scene.cluster.hook = unauthorized(verb, kind)
    scene.release()
    scene.run(is_ready)
    told = [item for status in scene.history for item in status["conditions"]]
    assert [item for item in told if item["type"] == "Stalled" or item["reason"] == "Forbidden"] == []


def not_recorded() -> Scene:
    """An edit is trained beside what serves, and then no status is taken any more."""
    scene = a_scene().run(is_ready)
    scene.edit(a_spec_of(5))
    scene.running(Stage.FINETUNE)
    scene.cluster.hook = refusing("status", KIND, Rejected)
    scene.edit({**a_spec_of(5), "runPolicy": {"startDeadlineSeconds": 4000}})
    return scene.settle(5)


def test_clients_keep_their_service_where_no_status_is_taken() -> None:
    scene = not_recorded()
    scene.cluster.mark_deleted("Service", NAMESPACE, NAME)
    scene.settle(10)
    assert ("Service", NAMESPACE, NAME) in scene.cluster.objects


def test_what_is_suspended_stops_where_no_status_is_taken() -> None:
    scene = not_recorded()
    scene.edit({**a_spec_of(5), "suspend": True})
    scene.settle(10)
    assert scene.cluster.object("Job", scene.attempts(Stage.FINETUNE)[-1])["spec"]["suspend"] is True


def test_where_a_webhook_knows_no_dry_run_the_status_is_written() -> None:
    scene = not_recorded()
    scene.cluster.hook = lambda call, when: None
    write = scene.cluster.write_status

    def without_dry_runs(resource: dict[str, Any], status: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if dry_run:
            raise Rejected("update", KIND, NAMESPACE, NAME, 'admission webhook "a" does not support dry run')
        return write(resource, status)

    scene.cluster.write_status = without_dry_runs
    scene.release()
    scene.run(is_ready)


def test_a_resource_of_an_old_version_is_read_again_where_no_status_was_taken() -> None:
    scene = not_recorded()
    scene.cluster.hook = lambda call, when: None
    scene.deaf_to = KIND
    scene.release()
    scene.edit(a_spec_of(7))
    scene.run(is_ready)


def test_a_status_that_is_taken_again_is_no_longer_asked_for_and_the_next_refusal_is_told() -> None:
    scene = a_scene().run(is_ready).settle(3)
    (server,) = scene.cluster.find("Deployment")

    def available(number: int) -> None:
        name = server["metadata"]["name"]
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["status"].update(availableReplicas=number))

    scene.cluster.hook = refusing("status", KIND, Rejected)
    available(0)
    scene.settle(1)
    available(1)  # what was refused is not so any more
    scene.cluster.hook = lambda call, when: None
    scene.settle(5)
    assert not scene.operator.reconciler.recorder.unrecorded
    scene.cluster.hook = refusing("status", KIND, Rejected)
    scene.edit(a_spec_of(9))
    scene.settle(5)
    assert scene.events().count("StatusNotWritten") == 2
