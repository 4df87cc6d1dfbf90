"""The prep stage: pairs and base model in, trainingSet and evaluationSet out.

trainingSet    queries with a positive and hard negatives (see formats/training_set.py)
evaluationSet  held-out queries, all passages (see formats/beir.py); a labelled set instead when there is one

With a frozen set, which an earlier revision was scored on, the evaluation set is that one, without what belongs to
documents that changed or left since (see frozen.py); a frozen labelled set is taken whole. What nearly repeats a query
of the evaluation set, or a passage that answers one, is in no row of the training set (see duplicates.py).

With scoreCandidates the examples carry a teacher's scores (see score.py).

How many passages are longer than the model reads is counted, and told where they are many (see unread.py).

Counts: trainingRows, evaluationQueries, evaluationPassages, droppedLowScore, droppedLeaked, droppedNearDuplicates,
droppedNoNegatives, passages, passagesCut; with maxTrainingQuestions notDrawn; with a frozen set droppedFrozenQueries,
droppedFrozenPassages. What is dropped for training is counted in pairs. Details: negatives {meanPositiveScore,
meanNegativeScore}, tokensNeverRead (their share of the passages' tokens), evaluationKinds {type: queries} where the set
was split off, warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import Prep, Search
from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.encoder.fitting import FittingEncoder
from embedding_stages.errors import BadInput, settings_of
from embedding_stages.formats.pairs import RULE_TYPES, Pair, PairSet, read_pairs
from embedding_stages.formats.training_set import write_training_set
from embedding_stages.prep.asked import Asked, copy_whole, split_off
from embedding_stages.prep.frozen import FIELD as FREEZE
from embedding_stages.prep.frozen import keep_frozen, open_frozen
from embedding_stages.prep.mine import Embed, mean, mine
from embedding_stages.prep.rules import drawn, keep_good, unroll, with_known_passages, without_repeats
from embedding_stages.prep.score import Scored, score
from embedding_stages.prep.training import Training, keep_apart
from embedding_stages.prep.unread import MANY, count_unread
from embedding_stages.prep.withheld import SENTENCE, WORDS
from embedding_stages.runner import StageContext
from embedding_stages.vectors import Vectors

FIELD: Final = "spec.stages.prep"
MAX_POSITIVES: Final = 5  # NVIDIA embed recipe: a question
FEW_QUERIES: Final = 50  # NVIDIA embed recipe: warns below
FEW_EXAMPLES: Final = 100  # NVIDIA embed recipe: warns below


def work(context: StageContext) -> StageResult:
    """Prepare with the base model of the request."""
    settings = settings_of(Prep, context.settings)
    counter = TokenCounter.load(context.input(Artefact.BASE_MODEL))
    return prepare(context, settings, lambda texts: _embedder(context, settings, texts), counter)


def prepare(
    context: StageContext, settings: Prep, embedder: Callable[[int], Embed], counter: TokenCounter
) -> StageResult:
    """`embedder` loads the model; it is called after everything that can be checked without it, with the number
    of texts that it will get.

    Raises BadInput `NoPairs`, `TooFewDocuments`, `FrozenSetMissing`, `NoTrainingRows`.
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
    asked = _evaluation_set(context, settings, source, pairs)
    context.log("looking for near-duplicates", passages=len(source.passages), answers=len(asked.answers))
    sides = keep_apart(pairs, source.passages, asked)
    found = without_repeats(sides.pairs)
    training = drawn(found, settings.maxTrainingQuestions, seed=settings.seed)
    learnt = _examples(context, settings, embedder, training, sides.searched)
    if not learnt.examples:
        raise _no_examples(len(training), sides)
    write_training_set(context.folder(Artefact.TRAINING_SET), source.texts, learnt.examples)
    unread = count_unread(list(source.texts.values()), counter, context.stop_if_asked)
    warnings = _warnings(context, settings, len(learnt.examples), asked)
    if unread.is_much:
        warnings.append(unread.warning(counter.most))
    for warning in warnings:
        context.log("warning", warning=warning)
    frozen = {"droppedFrozenQueries": asked.lost_queries, "droppedFrozenPassages": asked.lost_passages}
    return context.result(
        counts={
            "trainingRows": len(learnt.examples),
            "evaluationQueries": len(asked.queries),
            "evaluationPassages": asked.passages,
            "droppedLowScore": low,
            "droppedLeaked": sides.leaked,
            "droppedNearDuplicates": sides.near_duplicates,
            "droppedNoNegatives": learnt.bare,
            "passages": unread.passages,
            "passagesCut": unread.cut,
            **({"notDrawn": len(found) - len(training)} if settings.maxTrainingQuestions else {}),
            **(frozen if context.has_input(Artefact.FROZEN_SET) else {}),
        },
        details={
            "negatives": {
                "meanPositiveScore": round(mean(learnt.best_scores), 4),
                "meanNegativeScore": round(mean(learnt.other_scores), 4),
            },
            "tokensNeverRead": round(unread.share, 4),
            **({"evaluationKinds": dict(sorted(asked.kinds.items()))} if asked.kinds else {}),
            "warnings": warnings,
        },
        message=f"{len(learnt.examples)} training examples, {len(asked.queries)} evaluation queries",
    )


def _evaluation_set(context: StageContext, settings: Prep, source: PairSet, pairs: Sequence[Pair]) -> Asked:
    """Write it: frozen, labelled, or split off the pairs."""
    folder = context.folder(Artefact.EVALUATION_SET)
    is_labelled = context.has_input(Artefact.LABELLED_SET)
    if context.has_input(Artefact.FROZEN_SET):
        frozen = open_frozen(context)
        return copy_whole(frozen, folder) if is_labelled else keep_frozen(frozen, folder, source)
    if is_labelled:
        return copy_whole(context.input(Artefact.LABELLED_SET), folder)
    return split_off(folder, settings, source, pairs)


def _examples(
    context: StageContext,
    settings: Prep,
    embedder: Callable[[int], Embed],
    training: Sequence[Pair],
    searched: Mapping[str, str],
) -> Scored:
    if not training:
        return Scored()
    embed = embedder(len(training) + len(searched))
    cache = context.scratch("vectors")
    backend = (settings.search or Search()).backend
    if settings.scoreCandidates:
        context.log("scoring candidates", queries=len(training), passages=len(searched))
        return score(
            training,
            searched,
            embed,
            wanted=settings.hardNegatives,
            by_rule=RULE_TYPES,
            most_positives=MAX_POSITIVES,
            seed=settings.seed,
            cache=cache,
            backend=backend,
        )
    context.log("mining hard negatives", queries=len(training), passages=len(searched))
    mined = mine(
        training,
        searched,
        embed,
        wanted=settings.hardNegatives,
        margin=settings.margin,
        cache=cache,
        backend=backend,
    )
    return Scored(
        examples=unroll(training, mined.negatives, max_positives=MAX_POSITIVES),
        bare=sum(not names for names in mined.negatives.values()),
        best_scores=mined.positive_scores,
        other_scores=mined.negative_scores,
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


def _no_examples(queries: int, sides: Training) -> BadInput:
    near = f"{sides.near_duplicates} nearly repeat the evaluation's queries or answers"
    if queries:
        dropped = f" ({near}, and were dropped)" if sides.near_duplicates else ""
        message = (
            f"none of {queries} training queries has a hard negative: every other passage scores too near to the "
            f"answer{dropped}; add documents, or raise margin"
        )
        return BadInput("NoTrainingRows", message, field=f"{FIELD}.margin")
    return BadInput(
        "NoTrainingRows",
        f"no query is left to train on ({sides.leaked} are asked in the evaluation, {near}); add documents",
        field="spec.corpus.source",
    )


def _warnings(context: StageContext, settings: Prep, examples: int, asked: Asked) -> list[str]:
    found = []
    if settings.evaluationQueries == "withheld" and asked.kinds and not {SENTENCE, WORDS} & asked.kinds.keys():
        found.append("the passages are too short to take a sentence out: the pairs' own queries are asked")
    if asked.unasked > MANY * len(asked.held_out):
        found.append(
            f"{asked.unasked} of {len(asked.held_out)} held-out documents are asked nothing: their passages are too "
            "short to take a sentence out, or hold none"
        )
    queries = len(asked.queries)
    if asked.lost_passages:
        found.append(
            f"documents of the frozen evaluation set changed or left the corpus: it lost {asked.lost_queries} queries "
            f"and {asked.lost_passages} passages, {queries} queries are left; {FREEZE}: false takes a new set"
        )
    if _is_another_labelled_set(context):
        found.append(
            f"the labelled set changed since it was frozen, and the frozen one is asked; {FREEZE}: false takes the new"
        )
    if queries < FEW_QUERIES:
        found.append(f"{queries} evaluation queries: below {FEW_QUERIES} a metric moves much by chance")
    if examples < FEW_EXAMPLES:
        found.append(f"{examples} training examples: below {FEW_EXAMPLES} little can be learnt")
    return found


def _is_another_labelled_set(context: StageContext) -> bool:
    inputs = context.request.inputs
    frozen, labelled = inputs.get(Artefact.FROZEN_SET), inputs.get(Artefact.LABELLED_SET)
    return frozen is not None and labelled is not None and frozen.digest != labelled.digest
