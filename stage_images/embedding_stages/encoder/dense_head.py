"""The Dense modules of a model in torch: loaded, computed, saved in sentence-transformers' layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from embedding_stages.encoder.dense import ACTIVATIONS, BIAS, WEIGHT, DenseLayer, check_dense
from embedding_stages.encoder.safetensors_check import SINGLE_FILE

ON_DISK: Final = {"weight": WEIGHT, "bias": BIAS}
DENSE: Final = "dense_modules"  # what their weights' names begin with in an encoder: no family has one like it


class DenseHead(torch.nn.ModuleList):
    """Linear maps of vectors, one after the other, each with its activation; in float32 whatever its weights are.

    They see one vector a text, so that this costs nothing, and what they answer is cut to length 1 at once.
    """

    def __init__(self, layers: Sequence[DenseLayer]) -> None:
        super().__init__(torch.nn.Linear(each.in_features, each.out_features, bias=each.bias) for each in layers)
        self._layers = tuple(layers)

    @classmethod
    def load(cls, folder: Path, layers: Sequence[DenseLayer]) -> DenseHead | None:
        """From a model folder, in float32; None for a model without Dense modules.

        Raises BadInput as `check_dense` does.
        """
        if not layers:
            return None
        check_dense(folder, layers)
        head = cls(layers)
        with torch.no_grad():
            for layer, linear in head.pairs():
                tensors = load_file(folder / layer.folder / SINGLE_FILE)
                for name, parameter in linear.named_parameters():
                    parameter.copy_(tensors[ON_DISK[name]])
        return head

    def pairs(self) -> Iterator[tuple[DenseLayer, torch.nn.Linear]]:
        """Each module with its weights, in order."""
        for layer, linear in zip(self._layers, self.children(), strict=True):
            assert isinstance(linear, torch.nn.Linear)  # noqa: S101 - the library's lists hold any module
            yield layer, linear

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """float32 (n, in of the first) -> float32 (n, out of the last)."""
        return through(vectors, ((layer, linear.weight, linear.bias) for layer, linear in self.pairs()))

    def save(self, folder: Path) -> None:
        """Write each module's folder, in the weights' present dtype."""
        for layer, linear in self.pairs():
            save_layer(folder, layer, {name: value.detach() for name, value in linear.named_parameters()})


def through(
    vectors: torch.Tensor, parts: Iterable[tuple[DenseLayer, torch.Tensor, torch.Tensor | None]]
) -> torch.Tensor:
    """float32 (n, in of the first) -> float32 (n, out of the last), through each module's weight and bias."""
    for layer, weight, bias in parts:
        mapped = torch.nn.functional.linear(vectors, weight.float(), None if bias is None else bias.float())
        vectors = ACTIVATIONS[layer.activation].apply(mapped)
    return vectors


def save_layer(folder: Path, layer: DenseLayer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a module's folder below the model's; `tensors` are its weight and bias, in the number formats to write."""
    place = folder / layer.folder
    place.mkdir(exist_ok=True)
    text = json.dumps(layer.config, indent=1, sort_keys=True)
    (place / "config.json").write_text(text + "\n", encoding="utf-8")
    written = {ON_DISK[name]: value.to("cpu").contiguous() for name, value in tensors.items()}
    save_file(written, place / SINGLE_FILE, metadata={"format": "pt"})
