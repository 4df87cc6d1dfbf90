"""The sizes of a Llama, which of them packs can run, and how its weights lie in memory and on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_stages.encoder.packed.ops import Heads
from embedding_stages.encoder.packed.pooling import PACKED_POOLINGS, PackedPooling
from embedding_stages.encoder.pooling import Pooling, carried


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a Llama, and its pooling."""

    table: ClassVar[str] = "embed_tokens"
    first_plain: ClassVar[str] = "0.input_norm"

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: Heads
    eps: float
    pooling: PackedPooling

    @classmethod
    def of(cls, config: Mapping[str, Any], *, pooling: Pooling = "mean", causal: bool = False) -> Shape:
        """From config.json. Raises ValueError with the reason when packs cannot run this model."""
        if causal:
            raise ValueError("causal attention")
        queries = int(config["num_attention_heads"])
        keys = int(config.get("num_key_value_heads") or queries)
        size = int(config.get("head_dim") or config["hidden_size"] // queries)
        if config.get("attention_bias") or config.get("mlp_bias"):
            raise ValueError("projections with biases")
        if config.get("hidden_act", "silu") != "silu":
            raise ValueError(f"activation {config['hidden_act']}")
        if size not in (16, 32, 64, 128) or queries % keys:
            raise ValueError(f"{queries} heads of {size} for {keys} key heads")
        return cls(
            vocabulary=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=Heads(queries=queries, keys=keys, size=size),
            eps=float(config.get("rms_norm_eps", 1e-6)),
            pooling=carried(PACKED_POOLINGS, pooling),
        )

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
        for number in range(self.layers):
            yield f"{number}.input_norm", (self.hidden,)
            yield f"{number}.mlp_norm", (self.hidden,)
        yield "norm", (self.hidden,)

    def disk_names(self) -> Iterator[tuple[str, str, int, int]]:
        """(name on disk, our name, first row, rows) of every tensor of a checkpoint, without its prefix."""
        rows = self.heads.queries * self.heads.size
        keys = self.heads.keys * self.heads.size
        yield "embed_tokens.weight", "embed_tokens", 0, self.vocabulary
        yield "norm.weight", "norm", 0, self.hidden
        for number in range(self.layers):
            layer = f"layers.{number}"
            yield f"{layer}.self_attn.q_proj.weight", f"{number}.qkv", 0, rows
            yield f"{layer}.self_attn.k_proj.weight", f"{number}.qkv", rows, keys
            yield f"{layer}.self_attn.v_proj.weight", f"{number}.qkv", rows + keys, keys
            yield f"{layer}.self_attn.o_proj.weight", f"{number}.o", 0, self.hidden
            yield f"{layer}.mlp.gate_proj.weight", f"{number}.gate_up", 0, self.intermediate
            yield f"{layer}.mlp.up_proj.weight", f"{number}.gate_up", self.intermediate, self.intermediate
            yield f"{layer}.mlp.down_proj.weight", f"{number}.down", 0, self.hidden
            yield f"{layer}.input_layernorm.weight", f"{number}.input_norm", 0, self.hidden
            yield f"{layer}.post_attention_layernorm.weight", f"{number}.mlp_norm", 0, self.hidden
