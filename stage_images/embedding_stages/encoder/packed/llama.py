"""Llama and its relatives on packs: same weights, same names on disk, no padding.

What a relative has beyond Llama is data in its `Shape`: norms of heads and of outputs, kinds of layers that see a
window or backwards alone, other activations and norms. Products that read the same rows are one product: q, k and v;
gate and up. The backward pass of a layer is written out: it adds weight gradients to their place while the product
runs, and keeps nothing that it does not need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch.autograd.function import once_differentiable

from embedding_stages.encoder.dense import DenseLayer
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.packed import check, gates, norms, ops
from embedding_stages.encoder.packed.base import PackedModel, PackedShape, product_gradient
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.packed.norms import Turn
from embedding_stages.encoder.packed.ops import Norm, Sight
from embedding_stages.encoder.packed.readings import Angles, angles_of, shape_of
from embedding_stages.encoder.packed.shape import Shape

Parts = Mapping[str, torch.Tensor]  # a layer's weights, by `Shape.parts`


class PackedLlama(PackedModel):
    """`angles`: cosine and sine of each kind of layer, float32 (most positions, head size / 2)."""

    shape: Shape
    gated = True

    def __init__(
        self,
        shape: Shape,
        angles: tuple[Angles, ...],
        *,
        device: str,
        dtype: torch.dtype,
        dense: Sequence[DenseLayer] = (),
    ) -> None:
        super().__init__(shape, device=device, dtype=dtype, dense=dense)
        self.angles = [(cosine.to(device).contiguous(), sine.to(device).contiguous()) for cosine, sine in angles]

    @classmethod
    def shape_of(cls, config: Mapping[str, Any], description: EncoderDescription) -> Shape:
        causal, positions = description.family.causal, description.max_tokens
        return shape_of(config, pooling=description.pooling, causal=causal, positions=positions)

    @classmethod
    def of(cls, config: Mapping[str, Any], description: EncoderDescription, *, device: str, dtype: torch.dtype) -> Self:
        angles = angles_of(config, description.max_tokens)
        return cls(cls.shape_of(config, description), angles, device=device, dtype=dtype, dense=description.dense)

    @classmethod
    def kernel_errors(cls, shape: PackedShape, device: torch.device, dtype: torch.dtype) -> Iterator[float]:
        assert isinstance(shape, Shape)  # noqa: S101 - its own
        normed = "query_norm" in shape.names.layer
        for sight in sorted(set(shape.sights), key=str):
            yield check.attention_error(shape.heads, device, dtype, sight)
            yield check.turned_error(shape.heads, shape.norm if normed else None, device, dtype, sight)
        yield check.gated_error(device, dtype, shape.activation)
        yield check.norm_error(shape.norm, device, dtype)
        if normed:
            yield check.head_norm_error(shape.heads, shape.norm, device, dtype)

    def forward(self, pack: DevicePack) -> torch.Tensor:
        """float32 (n, hidden): the pooled last states, after the last norm. Not of length 1 yet."""
        if not torch.is_grad_enabled():
            return self._infer(pack)
        x = _Embed.apply(pack.ids, self.named["embed_tokens"], self.named.get("embedding_norm"), self)
        if self.frozen:
            x.requires_grad_()  # nothing before the first layer does
        delta = None
        for number in range(self.shape.layers):
            weights = (self.named[f"{number}.{part}"] for part in self.shape.parts(number))
            x, delta = _Layer.apply(x, delta, pack, self, number, *weights)
        pooled = _Pooled.apply(x, delta, self.named["norm"], pack, self)
        assert isinstance(pooled, torch.Tensor)  # noqa: S101 - `apply` is untyped
        return pooled

    def sight(self, number: int) -> Sight:
        """What the tokens see in layer `number`."""
        return self.shape.sights[self.shape.kind(number)]

    def turn(self, number: int, pack: DevicePack) -> Turn:
        """The angles of a pack's tokens in layer `number`."""
        return Turn(pack.positions, *self.angles[self.shape.kind(number)])

    def _infer(self, pack: DevicePack) -> torch.Tensor:
        """`forward` without anything kept for a backward pass."""
        named = {name: value.detach() for name, value in self.named.items()}
        shape = self.shape
        x, _ = _embedded(pack.ids, named["embed_tokens"], named.get("embedding_norm"), shape)
        for number in range(shape.layers):
            w = {part: named[f"{number}.{part}"] for part in shape.parts(number)}
            h = norms.add_norm(x, None, w["input_norm"], shape.norm)[1] if "input_norm" in w else x
            seen = self._seen(self.beside(f"{number}.qkv", h @ w["qkv"].t(), h), w, pack, number)
            self._add_product(x, seen, w["o"], f"{number}.o", w.get("attention_out_norm"))
            _, h, _ = norms.add_norm(x, None, w["mlp_norm"], shape.norm)
            gated = self._gated(h, w["gate_up"], f"{number}.gate_up")
            self._add_product(x, gated, w["down"], f"{number}.down", w.get("mlp_out_norm"))
        _, normed, _ = norms.add_norm(x, None, named["norm"], shape.norm)
        return shape.pooling.forward(normed, pack)

    def _seen(self, qkv: torch.Tensor, w: Parts, pack: DevicePack, number: int) -> torch.Tensor:
        heads, sight, turn = self.shape.heads, self.sight(number), self.turn(number, pack)
        if "query_norm" in w:
            norms.norm_rotate_(qkv, w["query_norm"], w["key_norm"], turn, heads, self.shape.norm, keys_only=True)
        else:
            ops.rotate_(qkv, pack.positions, turn.cosine, turn.sine, heads, keys_only=True)
        angles, gain = (turn.cosine, turn.sine), w.get("query_norm")
        return ops.attend(qkv, pack.query_tiles, heads, sight, turn=angles, gain=gain, norm=self.shape.norm)[0]

    def gate_up(self, rows: torch.Tensor, weight: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A gated layer's product, which its backward pass needs, and the gate of it."""
        if name not in self.branches:
            return gates.gated_product_kept(rows, weight, self.shape.activation)
        both = self.beside(name, rows @ weight.t(), rows)
        return both, gates.gate(both, self.shape.activation)

    def _gated(self, rows: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor:
        if name not in self.branches:
            return gates.gated_product(rows, weight, self.shape.activation)
        return gates.gate(self.beside(name, rows @ weight.t(), rows), self.shape.activation)

    def _add_product(
        self, x: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, name: str, norm_weight: torch.Tensor | None
    ) -> None:
        """Add rows @ weight.t(), or the norm of it, to x in place."""
        if norm_weight is None:
            x.addmm_(rows, weight.t())  # the product adds the residual: one pass less over x
            self.beside(name, x, rows)
        else:
            product = self.beside(name, rows @ weight.t(), rows)
            x.add_(norms.add_norm(product, None, norm_weight, self.shape.norm)[1])


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, table: torch.Tensor, norm: torch.Tensor | None, model: PackedLlama
    ) -> torch.Tensor:
        x, ctx.rstd = _embedded(ids, table.detach(), norm, model.shape)
        ctx.ids, ctx.table, ctx.norm, ctx.model = ids, table, norm, model
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        shape, for_norm = ctx.model.shape, None
        if ctx.norm is not None:
            rows = ctx.table.detach()[ctx.ids.long()]
            grad, change = norms.norm_backward(grad, rows, ctx.norm, ctx.rstd, None, shape.norm)
            for_norm = _gradient(ctx.norm, change)
        if shape.embedding_scale != 1.0:
            grad = grad * _scale_of(ctx.table, shape)
        if ctx.table.grad is not None:
            ctx.model.keep_rows(ctx.ids, grad)
            return None, None, for_norm, None
        for_table = torch.ops.aten.embedding_dense_backward(grad, ctx.ids.long(), shape.vocabulary, -1, False)
        return None, for_table, for_norm, None


class _Layer(torch.autograd.Function):
    """One layer. Its input is x + delta, its output the same two summands of the next layer's input."""

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
        shape, sight, turn = model.shape, model.sight(number), model.turn(number, pack)
        w = dict(zip(shape.parts(number), weights, strict=True))
        x1, h1, rstd1 = norms.add_norm(x, delta, w["input_norm"], shape.norm) if "input_norm" in w else (x, x, None)
        qkv = model.beside(f"{number}.qkv", h1 @ w["qkv"].t(), h1)
        raw = _turned(qkv, w, turn, shape)
        seen, lse = ops.attend(qkv, pack.query_tiles, shape.heads, sight)
        out = model.beside(f"{number}.o", seen @ w["o"].t(), seen)
        out, kept_out = _normed(out, w.get("attention_out_norm"), shape.norm)
        x2, h2, rstd2 = norms.add_norm(x1, out, w["mlp_norm"], shape.norm)
        gate_up, gated = model.gate_up(h2, w["gate_up"], f"{number}.gate_up")
        down = model.beside(f"{number}.down", gated @ w["down"].t(), gated)
        down, kept_down = _normed(down, w.get("mlp_out_norm"), shape.norm)
        used = {"qkv": h1, "gate_up": h2, "down": gated}
        rows = (rows if model.uses(f"{number}.{part}") else None for part, rows in used.items())
        ctx.save_for_backward(*rows, x1, rstd1, raw, qkv, seen, lse, *kept_out, x2, rstd2, gate_up, *kept_down)
        ctx.weights, ctx.pack, ctx.model, ctx.number, ctx.first = w, pack, model, number, delta is None
        return x2, down

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, grad_down: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h1, h2, gated, x1, rstd1, raw, qkv, seen, lse, *rest = ctx.saved_tensors
        out, rstd_out, x2, rstd2, gate_up, down, rstd_down = rest
        w, pack, number = ctx.weights, ctx.pack, ctx.number
        model: PackedLlama = ctx.model
        shape, sight, turn = model.shape, model.sight(number), model.turn(number, pack)
        changes: dict[str, torch.Tensor | None] = {}  # gradients of the weights that hold none themselves

        def through_product(part: str, grad: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
            changes[part] = product_gradient(w[part], grad, rows)
            return model.back(f"{number}.{part}", w[part], grad, rows)

        def through_norm(
            name: str, grad: torch.Tensor, x: torch.Tensor, rstd: torch.Tensor, residual: torch.Tensor | None = None
        ) -> torch.Tensor:
            before, change = norms.norm_backward(grad, x, w[name], rstd, residual, shape.norm)
            changes[name] = _gradient(w[name], change)
            return before

        if rstd_down is not None:
            grad_down = through_norm("mlp_out_norm", grad_down, down, rstd_down)
        grad_gate_up = gates.gate_backward_(gate_up, through_product("down", grad_down, gated), shape.activation)
        grad = through_norm("mlp_norm", through_product("gate_up", grad_gate_up, h2), x2, rstd2, grad)
        grad_out = grad if rstd_out is None else through_norm("attention_out_norm", grad, out, rstd_out)
        tiles = pack.query_tiles, pack.key_tiles
        for_seen = through_product("o", grad_out, seen)
        angles = (turn.cosine, turn.sine) if raw is None else None
        grad_qkv = ops.attend_backward(for_seen, qkv, seen, lse, *tiles, shape.heads, sight, turn=angles)
        if raw is not None:
            changes |= _turned_back(grad_qkv, raw, w, turn, shape)
        before = through_product("qkv", grad_qkv, h1)
        grad = before.add_(grad) if rstd1 is None else through_norm("input_norm", before, x1, rstd1, grad)
        if model.layer_done is not None:
            model.layer_done(number)
        return grad, None if ctx.first else grad, None, None, None, *(changes[part] for part in w)


class _Pooled(torch.autograd.Function):
    """The last norm and the pooling."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, pack: DevicePack, model: PackedLlama
    ) -> torch.Tensor:
        total, normed, rstd = norms.add_norm(x, delta, weight, model.shape.norm)
        ctx.save_for_backward(total, rstd)
        ctx.weight, ctx.pack, ctx.shape = weight, pack, model.shape
        return model.shape.pooling.forward(normed, pack)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total, rstd = ctx.saved_tensors
        rows = ctx.shape.pooling.backward(grad, ctx.pack, torch.zeros_like(total))  # filler belongs to no sequence
        dx, change = norms.norm_backward(rows, total, ctx.weight, rstd, None, ctx.shape.norm)
        return dx, dx, _gradient(ctx.weight, change), None, None


def _embedded(
    ids: torch.Tensor, table: torch.Tensor, norm: torch.Tensor | None, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first layer's input (T, hidden), and what the backward pass through its norm needs."""
    x = table[ids.long()]
    if shape.embedding_scale != 1.0:
        x = x * _scale_of(table, shape)
    if norm is None:
        return x, None
    _, normed, rstd = norms.add_norm(x, None, norm, shape.norm)
    return normed, rstd


def _scale_of(table: torch.Tensor, shape: Shape) -> torch.Tensor:
    return torch.tensor(shape.embedding_scale, dtype=table.dtype)  # rounded, as the reference does


def _turned(qkv: torch.Tensor, w: Parts, turn: Turn, shape: Shape) -> torch.Tensor | None:
    """Norms of heads and rotary positions in place; what `_turned_back` needs."""
    if "query_norm" in w:
        return norms.norm_rotate_(qkv, w["query_norm"], w["key_norm"], turn, shape.heads, shape.norm, keep=True)
    ops.rotate_(qkv, turn.positions, turn.cosine, turn.sine, shape.heads)
    return None


def _turned_back(
    grad: torch.Tensor, raw: torch.Tensor, w: Parts, turn: Turn, shape: Shape
) -> dict[str, torch.Tensor | None]:
    """The gradient before norms and positions of heads, in place; those of the norms' weights."""
    both = w["query_norm"], w["key_norm"]
    queries, keys = norms.norm_rotate_backward_(grad, raw, *both, turn, shape.heads, shape.norm)
    return {"query_norm": _gradient(both[0], queries), "key_norm": _gradient(both[1], keys)}


def _normed(
    rows: torch.Tensor, weight: torch.Tensor | None, norm: Norm
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, torch.Tensor | None]]:
    """The norm of rows where there is a weight for it, and what its backward pass needs."""
    if weight is None:
        return rows, (None, None)
    _, normed, rstd = norms.add_norm(rows, None, weight, norm)
    return normed, (rows, rstd)


def _gradient(weight: torch.Tensor, change: torch.Tensor) -> torch.Tensor | None:
    if not weight.requires_grad:
        return None
    if weight.grad is None:
        return change.to(weight.dtype)
    weight.grad += change
    return None
