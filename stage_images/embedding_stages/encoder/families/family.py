"""What the stages ask of a model family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from embedding_stages.encoder.configuration import Config, positive
from embedding_stages.encoder.pooling import Pooling

if TYPE_CHECKING:
    import torch

    from embedding_stages.encoder.packed.base import PackedModel
    from embedding_stages.export.graph import Array, Graph


class Unsupported(Exception):
    """A model of the family that cannot be used; the text says what it is, such as "a BERT decoder is no encoder"."""


class Family(ABC):
    """All that differs between one family of models and the next; a family is one object of one subclass.

    A subclass's module imports the standard library alone: `inputs` recognises models without torch. Methods that
    need torch, transformers or onnx import them when they are called.
    """

    name: ClassVar[str]  # `architecture` in encoder.json, which frozen models keep: it never changes
    title: ClassVar[str]  # in refusals: what it is and how config.json says so
    example: ClassVar[str]  # a published model of it, in refusals of models that are none
    resembles: ClassVar[tuple[str, ...]] = ()  # model types of others, for whose models it is the nearest to take
    activations: ClassVar[tuple[str, ...]]  # that can be used; the first when config.json names none
    table: ClassVar[str]  # end of the name of the token embedding tensor (vocabulary, hidden) in a checkpoint
    position_table: ClassVar[str] = ""  # end of the name of the table of positions, where the family has one
    layers: ClassVar[str]  # path of the list of layers in the module: shards are cut there
    poolings: ClassVar[tuple[Pooling, ...]] = ("mean",)  # can be used; the first when the model's files name none
    prefixes: ClassVar[Mapping[str, str]] = MappingProxyType({"query": "", "passage": ""})  # when the files name none
    shorter_dimensions: ClassVar[tuple[int, ...]] = ()  # Matryoshka sizes; those below the hidden size are offered
    causal: ClassVar[bool] = False  # a token sees the tokens before it alone
    packs: ClassVar[bool] = False  # `encoder.packed` computes it, by `packed_model`, whose `shape_of` refuses some
    # By model_type, the library's class without a head: servers build a masked language model of one that has a head's
    # name, whatever its modules say. Empty: readers take what published models have.
    headless: ClassVar[Mapping[str, str]] = MappingProxyType({})
    distance_buckets: ClassVar[int] = 0  # of distances between tokens, by which each head's scores have a summand
    needs: ClassVar[tuple[str, ...]] = ()  # what sentence-transformers needs for a checkpoint, sentences of its card

    @abstractmethod
    def recognises(self, config: Config) -> bool:
        """Whether config.json is of this family; also when `check` then refuses the model."""

    @abstractmethod
    def check(self, config: Config) -> None:
        """Raises Unsupported when a recognised model cannot be used.

        Activation, pooling, rotary scaling and quantization are checked for all families (see `family_of`).
        """

    def activation(self, config: Config) -> Any:
        """What config.json has for the activation; `activations` are those that can be used."""
        return config.get("hidden_act", self.activations[0])

    def hidden_size(self, config: Config) -> int:
        """Numbers in a state, and in a vector. Raises BadInput `ModelDamaged`."""
        return positive(config, "hidden_size")

    def vocabulary(self, config: Config) -> int:
        """Rows of the token embedding table. Raises BadInput `ModelDamaged`."""
        return positive(config, "vocab_size")

    def position_rows(self, config: Config) -> int:
        """Rows of the table of positions, where the family has one. Raises BadInput `ModelDamaged`."""
        return positive(config, "max_position_embeddings")

    def positions(self, config: Config) -> int:
        """The most tokens that a text may have, special ones included. Raises BadInput `ModelDamaged`."""
        return self.position_rows(config)

    def disk_name(self, name: str, on_disk: Container[str]) -> str:  # noqa: ARG002 - most files use one name alone
        """The checkpoint's name of the parameter `name`; `on_disk` are the names of the checkpoint's tensors."""
        return name

    def own_name(self, name: str) -> str:
        """The library's name of a parameter that a checkpoint calls `name`: what undoes `disk_name`."""
        return name

    def published(self, config: Config, pooling: Pooling) -> dict[str, Any]:  # noqa: ARG002 - most need not say it
        """config.json of a checkpoint: one that transformers and servers read right without the model's own code."""
        name = self.headless.get(str(config.get("model_type")))
        return {**config, **({"architectures": [name]} if name else {})}

    @abstractmethod
    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        """The transformer, without its pooling, and the library's report about missing weights.

        `options` are keywords of `from_pretrained`. Raises what the library raises for damaged files.
        """

    @abstractmethod
    def states(self, module: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        """The last hidden states (batch, tokens, hidden), in the module's dtype or autocast's.

        `ids` and `mask` are int64 (batch, tokens) on the module's device, padded on the right. Differentiable. The
        states of padding are not defined.
        """

    def packed_model(self) -> type[PackedModel]:
        """The model over packs, where `packs`."""
        raise NotImplementedError(f"{self.title} has no packed model")

    @abstractmethod
    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        """Append the transformer to an ONNX graph: the name of its last hidden states, float32 (batch, tokens, hidden).

        `weights` are the module's parameters by name, float32. The graph's inputs are those of `export.head`.
        """
