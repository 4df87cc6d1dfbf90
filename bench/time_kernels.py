"""Times every kernel of the packed model alone, with the candidates for its tile sizes, and checks it.

python3 bench/time_kernels.py [--model llama-1b] [--lengths A] [--tokens 16384]
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stage_images"))

import triton  # noqa: E402
from triton.runtime.errors import OutOfResources  # noqa: E402

from embedding_stages.encoder.packed import gates, norms, ops  # noqa: E402
from embedding_stages.encoder.packed.check import attention_error  # noqa: E402
from embedding_stages.encoder.packed.device import DevicePack, send  # noqa: E402
from embedding_stages.encoder.packed.kernels import attention  # noqa: E402
from embedding_stages.encoder.packed.packs import Ragged, build_pack  # noqa: E402

LENGTHS = {"A": (135, 45), "C": (300, 120)}
MODELS = {  # heads, what tokens see in most layers, and whether attention turns the gradients of queries and keys back
    "llama-1b": (ops.Heads(queries=32, keys=8, size=64), ops.EVERYTHING, True),
    "ministral3-1b": (ops.Heads(queries=24, keys=8, size=128), ops.EVERYTHING, True),
    "qwen3-0.6b": (ops.Heads(queries=16, keys=8, size=128), ops.Sight(causal=True), False),
    "modernbert-base": (ops.Heads(queries=12, keys=12, size=64), ops.Sight(window=64), True),
    "embeddinggemma": (ops.Heads(queries=3, keys=1, size=256), ops.Sight(window=256), False),
    "bert-base": (ops.Heads(queries=12, keys=12, size=64), ops.EVERYTHING, False),
}
CHOICES = list(itertools.product((16, 32, 64), (32, 64, 128), (4, 8), (1, 2, 3)))


def lengths_of(name: str, tokens: int, rng: np.random.Generator) -> np.ndarray:
    mean, deviation = LENGTHS[name]
    spread = np.log(1 + (deviation / mean) ** 2)
    found: list[int] = []
    while sum(found) < tokens:
        passages = np.clip(np.round(rng.lognormal(np.log(mean) - spread / 2, spread**0.5, 5)), 4, 512)
        found += [int(np.clip(rng.normal(24, 8), 4, 64)), *(int(x) for x in passages)]
    return np.array(found)


def pack_of(lengths: np.ndarray, query_tile: int, key_tile: int, rng: np.random.Generator) -> DevicePack:
    texts = Ragged.of([list(rng.integers(10, 128000, n)) for n in lengths])
    pack = build_pack(texts, range(len(lengths)), query_tile=query_tile, key_tile=key_tile)
    return send(pack, torch.device("cuda"))


def milliseconds(call: Callable[[], object]) -> float:
    return float(triton.testing.do_bench(call, warmup=5, rep=20, return_mode="median"))


class Attention:
    """The three programs on one pack, each callable with tile sizes."""

    def __init__(self, model: str, name: str, tokens: int) -> None:
        self.heads, self.sight, turns = MODELS[model]
        table = torch.rand(512, self.heads.size // 2, device="cuda")
        self.turn = (table, table) if turns else None
        rng = np.random.default_rng(1)
        self.lengths = lengths_of(name, tokens, rng)
        self.packs = {size: pack_of(self.lengths, size, size, rng) for size in (16, 32, 64, 128)}
        size = len(self.packs[16].ids)
        generator = torch.Generator("cuda").manual_seed(0)
        heads = self.heads
        width = (heads.queries + 2 * heads.keys) * heads.size
        self.qkv = torch.randn(size, width, device="cuda", generator=generator).bfloat16()
        self.grad = torch.randn(size, heads.queries * heads.size, device="cuda", generator=generator).bfloat16()
        self.out, self.lse = self.attend()
        self.dqkv, self.delta = torch.empty_like(self.qkv), torch.empty_like(self.lse)
        self.scale = heads.size**-0.5 * 1.4426950408889634

    def attend(self) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.attend(self.qkv, self.packs[self.heads.query_tile].query_tiles, self.heads, self.sight)

    def attend_backward(self) -> torch.Tensor:
        tiles = self.packs[self.heads.query_tile].query_tiles, self.packs[ops.KEY_TILE].query_tiles
        passed = self.grad, self.qkv, self.out, self.lse
        return ops.attend_backward(*passed, *tiles, self.heads, self.sight, turn=self.turn)

    def run(self, program: str, tokens: int, keys: int, warps: int, stages: int) -> None:
        heads, turn = self.heads, None if program == "forward" else self.turn
        tiles = self.packs[keys if program == "backward_keys" else tokens].query_tiles
        cosine, sine = turn or (None, None)
        back = {"dout": self.grad, "delta": self.delta, "dqkv": self.dqkv}
        own = {
            "forward": {"out": self.out, "gain": None, "eps": None, "NORM": False, "PLUS_ONE": 0},
            "backward_queries": {"out": self.out, **back, "bucket_of": None, "sums": None, "BUCKETS": 0},
            "backward_keys": back,
        }[program]
        getattr(attention, program)[(tiles.shape[1], heads.keys)](
            qkv=self.qkv, lse=self.lse, tiles=tiles, tile_count=tiles.shape[1], scale=self.scale, bias=None,
            cosine=cosine, sine=sine, TURN=turn is not None, **own,
            HEADS=heads.queries, KEY_HEADS=heads.keys, GROUP_ROWS=heads.group_rows, SIZE=heads.size,
            CAUSAL=self.sight.causal, WINDOW=self.sight.window, FAR=0, TOKENS=tokens, KEYS=keys,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def sweep(self, part: int, parts: int) -> None:
        """Compile only, for one of several processes."""
        for program in ("forward", "backward_queries", "backward_keys"):
            for choice in CHOICES[part::parts]:
                try:
                    self.run(program, *choice)
                except OutOfResources:  # too much shared memory
                    print(program, choice, "does not fit", flush=True)
        torch.cuda.synchronize()

    def times(self, program: str) -> list[tuple[float, tuple[int, int, int, int]]]:
        found = []
        for choice in CHOICES:
            try:
                self.run(program, *choice)
                found.append((milliseconds(lambda choice=choice: self.run(program, *choice)), choice))
            except OutOfResources:
                continue
        return sorted(found)

    def check(self) -> None:
        """Against torch in float32; where tokens see everything, its varlen kernels too, for speed."""
        error = attention_error(self.heads, torch.device("cuda"), torch.bfloat16, self.sight)
        ours, back = milliseconds(self.attend), milliseconds(self.attend_backward)
        print(f"attention error {error:.1e}, ms {ours:.3f} + {back:.3f}", flush=True)
        if self.sight != ops.EVERYTHING:
            return
        from torch.nn.attention.varlen import varlen_attn

        h, k, d = self.heads.queries, self.heads.keys, self.heads.size
        size = len(self.qkv)
        cu = torch.cat([self.packs[16].starts, torch.tensor([size], device="cuda", dtype=torch.int32)])
        q, key, v = (x.contiguous().requires_grad_() for x in self.qkv.view(size, -1, d).split([h, k, k], 1))
        forward = lambda: varlen_attn(q, key, v, cu, cu, 512, 512)  # noqa: E731
        theirs, o = milliseconds(forward), forward()
        both = milliseconds(lambda: torch.autograd.grad(o, (q, key, v), self.grad.view(size, h, d), retain_graph=True))
        print(f"varlen_attn ms {theirs:.3f} + {both:.3f}")


def rowwise(tokens: int) -> None:
    """Time and share of the copy bandwidth of the other programs."""
    x = torch.randn(tokens, 2048, device="cuda").bfloat16()
    gu = torch.randn(tokens, 16384, device="cuda").bfloat16()
    y = torch.randn(tokens, 8192, device="cuda").bfloat16()
    w = torch.ones(2048, device="cuda").bfloat16()
    qkv = torch.randn(tokens, 3072, device="cuda").bfloat16()
    positions = torch.arange(tokens, device="cuda", dtype=torch.int32) % 512
    table = torch.rand(512, 32, device="cuda")
    heads, rms = MODELS["llama-1b"][0], ops.Norm(1e-5)
    qwen = MODELS["qwen3-0.6b"][0]
    wide = torch.randn(tokens, 4096, device="cuda").bfloat16()
    turn = norms.Turn(positions, torch.rand(512, 64, device="cuda"), torch.rand(512, 64, device="cuda"))
    gains = torch.ones(128, device="cuda").bfloat16(), torch.ones(128, device="cuda").bfloat16()
    raw = norms.norm_rotate_(wide, *gains, turn, qwen, rms, keep=True)
    _, _, rstd = norms.add_norm(x, x, w, rms)
    big = torch.randn(1 << 28, device="cuda")
    flat = [torch.randn(1 << 28, device="cuda") for _ in range(3)]
    weights, gradient = (torch.randn(1 << 28, device="cuda").bfloat16() for _ in range(2))
    settings = ops.AdamW(beta1=0.9, beta2=0.999, eps=1e-8, decay=0.01, most=1.0)
    norm = torch.ones((), device="cuda")
    mega = tokens / 1e6
    cases: dict[str, tuple[float, Callable[[], object]]] = {
        "copy": (2 * big.nbytes / 1e6, lambda: flat[0].copy_(big)),
        "add_norm": (4 * 4096 * mega, lambda: norms.add_norm(x, x, w, rms)),
        "norm_backward": (4 * 4096 * mega, lambda: norms.norm_backward(x, x, w, rstd, x, rms)),
        "rotate": (2 * 5120 * mega, lambda: ops.rotate_(qkv, positions, table, table, heads)),
        "norm_rotate": (2 * 6144 * mega, lambda: norms.norm_rotate_(wide, *gains, turn, qwen, rms)),
        "norm_rotate, kept": (3 * 6144 * mega, lambda: norms.norm_rotate_(wide, *gains, turn, qwen, rms, keep=True)),
        "norm_rotate_backward": (
            3 * 6144 * mega, lambda: norms.norm_rotate_backward_(wide, raw, *gains, turn, qwen, rms)),
        "gate": (49152 * mega, lambda: gates.gate(gu)),
        "gate_backward": (81920 * mega, lambda: gates.gate_backward_(gu, y)),
        "adamw": (30 * len(weights) / 1e6, lambda: ops.adamw_(
            settings, weights, gradient, *flat, norm, decayed=len(weights), rate=1e-5, step=1)),
        "norm": (2 * len(gradient) / 1e6, lambda: torch.linalg.vector_norm(gradient, dtype=torch.float32)),
    }  # fmt: skip
    for name, (megabytes, call) in cases.items():
        took = milliseconds(call)
        print(f"{name:20} {took:8.3f} ms {megabytes / took / 1000:6.2f} TB/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, default="llama-1b")
    parser.add_argument("--lengths", default="A,C")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--part", type=int, default=-1)
    options = parser.parse_args()
    parts = 14
    if options.part >= 0:
        Attention(options.model, "A", 4096).sweep(options.part, parts)
        return
    command = [sys.executable, __file__, "--model", options.model, "--part"]
    workers = [subprocess.Popen([*command, str(part)]) for part in range(parts)]
    for worker in workers:
        worker.wait()
    rowwise(options.tokens)
    for name in options.lengths.split(","):
        case = Attention(options.model, name, options.tokens)
        case.check()
        for program in ("forward", "backward_queries", "backward_keys"):
            for took, choice in case.times(program)[:6]:
                print(name, program, choice, f"{took:.3f} ms")


if __name__ == "__main__":
    main()
