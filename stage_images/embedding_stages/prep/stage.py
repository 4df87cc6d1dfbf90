"""The prep stage: pairs and base model in, trainingSet and evaluationSet out.

trainingSet    queries with a positive and hard negatives (see formats/training_set.py)
evaluationSet  held-out queries, all passages (see formats/beir.py); a labelled set instead when there is one

Counts: trainingRows, evaluationQueries, evaluationPassages, droppedLowScore, droppedLeaked, droppedNoNegatives.
Details: negatives {meanPositiveScore, meanNegativeScore}, warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import Prep
from embedding_stages.encoder.fitting import FittingEncoder
from embedding_stages.errors import BadInput, StageError, settings_of
from embedding_stages.formats import beir
from embedding_stages.formats.beir import BeirPassage, BeirQuery, BeirReader, Judgement
from embedding_stages.formats.lines import FormatError
from embedding_stages.formats.pairs import Pair, PairSet, read_pairs
from embedding_stages.formats.training_set import write_training_set
from embedding_stages.prep.mine import Embed, Mined, mean, mine
from embedding_stages.prep.rules import (
    keep_good,
    split_by_document,
    unroll,
    with_known_passages,
    without_leaks,
    without_repeats,
)
from embedding_stages.runner import StageContext
from embedding_stages.vectors import Vectors

FIELD: Final = "spec.stages.prep"
MAX_POSITIVES: Final = 5  # NVIDIA embed recipe: a question
FEW_QUERIES: Final = 50  # NVIDIA embed recipe: warns below
FEW_EXAMPLES: Final = 100  # NVIDIA embed recipe: warns below


def work(context: StageContext) -> StageResult:
    """Prepare with the base model of the request."""
    settings = settings_of(Prep, context.settings)
    return prepare(context, settings, lambda texts: _embedder(context, settings, texts))


def prepare(context: StageContext, settings: Prep, embedder: Callable[[int], Embed]) -> StageResult:
    """`embedder` loads the model; it is called after everything that can be checked without it, with the number
    of texts that it will get.

    Raises BadInput `NoPairs`, `TooFewDocuments`, `NoTrainingRows`.
    """
    source = read_pairs(context.input(Artefact.PAIRS))
    good = keep_good(source.pairs, settings.qualityThreshold)
    low = len(source.pairs) - len(good)
    pairs = with_known_passages(good, source.passages)
    if not pairs:
        raise BadInput(
            "NoPairs",
            f"none of {len(source.pairs)} queries scores {settings.qualityThreshold} or more; lower the threshold or "
            "use a stronger model",
            field=f"{FIELD}.qualityThreshold",
        )
    sides = _sides(context, settings, source, pairs)
    training = without_repeats(sides.training)
    mined = _mine(context, settings, embedder, training, sides.searched)
    examples = unroll(training, mined.negatives, max_positives=MAX_POSITIVES)
    bare = sum(not names for names in mined.negatives.values())
    if not examples:
        raise _no_examples(len(training), sides.leaked)
    write_training_set(context.folder(Artefact.TRAINING_SET), source.texts, examples)
    warnings = _warnings(len(examples), sides.queries)
    for warning in warnings:
        context.log("warning", warning=warning)
    return context.result(
        counts={
            "trainingRows": len(examples),
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
        message=f"{len(examples)} training examples, {sides.queries} evaluation queries",
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """What trains, after the evaluation set was written; `searched` are the passages that may become negatives."""

    training: list[Pair]
    searched: dict[str, str]
    queries: int
    passages: int
    leaked: int


def _sides(context: StageContext, settings: Prep, source: PairSet, pairs: Sequence[Pair]) -> _Sides:
    """Write the evaluation set. It depends on the pairs, evalFraction, qualityThreshold and seed alone."""
    folder = context.folder(Artefact.EVALUATION_SET)
    if context.has_input(Artefact.LABELLED_SET):
        asked, count = _copy_labelled_set(context.input(Artefact.LABELLED_SET), folder)
        training = without_leaks(pairs, asked)
        return _Sides(training, source.texts, len(asked), count, len(pairs) - len(training))
    try:
        split = split_by_document(pairs, fraction=settings.evalFraction, seed=settings.seed)
    except ValueError as error:
        raise BadInput(
            "TooFewDocuments",
            "queries about at least two documents are needed, one to train and one to evaluate: add documents, or "
            "name a labelled set in spec.evaluation.beir",
            field="spec.corpus.source",
        ) from error
    held_out = {pair.document_id for pair in split.evaluation}
    evaluation = without_repeats(split.evaluation)
    _write_evaluation_set(folder, source, evaluation)
    training = without_leaks(split.training, (pair.query for pair in evaluation))
    searched = {name: one.text for name, one in source.passages.items() if one.document_id not in held_out}
    return _Sides(training, searched, len(evaluation), len(source.passages), len(split.training) - len(training))


def _write_evaluation_set(folder: Path, source: PairSet, pairs: Sequence[Pair]) -> None:
    """All passages are searched, every positive of a query counts 1."""
    beir.write_passages(folder, (BeirPassage(name, "", one.text) for name, one in source.passages.items()))
    beir.write_queries(folder, (BeirQuery(pair.id, pair.query) for pair in pairs))
    beir.write_judgements(folder, (Judgement(pair.id, name, 1) for pair in pairs for name in pair.passage_ids))


def _copy_labelled_set(source: Path, target: Path) -> tuple[list[str], int]:
    """Its queries' texts and the number of its passages. Raises StageError `LabelledSetDamaged`."""
    beir.copy(source, target)
    reader = BeirReader.of(target)
    try:
        return [query.text for query in reader.queries()], sum(1 for _ in reader.passages())
    except FormatError as error:
        raise StageError("LabelledSetDamaged", f"the labelled set: {error}; run the inputs stage again") from error


def _mine(
    context: StageContext,
    settings: Prep,
    embedder: Callable[[int], Embed],
    training: Sequence[Pair],
    searched: Mapping[str, str],
) -> Mined:
    if not training:
        return Mined()
    context.log("mining hard negatives", queries=len(training), passages=len(searched))
    return mine(
        training,
        searched,
        embedder(len(training) + len(searched)),
        wanted=settings.hardNegatives,
        margin=settings.margin,
        cache=context.scratch("vectors"),
    )


def _embedder(context: StageContext, settings: Prep, total: int) -> Embed:
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


def _no_examples(queries: int, leaked: int) -> BadInput:
    if queries:
        message = (
            f"none of {queries} training queries has a hard negative: every other passage scores too near to the "
            "answer; add documents, or raise margin"
        )
        return BadInput("NoTrainingRows", message, field=f"{FIELD}.margin")
    return BadInput(
        "NoTrainingRows",
        f"no query is left to train on ({leaked} are asked in the evaluation); add documents",
        field="spec.corpus.source",
    )


def _warnings(examples: int, queries: int) -> list[str]:
    found = []
    if queries < FEW_QUERIES:
        found.append(f"{queries} evaluation queries: below {FEW_QUERIES} a metric moves much by chance")
    if examples < FEW_EXAMPLES:
        found.append(f"{examples} training examples: below {FEW_EXAMPLES} little can be learnt")
    return found
