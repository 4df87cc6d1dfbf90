"""BERT on packs, and what has its layers (RoBERTa, XLM-R): same weights, same names on disk, no padding.

Tables of words, positions and types, a layer norm after each sum. q, k and v are one product. The vectors of a norm lie
together with the bias of the product before it, for one program of the backward pass finds the gradients of all three.
The backward pass of a layer is written out: it adds weight gradients to their place, and the product that ends a branch
adds the residual's gradient. Without dropout, as over padded batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Self

import torch
from torch.autograd.function import once_differentiable

from embedding_stages.encoder.dense import DenseLayer
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.packed import biased, ops
from embedding_stages.encoder.packed.base import PackedModel, product_gradient
from embedding_stages.encoder.packed.biased import Activation, Normed
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.packed.ops import Heads
from embedding_stages.encoder.packed.pooling import PACKED_POOLINGS, PackedPooling
from embedding_stages.encoder.pooling import carried

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_HEAD_SIZES: Final = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """The sizes of a BERT, and its pooling."""

    table: ClassVar[str] = "words"
    first_plain: ClassVar[str] = "norm"

    vocabulary: int
    positions: int  # rows of the table
    first: int  # row of a text's first token: RoBERTa's tables begin with rows that no token has
    types: int  # rows of the table, of which the first is used
    padding: int  # the token whose row gets no gradient, as in the library; -1 for none
    hidden: int
    intermediate: int
    layers: int
    heads: Heads
    eps: float
    activation: Activation
    pooling: PackedPooling

    @classmethod
    def of(cls, config: Mapping[str, Any], description: EncoderDescription) -> BertShape:
        """From config.json. Raises ValueError with the reason when packs cannot run this model."""
        family, settings = description.family, dict(config)
        # What a file leaves out is what the library's configurations say of it.
        count, hidden = int(config.get("num_attention_heads", 12)), description.hidden_size
        size = hidden // count
        if size not in _HEAD_SIZES or size * count != hidden:
            raise ValueError(f"{count} heads in {hidden}")
        activation = family.activation(settings)
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation {activation}")
        positions = int(config["max_position_embeddings"])
        first = positions - family.positions(settings)
        # Positions that start later count from the padding token's id: whatever they start behind is it.
        padding = first - 1 if first else config.get("pad_token_id", 0)
        return cls(
            vocabulary=family.vocabulary(settings),
            positions=positions,
            first=first,
            types=int(config.get("type_vocab_size", 2)),
            padding=-1 if padding is None else int(padding),
            hidden=hidden,
            intermediate=int(config.get("intermediate_size", 3072)),
            layers=int(config.get("num_hidden_layers", 12)),
            heads=Heads(queries=count, keys=count, size=size),
            eps=float(config.get("layer_norm_eps", 1e-12)),
            activation=_ACTIVATIONS[activation],
            pooling=carried(PACKED_POOLINGS, description.pooling),
        )

    def weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """See `PackedShape.weights`. A layer's norms are (3, hidden): the bias before it, gain and shift."""
        yield "words", (self.vocabulary, self.hidden)
        yield "positions", (self.positions, self.hidden)
        yield "types", (self.types, self.hidden)
        for number in range(self.layers):
            yield f"{number}.qkv", (3 * self.hidden, self.hidden)
            yield f"{number}.o", (self.hidden, self.hidden)
            yield f"{number}.up", (self.intermediate, self.hidden)
            yield f"{number}.down", (self.hidden, self.intermediate)
        yield "norm", (2, self.hidden)
        for number in range(self.layers):
            yield f"{number}.qkv_bias", (3 * self.hidden,)
            yield f"{number}.o_norm", (3, self.hidden)
            yield f"{number}.up_bias", (self.intermediate,)
            yield f"{number}.down_norm", (3, self.hidden)

    def disk_names(self) -> Iterator[tuple[str, str, int, int]]:
        """See `PackedShape.disk_names`."""
        yield "embeddings.word_embeddings.weight", "words", 0, self.vocabulary
        yield "embeddings.position_embeddings.weight", "positions", 0, self.positions
        yield "embeddings.token_type_embeddings.weight", "types", 0, self.types
        yield "embeddings.LayerNorm.weight", "norm", 0, 0
        yield "embeddings.LayerNorm.bias", "norm", 1, 0
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            for place, part in enumerate(("query", "key", "value")):
                rows = place * self.hidden, self.hidden
                yield f"{layer}.attention.self.{part}.weight", f"{number}.qkv", *rows
                yield f"{layer}.attention.self.{part}.bias", f"{number}.qkv_bias", *rows
            yield from self._ending(f"{layer}.attention.output", f"{number}.o")
            yield f"{layer}.intermediate.dense.weight", f"{number}.up", 0, self.intermediate
            yield f"{layer}.intermediate.dense.bias", f"{number}.up_bias", 0, self.intermediate
            yield from self._ending(f"{layer}.output", f"{number}.down")

    def _ending(self, block: str, ours: str) -> Iterator[tuple[str, str, int, int]]:
        """A branch's last product and its norm."""
        yield f"{block}.dense.weight", ours, 0, self.hidden
        yield f"{block}.dense.bias", f"{ours}_norm", 0, 0
        yield f"{block}.LayerNorm.weight", f"{ours}_norm", 1, 0
        yield f"{block}.LayerNorm.bias", f"{ours}_norm", 2, 0


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

    def forward(self, pack: DevicePack) -> torch.Tensor:
        """See `PackedModel.forward`. With gradients, the model holds them from the first pack on."""
        if not torch.is_grad_enabled():
            return self._infer(pack)
        if self.gradient is None and not self.frozen:
            self.hold_gradients()
        x = _Embed.apply(self.named["words"], pack, self)
        if self.frozen:
            x.requires_grad_()  # nothing before the first layer does
        for number in range(self.shape.layers):
            x = _Layer.apply(x, pack, self, number)
        pooled = _Pooled.apply(x, pack, self.shape.pooling)
        assert isinstance(pooled, torch.Tensor)  # noqa: S101 - `apply` is untyped
        return pooled

    def embedded(self, pack: DevicePack, *, keep: bool) -> Normed:
        """The first layer's input, see `biased.embed`."""
        shape, named = self.shape, self.named
        tables = named["words"], named["positions"], named["types"]
        return biased.embed(
            tables, named["norm"], shape.eps, ids=pack.ids, places=pack.positions, first=shape.first, keep=keep
        )

    def _infer(self, pack: DevicePack) -> torch.Tensor:
        """`forward` without anything kept for a backward pass."""
        heads, eps, kind = self.shape.heads, self.shape.eps, self.shape.activation
        x = self.embedded(pack, keep=False).out
        for number, layer in enumerate(self.layers):
            qkv = self.beside(f"{number}.qkv", torch.addmm(layer.qkv_bias, x, layer.qkv.t()), x)
            seen, _ = ops.attend(qkv, pack.query_tiles, heads)
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
        biased.add_columns_(named["types"].grad[0], parts[:, 0])
        biased.add_position_sums_(named["positions"].grad, dx, pack.starts, first=shape.first)
        model.keep_rows(pack.ids, dx)
        return None, None, None


class _Layer(torch.autograd.Function):
    """One layer."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, pack: DevicePack, model: PackedBert, number: int) -> torch.Tensor:
        layer, shape = model.layers[number], model.shape
        qkv = model.beside(f"{number}.qkv", torch.addmm(layer.qkv_bias, x, layer.qkv.t()), x)
        seen, lse = ops.attend(qkv, pack.query_tiles, shape.heads)
        out = model.beside(f"{number}.o", seen @ layer.o.t(), seen)
        middle = biased.add_layer_norm(x, out, layer.o_norm, shape.eps)
        up = model.beside(f"{number}.up", middle.out @ layer.up.t(), middle.out)
        high = biased.activate(up, layer.up_bias, shape.activation)
        out = model.beside(f"{number}.down", high @ layer.down.t(), high)
        end = biased.add_layer_norm(middle.out, out, layer.down_norm, shape.eps)
        used = high if model.uses(f"{number}.down") else None
        ctx.save_for_backward(x, qkv, seen, lse, up, used, *middle.kept(), middle.out, *end.kept())
        ctx.layer, ctx.pack, ctx.model, ctx.number = layer, pack, model, number
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
        for_qkv = ops.attend_backward(for_seen, qkv, seen, lse, pack.query_tiles, pack.key_tiles, heads)
        if not model.frozen:
            _add(layer.qkv_bias, biased.column_sums(for_qkv))
        grad = through_product("qkv", for_qkv, x, past=grad)
        if model.layer_done is not None:
            model.layer_done(ctx.number)
        return grad, None, None, None


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
