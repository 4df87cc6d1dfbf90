"""What gated layers do to the gate, and what a change of it does to the product; float32, by constexpr name."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _on(gate):
    """(1 + tanh(...)) / 2 of gelu's approximation."""
    twice = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    return tl.sigmoid(tl.maximum(twice, -80.0))  # below, the exponential has no room in float32


@triton.jit
def activated(gate, KIND: tl.constexpr):
    """silu, gelu (by the error function) or gelu_tanh of the gate."""
    if KIND == "silu":
        on = tl.sigmoid(gate)
    elif KIND == "gelu":
        on = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    else:
        tl.static_assert(KIND == "gelu_tanh")
        on = _on(gate)
    return gate * on


@triton.jit
def gate_gradient(grad, gate, up, KIND: tl.constexpr):
    """The gradients of gate and up, where `grad` is that of activated(gate) * up."""
    if KIND == "silu":
        on = tl.sigmoid(gate)
        for_gate = grad * up * on * (1 + gate * (1 - on))
    elif KIND == "gelu":
        on = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
        for_gate = grad * up * (on + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate))
    else:
        tl.static_assert(KIND == "gelu_tanh")
        on = _on(gate)
        slope = 1.5957691216057308 * (1 + 0.134145 * gate * gate)
        for_gate = grad * up * on * (1 + gate * slope * (1 - on))
    return for_gate, grad * gate * on
