"""A resource that looks at its sources by the clock: nothing changed costs seconds, a changed document a revision."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2e.kube import NAMESPACE, Kube
from e2e.manifests import config_map, documents, fine_tune
from node.record import Record

NAME, DOCS = "looks", "looked-at"
STAGES = ("inputs", "sdg", "prep", "finetune", "eval", "export", "verify")


@pytest.fixture(scope="module", autouse=True)
def ready(kube: Kube, images: dict[str, str], record: Record) -> Iterator[None]:
    kube.apply(config_map(DOCS, documents()["data"]))
    manifest = fine_tune(NAME, images["demo-model"])
    manifest["spec"]["corpus"]["source"]["configMap"]["name"] = DOCS
    kube.apply(manifest)
    kube.until_ready(NAME, generation=1, timeout_s=600)
    yield
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
    kube.run("delete", "configmap", DOCS, "-n", NAMESPACE)


def _look_soon(kube: Kube) -> datetime:
    """Let the sources be looked at in one or two minutes; when."""
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    if (due - datetime.now(UTC)).total_seconds() < 15:
        due += timedelta(minutes=1)
    cron = f"{due.minute} {due.hour} * * *"
    kube.patch(NAME, {"schedule": {"cron": cron, "timeZone": "UTC", "onCorpusChange": "Run"}})
    stamp = f"{due:%Y-%m-%dT%H:%M:%SZ}"
    kube.until(f"the next look is told for {stamp}", lambda: _schedule(kube).get("nextLookTime") == stamp, 30)
    kube.until_ready(NAME, generation=kube.generation(NAME), timeout_s=60)
    return due


def _schedule(kube: Kube) -> dict[str, Any]:
    found: dict[str, Any] = kube.status(NAME).get("schedule") or {}
    return found


def _until_looked(kube: Kube, due: datetime, result: str) -> None:
    def look() -> bool:
        found = _schedule(kube)
        last = found.get("lastLookTime")
        return bool(last) and datetime.fromisoformat(last) >= due and found.get("result") == result

    wait_s = (due - datetime.now(UTC)).total_seconds() + 180
    kube.until(f"a look that was due {due} and found {result}; now {_schedule(kube)}", look, wait_s)


def _corpus(kube: Kube) -> str:
    """The digest of the documents that the revision has; the same questions, and model, may follow from others."""
    return str(kube.stage(NAME, "inputs")["artefacts"]["corpus"]["digest"])


def _seconds(job: dict[str, Any]) -> float:
    times = [datetime.fromisoformat(job["status"][name]) for name in ("startTime", "completionTime")]
    return (times[1] - times[0]).total_seconds()


def test_a_look_that_finds_the_same_makes_no_run(kube: Kube, record: Record) -> None:
    jobs, revision = kube.jobs_of(NAME), kube.status(NAME)["revision"]
    due = _look_soon(kube)
    _until_looked(kube, due, "Unchanged")
    status = kube.status(NAME)
    assert status["schedule"].get("revisions", 0) == 0
    now = kube.jobs_of(NAME)
    (look,) = set(now["inputs"]) - set(jobs["inputs"])
    assert {stage: names for stage, names in now.items() if stage != "inputs"} == {
        stage: names for stage, names in jobs.items() if stage != "inputs"
    }
    job = kube.get("job", look)
    assert job is not None
    print(f"the look took {_seconds(job):.0f} s; revision {revision}, then {status['revision']}")
    assert kube.condition(NAME, "Ready")["status"] == "True"


def test_a_look_that_finds_a_changed_document_makes_a_revision(kube: Kube, record: Record) -> None:
    jobs = {stage: set(names) for stage, names in kube.jobs_of(NAME).items()}
    revision = kube.status(NAME)["revision"]
    corpus = _corpus(kube)
    data = documents()["data"]
    first = min(data)
    kube.apply(config_map(DOCS, {**data, first: f"{data[first]}\n\nThis sentence was added to the document later on."}))
    due = _look_soon(kube)
    _until_looked(kube, due, "Changed")

    def run_again() -> dict[str, Any] | None:
        status = kube.status(NAME)
        ready = next(item for item in status["conditions"] if item["type"] == "Ready")
        return status if status["revision"] > revision + 1 and ready["status"] == "True" else None

    status = kube.until(f"the revision that the look began is Ready; now {kube.status(NAME)}", run_again, 600)
    assert status["schedule"]["revisions"] == 1
    assert _corpus(kube) != corpus
    print(status["schedule"], record.table(NAME, 0, "Ready", "inputs", "sdg"))
    after = {stage: len(set(names) - jobs.get(stage, set())) for stage, names in kube.jobs_of(NAME).items()}
    assert after == dict.fromkeys(STAGES, 1), "each stage once; the look was the inputs stage of the revision"
    assert record.done_twice(NAME) == []
