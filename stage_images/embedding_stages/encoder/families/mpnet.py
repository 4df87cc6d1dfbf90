"""MPNet: BERT's layers under other names, with a bias of the distance between two tokens in every attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import Config, for_library
from embedding_stages.encoder.families.bert import BertLayers
from embedding_stages.encoder.families.family import Unsupported

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array, Graph

BUCKETS: Final = 32  # of distances; the library's model counts on so many, whatever config.json says
_FIRST_POSITION: Final = 2  # behind the padding token's, which is 1 in the library's model


class _Mpnet(BertLayers):
    name = "mpnet"
    title = "MPNet (model_type mpnet)"
    short_title = "MPNet"
    example = "sentence-transformers/all-mpnet-base-v2"
    headless = MappingProxyType({"mpnet": "MPNetModel"})
    distance_buckets = BUCKETS

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") == "mpnet"

    def check(self, config: Config) -> None:
        super().check(config)
        buckets = config.get("relative_attention_num_buckets", BUCKETS)
        if buckets != BUCKETS:
            raise Unsupported(f"MPNet with relative_attention_num_buckets {buckets!r}, not {BUCKETS}")

    def first_position(self, config: Config) -> int:  # noqa: ARG002 - no matter of the configuration
        return _FIRST_POSITION

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        from transformers import MPNetConfig, MPNetModel

        written_out = {**options, "attn_implementation": "eager"}  # the library's only one with the bias
        found: tuple[torch.nn.Module, dict[str, Any]] = MPNetModel.from_pretrained(
            folder, config=MPNetConfig(**for_library(config)), add_pooling_layer=False, **written_out
        )
        return found

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.mpnet import mpnet_states

        encoder: Any = module.encoder
        return mpnet_states(graph, weights, module.config, _FIRST_POSITION, encoder.relative_position_bucket)


MPNET: Final = _Mpnet()
