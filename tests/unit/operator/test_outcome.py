"""How an attempt ended, and whether there is another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from unit.operator.builders import (
    NOON,
    a_done_job,
    a_failed_job,
    a_job_of_several,
    a_pod,
    a_ref,
    a_result,
    a_spec,
    an_ended_pod,
)

from embedding_operator.decide.attempts import micro_batch, retry_at
from embedding_operator.decide.outcome import Failure, outcome_of
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import JobView
from embedding_stages.contract import Artefact, ArtefactRef, ExitCode, Stage, StageResult

SPEC = a_spec(corpus={"source": {"image": {"reference": "docs:1", "path": "/docs"}}})
SAID = a_result(artefacts={}, reason="Because", message="it is so", field="spec.corpus")
INTERRUPTED = a_result(artefacts={}, reason="Interrupted", field="spec.corpus")  # what a stage says that was killed


def too_large(volume: str, limit: str) -> str:
    return f'Usage of EmptyDir volume "{volume}" exceeds the limit "{limit}". '


def failure_of(job: JobView) -> Failure:
    outcome = outcome_of(job, SPEC)
    assert isinstance(outcome, Failure)
    return outcome


def test_a_complete_result_is_a_success() -> None:
    assert outcome_of(a_done_job(an_ended_pod(0, a_result())), SPEC) == a_result()


@pytest.mark.parametrize(
    "pod",
    [
        an_ended_pod(0, ""),
        an_ended_pod(0, "not json"),
        an_ended_pod(0, '{"schema":1}'),
        an_ended_pod(0, '{"schema":2,"stage":"sdg"}'),
        an_ended_pod(0, a_result(artefacts={})),
        an_ended_pod(0, a_result(fingerprint="00" * 32)),
        an_ended_pod(0, a_result(artefacts={Artefact.CORPUS: a_ref()})),
    ],
    ids=["silence", "text", "half", "schema", "no artefact", "other fingerprint", "other artefact"],
)
def test_exit_0_without_a_result_of_this_work_is_a_bug(pod: Any) -> None:
    failure = failure_of(a_done_job(pod))
    assert (failure.kind, failure.reason) == ("Bug", "NoResult")


READ = {
    "an evaluation": a_result(
        Stage.EVAL,
        details={
            "relativeUplift": None,
            "confidenceInterval": [0.01, 0.02],
            "precision": "float32",
            "comparisons": {
                "base": {"ndcg@10": [0.5, 0.6, 0.05, 0.01]},
                "active": None,
                "guard:laws": {"ndcg@10": [0.5, 0.6], "queries": 30},
            },
        },
        metrics={"base": {"ndcg@10": 0.5, "recall@100": 0.7, "map": 0.2}},
    ),
    "a measurement": a_result(Stage.VERIFY, details={"rate": {"passagesPerSecond": 5.0}, "canaryCosine": 1}),
    "what is not read": a_result(Stage.SDG, details={"rate": "fast", "comparisons": 3, "encoder": [1]}),
}
UNREADABLE = {
    "uplift": a_result(Stage.EVAL, details={"relativeUplift": "much"}),
    "interval": a_result(Stage.EVAL, details={"confidenceInterval": [0.1]}),
    "interval of texts": a_result(Stage.EVAL, details={"confidenceInterval": ["a", "b"]}),
    "precision": a_result(Stage.EVAL, details={"precision": "as precise as can be"}),
    "comparisons": a_result(Stage.EVAL, details={"comparisons": ["base"]}),
    "a comparison": a_result(Stage.EVAL, details={"comparisons": {"base": {"ndcg@10": [0.1, 0.2, 0.3]}}}),
    "a guard": a_result(
        Stage.EVAL, details={"comparisons": {"guard:laws": {"ndcg@10": [0.1, 0.2], "queries": "many"}}}
    ),
    "a metric without a cut-off": a_result(Stage.EVAL, metrics={"fineTuned": {"ndcg": 0.5}}),
    "a cut-off that is none": a_result(Stage.VERIFY, metrics={"served": {"recall@all": 0.5}}),
    "more metrics than the status takes": a_result(
        Stage.EVAL, metrics={"base": {f"map@{k}": 0.5 for k in range(1, 66)}}
    ),
    "more kinds than the status takes": a_result(Stage.EVAL, metrics={str(number): {} for number in range(9)}),
    "more counts than the status takes": a_result(Stage.SDG, counts={str(number): 1 for number in range(65)}),
    "a long path": a_result(artefacts={Artefact.PAIRS: ArtefactRef(path="p" * 513, digest="d")}),
    "a long digest": a_result(artefacts={Artefact.PAIRS: ArtefactRef(path="p", digest="d" * 81)}),
    "rate": a_result(Stage.VERIFY, details={"rate": {"passagesPerSecond": "fast"}}),
    "a rate below zero": a_result(Stage.VERIFY, details={"rate": {"tokensPerPassage": -1}}),
    "cosine": a_result(Stage.VERIFY, details={"canaryCosine": [1.0]}),
    "encoder": a_result(Stage.INPUTS, details={"encoder": "bert"}),
    "sizes": a_result(Stage.INPUTS, details={"encoder": {"dimensions": ["many"]}}),
    "prefixes": a_result(Stage.INPUTS, details={"encoder": {"prefixes": "query: "}}),
    "contract": a_result(Stage.EXPORT, details={"contract": "fp32"}),
    "side": a_result(Stage.FINETUNE, details={"side": {"of": "queries"}}),
}


@pytest.mark.parametrize("result", READ.values(), ids=list(READ))
def test_a_result_that_can_be_read_is_taken(result: StageResult) -> None:
    assert outcome_of(a_done_job(an_ended_pod(0, result), result.stage), SPEC) == result


@pytest.mark.parametrize("result", UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_result_that_no_status_could_hold_is_none(result: StageResult) -> None:
    failure = failure_of(a_done_job(an_ended_pod(0, result), result.stage))
    assert (failure.kind, failure.reason) == ("Bug", "NoResult")
    assert "cannot be read" in failure.message


def test_a_result_that_is_gone_with_its_pod_costs_no_attempt() -> None:
    """Nobody read it in time: the operator was away, and the node went, or was drained."""
    failure = failure_of(a_done_job(None))
    assert (failure.kind, failure.reason) == ("Disrupted", "PodLost")


def test_a_stage_that_is_done_is_done_whatever_fails_beside_it() -> None:
    """A pod fails with any of its containers, and its Job with it."""
    assert outcome_of(a_failed_job(an_ended_pod(0, a_result())), SPEC) == a_result()


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (ExitCode.BAD_INPUT, "BadInput"),
        (ExitCode.TRANSIENT, "Transient"),
        (ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
        (ExitCode.STOPPED, "Stopped"),
        (1, "Bug"),
        (2, "Bug"),
        (139, "Bug"),
    ],
)
def test_the_exit_code_says_what_to_do(exit_code: int, kind: str) -> None:
    told = failure_of(a_failed_job(an_ended_pod(exit_code, SAID)))
    assert (told.kind, told.reason, told.exit_code) == (kind, "Because", exit_code)
    assert str(told) == "spec.corpus: it is so"
    silent = failure_of(a_failed_job(an_ended_pod(exit_code, "Traceback")))
    assert (silent.kind, silent.reason) == (kind, "StageCrashed")
    assert "Traceback" in str(silent)


@pytest.mark.parametrize(
    ("job", "kind", "reason", "field"),
    [
        (a_failed_job(None), "Transient", "PodLost", ""),
        (a_failed_job(a_pod(phase="Failed")), "Transient", "PodLost", ""),
        (a_failed_job(an_ended_pod(137, reason="OOMKilled")), "Bug", "OOMKilled", "resources.limits.memory"),
        (a_failed_job(an_ended_pod(137, reason="Error")), "Bug", "StageCrashed", ""),
        (a_failed_job(None, "DeadlineExceeded"), "Stopped", "Timeout", "timeoutSeconds"),
        (a_failed_job(an_ended_pod(20, SAID), "DeadlineExceeded"), "Stopped", "Timeout", "timeoutSeconds"),
        (
            a_failed_job(an_ended_pod(1, "cp: no such file", failed_init="copy-corpus")),
            "BadInput",
            "SourceImagePathMissing",
            "spec.corpus.source.image.path",
        ),
        (a_failed_job(an_ended_pod(1, "no busybox", failed_init="tools")), "Bug", "StageCrashed", ""),
        (
            a_failed_job(a_pod(phase="Failed", blocked_by="container istio-init ended with exit code 1")),
            "Transient",
            "InjectedContainerBlocks",
            "",
        ),
        (a_failed_job(an_ended_pod(0, sidecars=("x",))), "Transient", "PodLost", ""),
        (
            a_failed_job(an_ended_pod(137, failed_init="copy-corpus", evicted=too_large("source-corpus", "50Gi"))),
            "BadInput",
            "SourceImageTooLarge",
            "spec.corpus.source.image.path",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted=too_large("source-corpus", "50Gi"))),
            "BadInput",
            "SourceImageTooLarge",
            "spec.corpus.source.image.path",
        ),
        (
            a_failed_job(
                an_ended_pod(137, evicted="Pod ephemeral local storage usage exceeds the total limit of 1Gi.")
            ),
            "Bug",
            "DiskFull",
            "resources.limits.ephemeral-storage",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node was low on resource: memory.")),
            "Disrupted",
            "Evicted",
            "resources.requests.memory",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node was low on resource: ephemeral-storage.")),
            "Disrupted",
            "DiskFull",
            "resources.requests.ephemeral-storage",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node was low on resource: inodes.")),
            "Disrupted",
            "Evicted",
            "",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node had condition: [DiskPressure].")),
            "Disrupted",
            "Evicted",
            "",
        ),
        (
            a_failed_job(an_ended_pod(1, "OSError: [Errno 28] No space left on device: '/workspace/x'")),
            "BadInput",
            "DiskFull",
            "spec.storage.size",
        ),
        (
            a_failed_job(an_ended_pod(20, "the result could not be written to /dev/x: No space left on device")),
            "Transient",
            "DiskFull",
            "resources.requests.ephemeral-storage",
        ),
        (a_failed_job(a_pod(phase="Failed", node_lost=True)), "Disrupted", "NodeLost", ""),
        (a_failed_job(a_pod(phase="Failed", node_lost=True, disrupted=True)), "Disrupted", "NodeLost", ""),
        (a_failed_job(None, all_pods=(a_pod(node_lost=True, disrupted=True),)), "Disrupted", "NodeLost", ""),
        (a_failed_job(an_ended_pod(143, disrupted=True, tainted=True)), "Disrupted", "Evicted", ""),
        (a_failed_job(an_ended_pod(20, INTERRUPTED, disrupted=True, tainted=True)), "Disrupted", "Evicted", ""),
        (a_failed_job(an_ended_pod(143, disrupted=True)), "Disrupted", "PodDisrupted", ""),
        (a_failed_job(an_ended_pod(20, INTERRUPTED)), "Disrupted", "Interrupted", "spec.corpus"),
        (a_failed_job(an_ended_pod(1, INTERRUPTED)), "Bug", "Interrupted", "spec.corpus"),
        (
            a_failed_job(an_ended_pod(137, reason="OOMKilled", disrupted=True)),
            "Bug",
            "OOMKilled",
            "resources.limits.memory",
        ),
        (a_failed_job(an_ended_pod(10, SAID, disrupted=True)), "BadInput", "Because", "spec.corpus"),
    ],
    ids=[
        "no pod",
        "gone",
        "memory",
        "killed",
        "deadline",
        "deadline and result",
        "copy",
        "tools",
        "a container of somebody else",
        "done, and silent",
        "a copy too large",
        "a copy too large, without a code",
        "disk",
        "a node that ran short",
        "a node whose disk ran full",
        "a node that ran short of something else",
        "a node that takes no pod",
        "a full disk, without a result",
        "a disk without room for the result",
        "a lost node",
        "a lost node, told by a disruption",
        "a lost node, and a newer pod that is gone",
        "put out by a taint",
        "put out by a taint, and told so",
        "drained",
        "asked to stop",
        "a crash that says it was asked to stop",
        "memory, and drained",
        "bad input, and drained",
    ],
)
def test_what_never_reached_an_exit_code_is_sorted_too(job: JobView, kind: str, reason: str, field: str) -> None:
    failure = failure_of(job)
    assert (failure.kind, failure.reason) == (kind, reason)
    assert failure.field.endswith(field)
    assert ".;" not in failure.message, "the kubelet's sentence goes on"


def a_peer(index: int, exit_code: int, said: str | StageResult = "", second: int = 0, **changes: Any) -> PodView:
    return an_ended_pod(exit_code, said, index=index, ended=NOON.replace(second=second), **changes)


def says(reason: str) -> StageResult:
    return a_result(Stage.FINETUNE, artefacts={}, reason=reason)


def test_the_result_of_several_nodes_is_that_of_index_0() -> None:
    result = a_result(Stage.FINETUNE)
    job = a_job_of_several(a_peer(0, 0, result), a_peer(1, 0, "worker of rank 8 is done"), succeeded=True)
    assert outcome_of(job, SPEC) == result
    silent = a_job_of_several(a_peer(0, 0), a_peer(1, 0, result), succeeded=True)
    assert failure_of(silent).reason == "NoResult"
    lost = a_job_of_several(a_peer(1, 0, result), succeeded=True)
    assert failure_of(lost).reason == "PodLost"


@pytest.mark.parametrize(
    ("pods", "kind", "reason"),
    [
        ([a_peer(0, 1, says("First"), 10), a_peer(1, 1, says("Second"), 11)], "Bug", "First"),
        ([a_peer(0, 1, says("Second"), 11), a_peer(1, 1, says("First"), 10)], "Bug", "First"),
        ([a_peer(0, 20, INTERRUPTED, 10), a_peer(1, 1, says("StageCrashed"), 10)], "Bug", "StageCrashed"),
        ([a_peer(0, 20, INTERRUPTED, 9), a_peer(1, 30, says("OutOfMemory"), 10)], "OutOfMemory", "OutOfMemory"),
        ([a_peer(0, 20, INTERRUPTED, 9), a_peer(1, 137, "", 10, reason="OOMKilled")], "Bug", "OOMKilled"),
        ([a_peer(0, 1, "Traceback", 9), a_peer(1, 20, says("WorkerLost"), 10)], "Transient", "WorkerLost"),
        ([a_peer(0, 20, says("PeerLost"), 9), a_peer(1, 1, "Traceback", 10)], "Bug", "StageCrashed"),
        ([a_peer(0, 20, says("PeerLost"), 9), a_peer(1, 20, says("NetworkDown"), 10)], "Transient", "NetworkDown"),
        ([a_peer(0, 20, says("PeerLost"), 9)], "Transient", "PeerLost"),
        ([a_peer(0, 143, "", 9), a_peer(1, 1, says("First"), 10)], "Bug", "First"),
        ([a_peer(0, 20, INTERRUPTED, 9, deleting=True), a_peer(1, 1, "Traceback", 10)], "Bug", "StageCrashed"),
        ([a_pod(index=0), a_peer(1, 10, SAID, 10)], "BadInput", "Because"),
        ([a_peer(1, 10, SAID, 10)], "BadInput", "Because"),
        ([a_peer(0, 0, says("Completed"), 9), a_peer(1, 1, SAID, 10)], "Bug", "Because"),
        ([], "Transient", "PodLost"),
        ([a_pod(index=1)], "Transient", "PodLost"),
        ([a_peer(0, 0, says("Completed"))], "Transient", "PodLost"),
        ([a_peer(0, 143, "", 9, disrupted=True), a_peer(1, 20, says("PeerLost"), 10)], "Disrupted", "PodDisrupted"),
        ([a_peer(0, 143, "", 9, disrupted=True)], "Disrupted", "PodDisrupted"),
        ([a_peer(0, 143, "", 9, disrupted=True, node_lost=True)], "Disrupted", "NodeLost"),
        ([a_peer(0, 143, "", 9, node_lost=True), a_peer(1, 20, says("PeerLost"), 10)], "Disrupted", "NodeLost"),
        ([a_peer(0, 20, INTERRUPTED, 9)], "Disrupted", "PodDisrupted"),
        ([a_peer(0, 20, INTERRUPTED, 9), a_peer(1, 20, says("PeerLost"), 8)], "Transient", "PeerLost"),
        ([a_peer(0, 143, "", 9, disrupted=True), a_peer(1, 10, SAID, 10)], "BadInput", "Because"),
    ],
    ids=[
        "the first",
        "the first, by time",
        "the same second",
        "out of memory",
        "killed for memory",
        "who says something",
        "who followed",
        "who followed a passing fault",
        "nobody else is left",
        "silence",
        "killed with it",
        "the leader is lost",
        "one pod is left",
        "one succeeded",
        "nothing is left",
        "no last words",
        "the other is lost",
        "drained",
        "drained alone",
        "on a lost node alone",
        "on a lost node",
        "all were asked to stop, and one is gone",
        "asked to stop because a peer was lost",
        "drained, and a fault",
    ],
)
def test_of_several_pods_the_one_that_failed_first_says_why(pods: list[PodView], kind: str, reason: str) -> None:
    failure = failure_of(a_job_of_several(*pods, failed=True, failure_reason="BackoffLimitExceeded"))
    assert (failure.kind, failure.reason) == (kind, reason)


def test_a_reason_is_short_and_never_empty() -> None:
    assert failure_of(a_failed_job(an_ended_pod(1, a_result(reason="")))).reason == "StageFailed"
    assert len(failure_of(a_failed_job(an_ended_pod(1, a_result(reason="R" * 999)))).reason) == 64


def test_a_result_longer_than_a_termination_message_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="4096"):
        StageResult(stage=Stage.SDG, fingerprint="f", details={"x": "y" * 5000}).to_json()


def failed(*kinds: Any) -> list[tuple[JobView, Failure]]:
    return [
        (a_failed_job(None, attempt=number), Failure(kind=kind, reason="R", message=""))
        for number, kind in enumerate(kinds, 1)
    ]


@pytest.mark.parametrize(
    ("kinds", "retries", "seconds"),
    [
        (["Transient"], 3, 10),
        (["Transient"] * 2, 3, 20),
        (["Transient"] * 3, 3, 40),
        (["Transient"] * 4, 3, None),
        (["Transient"] * 9, 20, 300),
        (["Transient"], 0, None),
        (["Bug"], 3, 10),
        (["Bug"] * 2, 3, None),
        (["Bug"], 0, None),
        (["OutOfMemory"], 0, 0),
        (["OutOfMemory"] * 3, 0, 0),
        (["OutOfMemory"] * 4, 9, None),
        (["BadInput"], 9, None),
        (["Stopped"], 9, None),
        (["Disrupted"] * 9, 0, 300),
        (["Disrupted", "Transient"], 1, 10),
        (["Transient", "Transient", "Bug"], 3, 10),
        (["Bug", "Transient", "Transient"], 3, 20),
    ],
)
def test_each_class_has_its_own_retries_and_backoff(kinds: list[str], retries: int, seconds: int | None) -> None:
    wanted = None if seconds is None else NOON + timedelta(seconds=seconds)
    assert retry_at(failed(*kinds), retries) == wanted


@pytest.mark.parametrize(
    ("configured", "kinds", "size"),
    [
        (8, [], 8),
        (8, ["OutOfMemory"], 4),
        (8, ["OutOfMemory", "Transient", "OutOfMemory"], 2),
        (2, ["OutOfMemory"] * 3, 1),
        (8, ["Bug"], 8),
    ],
)
def test_the_micro_batch_is_halved_for_every_time_memory_ran_out(configured: int, kinds: list[str], size: int) -> None:
    assert micro_batch(configured, failed(*kinds)) == size


@pytest.mark.parametrize(("limits", "said"), [({"memory": "2Gi"}, "at 2Gi: raise it"), ({}, "out of memory: raise it")])
def test_who_ran_out_of_memory_is_told_at_which_limit(limits: dict[str, str], said: str) -> None:
    spec = a_spec(stages={"sdg": {"provider": {"extractive": {}}, "resources": {"limits": limits}}})
    failure = outcome_of(a_failed_job(an_ended_pod(137, reason="OOMKilled")), spec)
    assert isinstance(failure, Failure)
    assert str(failure).startswith("spec.stages.sdg.resources.limits.memory: ")
    assert str(failure).endswith(said)
