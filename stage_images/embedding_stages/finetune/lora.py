"""Low-rank adapters (LoRA): what a linear layer computes is W x + alpha / rank * B A x, and A and B alone are trained.

W stays as it is: it has no gradient, no moments and no float32 copy. B begins as zero, so the first step starts from
the base model. The checkpoint holds W + alpha / rank * B A under the base model's names and in its number format; the
adapters lie beside it, in a folder of their own, as peft writes them: in the model's folder itself transformers would
add them to the merged weights once more.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.configuration import FIELD, for_saving, read_object
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.families import Family
from embedding_stages.encoder.linear_layers import in_layers, is_meant, refuse_unknown
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.publish import publish
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.encoder.safetensors_check import ADAPTER_CONFIG, SINGLE_FILE, check_weights, weight_files
from embedding_stages.encoder.tensor_names import as_published, prefix_of

FOLDER: Final = "adapter"
_A, _B = ".lora_A", ".lora_B"
_WEIGHT: Final = ".weight"


@dataclass(frozen=True, slots=True)
class Adapters:
    """Which layers have adapters, and how much these count."""

    settings: Lora
    paths: tuple[str, ...]  # of the linear layers in the module
    base_name: str | None  # the base model's, which peft loads below them; not what its files say that it was made of

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.settings.alpha / self.settings.rank

    def save(
        self, folder: Path, base: Path, weights: Mapping[str, torch.Tensor], description: EncoderDescription
    ) -> None:
        """Write the merged model and, in its folder `adapter`, the adapters; `weights` are A and B by their names."""
        folder.mkdir(parents=True, exist_ok=True)
        kind = self._merge(folder, base, weights, description.family)
        config = for_saving(read_object(base / "config.json", required=True), kind)
        text = json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        for layer in description.dense:  # which nothing trains
            (folder / layer.folder).mkdir(exist_ok=True)
            for name in ("config.json", SINGLE_FILE):
                shutil.copyfile(base / layer.folder / name, folder / layer.folder / name)
        publish(description, QueryMap.load(base, description), base, folder)
        self._save_adapters(folder / FOLDER, weights)

    def _merge(self, folder: Path, base: Path, weights: Mapping[str, torch.Tensor], family: Family) -> str:
        """Write the base model's tensors, each in its own number format: those that no adapter changes are the same
        bytes. The number format of most, in torch's word.
        """
        entries = check_weights(base, field=FIELD)
        prefix = prefix_of(entries, family) or ""
        adapted = {family.disk_name(f"{prefix}{path}{_WEIGHT}", entries): path for path in self.paths}
        tensors: dict[str, torch.Tensor] = {}
        sizes = Counter[torch.dtype]()
        for file in weight_files(base, field=FIELD):
            for name, tensor in load_file(file).items():
                sizes[tensor.dtype] += tensor.numel()
                path = adapted.get(name)
                tensors[name] = tensor if path is None else self._changed(tensor, path, weights)
        save_file(as_published(tensors, family), folder / SINGLE_FILE, metadata={"format": "pt"})
        return str(sizes.most_common(1)[0][0]).removeprefix("torch.")

    def _changed(self, weight: torch.Tensor, path: str, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        change = weights[path + _B].float() @ weights[path + _A].float()
        return (weight.float() + self.scale * change).to(weight.dtype)

    def _save_adapters(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        folder.mkdir(exist_ok=True)
        named = {f"base_model.model.{name}.weight": value.float().contiguous() for name, value in weights.items()}
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config: dict[str, Any] = {
            "base_model_name_or_path": self.base_name,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": self.settings.alpha,
            "lora_dropout": 0.0,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": self.settings.rank,
            # By their whole paths: a pooler, which is not part of this encoder, is a linear layer for peft too, and
            # BERT's has the name `dense` like others. peft would miss its adapters.
            "target_modules": list(self.paths),
            "task_type": "FEATURE_EXTRACTION",
            "use_dora": False,
            "use_rslora": False,
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def add_adapters(encoder: PaddedEncoder, settings: Lora, *, seed: int, base_name: str | None = None) -> Adapters:
    """Freeze the encoder and give the layers that `settings` name their A and B, float32, the same on every rank.

    Raises BadInput `LoraTargetUnknown`.
    """
    family = encoder.description.family
    linear = {
        path: module
        for path, module in encoder.module.named_modules()
        if isinstance(module, torch.nn.Linear) and in_layers(path, family)
    }
    adapters = Adapters(settings, chosen(list(linear), settings), base_name)
    encoder.module.requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(seed)
    for path in adapters.paths:
        _add(linear[path], settings.rank, adapters.scale, generator)
    return adapters


def chosen(paths: Sequence[str], settings: Lora) -> tuple[str, ...]:
    """Those of a model's linear layers that `settings` name. Raises BadInput `LoraTargetUnknown`."""
    refuse_unknown(paths, settings.targets)
    return tuple(path for path in paths if is_meant(path, settings.targets))


def first_of(rank: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """A (rank, width) as peft initialises it: uniform within 1 / sqrt(width), kaiming_uniform with a = sqrt(5)."""
    bound = 1 / math.sqrt(width)
    return torch.empty(rank, width).uniform_(-bound, bound, generator=generator)


def _add(layer: torch.nn.Linear, rank: int, scale: float, generator: torch.Generator) -> None:
    first = first_of(rank, layer.in_features, generator)
    layer.lora_A = torch.nn.Parameter(first.to(layer.weight.device))
    layer.lora_B = torch.nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))

    def adapted(module: Any, arguments: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        return out + scale * linear(linear(arguments[0], module.lora_A), module.lora_B)

    layer.register_forward_hook(adapted)
