"""Starts ranks as the stage's launcher does: a test file that runs itself, once a rank."""

from __future__ import annotations

import os
import subprocess
import sys

import torch.distributed as dist


def run_ranks(*arguments: str, size: int, exit_codes: list[int]) -> None:
    """Run `python arguments` as every rank of a world on this machine's CPU, and check how each ended.

    This process holds their store.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == exit_codes, "\n".join(errors)
