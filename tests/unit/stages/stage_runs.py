"""A stage that does what a test wants, run as its container runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedding_stages.contract import Stage, StageRequest, StageResult
from embedding_stages.runner import StageContext, run

Work = Callable[[StageContext], StageResult]


def end_of(tmp_path: Path, work: Work, *, stage: Stage = Stage.SDG, fingerprint: str = "f") -> dict[str, Any]:
    """Result of a stage that does `work`, and its `exitCode`."""
    request = StageRequest(
        stage=stage, fingerprint=fingerprint, attempt=1, revision=1, image="i", settings={}, inputs={}
    )
    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path / "workspace"),
        "EFT_SECRETS": str(tmp_path / "secrets"),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(stage, work, env)
    return {**json.loads((tmp_path / "log").read_text()), "exitCode": code}
