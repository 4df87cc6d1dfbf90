"""The evaluation set as both models, the server and the report see it: in one order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedding_stages.errors import BadInput
from embedding_stages.formats import beir, characters
from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.lines import FormatError

FIELD = "spec.evaluation.beir"
_EMPTY_PASSAGE = "-"  # some public sets have passages without text, and endpoints refuse an empty one


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Judged queries and all passages, both sorted by id, so that row numbers mean the same everywhere."""

    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    passage_ids: tuple[str, ...]
    passages: tuple[str, ...]  # title and text, joined by a space as BEIR's models do
    relevance: Mapping[str, Mapping[str, int]]  # query id -> passage id -> grade, relevant when > 0

    @property
    def texts(self) -> int:
        """How many texts a model embeds to be measured on the set."""
        return len(self.queries) + len(self.passages) if self.queries else 0

    @property
    def asked_by_passages(self) -> frozenset[str]:
        """Queries that are passages of the corpus, by their id, and not judged relevant to themselves: they are no
        result of their own, as with BEIR's `ignore_identical_ids`.
        """
        known = set(self.passage_ids)
        return frozenset(
            name for name in self.query_ids if name in known and self.relevance.get(name, {}).get(name, 0) <= 0
        )

    @property
    def unknown_passages(self) -> int:
        """Relevant judgements of passages that the corpus lacks: no model can find them."""
        known = set(self.passage_ids)
        judged = (item for grades in self.relevance.values() for item in grades.items())
        return sum(grade > 0 and passage not in known for passage, grade in judged)


def load_evaluation_set(folder: Path, *, may_be_empty: bool = False, field: str = FIELD) -> EvaluationSet:
    """Raises BadInput `EvaluationSetInvalid` that names the file, the fault, the cure and the manifest's `field`.

    `may_be_empty`: a frozen set may have lost all of its queries, when their documents changed. Texts are cleaned as
    the server cleans them: a set of an earlier release may hold characters that are taken out today.
    """
    try:
        return _load(BeirReader.of(folder, may_be_empty=may_be_empty, clean=characters.clean))
    except FormatError as error:
        raise BadInput("EvaluationSetInvalid", f"evaluation set: {error}", field=field) from error


def _load(reader: BeirReader) -> EvaluationSet:
    passages = {passage.id: passage.full_text or _EMPTY_PASSAGE for passage in reader.passages()}
    queries = {query.id: query.text for query in reader.queries()}
    relevance: dict[str, dict[str, int]] = {}
    for judgement in reader.judgements(queries, passages):
        relevance.setdefault(judgement.query_id, {})[judgement.passage_id] = judgement.score
    if (queries or not reader.may_be_empty) and not any(
        grade > 0 for grades in relevance.values() for grade in grades.values()
    ):
        raise FormatError(beir.JUDGEMENTS, "no passage is judged relevant; a score above 0 marks one")
    query_ids = tuple(sorted(relevance))
    passage_ids = tuple(sorted(passages))
    return EvaluationSet(
        query_ids=query_ids,
        queries=tuple(queries[key] for key in query_ids),
        passage_ids=passage_ids,
        passages=tuple(passages[key] for key in passage_ids),
        relevance={key: relevance[key] for key in query_ids},
    )
