"""The prep stage: pairs and base model in, trainingSet and evaluationSet out.

trainingSet    train.jsonl {"query", "positive": id, "negatives": [ids, best first]}, passages.jsonl {"id", "text"}
evaluationSet  BEIR: corpus.jsonl, queries.jsonl, qrels/test.tsv; a labelled set instead when there is one

Counts: trainingRows, evaluationQueries, evaluationPassages, droppedLowScore, droppedLeaked, droppedNoNegatives.
Details: negatives {meanPositiveScore, meanNegativeScore}, warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.encoder.fitting import FittingEncoder
from embedding_stages.errors import BadInput
from embedding_stages.prep import files
from embedding_stages.prep.mine import Embed, Mined, mean, mine
from embedding_stages.prep.pairs import (
    Pair,
    keep_good,
    split_by_document,
    unroll,
    with_known_chunks,
    without_leaks,
    without_repeats,
)
from embedding_stages.prep.search import Vectors
from embedding_stages.runner import StageContext

FIELD: Final = "spec.stages.prep"
FEW_QUERIES: Final = 50  # NVIDIA embed recipe: warns below
FEW_ROWS: Final = 100  # NVIDIA embed recipe: warns below


@dataclass(frozen=True, slots=True)
class Settings:
    """NVIDIA embed recipe, profile llama. Names are those of the stage's settings."""

    hardNegatives: int = 5  # noqa: N815 - mined a question
    margin: float = 0.95
    evalFraction: float = 0.2  # noqa: N815 - of the documents
    qualityThreshold: float = 7.0  # noqa: N815 - of the judge's score
    maxPositives: int = 5  # noqa: N815 - a question
    batchSize: int = 128  # noqa: N815 - texts the base model embeds at once
    seed: int = 42

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Settings:
        default = cls()
        return cls(
            **{name: type(getattr(default, name))(raw.get(name, getattr(default, name))) for name in cls.__slots__}
        )


def work(context: StageContext) -> StageResult:
    """Prepare with the base model of the request."""
    settings = Settings.of(context.settings)
    return prepare(context, settings, lambda texts: _embedder(context, settings, texts))


def prepare(context: StageContext, settings: Settings, embedder: Callable[[int], Embed]) -> StageResult:
    """`embedder` loads the model; it is called after everything that can be checked without it, with the number
    of texts that it will get.

    Raises BadInput `NoPairs`, `TooFewDocuments`, `NoTrainingRows`.
    """
    source = files.read_pairs(context.input(Artefact.PAIRS))
    good = keep_good(source.pairs, settings.qualityThreshold)
    low = len(source.pairs) - len(good)
    pairs = with_known_chunks(good, source.chunks)
    if not pairs:
        raise BadInput(
            "NoPairs",
            f"none of {len(source.pairs)} questions scores {settings.qualityThreshold} or more; lower the threshold or "
            "use a stronger model",
            field=f"{FIELD}.qualityThreshold",
        )
    sides = _sides(context, settings, source, pairs)
    training = without_repeats(sides.training)
    mined = _mine(context, settings, embedder, training, sides.searched)
    rows = unroll(training, mined.negatives, max_positives=settings.maxPositives)
    bare = sum(not names for names in mined.negatives.values())
    if not rows:
        raise _no_rows(len(training), sides.leaked)
    files.write_training_set(context.folder(Artefact.TRAINING_SET), source.chunks, rows)
    warnings = _warnings(len(rows), sides.queries)
    for warning in warnings:
        context.log("warning", warning=warning)
    return context.result(
        counts={
            "trainingRows": len(rows),
            "evaluationQueries": sides.queries,
            "evaluationPassages": sides.passages,
            "droppedLowScore": low,
            "droppedLeaked": sides.leaked,
            "droppedNoNegatives": bare,
        },
        details={
            "negatives": {
                "meanPositiveScore": round(mean(mined.positive_scores), 4),
                "meanNegativeScore": round(mean(mined.negative_scores), 4),
            },
            "warnings": warnings,
        },
        message=f"{len(rows)} training rows, {sides.queries} evaluation queries",
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """What trains, after the evaluation set was written; `searched` are the passages that may become negatives."""

    training: list[Pair]
    searched: dict[str, str]
    queries: int
    passages: int
    leaked: int


def _sides(context: StageContext, settings: Settings, source: files.Pairs, pairs: Sequence[Pair]) -> _Sides:
    """Write the evaluation set. It depends on the pairs, evalFraction, qualityThreshold and seed alone."""
    folder = context.folder(Artefact.EVALUATION_SET)
    if context.has_input(Artefact.LABELLED_SET):
        questions, passages = files.copy_evaluation_set(context.input(Artefact.LABELLED_SET), folder)
        training = without_leaks(pairs, questions)
        return _Sides(training, source.chunks, len(questions), passages, len(pairs) - len(training))
    try:
        split = split_by_document(pairs, fraction=settings.evalFraction, seed=settings.seed)
    except ValueError as error:
        raise BadInput(
            "TooFewDocuments",
            "questions about at least two documents are needed, one to train and one to evaluate: add documents, or "
            "name a labelled set in spec.evaluation.beir",
            field="spec.corpus.source",
        ) from error
    held_out = {pair.document_id for pair in split.evaluation}
    asked = without_repeats(split.evaluation)
    files.write_evaluation_set(folder, source.chunks, asked)
    training = without_leaks(split.training, (pair.question for pair in asked))
    searched = {name: text for name, text in source.chunks.items() if source.documents[name] not in held_out}
    return _Sides(training, searched, len(asked), len(source.chunks), len(split.training) - len(training))


def _mine(
    context: StageContext,
    settings: Settings,
    embedder: Callable[[int], Embed],
    training: Sequence[Pair],
    searched: Mapping[str, str],
) -> Mined:
    if not training:
        return Mined()
    context.log("mining hard negatives", questions=len(training), passages=len(searched))
    return mine(
        training,
        searched,
        embedder(len(training) + len(searched)),
        wanted=settings.hardNegatives,
        margin=settings.margin,
        cache=context.scratch("vectors"),
    )


def _embedder(context: StageContext, settings: Settings, total: int) -> Embed:
    """`total` texts in all, for the progress."""
    from embedding_stages.encoder.load import load_encoder  # torch takes seconds to import

    encoder = FittingEncoder(
        load_encoder(context.input(Artefact.BASE_MODEL), log=context.log), settings.batchSize, context.log
    )
    before = 0

    def progress(done: int, _all: int) -> None:
        context.stop_if_asked()
        context.progress(min(before + done, total), total)

    def embed(texts: Sequence[str], role: Literal["query", "passage"]) -> Vectors:
        nonlocal before
        vectors = encoder.embed(texts, role=role, progress=progress)
        before += len(texts)
        return vectors

    return embed


def _no_rows(questions: int, leaked: int) -> BadInput:
    if questions:
        message = (
            f"none of {questions} training questions has a hard negative: every other passage scores too near to the "
            "answer; add documents, or raise margin"
        )
        return BadInput("NoTrainingRows", message, field=f"{FIELD}.margin")
    return BadInput(
        "NoTrainingRows",
        f"no question is left to train on ({leaked} are asked in the evaluation); add documents",
        field="spec.corpus.source",
    )


def _warnings(rows: int, queries: int) -> list[str]:
    found = []
    if queries < FEW_QUERIES:
        found.append(f"{queries} evaluation queries: below {FEW_QUERIES} a metric moves much by chance")
    if rows < FEW_ROWS:
        found.append(f"{rows} training rows: below {FEW_ROWS} little can be learnt")
    return found
