"""Where there is no GPU the kernels run in Triton's interpreter: the same programs, step by step on the CPU.

A CPU that multiplies bfloat16 fast would train in it; the tests' limits are those of float32, so no CPU is said to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from unit.stages.interpreted import patch_the_language_once
from unit.stages.llm_endpoint import Endpoint, serving

from embedding_stages.encoder import hardware

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels' modules are imported
    patch_the_language_once()
hardware._CPU_INFO = Path("/dev/null")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Endpoint]]:
    with serving(monkeypatch) as found:
        yield found


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints on this machine are asked directly."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
