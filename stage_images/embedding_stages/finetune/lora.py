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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.configuration import FIELD
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.linear_layers import ALL_LINEAR, in_layers, is_meant, refuse_unknown
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.safetensors_check import SINGLE_FILE, check_weights

FOLDER: Final = "adapter"
_A, _B = ".lora_A", ".lora_B"
_KINDS: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


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
        encoder = PaddedEncoder.load(base, device="cpu", dtype=_kind_of(base))
        encoder.description = description
        modules = dict(encoder.module.named_parameters())
        with torch.no_grad():
            for path in self.paths:
                weight = modules[f"{path}.weight"]
                change = weights[path + _B].float() @ weights[path + _A].float()
                weight.copy_(weight.float() + self.scale * change)
        encoder.save(folder)
        for layer in description.dense:  # which nothing trains, and whose numbers may be of another format
            shutil.copyfile(base / layer.folder / SINGLE_FILE, folder / layer.folder / SINGLE_FILE)
        self._save_adapters(folder / FOLDER, weights)

    def _save_adapters(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        folder.mkdir(exist_ok=True)
        named = {f"base_model.model.{name}.weight": value.float().contiguous() for name, value in weights.items()}
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        everything = ALL_LINEAR in self.settings.targets
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
            # By their whole paths: a pooler, which is not part of this encoder, is a linear layer for peft too.
            "target_modules": list(self.paths if everything else self.settings.targets),
            "task_type": "FEATURE_EXTRACTION",
            "use_dora": False,
            "use_rslora": False,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


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
    refuse_unknown(list(linear), settings.targets)
    encoder.module.requires_grad_(requires_grad=False)
    adapters = Adapters(settings, tuple(path for path in linear if is_meant(path, settings.targets)), base_name)
    generator = torch.Generator().manual_seed(seed)
    for path in adapters.paths:
        _add(linear[path], settings.rank, adapters.scale, generator)
    return adapters


def _add(layer: torch.nn.Linear, rank: int, scale: float, generator: torch.Generator) -> None:
    """A as peft initialises it: uniform within 1 / sqrt(width), which is kaiming_uniform with a = sqrt(5)."""
    bound = 1 / math.sqrt(layer.in_features)
    first = torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=generator)
    layer.lora_A = torch.nn.Parameter(first.to(layer.weight.device))
    layer.lora_B = torch.nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))

    def adapted(module: Any, arguments: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        return out + scale * linear(linear(arguments[0], module.lora_A), module.lora_B)

    layer.register_forward_hook(adapted)


def _kind_of(base: Path) -> torch.dtype:
    """The number format of most of the base model's weights."""
    sizes = Counter[str]()
    for entry in check_weights(base, field=FIELD).values():
        sizes[entry.dtype] += entry.end - entry.begin
    return _KINDS.get(sizes.most_common(1)[0][0], torch.float32)
