"""The stage that makes the data: what is trained and measured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from embedding_stages.contract.declare import Table, setting
from embedding_stages.contract.settings.common import BATCH, JOINED, SEED_HIGH

EVALUATION_QUERIES: Final = ("pairs", "withheld")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Table):
    """How the nearest passages of a question are found."""

    FIELD = "spec.stages.prep.search"
    BACKENDS: ClassVar = ("auto", "torch", "faiss")

    backend: str = setting(
        "auto",
        since=JOINED,
        choices=BACKENDS,
        says="What searches, exactly in any case: torch or faiss; auto is torch on a GPU and faiss without one.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prep(Table):
    FIELD = "spec.stages.prep"

    qualityThreshold: float = setting(
        7.0, low=0, high=10, says="Lowest score of the judge, of 10, that is kept; questions without one pass."
    )
    evalFraction: float = setting(
        0.2, low=0.01, high=0.9, says="Share of the documents that is held out for the evaluation."
    )
    margin: float = setting(
        0.95, low=0.01, high=1, says="Hard negatives score below this share of the lowest positive's score."
    )
    hardNegatives: int = setting(5, low=1, high=100, says="Hard negatives mined a question.")
    evaluationQueries: str = setting(
        EVALUATION_QUERIES[0],
        since=JOINED,
        choices=EVALUATION_QUERIES,
        says="What held-out documents are asked: their pairs, or sentences taken out of their passages (withheld: "
        "with finetune.preset auto or conservative and no LLM).",
    )
    maxTrainingQuestions: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=100_000_000,
        says="So many questions train at most, drawn with the seed; all when absent, "
        "3072 with finetune.preset auto or conservative and no LLM.",
    )
    batchSize: int = setting(128, **BATCH, says="Texts that the base model embeds at once.")
    search: Search | None = setting(  # noqa: RUF009 - as every other setting
        None, since=JOINED, says="How the nearest passages of a question are found; as it is best when absent."
    )
    scoreCandidates: bool = setting(
        False,
        since=JOINED,
        says="Whether candidates are chosen and scored by the base model and BM25 together, as finetune.preset asks.",
        told=True,
    )
    seed: int = setting(42, low=0, high=SEED_HIGH, says="Of every random choice.")
