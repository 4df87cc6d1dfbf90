"""Which exports are tried, in which order, and when one is good enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from embedding_stages.contract.settings import FALL_BACK, QUANTIZED_COSINE, Export
from embedding_stages.export.graph import Precision

Quantization = Literal["none", "int8", "fp8"]
FELL_BACK: Final = "ParityFellBack"
_FIELD: Final = "spec.stages.export"
_MIN_COSINE: Final[Mapping[str, float]] = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.999, **QUANTIZED_COSINE}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of writing the model."""

    precision: Precision
    quantization: Quantization = "none"

    def __str__(self) -> str:
        return self.precision if self.quantization == "none" else f"{self.quantization} with {self.precision}"

    @property
    def ranks(self) -> bool:
        """Whether the ranking is measured: rounding to float16 or less leaves it as it is, and it takes long."""
        return self.quantization != "none" or self.precision == "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of a candidate."""

    min_cosine: float
    max_abs_diff: float
    texts: int
    ndcg: float | None = None  # NDCG@10 of the candidate, where it was measured
    checkpoint_ndcg: float | None = None

    @property
    def drop(self) -> float:
        """How far NDCG@10 fell, 0 where it was not measured or rose."""
        if self.ndcg is None or self.checkpoint_ndcg is None:
            return 0.0
        return max(0.0, round(self.checkpoint_ndcg - self.ndcg, 6))

    def to_json(self) -> dict[str, float]:
        """For a result; numbers of five decimals."""
        ranked = {} if self.ndcg is None else {"ndcg@10": self.ndcg, "checkpoint ndcg@10": self.checkpoint_ndcg or 0.0}
        return {name: round(value, 5) for name, value in {"minCosine": self.min_cosine, **ranked}.items()}


def candidates(settings: Export) -> list[Candidate]:
    """What the manifest asks for and, where it says FallBack, what is tried after it: the last is fp32."""
    precision: Any = settings.precision
    quantization: Any = settings.quantization
    asked = Candidate(precision, quantization)
    if settings.onParityFail != FALL_BACK:
        return [asked]
    return list(dict.fromkeys([asked, Candidate(asked.precision), Candidate("fp32")]))


def limits_of(candidate: Candidate, settings: Export) -> tuple[float, float]:
    """(least cosine, largest fall of NDCG@10). What the manifest says of cosine is about what it asks for."""
    kind = candidate.precision if candidate.quantization == "none" else candidate.quantization
    asked = (candidate.precision, candidate.quantization) == (settings.precision, settings.quantization)
    said = settings.minCosine if asked else None
    return (_MIN_COSINE[kind] if said is None else said), settings.maxNdcgDrop


def fault(candidate: Candidate, figures: Figures, settings: Export) -> str:
    """What is wrong with a candidate, in words; empty where it is good enough."""
    least, most = limits_of(candidate, settings)
    found = []
    if not figures.min_cosine >= least:  # NaN is not, either
        found.append(f"smallest cosine {figures.min_cosine:.6f} over {figures.texts} texts, {least:.12g} wanted")
    if figures.drop > most:
        found.append(f"NDCG@10 {figures.ndcg:.4f} where the checkpoint has {figures.checkpoint_ndcg:.4f}")
    return " and ".join(found)


def cure(candidate: Candidate) -> tuple[str, str]:
    """(what helps, the field), for the last candidate that was tried."""
    if candidate.quantization != "none":
        return "set it to none, or spec.stages.export.onParityFail to FallBack", f"{_FIELD}.quantization"
    if candidate.precision != "fp32":
        return "set it to fp32", f"{_FIELD}.precision"
    return (
        "serve the checkpoint itself (backend torch), and report the base model to this project",
        "spec.stages.deploy.backend",
    )
