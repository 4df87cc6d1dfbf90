"""Qwen3 as its embedding models have it: causal, the last token's state, norms of queries and keys."""

from __future__ import annotations

from typing import Any, Final

from embedding_stages.encoder.configuration import Config
from embedding_stages.encoder.families.decoder import Decoder, is_bidirectional
from embedding_stages.encoder.families.family import Unsupported


class _Qwen3(Decoder):
    name = "qwen3"
    title = "Qwen3 (qwen3)"
    example = "Qwen/Qwen3-Embedding-0.6B"
    resembles = ("qwen2", "qwen3_moe")
    poolings = ("last_token", "mean")
    shorter_dimensions = (2048, 1024, 768, 512, 256, 128)  # Qwen3-Embedding takes any from 32 on
    causal = True

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") == "qwen3"

    def check(self, config: Config) -> None:
        if is_bidirectional(config):
            raise Unsupported("a Qwen3 with bidirectional attention")
        kinds = config.get("layer_types") or []
        if config.get("use_sliding_window") or "sliding_attention" in kinds:
            raise Unsupported("a Qwen3 with layers that see a window of tokens alone")

    def library(self) -> tuple[Any, Any]:
        from transformers import Qwen3Config, Qwen3Model

        return Qwen3Config, Qwen3Model


QWEN3: Final = _Qwen3()
