"""Where there is no GPU the kernels run in Triton's interpreter: the same programs, step by step on the CPU.

A CPU that multiplies bfloat16 fast would train in it; the tests' limits are those of float32, so no CPU is said to.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from embedding_stages.encoder import hardware

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels' modules are imported
hardware._CPU_INFO = Path("/dev/null")
