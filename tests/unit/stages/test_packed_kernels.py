"""Each kernel against the same formula in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.check import attention_error, works
from embedding_stages.encoder.packed.device import send
from embedding_stages.encoder.packed.head_norm import Turn, norm_rotate_, norm_rotate_backward_
from embedding_stages.encoder.packed.ops import Heads, Sight
from embedding_stages.encoder.packed.packs import Ragged, build_pack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHORT = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter multiplies no bfloat16
SETTINGS = ops.AdamW(beta1=0.9, beta2=0.999, eps=1e-8, decay=0.01, most=1.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _random(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*size, device=DEVICE).to(dtype)


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


@pytest.mark.parametrize("width", [32, 48])
@pytest.mark.parametrize("add", [True, False])
def test_norm_and_residual(width: int, add: bool) -> None:
    x, delta, weight = _random(6, width), _random(6, width) if add else None, _random(width)
    total, normed, rstd = ops.add_norm(x, delta, weight, 1e-5)
    exact = (x if delta is None else x + delta).requires_grad_()
    torch.testing.assert_close(total, exact.detach())
    expected = _norm(exact, weight.requires_grad_())
    torch.testing.assert_close(normed, expected.detach())

    grad, residual = _random(6, width), _random(6, width) if add else None
    expected.backward(grad)
    dx, dweight = ops.norm_backward(grad, total, weight.detach(), rstd, residual)
    torch.testing.assert_close(dx, exact.grad if residual is None else exact.grad + residual)
    torch.testing.assert_close(dweight, weight.grad)


def test_rotation_is_undone_by_its_back() -> None:
    heads = Heads(queries=3, keys=1, size=16)
    qkv, positions = _random(4, 5 * 16), torch.tensor([0, 3, 1, 2], dtype=torch.int32, device=DEVICE)
    angles = torch.outer(torch.arange(5.0), torch.rand(8)).to(DEVICE)
    turned = qkv.clone()
    ops.rotate_(turned, positions, angles.cos(), angles.sin(), heads)
    cosine, sine = (table[positions.long()][:, None].repeat(1, 1, 2) for table in (angles.cos(), angles.sin()))
    parts = qkv.view(4, 5, 16)[:, :4]
    swapped = torch.cat([-parts[..., 8:], parts[..., :8]], dim=-1)
    torch.testing.assert_close(turned.view(4, 5, 16)[:, :4], parts * cosine + swapped * sine)
    torch.testing.assert_close(turned.view(4, 5, 16)[:, 4], qkv.view(4, 5, 16)[:, 4])
    ops.rotate_(turned, positions, angles.cos(), angles.sin(), heads, back=True)
    torch.testing.assert_close(turned, qkv)


def test_queries_turned_in_attention_are_those_turned_before() -> None:
    heads = Heads(queries=6, keys=2, size=16)
    texts = Ragged.of([[0] * length for length in (5, 40, 1)])  # and filler
    pack = send(build_pack(texts, range(3), query_tile=heads.query_tile, key_tile=ops.KEY_TILE), torch.device(DEVICE))
    qkv = _random(len(pack.ids), 10 * 16)
    angles = torch.outer(torch.arange(64.0), torch.rand(8)).to(DEVICE)
    turned, keys = qkv.clone(), qkv.clone()
    ops.rotate_(turned, pack.positions, angles.cos(), angles.sin(), heads)
    ops.rotate_(keys, pack.positions, angles.cos(), angles.sin(), heads, keys_only=True)
    torch.testing.assert_close(keys.view(-1, 10, 16)[:, 6:], turned.view(-1, 10, 16)[:, 6:])
    torch.testing.assert_close(keys.view(-1, 10, 16)[:, :6], qkv.view(-1, 10, 16)[:, :6])
    expected, _ = ops.attend(turned, pack.query_tiles, heads)
    found, _ = ops.attend(keys, pack.query_tiles, heads, turn=(angles.cos(), angles.sin()))
    torch.testing.assert_close(found[: pack.tokens], expected[: pack.tokens])


@pytest.mark.parametrize("heads", [Heads(queries=3, keys=1, size=16), Heads(queries=4, keys=2, size=32)], ids=str)
@pytest.mark.parametrize("plus_one", [True, False])
def test_norm_of_heads_before_their_rotation(heads: Heads, plus_one: bool) -> None:
    count, rows = heads.queries + heads.keys, 5
    qkv, grad = (_random(rows, (count + heads.keys) * heads.size) for _ in range(2))
    weights = [_random(heads.size).requires_grad_() for _ in range(2)]
    angles = torch.outer(torch.arange(5.0), torch.rand(heads.size // 2)).to(DEVICE)
    positions = torch.tensor([0, 3, 1, 2, 4], dtype=torch.int32, device=DEVICE)
    turn = Turn(positions, angles.cos(), angles.sin())

    exact = qkv.clone().requires_grad_()
    parts = exact.view(rows, -1, heads.size)
    gains = [weight + plus_one for weight in weights]
    normed = torch.cat([_norm(parts[:, : heads.queries], gains[0]), _norm(parts[:, heads.queries : count], gains[1])], 1)
    cosine, sine = (table[positions.long()][:, None].repeat(1, 1, 2) for table in (turn.cosine, turn.sine))
    left, right = normed.chunk(2, dim=-1)
    turned = normed * cosine + torch.cat([-right, left], dim=-1) * sine
    expected = torch.cat([turned, parts[:, count:]], dim=1).reshape(rows, -1)
    expected.backward(grad)

    plain = [weight.detach() for weight in weights]
    found = qkv.clone()
    raw = norm_rotate_(found, *plain, turn, heads, 1e-5, plus_one=plus_one, keep=True)
    torch.testing.assert_close(found, expected.detach())
    assert raw is not None
    torch.testing.assert_close(raw, qkv[:, : count * heads.size], rtol=0, atol=0)
    changes = norm_rotate_backward_(grad, raw, *plain, turn, heads, 1e-5, plus_one=plus_one)
    torch.testing.assert_close(grad, exact.grad)
    for change, weight in zip(changes, weights, strict=True):
        torch.testing.assert_close(change, weight.grad)


@pytest.mark.parametrize("fuses", [True, False])
@pytest.mark.parametrize("rows", [1, 40, 300])
def test_gated_product(monkeypatch: pytest.MonkeyPatch, fuses: bool, rows: int) -> None:
    """Rows beyond the last whole tile, and several tiles for a program."""
    if DEVICE == "cpu":
        monkeypatch.setattr(ops, "_fuses", lambda _: fuses)
        monkeypatch.setattr(ops, "GATED", ops.GatedTiles(rows=32, columns=16, step=16, super_rows=2))
    elif not fuses:
        monkeypatch.setattr(ops, "_fuses", lambda _: False)
    x, weight = _random(rows, 64, dtype=SHORT), _random(2 * 128, 64, dtype=SHORT)
    both = x.float() @ weight.float().t()
    expected = torch.nn.functional.silu(both[:, :128]) * both[:, 128:]
    found = ops.gated_product(x, weight)
    assert found.shape == (rows, 128)
    assert float((found.float() - expected).norm() / expected.norm()) < (1e-2 if DEVICE == "cuda" else 2e-3)


@pytest.mark.parametrize("width", [32, 40])
def test_swiglu(width: int) -> None:
    gate_up = _random(3, 2 * width).requires_grad_()
    expected = torch.nn.functional.silu(gate_up[:, :width]) * gate_up[:, width:]
    torch.testing.assert_close(ops.swiglu(gate_up.detach()), expected.detach())
    grad = _random(3, width)
    expected.backward(grad)
    torch.testing.assert_close(ops.swiglu_backward_(gate_up.detach().clone(), grad), gate_up.grad)


def test_mean_of_each_sequence() -> None:
    states, starts = _random(24, 20), torch.tensor([0, 1, 20], dtype=torch.int32, device=DEVICE)
    expected = torch.stack([states[0], states[1:20].mean(0)])
    torch.testing.assert_close(ops.sequence_mean(states, starts), expected)


@pytest.mark.parametrize(
    "heads",
    [
        Heads(queries=4, keys=1, size=16),
        Heads(queries=4, keys=4, size=16),
        Heads(queries=6, keys=2, size=16),  # three heads share a key: not a power of 2
        Heads(queries=3, keys=1, size=32, scale=0.3),
        Heads(queries=2, keys=1, size=256),
    ],
)
def test_grouped_attention_forward_and_backward(heads: Heads) -> None:
    assert attention_error(heads, torch.device(DEVICE), torch.float32) < 1e-5


@pytest.mark.parametrize(
    "sight",
    [Sight(causal=True), Sight(window=1), Sight(window=20), Sight(window=64), Sight(causal=True, window=33)],
    ids=str,
)
@pytest.mark.parametrize("heads", [Heads(queries=2, keys=2, size=16), Heads(queries=6, keys=2, size=16)], ids=str)
def test_tokens_see_no_further_than_they_may(heads: Heads, sight: Sight) -> None:
    assert attention_error(heads, torch.device(DEVICE), torch.float32, sight) < 1e-5


def test_the_check_accepts_rounding_and_refuses_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = Heads(queries=2, keys=1, size=16)
    assert works(heads, torch.device(DEVICE), SHORT)
    monkeypatch.setattr(ops, "_scale", lambda _: 0.1)
    assert not works(heads, torch.device(DEVICE), SHORT)


def _poisoned(gradient: torch.Tensor) -> None:
    gradient[5] = float("nan")


@pytest.mark.parametrize("spoil", [None, _poisoned])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adamw_is_torchs_and_a_poisoned_gradient_changes_nothing(
    dtype: torch.dtype, spoil: Callable[[torch.Tensor], None] | None
) -> None:
    count, decayed = 2 * ops.OPTIMIZER_BLOCK, 300
    master = _random(count)
    weights = master if dtype == torch.float32 else master.to(dtype)
    mean, variance = torch.zeros_like(master), torch.zeros_like(master)
    plain = [torch.nn.Parameter(master[:decayed].clone()), torch.nn.Parameter(master[decayed:].clone())]
    groups = [{"params": plain[:1], "weight_decay": 0.01}, {"params": plain[1:], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for step in (1, 2, 3):
        gradient = 3 * _random(count, dtype=dtype)
        if spoil is not None and step == 3:
            before = master.clone()
            spoil(gradient)
        else:
            plain[0].grad, plain[1].grad = gradient[:decayed].float(), gradient[decayed:].float()
            torch.nn.utils.clip_grad_norm_(plain, 1.0)
            optimizer.step()
            before = torch.cat([value.detach() for value in plain])
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float32)
        ops.adamw_(SETTINGS, weights, gradient, master, mean, variance, norm, decayed=decayed, rate=1e-2, step=step)
        torch.testing.assert_close(master, before)
        torch.testing.assert_close(weights, master.to(dtype))
        assert not gradient.any()
