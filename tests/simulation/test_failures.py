"""Stages that fail: what is tried again, what is not, and what cures it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from simulation.endings import (
    BAD_INPUT,
    BUG,
    COPY_FAILED,
    DEADLINE,
    DRAINED,
    FOREIGN,
    INTERRUPTED,
    LOST,
    OOM_KILLED,
    OUT_OF_MEMORY,
    PENDING,
    SILENT,
    STOPPED,
    TRANSIENT,
    Ending,
)
from simulation.fake_cluster import NAMESPACE
from simulation.scene import a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

CURED = a_spec(corpus={"source": {"configMap": {"name": "docs"}}, "minTextLength": 10})
LLM = {"baseURL": "http://llm/v1", "model": "m", "apiKeySecretRef": {"name": "llm", "key": "token"}}


def with_key(name: str, key: str) -> dict[str, object]:
    endpoint = LLM | {"apiKeySecretRef": {"name": name, "key": key}}
    return {"sdg": {"provider": {"openAI": endpoint}}}


@pytest.mark.parametrize(
    ("ending", "times", "reason"),
    [
        (BAD_INPUT, 1, "CorpusEmpty"),
        (STOPPED, 1, "TokenBudgetSpent"),
        (TRANSIENT, 4, "EndpointUnavailable"),
        (LOST, 4, "PodLost"),
        (OUT_OF_MEMORY, 4, "OutOfMemory"),
        (BUG, 2, "StageCrashed"),
        (OOM_KILLED, 2, "OOMKilled"),
        (SILENT, 2, "NoResult"),
        (FOREIGN, 2, "NoResult"),
        (DEADLINE, 1, "Timeout"),
    ],
    ids=lambda value: getattr(value, "reason", "") or getattr(value, "how", None),
)
def test_a_failure_is_tried_as_often_as_its_class_allows_and_then_stays(
    ending: Ending, times: int, reason: str
) -> None:
    scene = a_scene()
    scene.will(Stage.FINETUNE, *[ending] * 9)
    scene.run(is_stalled, turns=300)
    assert len(scene.attempts(Stage.FINETUNE)) == times
    assert scene.condition("Trained") == f"False {reason}"
    assert scene.condition("Ready") == f"False {reason}"
    assert scene.condition("Stalled") == f"True {reason}"
    assert scene.status.phase == "Blocked"
    assert scene.status.last_failure["reason"] == reason
    assert scene.status.last_failure["job"] == scene.attempts(Stage.FINETUNE)[-1]
    assert scene.events().count(reason) == times
    writes = scene.writes()
    scene.settle(100)
    assert scene.writes() == writes


@pytest.mark.parametrize("ending", [TRANSIENT, LOST, OUT_OF_MEMORY, BUG, OOM_KILLED, SILENT, FOREIGN, DRAINED])
def test_a_failure_that_passes_costs_no_more_than_an_attempt(ending: Ending) -> None:
    scene = a_scene()
    scene.will(Stage.PREP, ending)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.PREP)) == (1 if ending is DRAINED else 2)


@pytest.mark.parametrize("ending", [BAD_INPUT, STOPPED, BUG, TRANSIENT, DEADLINE])
def test_an_edit_gives_a_failed_stage_another_chance(ending: Ending) -> None:
    scene = a_scene()
    scene.will(Stage.INPUTS, *[ending] * 4)
    scene.run(is_stalled, turns=300)
    scene.world.endings.clear()
    scene.edit(CURED)
    scene.run(is_ready)
    assert scene.resource["status"].get("lastFailure") is None


def test_bad_input_names_the_field_at_fault() -> None:
    scene = a_scene()
    scene.will(Stage.INPUTS, BAD_INPUT)
    scene.run(is_stalled)
    assert "spec.corpus.source.configMap: there is no document" in scene.message("Ready")


def test_an_image_that_lacks_the_corpus_path_is_bad_input() -> None:
    scene = a_scene(corpus={"source": {"image": {"reference": "docs:1", "path": "/docs"}}})
    scene.will(Stage.INPUTS, COPY_FAILED)
    scene.run(is_stalled)
    assert scene.condition("DataReady") == "False SourceImagePathMissing"
    assert "spec.corpus.source.image.path" in scene.message("Ready")
    assert "can't stat" in scene.message("Ready")


def test_the_number_of_retries_is_the_manifests() -> None:
    scene = a_scene(stages={"finetune": {"retries": 0}})
    scene.will(Stage.FINETUNE, TRANSIENT)
    scene.run(is_stalled)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_transient_failures_are_spaced_further_and_further() -> None:
    scene = a_scene()
    scene.will(Stage.SDG, TRANSIENT, TRANSIENT, TRANSIENT)
    scene.run(is_ready)
    jobs = [scene.cluster.object("Job", name) for name in scene.attempts(Stage.SDG)]
    made = [datetime.fromisoformat(raw["metadata"]["creationTimestamp"]) for raw in jobs]
    ended = [datetime.fromisoformat(raw["status"]["conditions"][0]["lastTransitionTime"]) for raw in jobs]
    pauses = [(start - end).total_seconds() for start, end in zip(made[1:], ended[:-1], strict=True)]
    assert len(pauses) == 3
    for pause, least in zip(pauses, (10, 20, 40), strict=True):
        assert least <= pause < least + 5


def test_out_of_memory_halves_the_micro_batch_and_leaves_the_global_one() -> None:
    scene = a_scene(stages={"finetune": {"microBatchSize": 8}})
    scene.will(Stage.FINETUNE, OUT_OF_MEMORY, OUT_OF_MEMORY, TRANSIENT)
    scene.run(is_ready)
    tried = scene.ran(Stage.FINETUNE)
    assert [request.settings["microBatchSize"] for request in tried] == [8, 4, 2, 2]
    assert {request.settings["globalBatchSize"] for request in tried} == {128}
    assert len({request.fingerprint for request in tried}) == 1


def test_drained_nodes_cost_nothing_however_often() -> None:
    scene = a_scene(stages={"finetune": {"retries": 0}})
    scene.will(Stage.FINETUNE, *[DRAINED] * 20)
    scene.run(is_ready, turns=300)
    assert len(scene.attempts(Stage.FINETUNE)) == 1
    assert "lastFailure" not in scene.resource["status"]


def test_who_is_asked_to_stop_is_tried_again_however_often() -> None:
    scene = a_scene(stages={"finetune": {"retries": 0}})
    scene.will(Stage.FINETUNE, *[INTERRUPTED] * 6)
    scene.run(is_ready, turns=500)
    assert len(scene.attempts(Stage.FINETUNE)) == 7


def test_a_pod_that_replaces_a_drained_one_has_its_own_start_deadline() -> None:
    scene = a_scene(runPolicy={"startDeadlineSeconds": 60})
    scene.running(Stage.FINETUNE).settle(20)  # far longer than the deadline
    scene.release(DRAINED)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_pod_that_is_lost_long_after_it_started_is_no_pod_that_never_did(nodes: int) -> None:
    """Between the loss of a pod and what its Job makes of it there may be a pass, or a few."""
    sections = {"runPolicy": {"startDeadlineSeconds": 60}, "storage": {"accessModes": ["ReadWriteMany"]}}
    scene = a_scene(stages={"finetune": {"nodes": nodes}}, **sections)
    scene.running(Stage.FINETUNE).settle(20)  # far longer than the deadline
    scene.release()
    pod = scene.world.pods_of(scene.cluster.object("Job", scene.attempts(Stage.FINETUNE)[0]))[-1]
    scene.cluster.remove("Pod", NAMESPACE, pod["metadata"]["name"])
    for _ in range(3):
        scene.operator.hear()
        scene.operator.reconcile()
    assert scene.states()["finetune"] == "Waiting"
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_a_job_that_a_user_deletes_is_made_again_under_another_name() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.cluster.mark_deleted("Job", NAMESPACE, scene.attempts(Stage.FINETUNE)[0])
    scene.run(is_ready)
    first, second = scene.attempts(Stage.FINETUNE)
    assert (first[-2:], second[-2:]) == ("-1", "-2")


def test_finished_jobs_that_are_deleted_are_not_missed() -> None:
    scene = a_scene().running(Stage.EVAL)
    for job in scene.cluster.find("Job"):
        if job.get("status", {}).get("conditions"):
            scene.cluster.mark_deleted("Job", NAMESPACE, job["metadata"]["name"])
    scene.release()
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


def test_jobs_that_time_removes_are_not_missed_either() -> None:
    scene = a_scene().run(is_ready)
    scene.clock.now += timedelta(days=30)
    scene.settle(5)
    assert scene.cluster.find("Job") == []
    writes = scene.writes()
    scene.settle(10)
    assert scene.writes() == writes
    assert is_ready(scene)
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.run(is_ready)
    assert [name.split("-")[1] for name in scene.cluster.created_jobs[7:]] == []


def test_a_stage_that_failed_stays_failed_when_its_job_is_gone() -> None:
    scene = a_scene()
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.run(is_stalled)
    scene.clock.now += timedelta(days=30)
    scene.settle(10)
    assert scene.cluster.find("Job") == []
    assert scene.condition("Trained") == "False CorpusEmpty"
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_waiting_for_a_gpu_is_said_and_ends_at_the_start_deadline() -> None:
    scene = a_scene(runPolicy={"startDeadlineSeconds": 60})
    scene.will(Stage.FINETUNE, PENDING, PENDING)
    scene.run(lambda scene: scene.condition("Trained") == "Unknown GPUUnschedulable")
    assert scene.status.progress == "GPUUnschedulable"
    scene.run(is_stalled)
    assert scene.condition("Trained") == "False StartDeadlineExceeded"
    assert "Insufficient nvidia.com/gpu" in scene.message("Trained")
    assert "spec.runPolicy.startDeadlineSeconds" in scene.message("Trained")
    scene.settle(20)
    assert [raw for raw in scene.cluster.find("Job") if "finetune" in raw["metadata"]["name"]] == []
    scene.world.endings.clear()
    scene.edit(a_spec(runPolicy={"startDeadlineSeconds": 600}))
    scene.run(is_ready)


def test_a_long_suspension_does_not_count_against_the_start_deadline() -> None:
    scene = a_scene(runPolicy={"startDeadlineSeconds": 60}).running(Stage.FINETUNE)
    scene.edit(a_spec(runPolicy={"startDeadlineSeconds": 60}, suspend=True))
    scene.settle(40)  # five seconds each
    scene.edit(a_spec(runPolicy={"startDeadlineSeconds": 60}))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


@pytest.mark.parametrize(
    ("name", "key", "reason", "field"),
    [
        ("lmm", "token", "SecretMissing", "spec.stages.sdg.provider.openAI.apiKeySecretRef.name"),
        ("llm", "tokn", "SecretKeyMissing", "spec.stages.sdg.provider.openAI.apiKeySecretRef.key"),
    ],
)
def test_a_wrong_secret_reference_is_named_and_its_correction_replaces_the_job(
    name: str, key: str, reason: str, field: str
) -> None:
    scene = a_scene(stages=with_key(name, key))
    scene.run(lambda scene: scene.condition("DataReady") == f"False {reason}")
    assert field in scene.message("Ready")
    assert scene.condition("Stalled") == "absent"  # a Secret that appears cures it without an edit
    scene.edit(a_spec(stages=with_key("llm", "token")))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.SDG)) == 2
    assert len(scene.ran(Stage.SDG)) == 1


def test_a_secret_that_appears_later_lets_the_pod_start() -> None:
    scene = a_scene(stages=with_key("later", "token"))
    scene.run(lambda scene: scene.condition("DataReady") == "False SecretMissing")
    scene.world.secrets["later"] = {"token"}
    scene.run(is_ready)
    assert len(scene.attempts(Stage.SDG)) == 1


def test_the_log_of_a_failed_stage_is_kept() -> None:
    scene = a_scene()
    scene.will(Stage.SDG, BUG, BUG)
    scene.run(stage_is(Stage.SDG, "Running"))
    pod = scene.cluster.find("Pod")[-1]["metadata"]["name"]
    scene.cluster.logs[pod] = "Traceback: the first"
    scene.run(lambda scene: scene.status.stage(Stage.SDG).attempt == 2 and stage_is(Stage.SDG, "Running")(scene))
    assert scene.status.last_failure["logTail"] == "Traceback: the first"
    scene.cluster.logs.clear()
    scene.run(is_stalled)
    assert scene.status.last_failure["job"].endswith("-2")
    assert "the first" not in scene.status.last_failure.get("logTail", "")


def test_logs_of_failures_are_read_once() -> None:
    scene = a_scene()
    scene.will(Stage.SDG, *[TRANSIENT] * 3)
    scene.run(stage_is(Stage.FINETUNE, "Running"))
    reads = [call.name for call in scene.cluster.calls if call.verb == "log" and "-sdg-" in call.name]
    assert len(reads) <= 12, reads


def test_a_failure_in_the_new_revision_leaves_the_old_one_serving() -> None:
    scene = a_scene().run(is_ready)
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.edit(a_spec(stages={"finetune": {"epochs": 9}}))
    scene.run(is_stalled)
    assert scene.status.phase == "Blocked"
    assert scene.status.served.active_revision == 1
    assert len(scene.cluster.find("Deployment")) == 1
    scene.edit(a_spec())
    scene.run(is_ready)
    assert len(scene.ran(Stage.EXPORT)) == 1


def test_a_result_that_is_gone_with_its_pod_before_it_is_read_costs_no_attempt() -> None:
    """The operator is away while the stage ends, and the node goes with the pod, as an autoscaler takes an idle one."""
    scene = a_scene(stages={"prep": {"retries": 0}}).running(Stage.PREP)
    scene.release()
    scene.step()
    scene.step()
    (job,) = scene.attempts(Stage.PREP)
    conditions = scene.cluster.objects[("Job", NAMESPACE, job)]["status"]["conditions"]
    assert [item["type"] for item in conditions if item["status"] == "True"] == ["Complete"]
    (pod,) = (raw["metadata"]["name"] for raw in scene.cluster.find("Pod") if job in raw["metadata"]["name"])
    scene.cluster.mark_deleted("Pod", NAMESPACE, pod)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.PREP)) == 2
    assert scene.status.last_failure["reason"] == "PodLost"
