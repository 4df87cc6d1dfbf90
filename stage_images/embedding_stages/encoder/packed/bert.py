"""BERT on packs, and what has its layers (RoBERTa, XLM-R, MPNet): same weights, same names on disk, no padding.

Tables of words, positions and types, a layer norm after each sum. q, k and v are one product. The vectors of a norm lie
together with the bias of the product before it, for one program of the backward pass finds the gradients of all three.
The backward pass of a layer is written out: it adds weight gradients to their place, and the product that ends a branch
adds the residual's gradient. Without dropout, as over padded batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch.autograd.function import once_differentiable

from embedding_stages.encoder.dense import DenseLayer
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.packed import biased, check, ops
from embedding_stages.encoder.packed.base import PackedModel, PackedShape, product_gradient
from embedding_stages.encoder.packed.bert_shape import BertShape, bucket_table
from embedding_stages.encoder.packed.biased import Normed
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.packed.ops import Distances
from embedding_stages.encoder.packed.pooling import PackedPooling


@dataclass(frozen=True, slots=True)
class _Weights:
    """A layer's."""

    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    o: torch.Tensor
    o_norm: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_norm: torch.Tensor


class PackedBert(PackedModel):
    """BERT's layers over packs."""

    shape: BertShape

    def __init__(self, shape: BertShape, *, device: str, dtype: torch.dtype, dense: Sequence[DenseLayer] = ()) -> None:
        super().__init__(shape, device=device, dtype=dtype, dense=dense)
        self.padding = shape.padding
        # MPNet has no types: zeros for all, which nothing trains.
        self.types = self.named["types"] if shape.types else self.flat.new_zeros(1, shape.hidden)
        self.bucket_of = torch.tensor(bucket_table(), dtype=torch.int32, device=device) if shape.buckets else None
        parts = [field.name for field in fields(_Weights)]
        self.layers = [
            _Weights(**{part: self.named[f"{number}.{part}"] for part in parts}) for number in range(shape.layers)
        ]

    @classmethod
    def shape_of(cls, config: Mapping[str, Any], description: EncoderDescription) -> BertShape:
        return BertShape.of(config, description)

    @classmethod
    def of(cls, config: Mapping[str, Any], description: EncoderDescription, *, device: str, dtype: torch.dtype) -> Self:
        return cls(cls.shape_of(config, description), device=device, dtype=dtype, dense=description.dense)

    @classmethod
    def kernel_errors(cls, shape: PackedShape, device: torch.device, dtype: torch.dtype) -> Iterator[float]:
        assert isinstance(shape, BertShape)  # noqa: S101 - its own
        if shape.buckets:
            yield check.distances_error(shape.heads, torch.tensor(bucket_table(), dtype=torch.int32), device, dtype)
        else:
            yield from super().kernel_errors(shape, device, dtype)

    def distances(self) -> Distances | None:
        """What distances add to the scores, by the weights as they are; the same in all layers."""
        return None if self.bucket_of is None else Distances.of(self.named["distance_table"], self.bucket_of)

    def forward(self, pack: DevicePack) -> torch.Tensor:
        """See `PackedModel.forward`. With gradients, the model holds them from the first pack on."""
        if not torch.is_grad_enabled():
            return self._infer(pack)
        if self.gradient is None and not self.frozen:
            self.hold_gradients()
        x = _Embed.apply(self.named["words"], pack, self)
        if self.frozen:
            x.requires_grad_()  # nothing before the first layer does
        distances = self.distances()
        for number in range(self.shape.layers):
            x = _Layer.apply(x, pack, self, number, distances)
        pooled = _Pooled.apply(x, pack, self.shape.pooling)
        assert isinstance(pooled, torch.Tensor)  # noqa: S101 - `apply` is untyped
        return pooled

    def embedded(self, pack: DevicePack, *, keep: bool) -> Normed:
        """The first layer's input, see `biased.embed`."""
        shape, named = self.shape, self.named
        tables = named["words"], named["positions"], self.types
        return biased.embed(
            tables, named["norm"], shape.eps, ids=pack.ids, places=pack.positions, first=shape.first, keep=keep
        )

    def _infer(self, pack: DevicePack) -> torch.Tensor:
        """`forward` without anything kept for a backward pass."""
        heads, eps, kind, distances = self.shape.heads, self.shape.eps, self.shape.activation, self.distances()
        x = self.embedded(pack, keep=False).out
        for number, layer in enumerate(self.layers):
            qkv = self.beside(f"{number}.qkv", torch.addmm(layer.qkv_bias, x, layer.qkv.t()), x)
            seen, _ = ops.attend(qkv, pack.query_tiles, heads, distances=distances)
            out = self.beside(f"{number}.o", seen @ layer.o.t(), seen)
            x = biased.add_layer_norm_(x, out, layer.o_norm, eps)
            high = biased.activate_(self.beside(f"{number}.up", x @ layer.up.t(), x), layer.up_bias, kind)
            out = self.beside(f"{number}.down", high @ layer.down.t(), high)
            x = biased.add_layer_norm_(x, out, layer.down_norm, eps)
        return self.shape.pooling.forward(x, pack)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _words: torch.Tensor, pack: DevicePack, model: PackedBert) -> torch.Tensor:
        normed = model.embedded(pack, keep=True)
        ctx.kept, ctx.pack, ctx.model = normed.kept(), pack, model
        return normed.out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, ...]:
        model, pack = ctx.model, ctx.pack
        named, shape = model.named, model.shape
        dx, parts = biased.layer_norm_backward(grad, ctx.kept, named["norm"][0])
        biased.add_columns_(named["norm"].grad, parts[:, 1:])
        if shape.types:
            biased.add_columns_(named["types"].grad[0], parts[:, 0])
        biased.add_position_sums_(named["positions"].grad, dx, pack.starts, first=shape.first)
        model.keep_rows(pack.ids, dx)
        return None, None, None


class _Layer(torch.autograd.Function):
    """One layer."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, pack: DevicePack, model: PackedBert, number: int, distances: Distances | None
    ) -> torch.Tensor:
        layer, shape = model.layers[number], model.shape
        qkv = model.beside(f"{number}.qkv", torch.addmm(layer.qkv_bias, x, layer.qkv.t()), x)
        seen, lse = ops.attend(qkv, pack.query_tiles, shape.heads, distances=distances)
        out = model.beside(f"{number}.o", seen @ layer.o.t(), seen)
        middle = biased.add_layer_norm(x, out, layer.o_norm, shape.eps)
        up = model.beside(f"{number}.up", middle.out @ layer.up.t(), middle.out)
        high = biased.activate(up, layer.up_bias, shape.activation)
        out = model.beside(f"{number}.down", high @ layer.down.t(), high)
        end = biased.add_layer_norm(middle.out, out, layer.down_norm, shape.eps)
        used = high if model.uses(f"{number}.down") else None
        ctx.save_for_backward(x, qkv, seen, lse, up, used, *middle.kept(), middle.out, *end.kept())
        ctx.layer, ctx.pack, ctx.model, ctx.number, ctx.distances = layer, pack, model, number, distances
        return end.out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, qkv, seen, lse, up, high, *norms = ctx.saved_tensors
        layer, pack = ctx.layer, ctx.pack
        model: PackedBert = ctx.model
        heads, kind = model.shape.heads, model.shape.activation

        def through_product(
            part: str, grad: torch.Tensor, rows: torch.Tensor | None, past: torch.Tensor | None = None
        ) -> torch.Tensor:
            weight = getattr(layer, part)
            product_gradient(weight, grad, rows)
            return model.back(f"{ctx.number}.{part}", weight, grad, rows, past)

        grad, parts = biased.layer_norm_backward(grad, norms[4:], layer.down_norm[1])
        _add(layer.down_norm, parts)
        for_high = through_product("down", grad, high)
        for_up, parts = biased.activate_backward_(up, layer.up_bias, for_high, kind)
        _add(layer.up_bias, parts)
        grad = through_product("up", for_up, norms[3], past=grad)
        grad, parts = biased.layer_norm_backward(grad, norms[:3], layer.o_norm[1])
        _add(layer.o_norm, parts)
        for_seen = through_product("o", grad, seen)
        tiles, distances = (pack.query_tiles, pack.key_tiles), ctx.distances
        sums = None
        if distances is not None and not model.frozen:
            sums = lse.new_empty(tiles[0].shape[1], heads.queries, distances.buckets)
        for_qkv = ops.attend_backward(for_seen, qkv, seen, lse, *tiles, heads, distances=distances, sums=sums)
        if sums is not None:
            table = model.named["distance_table"].grad
            assert table is not None  # noqa: S101 - the model holds gradients from the first pack on
            table += sums.sum(0).t()
        if not model.frozen:
            _add(layer.qkv_bias, biased.column_sums(for_qkv))
        grad = through_product("qkv", for_qkv, x, past=grad)
        if model.layer_done is not None:
            model.layer_done(ctx.number)
        return grad, None, None, None, None


def _add(weight: torch.Tensor, parts: torch.Tensor) -> None:
    """Add a vector's gradient, of which these are parts, to its place; a frozen one has none."""
    if weight.requires_grad:
        assert weight.grad is not None  # noqa: S101 - the model holds gradients from the first pack on
        biased.add_columns_(weight.grad, parts)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, pack: DevicePack, pooling: PackedPooling) -> torch.Tensor:
        ctx.like, ctx.pack, ctx.pooling = x.new_empty(0), pack, pooling
        ctx.size = x.shape
        return pooling.forward(x, pack)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows = ctx.like.new_zeros(ctx.size)  # filler belongs to no sequence
        return ctx.pooling.backward(grad, ctx.pack, rows), None, None
