"""The status survives being written and read, and stays small whatever a stage says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from simulation.invariants import status_errors
from unit.operator.builders import FINGERPRINT, a_condition, a_ref, a_spec, a_stage

from embedding_operator.resource.conditions import ORDER
from embedding_operator.resource.frozen import resolved
from embedding_operator.resource.pipeline import BY_STAGE
from embedding_operator.resource.restored import Restored
from embedding_operator.resource.status import FrozenSet, Served, StageStatus, StageWarning, Status
from embedding_operator.resource.usage import PodPart, Spent, Usage
from embedding_stages.contract import Artefact, ArtefactRef, Stage

USAGE = Usage(
    closed=Spent(active_s=60, gpu_s=120, llm_tokens=3),
    since=1_767_225_600,
    parts=(
        PodPart(uid="0f1e2d3c-aaaa", created=1_767_225_600, spent=Spent(active_s=7, gpu_s=14)),
        PodPart(uid="0f1e2d3c-aaab", created=1_767_225_601, spent=Spent(llm_tokens=5)),
    ),
)
FULL = Status(
    run={"startedAt": "2026-01-01T00:00:00Z", "activeSeconds": 67, "gpuHours": "0.04", "etaSeconds": 9},
    observed_generation=4,
    revision=4,
    phase="Verifying",
    current_stage="verify",
    progress="10%",
    ndcg="0.12345",
    uplift="+10.0%[+5.0,+15.0]n=300",
    warnings=(StageWarning(stage=Stage.PREP, message="few questions"),),
    stages=(
        a_stage(Stage.INPUTS, state="Reused", reused_from=2, artefacts={Artefact.CORPUS: a_ref()}),
        a_stage(
            Stage.EVAL,
            metrics={"base": {"ndcg@10": 0.12345}},
            counts={"queries": 0},
            details={"x": [1.5]},
            active_may_know=True,
        ),
        a_stage(Stage.DEPLOY, state="Waiting", broken=True, ran_until="2026-01-01T00:00:00Z", image_ids=("sha256:a",)),
        a_stage(
            Stage.VERIFY,
            state="Running",
            percent=0,
            step=1,
            total_steps=9,
            eta_seconds=7,
            loss=0.5,
            rate="3 steps/s",
            distrusted=2,
            usage=USAGE,
            took_s=0,
        ),
    ),
    conditions=(a_condition("Ready", "Unknown", 4), a_condition("Validated", "True", 4)),
    served=Served(active_fingerprint="aa", active_revision=3, candidate_fingerprint="bb", candidate_revision=4),
    metrics={"queries": 3},
    verification={"withinTolerance": False},
    last_failure={"stage": "sdg"},
    resolved=resolved(a_spec(), Status(), 1),
)


@pytest.mark.parametrize("status", [Status(), FULL], ids=["empty", "full"])
def test_writing_and_reading_gives_the_same(status: Status) -> None:
    written = json.loads(json.dumps(status.to_json()))
    assert Status.from_json(written) == status
    assert Status.from_json(written).to_json() == written
    assert status_errors(written) == []


def test_zero_and_false_are_written_and_nothing_is_not() -> None:
    written = FULL.to_json()
    assert written["verification"] == {"withinTolerance": False}
    assert json.loads(written["record"])["stages"]["eval"]["counts"] == {"queries": 0}
    assert written["stages"][3]["progress"]["percent"] == 0
    assert "broken" not in written["stages"][0]
    assert "message" not in written["stages"][0]
    assert "lastFailure" not in Status().to_json()


@pytest.mark.parametrize(
    "raw",
    [
        {"name": "distil"},
        {"state": "Running"},
        {"name": "sdg", "attempt": "many"},
        {"name": "sdg", "artefacts": {"unknown": {"path": "p", "digest": "d"}}},
        {"name": "sdg", "artefacts": {"pairs": {}}},
        {"name": "sdg", "metrics": {"base": {"ndcg@10": "high"}}},
    ],
    ids=str,
)
def test_a_stage_that_cannot_be_read_is_forgotten_alone(raw: dict[str, Any]) -> None:
    written = FULL.to_json()
    written["stages"].insert(1, raw)
    assert Status.from_json(written) == FULL


@pytest.mark.parametrize("raw", [None, {}, {"observedGeneration": -1}])
def test_a_status_that_nobody_wrote_is_empty(raw: Any) -> None:
    assert Status.from_json(raw) == Status()


def test_stages_are_kept_in_the_pipelines_order() -> None:
    status = Status()
    for stage in reversed(Stage):
        status = status.with_stage(StageStatus(name=stage))
    assert [item.name for item in status.stages] == list(Stage)
    assert status.with_stage(a_stage(Stage.SDG)).stage(Stage.SDG).state == "Succeeded"
    assert len(status.with_stage(a_stage(Stage.SDG)).stages) == len(Stage)


@pytest.mark.parametrize("value", [0.5, 1.0, math.nan, math.inf, 1e300, -1e300, 1e-300])
def test_a_figure_is_never_longer_than_the_schema_allows(value: float) -> None:
    written = Status(stages=(a_stage(metrics={"base": {"ndcg@10": value}}),)).to_json()
    assert status_errors(json.loads(json.dumps(written))) == []


NOW = "2026-01-01T00:00:00Z"


def test_the_fullest_status_fits_32_kib_and_the_schema() -> None:
    of_one = {metric: [0.123456] * 4 for metric in ("ndcg@1000", "ndcg@999", "recall@1000", "recall@999")}
    details: dict[Stage, dict[str, Any]] = {
        Stage.INPUTS: {
            "encoder": {"prefixes": {"query": "q" * 64, "passage": "p" * 64}, "dimensions": [4096] * 6},
            "skipped": dict.fromkeys(("skippedFiles", "skippedBinary"), ["n" * 72] * 2),  # as in inputs/counts.py
            "warnings": ["w" * 86] * 4,
        },
        Stage.PREP: {"warnings": ["w" * 80] * 2, "negatives": {"meanPositiveScore": 0.1234, "meanNegativeScore": 0.1}},
        Stage.EVAL: {
            "comparisons": dict.fromkeys(("base", "active", f"guard:{'a' * 32}", f"guard:{'b' * 32}"), of_one),
            "dimensions": {str(2048 - size): {"ndcg@10": 0.123456, "bytesPerMillion": 10**10} for size in range(6)},
            "evaluationSet": f"sha256:{FINGERPRINT}",
            "activeCheckpoint": f"sha256:{FINGERPRINT}",
        },
        Stage.VERIFY: {
            "artefactDigest": f"sha256:{FINGERPRINT}",
            "serverDigest": f"sha256:{FINGERPRINT}",
            "rate": {"passagesPerSecond": 1234.123, "tokensPerPassage": 123.123, "tokensPerSecond": 123456.123},
            **{name: {"sent": "otherRole", "ndcg@10": 0.12345} for name in ("sample", "roleSwap", "wrongPrefix")},
        },
    }
    figures = {
        f"{name}@{k}": 0.12345 for name in ("ndcg", "map", "recall", "precision") for k in (10, *range(986, 1001))
    }
    shown = {"ndcg@10": "0.12345", "recall@10": "0.12345"}
    stages = [
        a_stage(
            stage,
            reason="R" * 300,
            message="m" * 5000,
            image="i" * 256,
            job_name="j" * 63,
            started_at="2026-01-01T00:00:00Z",
            finished_at="2026-01-01T00:00:00Z",
            percent=100,
            eta_seconds=10**6,
            artefacts={
                name: ArtefactRef(path=f"{stage}/{FINGERPRINT}/{name}", digest=f"sha256:{FINGERPRINT}")
                for name in (BY_STAGE[stage].outputs if stage in BY_STAGE else ())
            },
            counts={f"count{number}": 10**9 for number in range(8)},
            metrics={
                Stage.EVAL: {"base": figures, "fineTuned": figures},
                Stage.VERIFY: {"served": figures},
            }.get(stage, {}),
            details=details.get(stage, {}),
            usage=Usage(closed=Spent(active_s=10**7, gpu_s=10**9, llm_tokens=10**9), since=1_767_225_600),
            took_s=10**6,
        )
        for stage in Stage
    ]
    ref = ArtefactRef(path=f"finetune/{FINGERPRINT}/checkpoint", digest=f"sha256:{FINGERPRINT}")
    served = Served(
        active_fingerprint=FINGERPRINT,
        active_revision=10**6,
        candidate_fingerprint=FINGERPRINT,
        candidate_revision=10**6,
        artefact_digest=ref.digest,
        url="u" * 128,
        astray="s" * 480,
        refused={"reason": "OutsideTolerance", "message": "m" * 400},
        model="m" * 64,
        checkpoint=ref,
        vector_space="0" * 16,
        candidate_vector_space="1" * 16,
        contract_map="c" * 49,
        canaries={"contract": "0" * 16, "takenAt": NOW, "checkedAt": NOW, "cosine": "0.999999"},
        next_url="u" * 128,
        draining_fingerprint=FINGERPRINT,
        draining_until=NOW,
        reindex={"required": True, "reason": "r" * 160, "passages": 10**9, "tokens": 10**12, "seconds": 10**6},
        contract={"prefixes": {"query": "q" * 64, "passage": "p" * 64}, "dimensions": [4096] * 6, "maxTokens": 8192},
    )
    status = Status(
        observed_generation=10**6,
        revision=10**6,
        progress="p" * 128,
        ndcg="0.12345",
        uplift="u" * 48,
        warnings=[StageWarning(stage=Stage.FINETUNE, message="w" * 240)] * 8,
        stages=stages,
        conditions=[replace(a_condition(kind), message="m" * 1024) for kind in ORDER],
        metrics={"base": shown, "fineTuned": shown, "served": shown},
        served=served,
        evaluation_set=FrozenSet(ref=ref, revision=10**6, asked="0" * 16, queries=10**6),
        history=[{"revision": 10**6, "vectorSpace": "0" * 16, "ndcg@10": "0.12345"}] * 8,
        run={"startedAt": NOW, "activeSeconds": 10**7, "gpuHours": "277777.78", "llmTokens": 10**9},
        restored={f"Service/{number:08x}": Restored(times=9, at=NOW, said="s" * 480) for number in range(3)},
        last_failure={"message": "m" * 1024, "logTail": "ü" * 4096},
        image_check={
            "revision": 10**6,
            "state": "Made",
            "since": NOW,
            "seen": ["0" * 12] * 5,
            "wrong": {f"{number:012d}": "c" * 240 for number in range(4)},
        },
        resolved=resolved(
            a_spec(corpus={"source": {"configMap": {"name": "d"}}, "include": ["g" * 64] * 16}), Status(), 10**6
        ),
    )
    text = json.dumps(status.to_json())
    assert status_errors(json.loads(text)) == []
    assert len(text.encode()) < 32 << 10
    assert Status.from_json(json.loads(text)).to_json() == json.loads(text)


def test_what_an_earlier_release_kept_among_the_details_is_found_there() -> None:
    memory = {"broken": True, "ranUntil": "2026-01-01T00:00:00Z", "imageIDs": ["sha256:a"]}
    read = StageStatus.from_json({"name": "deploy", "details": {**memory, "contract": {"dimensions": 8}}})
    assert (read.broken, read.ran_until, read.image_ids) == (True, "2026-01-01T00:00:00Z", ("sha256:a",))
    assert read.details == {"contract": {"dimensions": 8}}
    assert StageStatus.from_json(read.to_json()) == read


def test_what_an_earlier_release_wrote_out_is_read_as_what_this_one_folds() -> None:
    status = replace(FULL, served=replace(FULL.served, contract={"dimensions": [8]}, checkpoint=a_ref()))
    whole = {
        **status.to_json(),
        "stages": [item.to_json() for item in FULL.stages],
        "resolved": dict(FULL.resolved),
        "served": status.served.to_json(),
        "metrics": dict(FULL.metrics),
        "run": dict(FULL.run),
    }
    del whole["record"]
    assert Status.from_json(json.loads(json.dumps(whole))) == status


def test_once_all_stages_are_done_none_is_shown() -> None:
    done = Status(stages=tuple(a_stage(stage, artefacts={}) for stage in Stage))
    written = done.to_json()
    assert "stages" not in written
    assert Status.from_json(written) == done
    assert Status.from_json({**written, "record": "{"}).stages == ()
    between = done.with_stage(a_stage(Stage.DEPLOY, state="Waiting"))
    assert [item["name"] for item in between.to_json()["stages"]] == list(Stage)
    assert Status.from_json(between.to_json()) == between
    before = {**written, "stages": [{"name": item.name, "state": item.state} for item in done.stages]}
    assert Status.from_json(before) == done  # as a build before this one showed them


HISTORY = {"revision": 3, "vectorSpace": "ab", "ndcg@10": "0.12345", "queries": 9, "evaluationSet": "sha256:1"}


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        ("verification", {"withinTolerance": True, "queries": 3}, None),
        ("verification", {"withinTolerance": False, "queries": 3, "invalidVectors": 1}, ["queries", "withinTolerance"]),
        ("preflight", {"revision": 1, "state": "Done"}, None),
        ("preflight", {"revision": 1, "state": "Due"}, ["revision", "state"]),
        ("preflight", {"revision": 1, "state": "Done", "untried": "a"}, ["revision", "state", "untried"]),
        ("image_check", {"revision": 1, "state": "Done", "seen": ["a"]}, None),
        ("image_check", {"revision": 1, "state": "Done", "note": "no room"}, ["note"]),
        ("metrics", {"base": {"ndcg@10": "0.1"}, "queries": 3, "confidenceInterval": ["0", "1"]}, ["base"]),
        ("history", ({"revision": 2}, HISTORY), [{"revision": 2}, {"revision": 3, "ndcg@10": "0.12345"}]),
        ("history", ({"ndcg@10": "0.1", "queries": 1},), [{"ndcg@10": "0.1", "queries": 1}]),
    ],
)
def test_what_is_shown_of_a_part_and_what_is_only_kept(part: str, whole: Any, shown: list[Any] | None) -> None:
    status = replace(Status(), **{part: whole})
    written = json.loads(json.dumps(status.to_json()))
    name = {"image_check": "imageCheck"}.get(part, part)
    found = written.get(name)
    assert (sorted(found) if isinstance(found, dict) else found) == shown
    assert Status.from_json(written) == status
    # As 0.1 wrote it out, and with a record that holds nothing of it.
    assert Status.from_json({**written, name: whole, "record": "{}"}) == status


@pytest.mark.parametrize("text", ["{", "[]", "7", '"x"', "null"])
def test_a_record_that_somebody_made_unreadable_is_forgotten_alone(text: str) -> None:
    """Work that is done is found again in the workspace."""
    read = Status.from_json({**FULL.to_json(), "record": text})
    assert [item.name for item in read.stages] == [Stage.DEPLOY, Stage.VERIFY]
    assert (read.resolved, read.evaluation_set) == ({}, None)
    assert read.served == FULL.served
    assert read.verification == {"withinTolerance": False}


@pytest.mark.parametrize(
    "raw", ["x", ["x"], {"gpuSeconds": "many"}, {"pods": "1;a,b"}, {"pods": "1;a,b,c,d,e"}, {"pods": 7}]
)
def test_a_usage_that_somebody_edited_costs_no_stage_its_work(raw: Any) -> None:
    written = {**a_stage(Stage.SDG).to_json(), "usage": raw}
    read = StageStatus.from_json(written)
    assert (read.fingerprint, read.usage.spent) == (FINGERPRINT, Spent())


@pytest.mark.parametrize(
    "item", [None, 7, {}, {"times": "x", "at": NOW}, {"times": 1, "at": "yesterday"}, {"times": 1}]
)
def test_a_restoration_that_cannot_be_read_is_forgotten_alone(item: Any) -> None:
    good = Restored(times=2, at=NOW, said="who")
    read = Status.from_json({**FULL.to_json(), "restored": {"a": item, "b": good.to_json()}})
    assert read.restored == {"b": good}
    assert Status.from_json({**FULL.to_json(), "restored": item}).restored == {}
    written = replace(FULL, restored={"b": good}).to_json()
    assert "restored" not in written, "it stands in the record"
    assert Status.from_json(written).restored == {"b": good}
