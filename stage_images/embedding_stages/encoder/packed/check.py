"""Does this accelerator compute what the kernels should? Asked once, before anything is spent on a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.device import send
from embedding_stages.encoder.packed.ops import EVERYTHING, Heads, Sight
from embedding_stages.encoder.packed.packs import Ragged, build_pack

_LENGTHS = (5, 70, 1, 130)
_BEYOND = 150  # tokens that a text is longer than a window: whole tiles are skipped on both sides
_ERROR = 2e-2  # relative, of bfloat16 attention; a wrong kernel is off by 1


def attention_error(heads: Heads, device: torch.device, dtype: torch.dtype, sight: Sight = EVERYTHING) -> float:
    """The larger relative error of grouped attention's output and gradient against torch's own in float32."""
    lengths = (*_LENGTHS, sight.window + _BEYOND) if sight.window else _LENGTHS
    texts = Ragged.of([[0] * length for length in lengths])
    pack = build_pack(texts, range(len(lengths)), query_tile=heads.query_tile, key_tile=ops.KEY_TILE)
    there = send(pack, device)
    generator = torch.Generator(device).manual_seed(0)
    width = (heads.queries + 2 * heads.keys) * heads.size
    qkv = torch.randn(pack.size, width, device=device, generator=generator).to(dtype)
    grad = torch.randn(pack.size, heads.queries * heads.size, device=device, generator=generator).to(dtype)
    out, lse = ops.attend(qkv, there.query_tiles, heads, sight)
    change = ops.attend_backward(grad, qkv, out, lse, there.query_tiles, there.key_tiles, heads, sight)
    exact = qkv[: pack.tokens].float().requires_grad_()
    expected = _reference(exact, heads, sight, lengths)
    expected.backward(grad[: pack.tokens].float())  # type: ignore[no-untyped-call]
    assert exact.grad is not None  # noqa: S101 - `backward` set it
    return max(_error(out[: pack.tokens], expected.detach()), _error(change[: pack.tokens], exact.grad))


def gated_error(device: torch.device, dtype: torch.dtype) -> float:
    """The relative error of the gated product against torch's own in float32."""
    generator = torch.Generator(device).manual_seed(0)
    rows, hidden, width = 200, 2 * ops.GATED.step, 2 * ops.GATED.columns
    x = torch.randn(rows, hidden, device=device, generator=generator).to(dtype)
    weight = torch.randn(2 * width, hidden, device=device, generator=generator).to(dtype)
    gate, up = torch.split(x.float() @ weight.float().t(), width, dim=1)
    expected = torch.nn.functional.silu(gate) * up
    return float((ops.gated_product(x, weight).float() - expected).norm() / expected.norm())


def works(heads: Heads, device: torch.device, dtype: torch.dtype, *, gated: bool = True) -> bool:
    """Whether attention, and the gated product of a model that has it, are right, to the precision of `dtype`."""
    errors = [attention_error(heads, device, dtype), *([gated_error(device, dtype)] if gated else [])]
    return all(error < _ERROR for error in errors)  # false for NaN


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs).norm() / theirs.norm())


def _reference(qkv: torch.Tensor, heads: Heads, sight: Sight, lengths: Sequence[int]) -> torch.Tensor:
    """Each sequence alone through torch's attention, keys and values repeated for the heads that share them."""
    group = heads.queries // heads.keys
    outs = []
    for part in torch.split(qkv, list(lengths)):
        rows = part.view(len(part), -1, heads.size).transpose(0, 1)
        q, k, v = torch.split(rows, [heads.queries, heads.keys, heads.keys])
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        place = torch.arange(len(part), device=qkv.device)
        after = place[None, :] - place[:, None]
        mask = torch.ones_like(after, dtype=torch.bool)
        if sight.causal:
            mask &= after <= 0
        if sight.window:
            mask &= after.abs() <= sight.window
        scale = heads.scale or None
        seen = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], mask, scale=scale)[0]
        outs.append(seen.transpose(0, 1).reshape(len(part), -1))
    return torch.cat(outs)
