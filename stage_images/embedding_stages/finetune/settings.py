"""What a manifest says about fine-tuning, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from embedding_stages.errors import BadInput


@dataclass(frozen=True, slots=True)
class Settings:
    """NVIDIA embed recipe, profile llama. Names are those of the manifest, spec.stages.finetune."""

    epochs: int = 3
    globalBatchSize: int = 128  # noqa: N815 - examples an optimizer step
    microBatchSize: int = 4  # noqa: N815 - examples of full length a forward pass
    learningRate: float = 1e-5  # noqa: N815
    weightDecay: float = 0.01  # noqa: N815
    warmupSteps: int = 5  # noqa: N815
    temperature: float = 0.02
    negativesPerQuery: int = 4  # noqa: N815
    checkpointEverySteps: int = 100  # noqa: N815
    seed: int = 42

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Settings:
        """Raises BadInput `SettingInvalid` that names the field."""
        known: dict[str, Any] = {}
        for field in fields(cls):
            value = raw.get(field.name, field.default)
            kind: type[int | float] = int if isinstance(field.default, int) else float
            zero_is_fine = field.name in ("warmupSteps", "weightDecay", "seed")
            wrong_type = isinstance(value, bool) or not isinstance(value, int | float)
            if wrong_type or kind(value) != value or value < 0 or (value == 0 and not zero_is_fine):
                raise BadInput(
                    "SettingInvalid",
                    f"{field.name} is {value!r}, expected {'a whole number' if kind is int else 'a number'} > 0",
                    field=f"spec.stages.finetune.{field.name}",
                )
            known[field.name] = kind(value)
        return cls(**known)
