"""The bidirectional Llama on packs: same weights, same names on disk, no padding.

Products that read the same rows are one product: q, k and v; gate and up. The backward pass of a layer is written out:
it adds weight gradients to their place while the product runs, and keeps nothing that it does not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch.autograd.function import once_differentiable
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from embedding_stages.encoder.configuration import for_library
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.base import PackedModel, product_gradient
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.packed.packs import ROUND
from embedding_stages.encoder.packed.shape import Shape


class PackedLlama(PackedModel):
    """`cosine` and `sine` are float32 (most positions, head size / 2)."""

    shape: Shape
    gated = True

    def __init__(
        self, shape: Shape, cosine: torch.Tensor, sine: torch.Tensor, *, device: str, dtype: torch.dtype
    ) -> None:
        super().__init__(shape, device=device, dtype=dtype)
        self.cosine, self.sine = cosine.to(device).contiguous(), sine.to(device).contiguous()

    @classmethod
    def shape_of(cls, config: Mapping[str, Any], description: EncoderDescription) -> Shape:
        return Shape.of(config, pooling=description.pooling, causal=description.family.causal)

    @classmethod
    def of(
        cls, config: Mapping[str, Any], description: EncoderDescription, *, device: str, dtype: torch.dtype
    ) -> Self:
        tables = _rotary_tables(config, description.max_tokens)
        return cls(cls.shape_of(config, description), *tables, device=device, dtype=dtype)

    def forward(self, pack: DevicePack) -> torch.Tensor:
        """float32 (n, hidden): the pooled last states, after the last norm. Not of length 1 yet."""
        if not torch.is_grad_enabled():
            return self._infer(pack)
        named = self.named
        x = _Embed.apply(pack.ids, named["embed_tokens"], self)
        delta = None
        for number in range(self.shape.layers):
            weights = (named[f"{number}.{part}"] for part in ("input_norm", "qkv", "o", "mlp_norm", "gate_up", "down"))
            x, delta = _Layer.apply(x, delta, pack, self, number, *weights)
        pooled = _Pooled.apply(x, delta, named["norm"], pack, self)
        assert isinstance(pooled, torch.Tensor)  # noqa: S101 - `apply` is untyped
        return pooled

    def _infer(self, pack: DevicePack) -> torch.Tensor:
        """`forward` without anything kept for a backward pass."""
        named = {name: value.detach() for name, value in self.named.items()}
        heads, eps = self.shape.heads, self.shape.eps
        x = named["embed_tokens"][pack.ids.long()]
        for number in range(self.shape.layers):
            _, h, _ = ops.add_norm(x, None, named[f"{number}.input_norm"], eps)
            qkv = h @ named[f"{number}.qkv"].t()
            ops.rotate_(qkv, pack.positions, self.cosine, self.sine, heads, keys_only=True)
            seen, _ = ops.attend(qkv, pack.query_tiles, heads, turn=(self.cosine, self.sine))
            x.addmm_(seen, named[f"{number}.o"].t())  # the product adds the residual: one pass less over x
            _, h, _ = ops.add_norm(x, None, named[f"{number}.mlp_norm"], eps)
            x.addmm_(ops.gated_product(h, named[f"{number}.gate_up"]), named[f"{number}.down"].t())
        _, normed, _ = ops.add_norm(x, None, named["norm"], eps)
        return self.shape.pooling.forward(normed, pack)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: torch.Tensor, table: torch.Tensor, model: PackedLlama) -> torch.Tensor:
        ctx.ids, ctx.table, ctx.model = ids, table, model
        return table.detach()[ids.long()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.table.grad is not None:
            ctx.model.keep_rows(ctx.ids, grad)
            return None, None, None
        size = ctx.model.shape.vocabulary
        return None, torch.ops.aten.embedding_dense_backward(grad, ctx.ids.long(), size, -1, False), None


class _Layer(torch.autograd.Function):
    """One decoder layer. Its input is x + delta, its output the same two summands of the next layer's input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        pack: DevicePack,
        model: PackedLlama,
        number: int,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        input_norm, qkv_weight, o_weight, mlp_norm, gate_up_weight, down_weight = weights
        heads, eps = model.shape.heads, model.shape.eps
        x1, h1, rstd1 = ops.add_norm(x, delta, input_norm, eps)
        qkv = h1 @ qkv_weight.t()
        ops.rotate_(qkv, pack.positions, model.cosine, model.sine, heads)
        seen, lse = ops.attend(qkv, pack.query_tiles, heads)
        x2, h2, rstd2 = ops.add_norm(x1, seen @ o_weight.t(), mlp_norm, eps)
        gate_up = h2 @ gate_up_weight.t()
        gated = ops.swiglu(gate_up)
        down = gated @ down_weight.t()
        ctx.save_for_backward(x1, h1, rstd1, qkv, seen, lse, x2, h2, rstd2, gate_up, gated)
        ctx.weights, ctx.pack, ctx.model, ctx.number, ctx.first = weights, pack, model, number, delta is None
        return x2, down

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, grad_down: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x1, h1, rstd1, qkv, seen, lse, x2, h2, rstd2, gate_up, gated = ctx.saved_tensors
        input_norm, qkv_weight, o_weight, mlp_norm, gate_up_weight, down_weight = ctx.weights
        pack, model = ctx.pack, ctx.model
        heads = model.shape.heads
        for_down = product_gradient(down_weight, grad_down, gated)
        grad_gate_up = ops.swiglu_backward_(gate_up, grad_down @ down_weight)
        for_gate_up = product_gradient(gate_up_weight, grad_gate_up, h2)
        grad, change = ops.norm_backward(grad_gate_up @ gate_up_weight, x2, mlp_norm, rstd2, grad)
        for_mlp_norm = _gradient(mlp_norm, change)
        for_o = product_gradient(o_weight, grad, seen)
        grad_qkv = ops.attend_backward(grad @ o_weight, qkv, seen, lse, pack.query_tiles, pack.key_tiles, heads)
        ops.rotate_(grad_qkv, pack.positions, model.cosine, model.sine, heads, back=True)
        for_qkv = product_gradient(qkv_weight, grad_qkv, h1)
        grad, change = ops.norm_backward(grad_qkv @ qkv_weight, x1, input_norm, rstd1, grad)
        for_input_norm = _gradient(input_norm, change)
        if model.layer_done is not None:
            model.layer_done(ctx.number)
        for_weights = (for_input_norm, for_qkv, for_o, for_mlp_norm, for_gate_up, for_down)
        return grad, None if ctx.first else grad, None, None, None, *for_weights


class _Pooled(torch.autograd.Function):
    """The last norm and the pooling."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, pack: DevicePack, model: PackedLlama
    ) -> torch.Tensor:
        total, normed, rstd = ops.add_norm(x, delta, weight, model.shape.eps)
        ctx.save_for_backward(total, rstd)
        ctx.weight, ctx.pack, ctx.pooling = weight, pack, model.shape.pooling
        return model.shape.pooling.forward(normed, pack)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total, rstd = ctx.saved_tensors
        rows = ctx.pooling.backward(grad, ctx.pack, torch.zeros_like(total))  # filler belongs to no sequence
        dx, change = ops.norm_backward(rows, total, ctx.weight, rstd, None)
        return dx, dx, _gradient(ctx.weight, change), None, None


def _gradient(weight: torch.Tensor, change: torch.Tensor) -> torch.Tensor | None:
    if weight.grad is None:
        return change.to(weight.dtype)
    weight.grad += change
    return None


def _rotary_tables(config: Mapping[str, Any], positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine, float32 (positions, head size / 2), with whatever scaling the configuration asks for.

    At least as many as a pack's filler has tokens.
    """
    rotary = LlamaRotaryEmbedding(LlamaConfig(**for_library(config)))
    angles = torch.outer(torch.arange(max(positions, ROUND)).float(), rotary.inv_freq.float())
    return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling
