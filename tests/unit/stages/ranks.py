"""Starts ranks as the stage's launcher does: a test file that runs itself, once a rank.

Each is a process of its own, forked from one that has loaded the libraries, which takes a rank longer than all else.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import torch.distributed as dist
from unit.stages.interpreted import patch_the_language_once

_LIMIT_S = 300
_LIBRARIES = ["pytest", "torch", "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama"]
# Read when the libraries are loaded. The ranks use no GPU, whatever the machine has.
_FOR_LIBRARIES = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}


def run_ranks(*arguments: str, size: int, exit_codes: list[int]) -> None:
    """Run `python arguments` as every rank of a world on this machine's CPU, and check how each ended.

    This process holds their store.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    world = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, _FOR_LIBRARIES):
        errors = [Path(folder) / str(rank) for rank in range(size)]
        processes = [
            context.Process(
                target=_run,
                args=(arguments, os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, errors[rank]),
            )
            for rank in range(size)
        ]
        try:
            for process in processes:
                process.start()
            end = time.monotonic() + _LIMIT_S
            for process in processes:
                process.join(max(0.0, end - time.monotonic()))
            found = [process.exitcode for process in processes]
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
                process.close()
        assert found == exit_codes, "\n".join(path.read_text() for path in errors if path.exists())


def _run(arguments: Sequence[str], env: Mapping[str, str], errors: Path) -> None:
    """In the rank's own process."""
    os.environ.clear()
    os.environ.update(env)
    with errors.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    patch_the_language_once()
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")
