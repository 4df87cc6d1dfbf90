"""Where there is no GPU the kernels run in Triton's interpreter: the same programs, step by step on the CPU."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels' modules are imported
