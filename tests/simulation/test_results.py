"""What an image of somebody else's tells beside its work is no reason to refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation import world
from simulation.scene import a_scene, is_ready
from simulation.work import do_work

from embedding_stages.contract import Stage, StageRequest, StageResult

UNREAD: dict[str, tuple[Stage, Callable[[StageResult], StageResult]]] = {
    "metrics of the training": (
        Stage.FINETUNE,
        lambda result: replace(result, metrics={"validation": {"ndcg": 0.5, "recall": 0.7}}),
    ),
    "a metric without a number": (
        Stage.EVAL,
        lambda result: replace(
            result, metrics={**result.metrics, "fineTuned": {**result.metrics["fineTuned"], "mrr@all": 0.5}}
        ),
    ),
    "the unit of a rate": (
        Stage.VERIFY,
        lambda result: replace(
            result, details={**result.details, "rate": {**result.details["rate"], "unit": "passages/s"}}
        ),
    ),
    "a comparison with another model": (
        Stage.EVAL,
        lambda result: replace(
            result,
            details={**result.details, "comparisons": {**result.details["comparisons"], "bm25": {"ndcg@10": 0.3}}},
        ),
    ),
}


@pytest.mark.parametrize("row", UNREAD)
def test_what_a_stage_tells_beside_is_its_own(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, more = UNREAD[row]

    def work(request: StageRequest, *told: Any) -> tuple[int, StageResult]:
        code, result = do_work(request, *told)
        return code, more(result) if request.stage is stage else result

    monkeypatch.setattr(world, "do_work", work)
    a_scene().run(is_ready)
