"""Which linear layers a manifest means by a name, in the words of peft. Standard library only.

A name stands for every linear layer of the encoder's layers whose path is it or ends with it, at a dot: `query` for
`encoder.layer.0.attention.self.query`, `attention.output.dense` for one kind of `dense`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from embedding_stages.encoder.families import Family
from embedding_stages.encoder.safetensors_check import TensorEntry
from embedding_stages.errors import BadInput

ALL_LINEAR: Final = "all-linear"
FIELD: Final = "spec.stages.finetune.lora.targets"
_WEIGHT: Final = ".weight"
_MATRIX: Final = 2  # dimensions


def is_meant(path: str, targets: Iterable[str]) -> bool:
    """Whether one of the names means the linear layer at `path`."""
    return any(target == ALL_LINEAR or f".{path}".endswith(f".{target}") for target in targets)


def in_layers(path: str, family: Family) -> bool:
    """Whether the module at `path` is part of an encoder layer: an embedding table is not."""
    return f".{family.layers}." in f".{path}"


def check_targets(tensors: Mapping[str, TensorEntry], family: Family, targets: Sequence[str]) -> None:
    """Every name means at least one layer of a checkpoint with these tensors. Raises BadInput `LoraTargetUnknown`."""
    matrices = (name for name, entry in tensors.items() if len(entry.shape) == _MATRIX and name.endswith(_WEIGHT))
    refuse_unknown([name.removesuffix(_WEIGHT) for name in matrices if in_layers(name, family)], targets)


def refuse_unknown(paths: Sequence[str], targets: Sequence[str]) -> None:
    """Raises BadInput `LoraTargetUnknown` for a name that means none of the linear layers `paths`."""
    unknown = [target for target in targets if not any(is_meant(path, [target]) for path in paths)]
    if unknown:
        there = ", ".join(sorted({path.rpartition(".")[2] for path in paths})) or "none"
        raise BadInput(
            "LoraTargetUnknown",
            f"the model has no linear layer named {', '.join(unknown)}; give some of {there}, or {ALL_LINEAR}",
            field=FIELD,
        )
