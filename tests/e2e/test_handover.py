"""An index in pgvector changes hands three times and back while a client asks it all the time. In the order of this
file; `make test-handover` runs it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from e2e.handover.objects import CLIENT, DATABASE, REINDEX, client, database, passages_sql, reindex_job
from e2e.kube import NAMESPACE, Kube
from e2e.manifests import documents, fine_tune

NAME = "handover"
READY_S = 600
ANSWERS = 30  # of the old model, while the new one waits


@dataclass
class Index:
    """The resource, the index in PostgreSQL, and the vector spaces that clients had, in their order."""

    kube: Kube
    image: str
    spaces: list[str] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)

    @property
    def served(self) -> dict[str, Any]:
        return dict(self.kube.status(NAME).get("served") or {})

    @property
    def selector(self) -> dict[str, str]:
        """What the clients' Service selects."""
        service = self.kube.get("service", NAME)
        assert service is not None
        return dict(service["spec"]["selector"])

    def edit(self, patch: dict[str, Any]) -> None:
        self.kube.patch(NAME, {"stages": patch})

    def sql(self, text: str) -> str:
        words = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
        return self.kube.run("exec", "-i", DATABASE, "-n", NAMESPACE, "--", *words, stdin=text).strip()

    def until_waiting(self, old: str) -> str:
        """The vector space of the candidate that waits for its acknowledgement."""
        self.kube.until_condition(NAME, "Verified", "Unknown", "AwaitingAcknowledgement", timeout_s=READY_S)
        served = self.served
        assert served["vectorSpace"] == old
        assert served["candidateVectorSpace"] != old
        assert self.kube.get("service", f"{NAME}-next") is not None
        return str(served["candidateVectorSpace"])

    def reindex(self) -> str:
        """What the example's Job says, once it is done."""
        self.kube.run("replace", "--force", "-f", "-", stdin=reindex_job(self.image, NAME))
        self.kube.until("the Job is done", self._job_done, READY_S)
        return self.kube.run("logs", f"job/{REINDEX}", "-n", NAMESPACE)

    def _job_done(self) -> bool:
        status = (self.kube.get("job", REINDEX) or {}).get("status") or {}
        assert not status.get("failed"), self.kube.run("logs", f"job/{REINDEX}", "-n", NAMESPACE)
        return bool(status.get("succeeded"))

    def until_served(self, space: str) -> None:
        """Wait until clients are where the acknowledgement says, and note it."""
        self.kube.until_ready(NAME, self.kube.generation(NAME), READY_S)
        served = self.served
        assert served["vectorSpace"] == space
        self.spaces.append(space)
        self.revisions.append(int(served["activeRevision"]))

    def seen(self) -> dict[str, Any]:
        """What the client counted until now."""
        said = self.kube.run("logs", CLIENT, "-n", NAMESPACE, "--tail=40")
        last = said.strip().rpartition("\n")[2]
        assert last[:1] in ("", "{"), said
        return dict(json.loads(last)) if last else {"answers": 0, "by_space": {}}

    def until_asked_again(self) -> dict[str, Any]:
        """What the client counted, once it was answered some times more."""
        before = self.seen()["answers"]
        return self.kube.until(
            f"{ANSWERS} answers more than {before}",
            lambda: seen if (seen := self.seen())["answers"] >= before + ANSWERS else None,
            120,
        )


@pytest.fixture(scope="module")
def index(kube: Kube, images: dict[str, str]) -> Iterator[Index]:
    """A first revision that serves two replicas, its index made by the example's Job, and a client that asks it."""
    found = Index(kube, images["pgvector"])
    resource = fine_tune(NAME, images["demo-model"])
    # What is tried here are hand-overs; revisions differ by their seeds alone, some for the worse.
    resource["spec"]["gates"] = {"enabled": False}
    resource["spec"]["stages"]["deploy"] = {"strategy": "Shadow", "replicas": 2}
    kube.apply(resource, *database(found.image))
    kube.run("wait", "pod", DATABASE, "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
    found.sql(passages_sql(documents()["data"]))
    kube.until_ready(NAME, generation=1, timeout_s=READY_S)
    space = str(found.served["vectorSpace"])
    found.reindex()
    found.until_served(space)
    kube.apply(*client(found.image, NAME, str(found.served["model"]), space))
    kube.run("wait", "pod", CLIENT, "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
    found.until_asked_again()
    yield found
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--wait", "--timeout=120s")
    kube.run("delete", "pod", CLIENT, DATABASE, "-n", NAMESPACE, "--grace-period=1")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clients_move_to_a_revision_once_its_index_is_made_and_acknowledged(index: Index, seed: int) -> None:
    old, selector = index.spaces[-1], index.selector
    index.edit({"finetune": {"seed": seed}})
    new = index.until_waiting(old)
    assert new not in index.spaces
    seen = index.until_asked_again()
    assert set(seen["by_space"]) <= set(index.spaces)
    assert index.selector == selector
    assert new in index.reindex()
    index.until_served(new)
    assert index.selector != selector
    index.until_asked_again()


def test_a_rollback_moves_clients_back_without_training(index: Index) -> None:
    old, selector = index.spaces[-1], index.selector
    back, revision = index.spaces[-2], index.revisions[-2]
    # A server that clients have only just left would still be there.
    owned = f"embedding-operator.dev/owner={NAME}"
    index.kube.until("one server is left", lambda: len(index.kube.list("deployments", owned)) == 1, 120)
    jobs, rows = index.kube.jobs_of(NAME), index.sql(f"SELECT count(*) FROM vectors_{back}")
    index.edit({"deploy": {"pinRevision": revision}})
    assert index.until_waiting(old) == back
    index.until_asked_again()
    assert index.selector == selector
    index.reindex()
    index.until_served(back)
    assert index.revisions[-1] == revision
    made = index.kube.jobs_of(NAME)
    trained = ("inputs", "sdg", "prep", "finetune", "eval", "export")
    assert {stage: made[stage] for stage in trained} == {stage: jobs[stage] for stage in trained}
    assert index.sql(f"SELECT count(*) FROM vectors_{back}") == rows
    index.until_asked_again()


def test_every_vector_space_has_a_table_of_its_own_with_every_passage(index: Index) -> None:
    tables = index.sql("SELECT tablename FROM pg_tables WHERE tablename LIKE 'vectors\\_%'").split()
    assert sorted(tables) == sorted(f"vectors_{space}" for space in set(index.spaces))
    counts = {index.sql(f"SELECT count(*) FROM {table}") for table in (*tables, "passages")}
    assert len(counts) == 1


def test_no_request_failed_and_none_was_answered_across_vector_spaces(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.kube.run("exec", CLIENT, "-n", NAMESPACE, "--", "python3", "-c", "import os; os.kill(1, 15)")
    index.kube.run("wait", "pod", CLIENT, "-n", NAMESPACE, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    seen = index.seen()
    with capsys.disabled():
        print(f"\n{_summary(index, seen)}")
    assert (seen["crossings"], seen["crossed"]) == (0, [])
    assert (seen["failures"], seen["failed"]) == (0, [])
    assert (seen["unsteady"], seen["empty"]) == ([], 0)
    assert set(seen["by_space"]) == set(index.spaces)
    # No client came to an index before it was whole, and the same questions tell the models apart.
    assert all(move["rows"] == move["passages"] > 0 for move in seen["switches"])
    assert {move["to"] for move in seen["switches"]} >= set(index.spaces[1:])
    assert seen["apart"] > 2 * seen["same"]


def _summary(index: Index, seen: dict[str, Any]) -> str:
    kinds = ("answers", "failures", "crossings", "followed")
    answers, failed, across, followed = (seen[kind] for kind in kinds)
    lines = [
        f"{answers} answers, {failed} failed requests, {across} across vector spaces, 409 followed {followed} times",
        f"spaces in their order {' '.join(index.spaces)}, revisions {' '.join(map(str, index.revisions))}",
        *(f"answers in {space}: {seen['by_space'].get(space, 0)}" for space in dict.fromkeys(index.spaces)),
        f"one question in two spaces differs by {seen['apart']:.5f} at least",
    ]
    return "\n".join(lines)
