"""Does this accelerator compute what the kernels should? Asked once, before anything is spent on a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from embedding_stages.encoder.packed import gates, norms, ops
from embedding_stages.encoder.packed.device import DevicePack, send
from embedding_stages.encoder.packed.gates import Activation
from embedding_stages.encoder.packed.norms import Turn
from embedding_stages.encoder.packed.ops import EVERYTHING, Distances, Heads, Norm, Sight
from embedding_stages.encoder.packed.packs import Ragged, build_pack

_LENGTHS = (5, 70, 1, 130)
_BEYOND = 150  # tokens that a text is longer than a window: whole tiles are skipped on both sides
_ROWS_OF_MANY_TILES = 70 * gates.ROWS_A_TILE
_ROWS = 600  # more than the norms have programs: some take two
_ERROR = 2e-2  # relative, of bfloat16 attention; a wrong kernel is off by 1


def attention_error(heads: Heads, device: torch.device, dtype: torch.dtype, sight: Sight = EVERYTHING) -> float:
    """The larger relative error of grouped attention's output and gradient against torch's own in float32."""
    lengths = _lengths(sight)
    pack = _pack(lengths, heads, device)
    generator = torch.Generator(device).manual_seed(0)
    width = (heads.queries + 2 * heads.keys) * heads.size
    qkv = torch.randn(len(pack.ids), width, device=device, generator=generator).to(dtype)
    grad = torch.randn(len(pack.ids), heads.queries * heads.size, device=device, generator=generator).to(dtype)
    out, lse = ops.attend(qkv, pack.query_tiles, heads, sight)
    change = ops.attend_backward(grad, qkv, out, lse, pack.query_tiles, pack.key_tiles, heads, sight)
    exact = qkv[: pack.tokens].float().requires_grad_()
    expected = _reference(exact, heads, sight, lengths)
    expected.backward(grad[: pack.tokens].float())  # type: ignore[no-untyped-call]
    assert exact.grad is not None  # noqa: S101 - `backward` set it
    return max(_error(out[: pack.tokens], expected.detach()), _error(change[: pack.tokens], exact.grad))


def distances_error(heads: Heads, bucket_of: torch.Tensor, device: torch.device, dtype: torch.dtype) -> float:
    """`attention_error` with a summand of the distance in every score, and with the error of the summands' gradient."""
    lengths = (*_LENGTHS, _BEYOND + 2 * len(bucket_of) // 3)
    pack = _pack(lengths, heads, device)
    generator = torch.Generator(device).manual_seed(0)
    qkv = torch.randn(len(pack.ids), 3 * heads.queries * heads.size, device=device, generator=generator).to(dtype)
    grad = torch.randn(len(pack.ids), heads.queries * heads.size, device=device, generator=generator).to(dtype)
    grad[pack.tokens :] = 0  # as that of filler is
    buckets = 1 + int(bucket_of.max())
    table = torch.randn(buckets, heads.queries, device=device, generator=generator).requires_grad_()
    tiles, distances = (pack.query_tiles, pack.key_tiles), Distances.of(table, bucket_of.to(device))
    out, lse = ops.attend(qkv, tiles[0], heads, distances=distances)
    sums = lse.new_empty(tiles[0].shape[1], heads.queries, buckets)
    change = ops.attend_backward(grad, qkv, out, lse, *tiles, heads, distances=distances, sums=sums)
    exact = qkv[: pack.tokens].float().requires_grad_()
    expected = _reference(exact, heads, EVERYTHING, lengths, table[bucket_of.to(device).long()])
    changes = torch.autograd.grad(expected, (exact, table), grad[: pack.tokens].float())
    found = out[: pack.tokens], change[: pack.tokens], sums.sum(0).t()
    return max(map(_error, found, (expected.detach(), *changes)))


def gated_error(device: torch.device, dtype: torch.dtype, activation: Activation = "silu") -> float:
    """The largest relative error of the gated product and of its gradient against torch's own in float32."""
    generator = torch.Generator(device).manual_seed(0)
    hidden, width = 2 * gates.TILES.step, 2 * gates.TILES.columns
    rows = _ROWS_OF_MANY_TILES if device.type == "cuda" else 200  # so many that programs have a second tile
    x = torch.randn(rows, hidden, device=device, generator=generator).to(dtype)
    weight = torch.randn(2 * width, hidden, device=device, generator=generator).to(dtype)
    grad = torch.randn(rows, width, device=device, generator=generator).to(dtype)
    product = x.float() @ weight.float().t()
    both, out = gates.gated_product_kept(x, weight, activation)
    found = gates.gated_product(x, weight, activation), out, both
    expected = _gate(product, activation), _gate(product, activation), product
    exact = _copied(both)
    (change,) = torch.autograd.grad(_gate(exact, activation), exact, grad.float())
    return max(*map(_error, found, expected), _error(gates.gate_backward_(both, grad, activation), change))


def norm_error(norm: Norm, device: torch.device, dtype: torch.dtype, rows: int = _ROWS) -> float:
    """The larger relative error of a norm of rows and of its gradients against torch's own in float32."""
    generator = torch.Generator(device).manual_seed(0)
    x, grad = (torch.randn(rows, 80, device=device, generator=generator).to(dtype) for _ in range(2))
    weight = torch.rand(80, device=device, generator=generator).to(dtype)
    _, normed, rstd = norms.add_norm(x, None, weight, norm)
    found = normed, *norms.norm_backward(grad, x, weight, rstd, None, norm)
    exact, gain = _copied(x), _copied(weight)
    expected = _normed(exact, gain, norm)
    changes = torch.autograd.grad(expected, (exact, gain), grad.float())
    return max(map(_error, found, (expected.detach(), *changes)))


def head_norm_error(heads: Heads, norm: Norm, device: torch.device, dtype: torch.dtype, rows: int = _ROWS) -> float:
    """The larger relative error of the norm and rotation of heads, and of their gradients, against torch's own."""
    generator = torch.Generator(device).manual_seed(0)
    width = (heads.queries + 2 * heads.keys) * heads.size
    qkv, grad = (torch.randn(rows, width, device=device, generator=generator).to(dtype) for _ in range(2))
    queries, keys = (torch.rand(heads.size, device=device, generator=generator).to(dtype) for _ in range(2))
    turn = _turn(torch.arange(rows, dtype=torch.int32, device=device), heads)
    exact = _copied(qkv), _copied(queries), _copied(keys)
    expected = _turned(*exact, turn, heads, norm)
    changes = torch.autograd.grad(expected, exact, grad.float())
    raw = norms.norm_rotate_(qkv, queries, keys, turn, heads, norm, keep=True)
    assert raw is not None  # noqa: S101 - kept
    found = norms.norm_rotate_backward_(grad, raw, queries, keys, turn, heads, norm)
    return max(map(_error, (qkv, grad, *found), (expected.detach(), *changes)))


def turned_error(
    heads: Heads, norm: Norm | None, device: torch.device, dtype: torch.dtype, sight: Sight = EVERYTHING
) -> float:
    """The relative difference of attention that turns its queries, after `norm`, from attention to turned ones.

    Without `norm` the larger one of that and of gradients that it turns back.
    """
    pack = _pack(_lengths(sight), heads, device)
    generator = torch.Generator(device).manual_seed(0)
    width = (heads.queries + 2 * heads.keys) * heads.size
    before = torch.randn(len(pack.ids), width, device=device, generator=generator).to(dtype)
    queries, keys = (torch.rand(heads.size, device=device, generator=generator).to(dtype) for _ in range(2))
    turn, after = _turn(pack.positions, heads), before.clone()
    for rows, keys_only in ((before, True), (after, False)):
        if norm is None:
            ops.rotate_(rows, pack.positions, turn.cosine, turn.sine, heads, keys_only=keys_only)
        else:
            norms.norm_rotate_(rows, queries, keys, turn, heads, norm, keys_only=keys_only)
    gain = None if norm is None else queries
    angles = turn.cosine, turn.sine
    found, _ = ops.attend(before, pack.query_tiles, heads, sight, turn=angles, gain=gain, norm=norm)
    expected, lse = ops.attend(after, pack.query_tiles, heads, sight)
    if norm is not None:
        return _error(found[: pack.tokens], expected[: pack.tokens].float())
    passed = expected, after, expected, lse, pack.query_tiles, pack.key_tiles, heads, sight
    back, change = ops.attend_backward(*passed, turn=angles), ops.attend_backward(*passed)
    ops.rotate_(change, pack.positions, turn.cosine, -turn.sine, heads)
    pairs = (found, expected), (back, change)
    return max(_error(ours[: pack.tokens], theirs[: pack.tokens].float()) for ours, theirs in pairs)


def works(errors: Iterable[float]) -> bool:
    """Whether all are the rounding of the dtype that is computed in, and no more; the first that is not ends it."""
    return all(error < _ERROR for error in errors)


def _lengths(sight: Sight) -> tuple[int, ...]:
    """Of the texts of a check: with a window one that is longer than it."""
    return (*_LENGTHS, sight.window + _BEYOND) if sight.window else _LENGTHS


def _pack(lengths: Sequence[int], heads: Heads, device: torch.device) -> DevicePack:
    texts = Ragged.of([[0] * length for length in lengths])
    return send(build_pack(texts, range(len(lengths)), query_tile=heads.query_tile, key_tile=ops.KEY_TILE), device)


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Infinite for NaN, which `max` passes over where it does not come first."""
    error = float((ours.float() - theirs).norm() / theirs.norm())
    return error if math.isfinite(error) else math.inf


def _copied(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.float32, copy=True).requires_grad_()


def _turn(positions: torch.Tensor, heads: Heads) -> Turn:
    """Angles that differ from place to place, for any positions of the check."""
    steps = torch.rand(heads.size // 2, generator=torch.Generator().manual_seed(0))
    angles = torch.outer(torch.arange(max(_ROWS, int(positions.max()) + 1)).float(), steps)
    return Turn(positions, angles.cos().to(positions.device), angles.sin().to(positions.device))


def _reference(
    qkv: torch.Tensor, heads: Heads, sight: Sight, lengths: Sequence[int], bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Each sequence alone through torch's attention, keys and values repeated for the heads that share them.

    `bias` (2 far + 1, heads) is added to the scores, by their distance.
    """
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
        if bias is not None:
            added = bias[after.clamp(-(len(bias) // 2), len(bias) // 2) + len(bias) // 2].permute(2, 0, 1)[None]
        else:
            added = mask
        scale = heads.scale or None
        seen = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], added, scale=scale)[0]
        outs.append(seen.transpose(0, 1).reshape(len(part), -1))
    return torch.cat(outs)


def _gate(gate_up: torch.Tensor, activation: Activation) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=1)
    if activation == "silu":
        return torch.nn.functional.silu(gate) * up
    return torch.nn.functional.gelu(gate, approximate="none" if activation == "gelu" else "tanh") * up


def _normed(x: torch.Tensor, weight: torch.Tensor, norm: Norm) -> torch.Tensor:
    weight = weight + norm.plus_one
    if norm.center:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, eps=norm.eps)
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps=norm.eps)


def _turned(
    qkv: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor, turn: Turn, heads: Heads, norm: Norm
) -> torch.Tensor:
    parts = qkv.view(len(qkv), -1, heads.size)
    q, k, v = torch.split(parts, [heads.queries, heads.keys, heads.keys], dim=1)
    rows = torch.cat([_normed(q, queries, norm), _normed(k, keys, norm)], dim=1)
    cosine, sine = (table[turn.positions.long()][:, None] for table in (turn.cosine, turn.sine))
    first, second = rows.chunk(2, dim=-1)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return torch.cat([turned, v], dim=1).reshape(len(qkv), -1)
