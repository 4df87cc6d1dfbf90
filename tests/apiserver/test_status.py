"""The status: what is in it before the operator looked, that nothing is lost on the way, and what people see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver.api import EFT, ROOT, Api, resource
from simulation.scene import a_ready_quickstart

from embedding_operator.resource.conditions import ORDER
from embedding_operator.resource.schedule_status import ScheduleStatus
from embedding_operator.resource.status import Condition, Served, StageStatus, StageWarning, Status
from embedding_operator.resource.usage import Spent, Usage
from embedding_stages.contract import Artefact, ArtefactRef, Stage

DIGEST = "sha256:" + "0" * 64
TIME = "2026-01-01T00:00:00Z"
EVENTS = 15
FIGURES = {
    f"{metric}@{k}": 0.61559 for metric in ("ndcg", "map", "recall", "precision") for k in (1, 3, 5, 10, 100, 1000)
}
SCHEDULE = ScheduleStatus(
    asked="0 3 * * 1 Europe/Berlin",
    next_look=TIME,
    last_look=TIME,
    last_change=TIME,
    result="Changed",
    message="m" * 1024,
    waits="no looks while spec.suspend is true",
    drift={"newDocuments": 3, "goneDocuments": 1, "newText": "0.25000", "unseenTerms": "0.01000"},
    revisions=1,
    due=TIME,
    look=StageStatus(name=Stage.INPUTS, fingerprint="f" * 64, job_name="docs-inputs-01234567-1", attempt=1),
    seen={"corpus": DIGEST, "baseModel": DIGEST},
    before={"fingerprint": "f" * 64, "corpus": "inputs/corpus-0123456789abcdef"},
)


def _stage(stage: Stage) -> StageStatus:
    return StageStatus(
        name=stage,
        state="Succeeded",
        reason="Completed",
        message="m" * 1024,
        fingerprint="f" * 64,
        image="i" * 512,
        job_name="docs-finetune-01234567-12",
        attempt=2,
        distrusted=1,
        revision=1,
        reused_from=1,
        started_at=TIME,
        finished_at=TIME,
        percent=5,
        step=1,
        total_steps=20,
        eta_seconds=3,
        loss=0.12345,
        rate="12345 tokens/s",
        usage=Usage(closed=Spent(active_s=7, gpu_s=14, llm_tokens=2**40), since=1_767_225_600),
        took_s=9,
        artefacts={name: ArtefactRef(path="inputs/corpus-0", digest=DIGEST) for name in Artefact},
        counts={"documents": 5, "bytes": 2**40},
        details={"any": {"thing": [1, 2.5, None, "x"]}},
        metrics={"base": {"ndcg@10": 0.5}, "fineTuned": {"ndcg@10": 0.6}},
    )


def _status(stages: tuple[Stage, ...]) -> Status:
    shown = {name: f"{value:.5f}" for name, value in FIGURES.items()}
    conditions = tuple(
        Condition(
            type=kind,
            status="True",
            reason="Verified",
            message="fine",
            observed_generation=1,
            last_transition_time=TIME,
        )
        for kind in ORDER
    )
    return Status(
        observed_generation=1,
        revision=1,
        phase="Ready",
        current_stage="verify",
        progress="done",
        run={"startedAt": TIME, "activeSeconds": 7, "gpuHours": "0.42", "llmTokens": 2**40, "etaSeconds": 9},
        ndcg="0.61559",
        uplift="+10.9%[+7.0,+15.0]n=312",
        warnings=(StageWarning(stage=Stage.PREP, message="few questions"),),
        stages=tuple(_stage(stage) for stage in stages),
        conditions=conditions,
        served=Served(
            active_fingerprint="a" * 64,
            active_revision=1,
            candidate_fingerprint="b" * 64,
            candidate_revision=2,
            artefact_digest=DIGEST,
            url="http://docs.ns:8000/v1/embeddings",
            model="m",
            contract={"dimensions": [384], "prefixes": {"query": "query: "}},
        ),
        metrics={
            "base": shown,
            "fineTuned": shown,
            "served": shown,
            "relativeUplift": "0.10900",
            "confidenceInterval": ["0.07000", "0.15000"],
            "queries": 312,
        },
        verification={
            "withinTolerance": True,
            "effectiveTolerance": {"@1": "0.03001"},
            "largestDifference": {"metric": "recall@10", "difference": "0.00000"},
            "queries": 312,
            "changedQueries": 1,
            "invalidVectors": 0,
            "artefactDigest": DIGEST,
        },
        last_failure={
            "stage": "prep",
            "job": "docs-prep-0-1",
            "reason": "PodLost",
            "message": "gone",
            "exitCode": -1,
            "node": "n",
            "time": TIME,
            "logTail": "…" * 4096,
        },
        schedule=SCHEDULE,
        resolved={"stages": {"prep": {"margin": 0.95, "learningRate": 1e-05, "threshold": 7.0, "path": None}}},
    )


def _put(api: Api, namespace: str, status: dict[str, Any]) -> dict[str, Any]:
    made = api.make(EFT.format(namespace), resource(namespace))
    body = {**made, "status": status}
    code, answer = api.send("PUT", f"{EFT.format(namespace)}/docs/status", body, fieldValidation="Strict")
    assert code == 200, answer["message"]
    return answer


def test_a_resource_that_nobody_has_looked_at_says_so(api: Api, namespace: str) -> None:
    """Or `helm install --wait` and Flux would take it for done."""
    made = api.make(EFT.format(namespace), resource(namespace))
    assert made["status"] == {"observedGeneration": -1}


def test_a_status_that_comes_with_the_manifest_is_not_believed(api: Api, namespace: str) -> None:
    made = api.make(
        EFT.format(namespace), {**resource(namespace), "status": {"phase": "Ready", "observedGeneration": 1}}
    )
    assert made["status"] == {"observedGeneration": -1}


@pytest.mark.parametrize("stage", list(Stage))
def test_a_full_status_is_kept_to_the_last_field(api: Api, namespace: str, stage: Stage) -> None:
    """A difference would be written again in every pass, for ever."""
    written = _status((stage,)).to_json()
    stored = _put(api, namespace, written)["status"]
    assert stored == written
    assert Status.from_json(stored).to_json() == written


def test_the_largest_status_of_all_stages_is_taken(api: Api, namespace: str) -> None:
    written = _status(tuple(Stage)).to_json()
    assert _put(api, namespace, written)["status"] == written


def test_the_quickstarts_resource_is_described_in_150_lines_when_it_is_ready(api: Api, namespace: str) -> None:
    """With its Events: a few more than a run makes, which the simulation counts."""
    ready = a_ready_quickstart().resource
    assert len(ready["status"]["warnings"]) == 2
    assert "[" in ready["status"]["uplift"]  # with an interval
    made = api.make(EFT.format(namespace), {**resource(namespace), "spec": ready["spec"]})
    code, answer = api.send("PUT", f"{EFT.format(namespace)}/docs/status", {**made, "status": ready["status"]})
    assert (code, answer.get("status")) == (200, ready["status"]), answer
    who = {"apiVersion": made["apiVersion"], "kind": made["kind"], "name": "docs", "namespace": namespace}
    for number in range(EVENTS):
        event = {
            "metadata": {"name": f"docs.{number}", "namespace": namespace},
            "involvedObject": {**who, "uid": made["metadata"]["uid"]},
            "reason": "Completed",
            "message": "a stage is done",
            "type": "Normal",
        }
        api.make(f"/api/v1/namespaces/{namespace}/events", {"apiVersion": "v1", "kind": "Event", **event})
    lines = api.kubectl("describe", "eft", "docs", "-n", namespace).splitlines()
    assert len([line for line in lines if line.endswith("a stage is done")]) == EVENTS
    assert len(lines) <= 150, "\n".join(lines)


FIXTURES = sorted((ROOT / "charts" / "argocd").rglob("testdata/*.yaml"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_the_states_that_argo_cds_check_is_made_for_can_exist(api: Api, namespace: str, path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    assert _put(api, namespace, raw["status"])["status"] == raw["status"]
    assert api.objection(EFT.format(namespace), resource(namespace, raw["spec"], name="spec")) == ""


def test_argo_cds_check_has_a_row_for_each_of_its_states() -> None:
    (table,) = (ROOT / "charts" / "argocd").rglob("health_test.yaml")
    rows = [row["inputPath"] for row in yaml.safe_load(table.read_text())["tests"]]
    assert sorted(rows) == [f"testdata/{path.name}" for path in FIXTURES]


def test_a_status_write_makes_no_new_revision(api: Api, namespace: str) -> None:
    assert _put(api, namespace, {"observedGeneration": 1, "phase": "Running"})["metadata"]["generation"] == 1


def test_the_columns_show_what_people_ask_first(api: Api, namespace: str) -> None:
    _put(api, namespace, _status((Stage.EVAL,)).to_json())
    header, row = api.kubectl("get", "eft", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "PHASE", "STAGE", "PROGRESS", "NDCG@10", "UPLIFT", "VERIFIED", "AGE"]
    assert row.split()[:-1] == ["docs", "Ready", "verify", "done", "0.61559", "+10.9%[+7.0,+15.0]n=312", "True"]


def test_the_wide_columns_show_where_and_why(api: Api, namespace: str) -> None:
    _put(api, namespace, _status((Stage.EVAL,)).to_json())
    header, row = api.kubectl("get", "eft", "-n", namespace, "-o", "wide").splitlines()
    assert header.split()[-5:] == ["QUEUE", "REVISION", "ENDPOINT", "GPU-H", "REASON"]
    assert row.split()[-4:] == ["1", "http://docs.ns:8000/v1/embeddings", "0.42", "Verified"]


def test_people_wait_for_ready_by_kubectl(api: Api, namespace: str) -> None:
    _put(api, namespace, _status(()).to_json())
    api.kubectl("wait", "--for=condition=Ready", "eft/docs", "-n", namespace, "--timeout=10s")


@pytest.mark.parametrize("name", ["eft", "embeddingfinetune", "embeddingfinetunes", "ai"])
def test_it_is_found_by_its_names_and_its_category(api: Api, namespace: str, name: str) -> None:
    api.make(EFT.format(namespace), resource(namespace))
    assert "docs" in api.kubectl("get", name, "-n", namespace, "-o", "name")
