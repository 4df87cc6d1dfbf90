"""What the check of the kernels finds before a run, for every model's shape, and how long it takes.

python3 bench/check_kernels.py [--model minilm-l6,llama-1b] [--dtype bfloat16]

Printed for each model: the relative errors in the order of its `kernel_errors`, and the seconds that they took, kernels
compiled anew where no process before this one left them in Triton's cache. Exit status 1 where a stage would pad.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from bench.checkpoint import write_checkpoint  # noqa: E402
from bench.contestants.ours import describe  # noqa: E402 - without a GPU it chooses Triton's interpreter
from bench.models import SHAPES  # noqa: E402
from embedding_stages.encoder.description import description_of  # noqa: E402
from embedding_stages.encoder.packed.check import works  # noqa: E402

LAYERS = 6  # the first with all kinds of layers of every family
WORDS = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=",".join(SHAPES))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, options.dtype)
    torch.zeros(1, device=device)
    right = True
    for model in options.model.split(","):
        errors, seconds = _errors(model, device, dtype)
        right &= works(errors)
        print(f"{model:16}", *(f"{error:.1e}" for error in errors), f"{seconds:.1f} s", flush=True)
    return 0 if right else 1


def _errors(model: str, device: torch.device, dtype: torch.dtype) -> tuple[list[float], float]:
    shape = replace(SHAPES[model], layers=LAYERS, vocabulary=WORDS, intermediate=WORDS)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "model"
        write_checkpoint(folder, shape)
        describe(folder / "ours")
        description = description_of(folder / "ours")
        config = json.loads((folder / "ours" / "config.json").read_bytes())
    kind = description.family.packed_model()
    started = time.perf_counter()
    return list(kind.kernel_errors(kind.shape_of(config, description), device, dtype)), time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
