"""The finetune stage: what moves, towards what, in which steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedding_stages.contract import PARALLELISMS
from embedding_stages.contract.declare import Table, setting
from embedding_stages.contract.settings.common import JOINED, SEED_HIGH

PRESETS: Final = ("recipe", "conservative", "auto")
SIDES: Final = ("both", "query")
QUERY_SIDE: Final = SIDES[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation(Table):
    """What is measured while training, and what that decides."""

    FIELD = "spec.stages.finetune.validation"

    share: float = setting(
        0.05, since=JOINED, low=0.001, high=0.5, says="Share of the training questions that is held out."
    )
    questions: int = setting(500, since=JOINED, low=1, high=100_000, says="At most so many are held out.")
    everySteps: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1_000_000,
        says="Optimizer steps between two validations, and one after the last; when absent checkpointEverySteps, or a "
        "third of a run that has fewer than three times as many.",
    )
    patience: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1000,
        says="Training ends after so many validations in a row without a better one; never when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora(Table):
    """Adapters that are trained in the place of the weights."""

    FIELD = "spec.stages.finetune.lora"

    rank: int = setting(16, since=JOINED, low=1, high=512, says="Rank of the adapters.")
    alpha: int = setting(
        32, since=JOINED, low=1, high=4096, says="Adapters count alpha / rank times, as peft's lora_alpha does."
    )
    targets: tuple[str, ...] = setting(
        ("all-linear",),
        since=JOINED,
        most=32,
        shortest=1,
        longest=128,
        says="Linear layers that get adapters, by the end of their path, such as query or q_proj; all-linear for all.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune(Table):
    FIELD = "spec.stages.finetune"

    preset: str = setting(
        PRESETS[0],
        since=JOINED,
        choices=PRESETS,
        says="recipe: learns which passage a question is about. auto: learns the ranking of base model and BM25 "
        "together. conservative: as auto, in smaller steps.",
    )
    side: str = setting(
        SIDES[0],
        since=JOINED,
        choices=SIDES,
        says="What moves: the whole model, or only what becomes of queries (query): passages keep the base model's "
        "vectors, so nothing is embedded again.",
    )
    epochs: int = setting(3, low=1, high=100, says="Passes over the training set.")
    globalBatchSize: int = setting(
        128, low=1, high=65536, says="Questions an optimizer step, scaled down for small sets."
    )
    microBatchSize: int = setting(
        4,
        low=1,
        high=65536,
        says="Questions a forward pass, halved when GPU memory runs out; without meaning where texts are packed, as on "
        "GPUs.",
    )
    learningRate: float = setting(1e-5, low=1e-9, high=1, says="Learning rate at its peak.")
    weightDecay: float = setting(0.01, low=0, high=1, says="Weight decay of the optimizer.")
    warmupSteps: int = setting(5, low=0, high=1_000_000, says="Optimizer steps until the learning rate is at its peak.")
    temperature: float = setting(0.02, low=1e-4, high=10, says="Temperature of the loss.")
    negativesPerQuery: int = setting(
        4, low=1, high=100, says="Hard negatives used a question, at most stages.prep.hardNegatives."
    )
    inBatchNegatives: bool = setting(
        False,
        since=JOINED,
        says="Whether the passages of a step's other questions are negatives too; with preset recipe.",
    )
    matryoshka: tuple[int, ...] = setting(
        (),
        since=JOINED,
        low=8,
        high=8192,
        most=8,
        says="Sizes that vectors may be cut to: training looks at each of them, and at the whole. At most the model's "
        "hidden size.",
    )
    validation: Validation | None = setting(  # noqa: RUF009 - as every other setting
        None,
        since=JOINED,
        says="Holds training questions out and publishes the weights that answer them best (NDCG@10), instead of the "
        "last; off when absent.",
    )
    lora: Lora | None = setting(  # noqa: RUF009 - as every other setting
        None,
        since=JOINED,
        says="Trains low-rank adapters (LoRA) and merges them, instead of all weights; off when absent.",
    )
    checkpointEverySteps: int = setting(100, low=1, high=1_000_000, says="Optimizer steps between two resume points.")
    seed: int = setting(42, low=0, high=SEED_HIGH, says="Of every random choice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers(Table):
    """How many share the training. That is scheduling: it is no part of the work's identity."""

    FIELD = "spec.stages.finetune"

    gpusPerNode: int | None = setting(
        None,
        low=0,
        high=16,
        says="GPUs on each node, one process a GPU; 0 for one process without. "
        "What resources.limits says, or 1, when absent.",
    )
    nodes: int = setting(
        1,
        low=1,
        high=64,
        says="Pods that share the training, at best one a node. Several need a workspace that several nodes mount.",
    )
    parallelism: str = setting(
        PARALLELISMS[0],
        choices=PARALLELISMS,
        says="With several GPUs: a copy of the model on each (DDP), or its parameters and "
        "optimizer state in shards (FSDP).",
    )
