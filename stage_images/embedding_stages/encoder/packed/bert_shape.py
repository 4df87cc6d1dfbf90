"""The sizes of a BERT or of its kin, and how its weights lie in memory and on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.families.mpnet import BUCKETS
from embedding_stages.encoder.packed.biased import Activation
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
FAR: Final = 128  # tokens, from which on all distances share a bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNames:
    """What a checkpoint calls the parts of a layer's attention, below the layer."""

    parts: tuple[str, str, str]  # q, k and v
    ending: str  # the product that ends it
    norm: str


BERT: Final = AttentionNames(
    parts=("attention.self.query", "attention.self.key", "attention.self.value"),
    ending="attention.output.dense",
    norm="attention.output.LayerNorm",
)
MPNET: Final = AttentionNames(
    parts=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    ending="attention.attn.o",
    norm="attention.LayerNorm",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """The sizes of a BERT, and its pooling."""

    table: ClassVar[str] = "words"
    first_plain: ClassVar[str] = "norm"

    vocabulary: int
    positions: int  # rows of the table
    first: int  # row of a text's first token: RoBERTa's tables begin with rows that no token has
    types: int  # rows of the table, of which the first is used; 0: there is none
    buckets: int = 0  # of distances, whose heads have a summand in every score; 0: none do
    names: AttentionNames = BERT
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
        by_distance = family.distance_buckets > 0  # MPNet alone: it has names of its own, and no types
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
            types=0 if by_distance else int(config.get("type_vocab_size", 2)),
            buckets=family.distance_buckets,
            names=MPNET if by_distance else BERT,
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
        if self.types:
            yield "types", (self.types, self.hidden)
        if self.buckets:
            yield "distance_table", (self.buckets, self.heads.queries)
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
        if self.types:
            yield "embeddings.token_type_embeddings.weight", "types", 0, self.types
        if self.buckets:
            yield "encoder.relative_attention_bias.weight", "distance_table", 0, self.buckets
        yield "embeddings.LayerNorm.weight", "norm", 0, 0
        yield "embeddings.LayerNorm.bias", "norm", 1, 0
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            for place, part in enumerate(self.names.parts):
                rows = place * self.hidden, self.hidden
                yield f"{layer}.{part}.weight", f"{number}.qkv", *rows
                yield f"{layer}.{part}.bias", f"{number}.qkv_bias", *rows
            yield from self._ending(f"{layer}.{self.names.ending}", f"{layer}.{self.names.norm}", f"{number}.o")
            yield f"{layer}.intermediate.dense.weight", f"{number}.up", 0, self.intermediate
            yield f"{layer}.intermediate.dense.bias", f"{number}.up_bias", 0, self.intermediate
            yield from self._ending(f"{layer}.output.dense", f"{layer}.output.LayerNorm", f"{number}.down")

    def _ending(self, product: str, norm: str, ours: str) -> Iterator[tuple[str, str, int, int]]:
        """The product that ends a branch, and the norm behind it."""
        yield f"{product}.weight", ours, 0, self.hidden
        yield f"{product}.bias", f"{ours}_norm", 0, 0
        yield f"{norm}.weight", f"{ours}_norm", 1, 0
        yield f"{norm}.bias", f"{ours}_norm", 2, 0


def bucket_table() -> list[int]:
    """The bucket of each distance from -FAR to FAR, key less query, as the library's MPNet has them: half of them for
    keys behind the query; of each half, one a token first, then ever wider ones.
    """
    half, exact = BUCKETS // 2, BUCKETS // 4
    found = []
    for distance in range(-FAR, FAR + 1):
        away = abs(distance)
        wide = exact + int(math.log(max(away, 1) / exact) / math.log(FAR / exact) * (half - exact))
        found.append((half if distance > 0 else 0) + (away if away < exact else min(wide, half - 1)))
    return found
