"""What CPU this process may use: the container's limits, not the node's size. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")
_CPU_INFO = Path("/proc/cpuinfo")


def usable_cpus() -> int:
    """Whole CPUs, at least 1: OMP_NUM_THREADS when set, else the affinity cut by the cgroup's quota (rounded up)."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(_CGROUP_V2, _CGROUP_V1)
    return max(1, count if quota is None else min(count, quota))


def limit_library_threads() -> None:
    """Tell the numeric libraries how many CPUs there are, through the environment they read when they are loaded.

    To be called before torch is imported: some builds of it multiply with OpenBLAS, which would otherwise start a
    thread for every CPU of the node. Threads sleep while they wait: one that spins keeps a CPU from the thread that it
    waits for, where other processes compute too, and a step then takes ten times as long.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(usable_cpus()))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices itself (AVX512-BF16 or AMX): then about twice as fast."""
    try:
        flags = _CPU_INFO.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _quota(v2: Path, v1: Path) -> int | None:
    try:
        if v2.is_file():
            limit, period = v2.read_text().split()[:2]
        else:
            limit, period = (v1 / "cpu.cfs_quota_us").read_text(), (v1 / "cpu.cfs_period_us").read_text()
        if limit == "max" or int(limit) <= 0:
            return None
        return -(-int(limit) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
