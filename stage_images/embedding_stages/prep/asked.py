"""The evaluation set that is written: held-out documents, or a labelled set as it is. A frozen one: see frozen.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedding_stages.contract.settings import Prep
from embedding_stages.errors import BadInput, StageError
from embedding_stages.formats import beir
from embedding_stages.formats.beir import BeirPassage, BeirQuery, BeirReader, Judgement
from embedding_stages.formats.lines import FormatError
from embedding_stages.formats.pairs import Pair, PairSet
from embedding_stages.formats.set_documents import documents_of, write_set_documents
from embedding_stages.prep.rules import split_by_document, without_repeats
from embedding_stages.prep.withheld import Withheld, withhold


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The evaluation set as written: what training has to keep away from, and what it lost since it was frozen."""

    queries: tuple[str, ...]  # texts
    answers: tuple[str, ...]  # texts of the passages that answer them
    passages: int  # that are searched
    held_out: frozenset[str] = frozenset()  # ids of documents that never train
    kinds: Mapping[str, int] = field(default_factory=dict)  # queries by the type of their pair, where pairs were asked
    unasked: int = 0  # documents that are held out although nothing could be withheld of them
    lost_queries: int = 0
    lost_passages: int = 0


def split_off(folder: Path, settings: Prep, source: PairSet, pairs: Sequence[Pair]) -> Asked:
    """Hold out documents: their pairs are asked, or what is withheld of their passages. All passages are searched,
    every positive of a query counts 1.

    The set depends on the pairs, evaluationQueries, evalFraction, qualityThreshold and seed alone. Raises BadInput
    `TooFewDocuments`.
    """
    try:
        split = split_by_document(pairs, fraction=settings.evalFraction, seed=settings.seed)
    except ValueError as error:
        raise BadInput(
            "TooFewDocuments",
            "queries about at least two documents are needed, one to train and one to evaluate: add documents, or "
            "name a labelled set in spec.evaluation.beir",
            field="spec.corpus.source",
        ) from error
    held_out = _documents_of(split.evaluation, source)
    found = _withheld(settings, source, held_out)
    asked = without_repeats(found.pairs or split.evaluation)
    passages = {name: found.texts.get(name, one.text) for name, one in source.passages.items()}
    beir.write_passages(folder, (BeirPassage(name, "", text) for name, text in passages.items()))
    beir.write_queries(folder, (BeirQuery(pair.id, pair.query) for pair in asked))
    beir.write_judgements(folder, (Judgement(pair.id, name, 1) for pair in asked for name in pair.passage_ids))
    write_set_documents(folder, documents_of(source.passages.values()))
    answers = dict.fromkeys(name for pair in asked for name in pair.passage_ids)
    return Asked(
        queries=tuple(pair.query for pair in asked),
        answers=tuple(source.passages[name].text for name in answers),
        passages=len(passages),
        held_out=held_out,
        unasked=len(held_out - {pair.document_id for pair in found.pairs}) if found.pairs else 0,
        kinds=Counter(pair.type for pair in asked),
    )


def _documents_of(pairs: Sequence[Pair], source: PairSet) -> frozenset[str]:
    """Also those that answer: a pair about a bundle of documents has the id of its first one."""
    answering = (source.passages[name].document_id for pair in pairs for name in pair.passage_ids)
    return frozenset((*(pair.document_id for pair in pairs), *answering))


def _withheld(settings: Prep, source: PairSet, held_out: Collection[str]) -> Withheld:
    """Nothing where the pairs are to be asked, or where the documents are too short to take a sentence out."""
    if settings.evaluationQueries == "pairs":
        return Withheld([], {})
    return withhold(source.passages, held_out, seed=settings.seed)


def copy_whole(source: Path, folder: Path) -> Asked:
    """A set whose passages are not the documents. Raises StageError `LabelledSetDamaged`."""
    beir.copy(source, folder)
    try:
        queries, answers, passages = contents_of(BeirReader.of(folder))
        return Asked(queries=tuple(queries.values()), answers=tuple(answers.values()), passages=passages)
    except FormatError as error:
        raise StageError("LabelledSetDamaged", f"the labelled set: {error}; run the inputs stage again") from error


def contents_of(reader: BeirReader) -> tuple[dict[str, str], dict[str, str], int]:
    """(queries by id, the passages that are relevant to one of them by id, with titles, and how many passages there
    are). Memory holds no other passage. Raises FormatError.
    """
    queries = {query.id: query.text for query in reader.queries()}
    relevant = {judgement.passage_id for judgement in reader.judgements(queries) if judgement.score > 0}
    answers, passages = dict[str, str](), 0
    for passage in reader.passages():
        passages += 1
        if passage.id in relevant:
            answers[passage.id] = passage.full_text
    return queries, answers, passages
