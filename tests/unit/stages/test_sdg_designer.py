"""Questions by NeMo Data Designer, the real library, against the scripted endpoint."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from data_designer.interface.errors import DataDesignerGenerationError
from scripted_llm import Script, Server
from unit.stages.only_here import sitecustomize
from unit.stages.scripted_sdg import PRICES, documents, killed, outcome_in, request_of, scripted, started

from embedding_stages.contract.settings import DataDesigner
from embedding_stages.formats.pairs import normalised
from embedding_stages.sdg import designer_process, designer_provider
from embedding_stages.sdg.designer_rows import Row

pytestmark = pytest.mark.usefixtures("no_proxy", "nothing_but_this_machine")
ROOT = Path(__file__).parents[3]
FIELD = "spec.stages.sdg.provider.dataDesigner"
EMBEDDING = {"embedding": {"model": "e"}}


@pytest.fixture(scope="session")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the modules that are here and not in the image."""
    names = sitecustomize.modules_not_in(ROOT / "stage_images/sdg/requirements.lock")
    assert {"torch", "scipy", "PIL"} <= set(names)
    path = tmp_path_factory.mktemp("image") / "lacking"
    path.write_text("\n".join(names))
    return path


@pytest.fixture
def nothing_but_this_machine(tmp_path: Path, lacking: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A name that is looked up, or an address elsewhere, is a call that must not be: in this process and in those that
    it starts, whose notes are in the file, and which have no package that the image lacks.
    """
    asked: list[str] = []
    notes = tmp_path / "elsewhere"
    monkeypatch.setenv("ONLY_HERE", str(notes))
    monkeypatch.setenv("LACKING", str(lacking))
    monkeypatch.setenv("PYTHONPATH", str(Path(sitecustomize.__file__).parent))
    undo = sitecustomize.refuse_others(asked.append)
    yield notes
    undo()
    said = notes.read_text().splitlines() if notes.exists() else []
    assert asked + [one for one in said if one != sitecustomize.STARTED] == []


def designed(
    tmp_path: Path, server: Server, texts: dict[str, str], **changes: Any
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    return scripted(tmp_path, server.url, texts, provider="dataDesigner", **changes)


def test_the_whole_pipeline(tmp_path: Path, nothing_but_this_machine: Path) -> None:
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, documents(12), endpoint=EMBEDDING, qualityThreshold=7.0)
        stats = server.state.stats()
    assert code == 0, result
    assert nothing_but_this_machine.read_text().splitlines() == [sitecustomize.STARTED], "the library's process"
    assert stats["roles"] == {"extractor": 12, "writer": 12, "embedder": 12, "judge": 12}
    details = result["details"]
    assert details["llmTokens"]["prompt"] == stats["prompt"]
    assert set(details["judgeScores"]) == {"relevance", "accuracy", "support", "clarity"}
    assert sum(details["questionTypes"].values()) == len(pairs)
    assert sum(details["reasoningTypes"].values()) == len(pairs)
    assert "1" not in details["complexities"]
    assert result["counts"]["keptPairs"] == sum(pair["score"] >= 7 for pair in pairs)
    for pair in pairs:
        assert (pair["type"] == "multi_hop") <= (len(pair["chunk_ids"]) in (2, 3))
    assert any(pair["type"] == "multi_hop" for pair in pairs)
    passages = {json.loads(line)["id"] for line in next(tmp_path.rglob("chunks.jsonl")).read_text().splitlines()}
    assert {name for pair in pairs for name in pair["chunk_ids"]} <= passages
    assert len({normalised(pair["question"]) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("design", "seen"),
    [
        ({"hops": 1}, {"hops": {"1"}, "questionTypes": {"structural", "contextual"}}),
        ({"hops": 2}, {"questionTypes": {"structural", "contextual", "multi_hop"}}),
        ({"complexity": 4}, {"complexities": {"4", "5"}}),
        ({"types": {"multiHop": 0, "structural": 1, "contextual": 0}}, {"questionTypes": {"structural"}}),
        ({"reasoning": ["causal"]}, {}),
    ],
    ids=lambda value: json.dumps(value, default=sorted),  # a set has another order in each process
)
def test_what_the_manifest_asks_for(tmp_path: Path, design: dict[str, Any], seen: dict[str, set[str]]) -> None:
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, documents(6), design=design)
    assert code == 0, result
    details = result["details"]
    for name, values in seen.items():
        assert set(details[name]) <= values
    if design.get("hops") == 2:
        assert all(len(pair["chunk_ids"]) == 2 for pair in pairs if pair["type"] == "multi_hop")
        assert any(len(pair["chunk_ids"]) == 3 for pair in pairs), "what names more is of another type, and keeps them"
    if "complexity" in design:
        assert result["counts"]["droppedSimple"] > 0


def test_questions_that_ask_the_same_are_dropped_before_they_are_judged(tmp_path: Path) -> None:
    with Server(Script()) as server:
        _, plain, _ = designed(tmp_path / "plain", server, documents(6))
        _, strict, pairs = designed(
            tmp_path / "strict", server, documents(6), endpoint=EMBEDDING, design={"duplicateCosine": 0.7}
        )
    assert "droppedAlike" not in plain["counts"] or plain["counts"]["droppedAlike"] == 0
    assert strict["counts"]["droppedAlike"] == plain["counts"]["pairs"] - len(pairs) > 0
    assert strict["details"]["embeddingTokens"]["calls"] == 6


def test_documents_are_asked_about_together(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, _, pairs = designed(tmp_path, server, documents(6), design={"documentsPerBundle": 3})
        assert server.state.stats()["roles"]["writer"] == 2
    assert code == 0
    assert {pair["document_id"] for pair in pairs} == {"d0000", "d0003"}
    together = [pair for pair in pairs if len({name.rsplit("-", 1)[0] for name in pair["chunk_ids"]}) > 1]
    assert together
    assert {pair["type"] for pair in together} == {"multi_hop"}


def test_a_preview_counts_documents_and_not_what_is_asked_about_together(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, documents(12), design={"documentsPerBundle": 3}, preview=5)
        assert server.state.stats()["roles"]["writer"] == 2
        again = designed(tmp_path, server, documents(12), design={"documentsPerBundle": 3}, preview=5)
        assert server.state.stats()["roles"]["writer"] == 2
    assert (code, result["reason"]) == (40, "PreviewDone")
    assert result["message"].startswith("6 of 12 documents gave ")
    assert again[1]["message"] == result["message"], "what was learned is there for the next attempt"


def test_nonsense_costs_tries_and_no_rows(tmp_path: Path) -> None:
    with Server(Script(junk=0.15, cut=0.1)) as server:
        code, result, pairs = designed(tmp_path, server, documents(20))
        stats = server.state.stats()
    assert (code, stats["answeredTwice"]) == (0, 0)
    assert result["counts"]["unreadableAnswers"] > 0
    assert len({pair["document_id"] for pair in pairs}) >= 18


def test_a_preview_and_a_budget_hold_here_too(tmp_path: Path) -> None:
    texts = documents(40)
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, texts, preview=5, prices=PRICES)
        assert (code, result["reason"], server.state.stats()["answered"]) == (40, "PreviewDone", 15)
        told = [float(one) for one in re.findall(r"about (\d+) and (\d+), a price of ([\d.e-]+)", result["message"])[0]]
        code, result, _ = designed(tmp_path, server, texts, maxTokensTotal=45_000)
        spent = server.state.stats()
        assert (code, result["reason"]) == (40, "TokenBudgetSpent"), result
        assert 30_000 < spent["prompt"] + spent["completion"] <= 45_000
        code, result, _ = designed(tmp_path, server, texts, prices=PRICES)
        stats = server.state.stats()
    assert (code, stats["answeredTwice"]) == (0, 0)
    real = (stats["prompt"], stats["completion"], result["details"]["llmCost"]["total"])
    assert told == [pytest.approx(one, rel=0.2) for one in real]


@pytest.mark.parametrize(
    ("models", "endpoint", "field"),
    [
        (["other"], {}, "model"),
        (["m"], {"judge": {"model": "nobody"}}, "judge.model"),
        (["m"], {"embedding": {"model": "nobody"}}, "embedding.model"),
    ],
)
def test_a_model_that_does_not_exist_is_named(
    tmp_path: Path, models: list[str], endpoint: dict[str, Any], field: str
) -> None:
    with Server(Script(models=models)) as server:
        code, result, _ = designed(tmp_path, server, documents(3), endpoint=endpoint)
    assert (code, result["reason"], result["field"]) == (10, "LLMModelNotFound", f"{FIELD}.{field}")


def test_a_kill_costs_no_answer(tmp_path: Path) -> None:
    script = Script(latency=(0.02, 0.2), junk=0.05, cut=0.05)
    texts = documents(60)
    with Server(script) as server:
        env = request_of(tmp_path, server.url, texts, provider="dataDesigner", endpoint=EMBEDDING)
        for _ in range(3):
            assert killed(started(env), server, 25, tmp_path), "it was done before the last kill"
        assert started(env).wait() == 0
        stats = server.state.stats()
        result, pairs = outcome_in(tmp_path)
    assert stats["answeredTwice"] == 0
    assert result["details"]["llmTokens"]["calls"] == stats["answered"]
    with Server(script) as server:
        _, _, unbroken = designed(tmp_path / "unbroken", server, texts, endpoint=EMBEDDING)
    assert pairs == unbroken


def test_a_pod_that_has_to_end_ends(tmp_path: Path) -> None:
    with Server(Script(latency=(0.5, 1.0))) as server:
        process = started(request_of(tmp_path, server.url, documents(60), provider="dataDesigner"))
        deadline = time.monotonic() + 30
        while server.state.stats()["answered"] < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) == 20
    assert outcome_in(tmp_path)[0]["reason"] == "Interrupted"


NOBODY = {"row": "nobody"}  # a row that the stage's own steps do not know: they fail behind answers that are good


@pytest.mark.parametrize(
    ("script", "unknown"),
    [(Script(), 6), (Script(junk=0.3), 6), (Script(), 5)],
    ids=["every row", "every row, beside nonsense", "most rows"],
)
def test_a_fault_of_its_own_is_a_bug_and_not_the_endpoints(
    script: Script, unknown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seed, made = designer_provider._seed, list[str]()

    def seeded(row: Row, design: DataDesigner) -> dict[str, Any]:
        made.append(row.id)
        return seed(row, design) | (NOBODY if len(made) <= unknown else {})

    monkeypatch.setattr(designer_provider, "_seed", seeded)
    with Server(script) as server:
        code, result, _ = designed(tmp_path, server, documents(6))
    assert len(made) == 6, "a row a document"
    assert (code, result["reason"]) == (1, "StageCrashed"), result
    assert result["message"].startswith("DesignerError: ")
    told = capfd.readouterr().err
    if unknown == 6:
        assert "DataDesignerGenerationError" in result["message"]
        assert "designer_columns.py" in told.split("_TraceThere")[1], "where it happened"


@pytest.mark.parametrize(
    ("json_mode", "field", "cure"),
    [
        (True, "spec.stages.sdg.provider", "use a stronger model"),
        (False, f"{FIELD}.model", "the endpoint has no JSON mode"),
    ],
)
def test_nonsense_alone_is_told_with_its_cure(tmp_path: Path, json_mode: bool, field: str, cure: str) -> None:
    """As with provider openAI, and not as an endpoint that gives no answer, which another attempt would pay again."""
    with Server(Script(junk=1.0, json_mode=json_mode)) as server:
        code, result, _ = designed(tmp_path, server, documents(2))
    assert (code, result["reason"], result["field"]) == (10, "NoPairs", field), result
    assert cure in result["message"]


def test_an_endpoint_without_json_mode_is_asked_without_it(tmp_path: Path) -> None:
    with Server(Script(json_mode=False)) as server:
        code, result, _ = designed(tmp_path, server, documents(2))
    assert (code, result["details"]["llmParameters"]) == (0, {"leftOut": ["response_format"]})


def test_a_budget_smaller_than_one_bundle_asks_nothing(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, documents(3), maxTokensTotal=100)
        assert server.state.stats()["answered"] == 0
    assert (code, result["reason"], result["field"]) == (10, "TokenBudgetTooSmall", "spec.stages.sdg.maxTokensTotal")
    assert "100 tokens are fewer than the first document takes, about" in result["message"]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(28, "No space left on device", "/workspace/rows"), OSError, "No space left on device"),
        (PermissionError(13, "Permission denied", "/workspace/rows"), PermissionError, "Permission denied"),
        (KeyError("row"), designer_process.DesignerError, "KeyError: 'row'"),
        (
            DataDesignerGenerationError("no rows"),
            designer_process.DesignerError,
            "DataDesignerGenerationError: no rows",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_ends_the_library_crosses_to_the_stage(error: Exception, kind: type[Exception], said: str) -> None:
    """The runner tells a full disk and a lack of rights by the error's class and number."""
    try:
        raise error
    except Exception as caught:
        fault = pickle.loads(pickle.dumps(designer_process.fault_of(caught)))
    assert type(fault.error) is kind
    assert said in str(fault.error)
    assert fault.no_row_is_left is isinstance(error, DataDesignerGenerationError)
    if isinstance(error, OSError):
        assert (fault.error.errno, fault.error.filename) == (error.errno, error.filename)
    told = "".join(traceback.format_exception(designer_process.raised(fault)))
    assert "test_what_ends_the_library_crosses_to_the_stage" in told


def test_the_library_does_not_outlive_the_stage_and_its_end_is_told(tmp_path: Path) -> None:
    with Server(Script()) as server:
        server.state.freeze()
        env = request_of(tmp_path, server.url, documents(6), provider="dataDesigner")
        stage = started(env)
        other = _child_of(stage, server)
        stage.kill()
        stage.wait()
        _until(lambda: not Path(f"/proc/{other}").exists(), "the library's process has ended")

        stage = started(env)
        os.kill(_child_of(stage, server), signal.SIGKILL)
        server.state.may_answer.set()
        assert stage.wait(timeout=120) == 1
    result = outcome_in(tmp_path)[0]
    assert (result["reason"], result["field"]) == ("OOMKilled", "spec.stages.sdg.resources.limits.memory")


def _child_of(stage: subprocess.Popen[bytes], server: Server) -> int:
    """The process of Data Designer, when it has asked."""
    begun = server.state.stats()["letThrough"]
    _until(lambda: server.state.stats()["letThrough"] > begun, "it asks")
    return int(Path(f"/proc/{stage.pid}/task/{stage.pid}/children").read_text())


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
