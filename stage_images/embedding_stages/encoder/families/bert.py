"""BERT, and what its kin share with it: absolute positions, post-norm layers, mean or first-token pooling."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from embedding_stages.encoder.configuration import FIELD, Config, for_library
from embedding_stages.encoder.families.family import Family, Unsupported
from embedding_stages.errors import BadInput

if TYPE_CHECKING:
    import torch

    from embedding_stages.encoder.packed.base import PackedModel
    from embedding_stages.export.graph import Array, Graph


class BertLayers(Family):
    """BERT and its kin. They differ in the class of the library, and in the row of the first token's position."""

    activations = ("gelu", "relu", "gelu_new", "gelu_pytorch_tanh")
    table = "embeddings.word_embeddings.weight"
    position_table = "embeddings.position_embeddings.weight"
    layers = "encoder.layer"
    poolings = ("mean", "cls")
    packs = True
    short_title: ClassVar[str]  # in refusals of single models

    def check(self, config: Config) -> None:
        if config.get("is_decoder") or config.get("add_cross_attention"):
            raise Unsupported(f"a {self.short_title} decoder is no encoder")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise Unsupported(f"{self.short_title} with {config['position_embedding_type']} positions")

    def first_position(self, config: Config) -> int:  # noqa: ARG002 - BERT's is no matter of the configuration
        """The row of the table of positions that belongs to a text's first token; the next ones follow it.

        Raises BadInput `ModelDamaged`.
        """
        return 0

    def positions(self, config: Config) -> int:
        rows, first = self.position_rows(config), self.first_position(config)
        if rows <= first:
            raise BadInput(
                "ModelDamaged",
                f"config.json: max_position_embeddings is {rows}, and the first token has position {first}; correct it",
                field=FIELD,
            )
        return rows - first

    def disk_name(self, name: str, on_disk: Container[str]) -> str:
        """Old BERT files call a norm's weight gamma and its bias beta."""
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return old if name not in on_disk and old in on_disk else name

    def own_name(self, name: str) -> str:
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def states(self, module: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        import torch

        # By place, as the graph and packs have it; the library's own count leaves out a "<pad>" that a text holds.
        first = self.first_position(_settings(module))
        places = torch.arange(first, first + ids.shape[1], device=ids.device)[None, :]
        return module(input_ids=ids, attention_mask=mask, position_ids=places).last_hidden_state

    def packed_model(self) -> type[PackedModel]:
        from embedding_stages.encoder.packed.bert import PackedBert

        return PackedBert

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.bert import bert_states

        return bert_states(graph, weights, module.config, self.first_position(_settings(module)))


def _settings(module: torch.nn.Module) -> dict[str, Any]:
    config: Any = module.config
    found: dict[str, Any] = vars(config)
    return found


class _Bert(BertLayers):
    name = "bert"
    title = "BERT (model_type bert)"
    short_title = "BERT"
    headless = MappingProxyType({"bert": "BertModel"})
    example = "BAAI/bge-base-en-v1.5"
    resembles = ("distilbert", "albert", "electra", "nomic_bert", "deberta", "deberta-v2", "ernie", "nezha", "convbert")

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") == "bert"

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        from transformers import BertConfig, BertModel

        found: tuple[torch.nn.Module, dict[str, Any]] = BertModel.from_pretrained(
            folder, config=BertConfig(**for_library(config)), add_pooling_layer=False, **options
        )
        return found


BERT: Final = _Bert()
