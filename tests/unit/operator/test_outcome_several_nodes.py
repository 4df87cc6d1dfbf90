"""How an attempt of several pods ended, and which of them says why."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import NOON, a_job_of_several, a_pod, a_result, an_ended_pod
from unit.operator.outcomes import INTERRUPTED, SAID, SPEC, failure_of

from embedding_operator.decide.outcome import outcome_of
from embedding_operator.objects.pods import PodView
from embedding_stages.contract import Stage, StageResult


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
