"""Clocks and readings that every contestant shares, so that none is timed in a way of its own."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from typing import Final

import numpy as np
import torch

GEMM_SIZE: Final = 8192
_GEMM_WARMUP: Final = 5
_GEMM_REPEATS: Final = 20
_PACKAGES: Final = (
    "torch",
    "triton",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "nemo-automodel",
    "accelerate",
    "datasets",
    "liger-kernel",
)


class StepClock:
    """Marks between steps: CUDA events on a GPU, so that a mark costs no synchronisation; wall time elsewhere."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._marks: list[torch.cuda.Event | float] = []

    def start(self) -> None:
        """Begin: the first step starts here, and memory is counted from here on."""
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.mark()

    def mark(self) -> None:
        """The present step ends here and the next one begins."""
        if not self._cuda:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def durations_ms(self) -> list[float]:
        """The duration of every step so far."""
        if self._cuda:
            torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [_between_ms(before, after) for before, after in pairs]


def _between_ms(before: torch.cuda.Event | float, after: torch.cuda.Event | float) -> float:
    if isinstance(before, float) and isinstance(after, float):
        return (after - before) * 1000
    if isinstance(before, float) or isinstance(after, float):
        raise TypeError("marks of two kinds of clock")
    return float(before.elapsed_time(after))


def synchronize(device: str) -> None:
    """Wait for the GPU, if there is one."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_gb(device: str) -> float:
    """The most memory that tensors took since the clock started, in 10^9 bytes; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else 0.0


def gemm_tflops(device: str) -> float:
    """The rate of a large bf16 matrix product on random data, now and on this card; 0 without a GPU.

    The yardstick: two machines of one kind differ by a few per cent, and so does one machine over time.
    """
    if not device.startswith("cuda"):
        return 0.0
    clock = StepClock(device)
    left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(_GEMM_WARMUP):
        left @ right
    clock.start()
    for _ in range(_GEMM_REPEATS):
        left @ right
        clock.mark()
    rate = 2 * GEMM_SIZE**3 / (float(np.median(clock.durations_ms())) * 1e9)
    del left, right
    torch.cuda.empty_cache()
    return rate


def versions() -> dict[str, str]:
    """What ran: the interpreter, the packages that matter, the card."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
