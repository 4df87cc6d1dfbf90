"""The frame around every stage: secrets, failures and what is left in the workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def with_secret(context: StageContext) -> StageResult:
    return context.result(message=repr(context.secret("openai", field="spec.the.field")))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"sk-abc", "Completed"),
        (b"\n sk-abc \r\n", "Completed"),
        (b"", "SecretInvalid"),
        (b"  \n", "SecretInvalid"),
        (b"sk-abc\nsk-def", "SecretInvalid"),
        (b"sk-abc sk-def", "SecretInvalid"),
        (b"sk-abc\x00", "SecretInvalid"),
        (b"sk-abc\xff", "SecretInvalid"),
        ("sk-abc\u2013".encode(), "SecretInvalid"),
    ],
)
def test_a_secret_is_one_word_of_printable_ascii(
    tmp_path: Path, value: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secrets" / "openai").mkdir(parents=True)
    (tmp_path / "secrets" / "openai" / "token").write_bytes(value)
    result = end_of(tmp_path, with_secret)
    assert result["reason"] == reason
    if reason == "Completed":
        assert result["message"] == "'sk-abc'"
        return
    assert (result["exitCode"], result["field"]) == (10, "spec.the.field")
    output = capfd.readouterr()
    assert "sk-" not in output.out + output.err + result["message"]


def test_a_secret_that_the_manifest_does_not_name_is_none(tmp_path: Path) -> None:
    assert end_of(tmp_path, with_secret)["message"] == "None"
