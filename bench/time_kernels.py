"""Times every kernel of the packed model alone, with the candidates for its tile sizes, and checks it.

python3 bench/time_kernels.py [--lengths A] [--tokens 16384]
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

from embedding_stages.encoder.packed import ops  # noqa: E402
from embedding_stages.encoder.packed.device import DevicePack, send  # noqa: E402
from embedding_stages.encoder.packed.kernels import attention  # noqa: E402
from embedding_stages.encoder.packed.packs import Ragged, build_pack  # noqa: E402

LENGTHS = {"A": (135, 45), "C": (300, 120)}
HEADS = ops.Heads(queries=32, keys=8, size=64)
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

    def __init__(self, name: str, tokens: int) -> None:
        rng = np.random.default_rng(1)
        self.lengths = lengths_of(name, tokens, rng)
        self.packs = {size: pack_of(self.lengths, size, size, rng) for size in (16, 32, 64, 128)}
        size = len(self.packs[16].ids)
        generator = torch.Generator("cuda").manual_seed(0)
        width = (HEADS.queries + 2 * HEADS.keys) * HEADS.size
        self.qkv = torch.randn(size, width, device="cuda", generator=generator).bfloat16()
        self.grad = torch.randn(size, HEADS.queries * HEADS.size, device="cuda", generator=generator).bfloat16()
        self.out, self.lse = ops.attend(self.qkv, self.packs[HEADS.query_tile].query_tiles, HEADS)
        self.dqkv, self.delta = torch.empty_like(self.qkv), torch.empty_like(self.lse)
        self.scale = HEADS.size**-0.5 * 1.4426950408889634

    def run(self, program: str, tokens: int, keys: int, warps: int, stages: int) -> None:
        tiles = self.packs[keys if program == "backward_keys" else tokens].query_tiles
        count = tiles.shape[1]
        arguments = {
            "forward": (self.qkv, self.out, self.lse),
            "backward_queries": (self.qkv, self.out, self.grad, self.lse, self.delta, self.dqkv),
            "backward_keys": (self.qkv, self.grad, self.lse, self.delta, self.dqkv),
        }[program]
        getattr(attention, program)[(count, HEADS.keys)](
            *arguments, tiles, count, self.scale, HEADS=32, KEY_HEADS=8, GROUP_ROWS=4, SIZE=64,
            TOKENS=tokens, KEYS=keys, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def sweep(self, part: int, parts: int) -> None:
        """Compile only, for one of several processes."""
        for program in ("forward", "backward_queries", "backward_keys"):
            for choice in CHOICES[part::parts]:
                try:
                    self.run(program, *choice)
                except Exception as error:  # too much shared memory
                    print(program, choice, type(error).__name__, flush=True)
        torch.cuda.synchronize()

    def times(self, program: str) -> list[tuple[float, tuple[int, int, int, int]]]:
        found = []
        for choice in CHOICES:
            try:
                self.run(program, *choice)
                found.append((milliseconds(lambda choice=choice: self.run(program, *choice)), choice))
            except Exception:
                continue
        return sorted(found)

    def check(self) -> None:
        """Against float64, and the varlen kernels in torch for speed."""
        from torch.nn.attention.varlen import varlen_attn

        h, k, d = HEADS.queries, HEADS.keys, HEADS.size
        size = len(self.qkv)
        starts = self.packs[16].starts
        pack = self.packs[HEADS.query_tile]
        dqkv = ops.attend_backward(
            self.grad, self.qkv, self.out, self.lse, pack.query_tiles, self.packs[ops.KEY_TILE].query_tiles, HEADS
        )
        n = int(starts[40])
        exact = self.qkv[:n].double().requires_grad_()
        outs = []
        for begin, end in itertools.pairwise(starts[:41].tolist()):
            q, key, v = exact[begin:end].split([h * d, k * d, k * d], -1)
            q = q.view(-1, h, d).transpose(0, 1)
            key, v = (x.view(-1, k, d).transpose(0, 1).repeat_interleave(h // k, 0) for x in (key, v))
            outs.append((torch.softmax(q @ key.transpose(1, 2) / d**0.5, -1) @ v).transpose(0, 1).reshape(-1, h * d))
        out = torch.cat(outs)
        out.backward(self.grad[:n].double())
        error = lambda a, b: float((a.double() - b).norm() / b.norm())  # noqa: E731
        print("attention error", f"out {error(self.out[:n], out):.1e} dqkv {error(dqkv[:n], exact.grad):.1e}")
        cu = torch.cat([starts, torch.tensor([size], device="cuda", dtype=torch.int32)])
        q, key, v = (x.contiguous().requires_grad_() for x in self.qkv.view(size, -1, d).split([h, k, k], 1))
        forward = lambda: varlen_attn(q, key, v, cu, cu, 512, 512)  # noqa: E731
        ours = milliseconds(lambda: ops.attend(self.qkv, pack.query_tiles, HEADS))
        back = milliseconds(
            lambda: ops.attend_backward(
                self.grad, self.qkv, self.out, self.lse, pack.query_tiles, self.packs[ops.KEY_TILE].query_tiles, HEADS
            )
        )
        theirs = milliseconds(forward)
        o = forward()
        both = milliseconds(lambda: torch.autograd.grad(o, (q, key, v), self.grad.view(size, h, d), retain_graph=True))
        print(f"attention ms ours {ours:.3f} + {back:.3f}, varlen_attn {theirs:.3f} + {both:.3f}")


def rowwise(tokens: int) -> None:
    """Time and share of the copy bandwidth of the other programs."""
    x = torch.randn(tokens, 2048, device="cuda").bfloat16()
    gu = torch.randn(tokens, 16384, device="cuda").bfloat16()
    y = torch.randn(tokens, 8192, device="cuda").bfloat16()
    w = torch.ones(2048, device="cuda").bfloat16()
    qkv = torch.randn(tokens, 3072, device="cuda").bfloat16()
    positions = torch.arange(tokens, device="cuda", dtype=torch.int32) % 512
    table = torch.rand(512, 32, device="cuda")
    _, _, rstd = ops.add_norm(x, x, w, 1e-5)
    big = torch.randn(1 << 28, device="cuda")
    flat = [torch.randn(1 << 28, device="cuda") for _ in range(3)]
    weights, gradient = (torch.randn(1 << 28, device="cuda").bfloat16() for _ in range(2))
    settings = ops.AdamW(beta1=0.9, beta2=0.999, eps=1e-8, decay=0.01, most=1.0)
    norm = torch.ones((), device="cuda")
    mega = tokens / 1e6
    cases: dict[str, tuple[float, Callable[[], object]]] = {
        "copy": (2 * big.nbytes / 1e6, lambda: flat[0].copy_(big)),
        "add_norm": (4 * 4096 * mega, lambda: ops.add_norm(x, x, w, 1e-5)),
        "norm_backward": (4 * 4096 * mega, lambda: ops.norm_backward(x, x, w, rstd, x)),
        "rotate": (2 * 5120 * mega, lambda: ops.rotate_(qkv, positions, table, table, HEADS)),
        "swiglu": (49152 * mega, lambda: ops.swiglu(gu)),
        "swiglu_backward": (81920 * mega, lambda: ops.swiglu_backward_(gu, y)),
        "adamw": (30 * len(weights) / 1e6, lambda: ops.adamw_(
            settings, weights, gradient, *flat, norm, decayed=len(weights), rate=1e-5, step=1)),
        "norm": (2 * len(gradient) / 1e6, lambda: torch.linalg.vector_norm(gradient, dtype=torch.float32)),
    }  # fmt: skip
    for name, (megabytes, call) in cases.items():
        took = milliseconds(call)
        print(f"{name:16} {took:8.3f} ms {megabytes / took / 1000:6.2f} TB/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lengths", default="A,C")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--part", type=int, default=-1)
    options = parser.parse_args()
    parts = 14
    if options.part >= 0:
        Attention("A", 4096).sweep(options.part, parts)
        return
    command = [sys.executable, __file__, "--part"]
    workers = [subprocess.Popen([*command, str(part)]) for part in range(parts)]
    for worker in workers:
        worker.wait()
    rowwise(options.tokens)
    for name in options.lengths.split(","):
        case = Attention(name, options.tokens)
        case.check()
        for program in ("forward", "backward_queries", "backward_keys"):
            for took, choice in case.times(program)[:6]:
                print(name, program, choice, f"{took:.3f} ms")


if __name__ == "__main__":
    main()
