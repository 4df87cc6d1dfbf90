"""The sizes of a Llama or of one of its relatives, and how its weights lie in memory and on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from embedding_stages.encoder.packed.gates import Activation
from embedding_stages.encoder.packed.ops import EVERYTHING, Heads, Norm, Sight
from embedding_stages.encoder.packed.pooling import PackedPooling

# Parts of a layer that a model has or has not; a model with names on disk for them has them.
HEAD_NORMS = ("query_norm", "key_norm")  # of each head, before its rotation
OUTPUT_NORMS = ("attention_out_norm", "mlp_out_norm")  # of what attention and MLP add to the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNames:
    """What a checkpoint calls its tensors, without its prefix and without ".weight"."""

    table: str
    embedding_norm: str = ""  # "": the model has none
    norm: str
    layer: Mapping[str, tuple[str, ...]]  # below "layers.<number>.", by our names; several lie one below the other


_SEPARATE = {  # as almost all models have them
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
    "input_norm": ("input_layernorm",),
}
_HEADS = {"query_norm": ("self_attn.q_norm",), "key_norm": ("self_attn.k_norm",)}

LLAMA = DiskNames(table="embed_tokens", norm="norm", layer={**_SEPARATE, "mlp_norm": ("post_attention_layernorm",)})
QWEN3 = DiskNames(
    table="embed_tokens", norm="norm", layer={**_SEPARATE, "mlp_norm": ("post_attention_layernorm",), **_HEADS}
)
GEMMA3 = DiskNames(
    table="embed_tokens",
    norm="norm",
    layer={
        **_SEPARATE,
        "mlp_norm": ("pre_feedforward_layernorm",),
        **_HEADS,
        "attention_out_norm": ("post_attention_layernorm",),
        "mlp_out_norm": ("post_feedforward_layernorm",),
    },
)
MODERNBERT = DiskNames(
    table="embeddings.tok_embeddings",
    embedding_norm="embeddings.norm",
    norm="final_norm",
    layer={
        "qkv": ("attn.Wqkv",),
        "o": ("attn.Wo",),
        "gate_up": ("mlp.Wi",),
        "down": ("mlp.Wo",),
        "input_norm": ("attn_norm",),
        "mlp_norm": ("mlp_norm",),
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a model, what its layers compute, and its pooling."""

    table: ClassVar[str] = "embed_tokens"
    first_plain: ClassVar[str] = "norm"

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: Heads
    norm: Norm
    pooling: PackedPooling
    names: DiskNames = LLAMA
    sights: tuple[Sight, ...] = (EVERYTHING,)  # of the kinds of layers; each kind has rotary angles of its own
    kinds: tuple[int, ...] = ()  # the kind of each layer; (): all are of the first
    activation: Activation = "silu"
    embedding_scale: float = 1.0
    first_norm: bool = True  # the first layer norms what it reads; without, the embeddings are normed already

    def kind(self, number: int) -> int:
        """Which of `sights` and of the model's rotary angles layer `number` has."""
        return self.kinds[number] if self.kinds else 0

    def parts(self, number: int) -> tuple[str, ...]:
        """The names of the weights of layer `number`, in one order for all layers."""
        return tuple(part for part in self.names.layer if number or self.first_norm or part != "input_norm")

    def weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, shape) in the order of the flat tensor: what decays first, layer after layer, then the norms."""
        rows = self.heads.queries * self.heads.size
        keys = self.heads.keys * self.heads.size
        yield "embed_tokens", (self.vocabulary, self.hidden)
        for number in range(self.layers):
            yield f"{number}.qkv", (rows + 2 * keys, self.hidden)
            yield f"{number}.o", (self.hidden, rows)
            yield f"{number}.gate_up", (2 * self.intermediate, self.hidden)
            yield f"{number}.down", (self.hidden, self.intermediate)
        yield "norm", (self.hidden,)
        if self.names.embedding_norm:
            yield "embedding_norm", (self.hidden,)
        for number in range(self.layers):
            for part in self.parts(number):
                if part.endswith("norm"):
                    yield f"{number}.{part}", (self.heads.size if part in HEAD_NORMS else self.hidden,)

    def disk_names(self) -> Iterator[tuple[str, str, int, int]]:
        """(name on disk, our name, first row, rows) of every tensor of a checkpoint, without its prefix."""
        ours = dict(self.weights())
        yield f"{self.names.table}.weight", "embed_tokens", 0, self.vocabulary
        yield f"{self.names.norm}.weight", "norm", 0, self.hidden
        if self.names.embedding_norm:
            yield f"{self.names.embedding_norm}.weight", "embedding_norm", 0, self.hidden
        for number in range(self.layers):
            for part in self.parts(number):
                name, row = f"{number}.{part}", 0
                for on_disk, rows in zip(self.names.layer[part], self._heights(part, ours[name][0]), strict=True):
                    yield f"layers.{number}.{on_disk}.weight", name, row, rows
                    row += rows

    def _heights(self, part: str, rows: int) -> tuple[int, ...]:
        """Rows of each of the tensors that lie in the `rows` of one weight."""
        if len(self.names.layer[part]) == 1:
            return (rows,)
        if part == "gate_up":
            return (self.intermediate, self.intermediate)
        keys = self.heads.keys * self.heads.size
        return (rows - 2 * keys, keys, keys)
