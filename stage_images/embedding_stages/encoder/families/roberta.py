"""RoBERTa and XLM-RoBERTa: BERT's layers, with positions that begin behind the padding token's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import FIELD, Config, for_library
from embedding_stages.encoder.families.bert import BertLayers
from embedding_stages.encoder.pooling import Pooling
from embedding_stages.errors import BadInput

if TYPE_CHECKING:
    import torch

_PADDING: Final = 1  # the library's pad_token_id when config.json has none


class _Roberta(BertLayers):
    name = "roberta"
    title = "RoBERTa (model_type roberta, xlm-roberta or camembert)"
    short_title = "RoBERTa"
    # Servers know no CamembertModel; it is RoBERTa's, with a tokenizer of its own.
    headless = MappingProxyType(
        {"roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel", "camembert": "RobertaModel"}
    )
    example = "BAAI/bge-m3"
    resembles = ("new", "gte", "xlm-roberta-xl", "xmod", "roberta-prelayernorm", "data2vec-text", "xlm", "rembert")

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") in ("roberta", "xlm-roberta", "camembert")

    def published(self, config: Config, pooling: Pooling) -> dict[str, Any]:
        """With the kind of positions: transformers 5 no longer writes it, and vLLM asks every XLM-RoBERTa for it."""
        return {"position_embedding_type": "absolute"} | super().published(config, pooling)

    def first_position(self, config: Config) -> int:
        padding = config.get("pad_token_id", _PADDING)
        if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
            raise BadInput(
                "ModelDamaged",
                f"config.json: pad_token_id is {padding!r}; positions count from it: write the padding token's id",
                field=FIELD,
            )
        return padding + 1

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        from transformers import XLMRobertaConfig, XLMRobertaModel  # RoBERTa's and CamemBERT's are the same

        found: tuple[torch.nn.Module, dict[str, Any]] = XLMRobertaModel.from_pretrained(
            folder, config=XLMRobertaConfig(**for_library(config)), add_pooling_layer=False, **options
        )
        return found


ROBERTA: Final = _Roberta()
