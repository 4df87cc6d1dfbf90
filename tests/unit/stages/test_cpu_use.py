"""How many CPUs a stage may use, and how its threads wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedding_stages.encoder.hardware import _quota, limit_library_threads, usable_cpus

Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("sentence", "text", "expected"),
    [("no quota", "max 100000", None), ("one CPU and a half", "150000 100000", 2), ("nonsense", "x", None)],
)
def test_the_cpu_quota_is_read_from(sentence: str, text: str, expected: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert _quota(tmp_path / "cpu.max", tmp_path) == expected


def test_at_least_one_cpu_is_usable() -> None:
    assert usable_cpus() >= 1


def test_threads_sleep_while_they_wait_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
    monkeypatch.setattr("os.environ", {"OMP_NUM_THREADS": "3"})
    limit_library_threads()
    assert [os.environ[name] for name in names] == ["3", "3", "passive"]
    os.environ["OMP_WAIT_POLICY"] = "active"
    limit_library_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
