"""Every program of the packed models is compiled for a Hopper GPU, which the interpreter does not do and needs no GPU.

Kernels are not run: each launch of a step on the CPU is compiled with the types of what it was given. The compiler runs
in a process of its own, for conftest.py has chosen the interpreter for this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOM = 232_448  # bytes of shared memory that a program may have on a Hopper GPU
_SIZES = {"vocab_size": 64, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# One layer of each kind, at the published sizes.
_MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {
        **_SIZES,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "modernbert": {**_SIZES, "cls_token_id": 1, "sep_token_id": 2},
    "gemma3_text": {
        **_SIZES,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "sliding_window_pattern": 2,
        "use_bidirectional_attention": True,
    },
}


def _compile_launches(found: dict[str, int]) -> None:
    """From now on a launch is compiled, once, and not run; `found` gets each program's bytes of shared memory."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import JITFunction

    types = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32"}

    def launch(self: Any, *given: Any, grid: Any, warmup: bool, **named: Any) -> None:
        options = {key: named.pop(key) for key in ("num_warps", "num_stages") if key in named}
        values = dict(zip(self.arg_names, given, strict=False)) | named
        fixed = {par.name: values[par.name] for par in self.params if par.is_constexpr or values[par.name] is None}
        signature = {
            name: "constexpr"
            if name in fixed
            else types[values[name].dtype]
            if isinstance(values[name], torch.Tensor)
            else "i32"
            if isinstance(values[name], int)
            else "fp32"
            for name in self.arg_names
        }
        key = f"{self.fn.__name__} {fixed} {signature} {options}"
        if key not in found:
            aligned = {
                (place,): [["tt.divisibility", 16]]
                for place, name in enumerate(self.arg_names)
                if signature[name].startswith("*")
            }
            source = ASTSource(self, signature, fixed, aligned)
            found[key] = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).metadata.shared

    JITFunction.run = launch  # type: ignore[method-assign]


def _rotary(kind: str) -> Any:
    import torch

    from embedding_stages.encoder.packed.llama import PackedLlama
    from embedding_stages.encoder.packed.readings import angles_of, shape_of

    config = {"model_type": kind, **_MODELS[kind]}
    shape = shape_of(config, causal=kind == "qwen3", positions=64)
    return PackedLlama(shape, angles_of(config, 64), device="cpu", dtype=torch.bfloat16)


def _mpnet() -> Any:
    import torch

    from embedding_stages.encoder.families.mpnet import BUCKETS
    from embedding_stages.encoder.packed.bert import PackedBert
    from embedding_stages.encoder.packed.bert_shape import MPNET, BertShape
    from embedding_stages.encoder.packed.ops import Heads
    from embedding_stages.encoder.packed.pooling import PACKED_POOLINGS

    shape = BertShape(
        vocabulary=64,
        positions=514,
        first=2,
        types=0,
        padding=1,
        layers=1,
        hidden=768,
        intermediate=3072,
        heads=Heads(queries=12, keys=12, size=64),
        eps=1e-5,
        activation="gelu",
        pooling=PACKED_POOLINGS["mean"],
        buckets=BUCKETS,
        names=MPNET,
    )
    return PackedBert(shape, device="cpu", dtype=torch.bfloat16)


def _step(kind: str) -> None:
    """Print, as JSON, what the programs of embedding and of a training step are."""
    import torch

    from embedding_stages.encoder.packed import ops
    from embedding_stages.encoder.packed.device import send
    from embedding_stages.encoder.packed.packs import Ragged, build_pack

    found: dict[str, int] = {}
    _compile_launches(found)
    model = _mpnet() if kind == "mpnet" else _rotary(kind)
    tile = model.shape.heads.query_tile
    pack = send(
        build_pack(Ragged.of([[5, 6], [7]]), range(2), query_tile=tile, key_tile=ops.KEY_TILE), model.flat.device
    )
    with torch.no_grad():
        model(pack)
    model.hold_gradients()
    model(pack).sum().backward()
    print(json.dumps(found))


@pytest.mark.parametrize("kind", [*_MODELS, "mpnet"])
def test_programs_compile_and_fit_the_shared_memory(kind: str) -> None:
    root = Path(__file__).parents[3]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(root / "stage_images"), "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    activation = "activate_backward" if kind == "mpnet" else "gate_backward"
    assert {"forward", "backward_queries", "backward_keys", activation} <= {key.split()[0] for key in found}
    assert max(found.values()) <= _ROOM


if __name__ == "__main__":
    _step(sys.argv[1])
