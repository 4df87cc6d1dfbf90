"""What becomes of faults around NeMo Data Designer: its own, the endpoint's, and the end of either process."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_designer.interface.errors import DataDesignerGenerationError
from scripted_llm import Script, Server
from unit.stages.scripted_sdg import designed, documents, outcome_in, request_of, started

from embedding_stages.contract.settings import DataDesigner
from embedding_stages.sdg import designer_process, designer_provider
from embedding_stages.sdg.bill import Forecast
from embedding_stages.sdg.designer_rows import Row

pytestmark = pytest.mark.usefixtures("no_proxy", "nothing_but_this_machine")
FIELD = "spec.stages.sdg.provider.dataDesigner"
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


def test_a_budget_that_bundles_run_over_ends_before_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is answered by then is kept, and not asked for again."""
    monkeypatch.setattr(Forecast, "most_of", lambda _self, _guessed: 0.0)
    texts = documents(12)
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, texts, maxTokensTotal=10_000, concurrency=2)
        assert (code, result["reason"], result["field"]) == (40, "TokenBudgetSpent", "spec.stages.sdg.maxTokensTotal")
        assert result["llmTokens"] >= 10_000
        assert "documents are under way: " in result["message"]
        assert server.state.stats()["roles"].get("writer", 0) < 12
        code, _, pairs = designed(tmp_path, server, texts)
        stats = server.state.stats()
    assert (code, len({pair["document_id"] for pair in pairs}), stats["answeredTwice"]) == (0, 12, 0)


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
        stage, other = _asking(env, server)
        stage.kill()
        stage.wait()
        _until(lambda: not Path(f"/proc/{other}").exists(), "the library's process has ended")

        stage, other = _asking(env, server)
        os.kill(other, signal.SIGKILL)
        server.state.may_answer.set()
        assert stage.wait(timeout=120) == 1
    result = outcome_in(tmp_path)[0]
    assert (result["reason"], result["field"]) == ("OOMKilled", "spec.stages.sdg.resources.limits.memory")


def _asking(env: dict[str, str], server: Server) -> tuple[subprocess.Popen[bytes], int]:
    """The stage, and the process of Data Designer, when it has asked."""
    begun = server.state.stats()["letThrough"]
    stage = started(env)
    _until(lambda: server.state.stats()["letThrough"] > begun, "it asks")
    return stage, int(Path(f"/proc/{stage.pid}/task/{stage.pid}/children").read_text())


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 300  # on a busy machine
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
