"""Faults around a language model that cost money or train on wrong words."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from embedding_stages.errors import StageError, Transient
from embedding_stages.http_client import Answer
from embedding_stages.sdg.bill import Usage
from embedding_stages.sdg.designer_columns import environment
from embedding_stages.sdg.designer_gateway import Gateway
from embedding_stages.sdg.designer_process import DesignerError, ended, opened
from embedding_stages.sdg.ledger import ROLES, Ledger
from embedding_stages.sdg.losses import Losses


def test_a_fault_of_the_stage_ends_it_and_is_no_lost_connection() -> None:
    """Data Designer asks again, and pays again, where a connection is lost: a full disk is told as what it is."""
    full = OSError(28, "No space left on device")

    def stop() -> None:
        raise full

    gateway = Gateway(routes={}, seed=1, stop_if_asked=stop, losses=Losses(), whose=lambda _: ("", ""))

    status, _ = gateway.answer("/write/v1/chat/completions", {})

    assert status == 422
    assert gateway.failure is full


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (-9, StageError, "killed"),
        (-11, DesignerError, "exit code -11"),
        (1, DesignerError, "exit code 1"),
        (-15, Transient, "the next attempt resumes"),
    ],
)
def test_how_the_process_of_data_designer_ended(code: int, kind: type[Exception], said: str) -> None:
    error = ended(code)
    assert type(error) is kind
    assert said in str(error)
    if kind is StageError:
        assert isinstance(error, StageError)
        assert (error.reason, error.field) == ("OOMKilled", "spec.stages.sdg.resources.limits.memory")


class _NoOrder:
    """What fails where it is read."""

    def __reduce__(self) -> Any:
        return open, ("/there/is/no/such/file",)


def test_an_order_that_cannot_be_read_ends_the_process_of_data_designer(tmp_path: Path) -> None:
    """The stage would wait for an answer for ever."""
    order: Any = _NoOrder()
    with opened(tmp_path) as designer, pytest.raises(DesignerError, match="exit code 1"):
        designer.make(order)


def test_the_process_of_data_designer_ends_with_the_stage_also_in_the_midst_of_an_order(tmp_path: Path) -> None:
    half = pickle.dumps(["an order is larger than a pipe" * 10_000])[:100_000]
    with opened(tmp_path) as designer:
        process = designer._start()
        assert process.stdin is not None
        process.stdin.write(half)
        process.stdin.close()
        process.stdin = None
        process.wait(timeout=300)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": ".svc,10.0.0.0/8"}, ".svc,10.0.0.0/8,127.0.0.1"),
        ({"no_proxy": ".svc", "NO_PROXY": "other"}, ".svc,127.0.0.1"),
        ({"no_proxy": "127.0.0.1,.svc"}, "127.0.0.1,.svc"),
    ],
    ids=str,
)
def test_what_needs_no_proxy_needs_none_afterwards(before: dict[str, str], after: str, tmp_path: Path) -> None:
    found = environment(tmp_path, before)

    assert found["no_proxy"] == found["NO_PROXY"] == after


def test_a_damaged_line_costs_no_other_answer(tmp_path: Path) -> None:
    role, path = ROLES[0], tmp_path / "ledger"
    with Ledger(path) as ledger:
        for number in range(5):
            ledger.of(role, {"ask": number}).keep(f"answer {number}", Usage(prompt=1, completion=1, calls=1))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * (len(lines[1]) - 1) + b"\n"
    path.write_bytes(b"".join(lines) + b'{"key": "half a li')

    with Ledger(path) as ledger:
        found = [ledger.of(role, {"ask": number}).take() for number in range(5)]
        ledger.of(role, {"ask": 1}).keep("again", Usage())

    assert [kept and kept.text for kept in found] == ["answer 0", None, "answer 2", "answer 3", "answer 4"]
    with Ledger(path) as ledger:
        assert ledger.of(role, {"ask": 1}).take() is not None


@pytest.mark.parametrize(
    ("key", "lasting"),
    [("token", "a token bucket"), ("token bucket of a tenant", "a token bucket"), (None, "a token bucket")],
)
def test_a_placeholder_for_a_key_is_no_secret(key: str | None, lasting: str) -> None:
    assert Answer(status=200, body=b"a token bucket", key=key).lasting == lasting
    assert Answer(status=200, body=b"it is sk-0123456789abcdef", key="sk-0123456789abcdef").lasting == "it is ***"
