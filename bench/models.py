"""The models that are timed: published sizes, random weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A transformer's sizes, and what its config.json says beside them."""

    family: str = "llama"  # model_type; a Llama's config.json differs between contestants, see checkpoint.py
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    gated: bool = True  # the MLP multiplies two products: three matrices in place of two
    window: tuple[int, int] = (0, 1)  # tokens that a local layer sees, and every how many layers one sees all
    pooling: str = "mean"  # a word of sentence-transformers' Pooling module
    causal: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def linear_parameters(self) -> int:
        """Weights that multiply every token: no embedding table, no norms."""
        attention = self.hidden * (2 * self.heads + 2 * self.kv_heads) * self.head_size
        matrices = 3 if self.gated else 2
        return self.layers * (attention + matrices * self.hidden * self.intermediate)


def _bert(*, vocabulary: int, hidden: int, layers: int, heads: int, family: str = "bert", **config: Any) -> Shape:
    return Shape(
        family=family,
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_size=hidden // heads,
        intermediate=4 * hidden,
        gated=False,
        config={"max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
        | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        | config,
    )


SHAPES: Final = {
    "minilm-l6": _bert(vocabulary=30_522, hidden=384, layers=6, heads=12),
    "bert-base": _bert(vocabulary=30_522, hidden=768, layers=12, heads=12),
    "xlm-r-large": _bert(  # BGE-M3, multilingual-E5-large, Arctic-embed-l-v2
        family="xlm-roberta",
        vocabulary=250_002,
        hidden=1024,
        layers=24,
        heads=16,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    ),
    "modernbert-base": Shape(
        family="modernbert",
        vocabulary=50_368,
        hidden=768,
        layers=22,
        heads=12,
        kv_heads=12,
        head_size=64,
        intermediate=1152,
        window=(128, 3),
        config={
            "max_position_embeddings": 8192,
            "global_attn_every_n_layers": 3,
            "local_attention": 128,
            "global_rope_theta": 160_000.0,
            "local_rope_theta": 10_000.0,
            "hidden_activation": "gelu",
            "norm_eps": 1e-5,
            "attention_bias": False,
            "mlp_bias": False,
            "norm_bias": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "cls_token_id": None,
            "sep_token_id": None,
        },
    ),
    "qwen3-0.6b": Shape(
        family="qwen3",
        vocabulary=151_669,
        hidden=1024,
        layers=28,
        heads=16,
        kv_heads=8,
        head_size=128,
        intermediate=3072,
        pooling="lasttoken",
        causal=True,
        config={
            "max_position_embeddings": 32_768,
            "rope_theta": 1_000_000.0,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "attention_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    ),
    "llama-1b": Shape(  # Llama 3.2 1B, NVIDIA's llama-nemotron-embed
        vocabulary=128_256, hidden=2048, layers=16, heads=32, kv_heads=8, head_size=64, intermediate=8192
    ),
    "llama-8b": Shape(  # Llama 3.1 8B; never written to a disk, see lora.py
        vocabulary=128_256, hidden=4096, layers=32, heads=32, kv_heads=8, head_size=128, intermediate=14_336
    ),
    "mpnet-base": _bert(  # all-mpnet-base-v2
        family="mpnet", vocabulary=30_527, hidden=768, layers=12, heads=12, max_position_embeddings=514
    ),
    "gemma3-300m": Shape(  # EmbeddingGemma without its Dense modules, which agree.py's --dense adds
        family="gemma3_text",
        vocabulary=262_144,
        hidden=768,
        layers=24,
        heads=3,
        kv_heads=1,
        head_size=256,
        intermediate=1152,
        window=(512, 6),
        config={
            "max_position_embeddings": 2048,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "rms_norm_eps": 1e-6,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "use_bidirectional_attention": True,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    ),
    "ministral3-1b": Shape(  # Nemotron 3 Embed 1B: its heads are wider than hidden / heads
        family="ministral3",
        vocabulary=131_072,
        hidden=2048,
        layers=16,
        heads=24,
        kv_heads=8,
        head_size=128,
        intermediate=6144,
        config={
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "is_causal": False,
            "use_bidirectional_attention": True,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "llama_4_scaling_beta": 0.0},
            "sliding_window": None,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    ),
    # Runs in seconds on a CPU: shows that the programs work, says nothing about speed.
    "tiny": Shape(vocabulary=2048, hidden=128, layers=2, heads=4, kv_heads=2, head_size=32, intermediate=256),
    "tiny-bert": _bert(vocabulary=2048, hidden=64, layers=2, heads=2),
}
DEFAULT: Final = "llama-1b"
