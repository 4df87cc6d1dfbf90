"""The frame around every stage: secrets, failures and what is left in the workspace."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError
from unit.stages.stage_runs import end_of

from embedding_stages.contract import StageResult
from embedding_stages.runner import StageContext


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


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (OSError(errno.EACCES, "denied", "/workspace/x"), 10, "PermissionDenied"),
        (OSError(errno.EIO, "broken", "/workspace/x"), 20, "InputOutputError"),
        (SafetensorError("Error while deserializing header"), 1, "StageCrashed"),
    ],
)
def test_other_faults_stay_what_they_are(tmp_path: Path, error: Exception, code: int, reason: str) -> None:
    def fails(_context: StageContext) -> StageResult:
        raise error

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"]) == (code, reason)
