"""Which results of a stage are taken for one, and which are not."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import a_done_job, a_failed_job, a_ref, a_result, an_ended_pod
from unit.operator.outcomes import SPEC, failure_of

from embedding_operator.decide.outcome import outcome_of
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageResult


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


def test_a_reason_is_short_and_never_empty() -> None:
    assert failure_of(a_failed_job(an_ended_pod(1, a_result(reason="")))).reason == "StageFailed"
    assert len(failure_of(a_failed_job(an_ended_pod(1, a_result(reason="R" * 999)))).reason) == 64


def test_a_result_longer_than_a_termination_message_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="4096"):
        StageResult(stage=Stage.SDG, fingerprint="f", details={"x": "y" * 5000}).to_json()
