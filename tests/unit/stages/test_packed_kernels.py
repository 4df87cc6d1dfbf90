"""Each kernel against the same formula in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from embedding_stages.encoder.packed import gates, norms, ops
from embedding_stages.encoder.packed.check import (
    attention_error,
    gated_error,
    head_norm_error,
    norm_error,
    turned_error,
    works,
)
from embedding_stages.encoder.packed.norms import add_norm, norm_backward
from embedding_stages.encoder.packed.ops import Heads, Norm, Sight

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
    total, normed, rstd = add_norm(x, delta, weight, Norm(1e-5))
    exact = (x if delta is None else x + delta).requires_grad_()
    torch.testing.assert_close(total, exact.detach())
    expected = _norm(exact, weight.requires_grad_())
    torch.testing.assert_close(normed, expected.detach())

    grad, residual = _random(6, width), _random(6, width) if add else None
    expected.backward(grad)
    dx, dweight = norm_backward(grad, total, weight.detach(), rstd, residual, Norm(1e-5))
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
    ops.rotate_(turned, positions, angles.cos(), -angles.sin(), heads)
    torch.testing.assert_close(turned, qkv)


@pytest.mark.parametrize("norm", [None, Norm(1e-5), Norm(1e-5, plus_one=True)], ids=str)
def test_queries_turned_in_attention_are_those_turned_before(norm: Norm | None) -> None:
    assert turned_error(Heads(queries=6, keys=2, size=16), norm, torch.device(DEVICE), torch.float32) < 1e-5


@pytest.mark.parametrize("heads", [Heads(queries=3, keys=1, size=16), Heads(queries=4, keys=2, size=32)], ids=str)
@pytest.mark.parametrize("plus_one", [True, False])
def test_norm_of_heads_before_their_rotation(monkeypatch: pytest.MonkeyPatch, heads: Heads, plus_one: bool) -> None:
    monkeypatch.setattr(norms, "_PROGRAMS", 4)
    norm = Norm(1e-5, plus_one=plus_one)
    assert head_norm_error(heads, norm, torch.device(DEVICE), torch.float32, rows=9) < 1e-5


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("plus_one", [True, False])
def test_norms_of_rows(monkeypatch: pytest.MonkeyPatch, center: bool, plus_one: bool) -> None:
    monkeypatch.setattr(norms, "_PROGRAMS", 4)
    norm = Norm(1e-5, center=center, plus_one=plus_one)
    assert norm_error(norm, torch.device(DEVICE), torch.float32, rows=9) < 1e-5


@pytest.fixture(params=[True, False], ids=["fused", "two programs"])
def gated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gated products in one program and in two, of small tiles where the interpreter runs them."""
    if DEVICE == "cpu" or not request.param:
        monkeypatch.setattr(gates, "_has_means", lambda _: request.param)
    if DEVICE == "cpu":
        monkeypatch.setattr(gates, "TILES", gates.Tiles(rows=32, columns=16, step=16, super_rows=2))


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_activations_of_a_gate(activation: gates.Activation) -> None:
    assert gated_error(torch.device(DEVICE), torch.float32, activation) < 1e-5


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize("rows", [1, 40, 300])
def test_gated_product(rows: int) -> None:
    """Rows beyond the last whole tile, and several tiles for a program."""
    x, weight = _random(rows, 64, dtype=SHORT), _random(2 * 128, 64, dtype=SHORT)
    both = x.float() @ weight.float().t()
    expected = torch.nn.functional.silu(both[:, :128]) * both[:, 128:]
    found = gates.gated_product(x, weight)
    assert found.shape == (rows, 128)
    assert _near(found, expected)
    kept, again = gates.gated_product_kept(x, weight)
    assert _near(kept, both)
    assert _near(again, expected)


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found.float() - expected).norm() / expected.norm()) < (1e-2 if DEVICE == "cuda" else 2e-3)


@pytest.mark.parametrize("width", [32, 40])
def test_swiglu(width: int) -> None:
    gate_up = _random(3, 2 * width).requires_grad_()
    expected = torch.nn.functional.silu(gate_up[:, :width]) * gate_up[:, width:]
    torch.testing.assert_close(gates.gate(gate_up.detach()), expected.detach())
    grad = _random(3, width)
    expected.backward(grad)
    torch.testing.assert_close(gates.gate_backward_(gate_up.detach().clone(), grad), gate_up.grad)


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
        Heads(queries=2, keys=1, size=128),
    ],
)
def test_grouped_attention_forward_and_backward(heads: Heads) -> None:
    assert attention_error(heads, torch.device(DEVICE), torch.float32) < 1e-5


def test_attention_of_the_largest_heads() -> None:
    dtype, most = (
        (torch.bfloat16, 5e-3) if DEVICE == "cuda" else (torch.float32, 1e-5)
    )  # an H200 has no room for float32
    assert attention_error(Heads(queries=2, keys=1, size=256), torch.device(DEVICE), dtype) < most


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
    assert works([attention_error(heads, torch.device(DEVICE), SHORT)])
    monkeypatch.setattr(ops, "_scale", lambda _: 0.1)
    assert not works([attention_error(heads, torch.device(DEVICE), SHORT)])
    assert not works([0.0, float("nan")])


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
