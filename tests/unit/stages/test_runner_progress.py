"""What a stage tells while it works."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from unit.stages.stage_runs import end_of

from embedding_stages.artefacts import Workspace
from embedding_stages.contract import Artefact, Stage, StageRequest, StageResult, parse_progress
from embedding_stages.runner import StageContext


def context_at(times: list[float]) -> StageContext:
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=2, revision=1, image="i", settings={}, inputs={}
    )
    left = iter(times)
    nowhere = Path("/nowhere")
    return StageContext(
        request=request, workspace=Workspace(nowhere), sources=nowhere, secrets=nowhere, clock=lambda: next(left)
    )


@pytest.mark.parametrize(
    ("steps", "eta"),
    [
        ([(50, 1), (60, 2), (70, 3)], 70),  # of ten; loading took 50 s and will not come again
        ([(50, 1)], None),
        ([(60, 7), (70, 8)], 20),
        ([(60, 7)], None),
        ([(60, 10)], 0),
        ([(50, 0), (60, 1)], 90),
        ([(50, 1), (51, 2), (60, 3)], 35),  # the second is not written, and counts
        ([(1, 5), *((3 + 2 * n, 6) for n in range(30)), (70, 7), (80, 8)], 77),  # slower and slower
        ([(0, 1), (2, 6), *((12 + 10 * n, 7) for n in range(31))], 930),  # long ago five came of a cache
    ],
    ids=[
        "from the start",
        "the first",
        "resumed",
        "resumed, the first",
        "the last",
        "from none",
        "often",
        "at the pace of all that is remembered",
        "what came of a cache is forgotten",
    ],
)
def test_the_time_to_go_is_told_by_the_steps_of_this_attempt(
    steps: list[tuple[float, int]], eta: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    context = context_at([time for time, _ in steps])
    for _, step in steps:
        context.progress(step, 10)
    said = parse_progress(capsys.readouterr().out)
    assert said is not None
    assert (said.step, said.eta_seconds) == (steps[-1][1], eta)


def test_half_a_character_ends_neither_a_log_nor_a_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(context: StageContext) -> StageResult:
        context.log("told", result="a \ud83d")
        raise ValueError("b \ud83d")

    result = end_of(tmp_path, work)
    assert (result["reason"], result["message"]) == ("StageCrashed", "ValueError: b \\ud83d")
    assert json.loads(capfd.readouterr().out.splitlines()[0])["result"] == "a \ud83d"


@pytest.mark.parametrize(
    ("told", "loss", "rate", "unit"),
    [
        ({}, None, 2.0, "steps"),
        ({"loss": 0.512345678}, 0.51235, 2.0, "steps"),
        ({"loss": 0.5, "tokens_per_second": 81_234.56}, 0.5, 81_235, "tokens"),
        ({"loss": float("nan"), "tokens_per_second": float("inf")}, None, None, "tokens"),
    ],
)
def test_progress_tells_loss_and_pace(
    told: dict[str, float], loss: float | None, rate: float | None, unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    context = context_at([0, 3])
    for step in (1, 7):
        context.progress(step, 10, **told)
    said = parse_progress(capsys.readouterr().out)
    assert said is not None
    assert (said.loss, said.rate, said.unit) == (loss, rate, unit)


def test_an_older_stages_progress_is_read_as_before() -> None:
    said = parse_progress('{"progress":{"percent":50,"step":1,"totalSteps":2}}')
    assert said is not None
    assert (said.percent, said.loss, said.rate, said.unit, said.llm_tokens) == (50, None, None, "", 0)


def test_tokens_are_told_with_progress_between_steps_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = [0]

    def work(context: StageContext) -> StageResult:
        context.llm_tokens = lambda: used[0]
        context.tell_tokens()  # nothing new
        used[0] = 10
        context.tell_tokens()
        used[0] = 20
        context.progress(1, 1)
        used[0] = 30
        raise OSError(errno.EIO, "broken")

    assert end_of(tmp_path, work)["llmTokens"] == 30
    lines = [line for line in capsys.readouterr().out.splitlines() if '"progress"' in line]
    assert [(said.llm_tokens, said.percent) for line in lines if (said := parse_progress(line))] == [(10, 0), (20, 100)]


def test_what_an_earlier_attempt_paid_is_not_paid_again_by_who_finds_its_work(tmp_path: Path) -> None:
    def work(context: StageContext) -> StageResult:
        context.llm_tokens = lambda: 30
        (context.folder(Artefact.PAIRS) / "pairs.jsonl").write_text("{}")
        return context.result()

    assert end_of(tmp_path, work)["llmTokens"] == 30
    assert "llmTokens" not in end_of(tmp_path, work)
