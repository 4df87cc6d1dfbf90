"""Rows of Data Designer: sections of bundles of documents, and what becomes of a row between two models. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from embedding_stages.contract.settings import REASONING, DataDesigner
from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.sdg import designer_prompts as told
from embedding_stages.sdg.bill import Shape
from embedding_stages.sdg.corpus import CutDocument
from embedding_stages.sdg.designer_columns import loaded
from embedding_stages.sdg.languages import Language, is_of_another, language_of, prose_of
from embedding_stages.sdg.openai_provider import sections_of
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.prompts import SCORES, Draft, read_drafts, read_scores
from embedding_stages.sdg.written import Written

SIMPLE: Final = "droppedSimple"  # below the complexity that is asked for
ALIKE: Final = "droppedAlike"  # they ask the same as another one
_CALLS: Final = 3  # of a row: artefacts, questions, scores
_ANSWER: Final = 230  # tokens of a question: with the artefacts' share of it


@dataclass(frozen=True, slots=True)
class Bundle:
    """Documents that are asked about together. The first one stands for all: prep splits by it."""

    documents: tuple[CutDocument, ...]

    @property
    def id(self) -> str:
        return self.documents[0].id

    @property
    def passages(self) -> list[UnitPassage]:
        return [passage for document in self.documents for passage in document.passages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A section of a bundle. `language` is the bundle's."""

    id: str
    bundle: str
    passages: Sequence[Passage]
    wanted: int
    language: Language
    paths: tuple[str, ...] = ()  # of its documents, within the source


def bundled(documents: Iterable[CutDocument], size: int) -> Iterator[Bundle]:
    """Neighbours together."""
    held: list[CutDocument] = []
    for document in documents:
        held.append(document)
        if len(held) == size:
            yield Bundle(tuple(held))
            held = []
    if held:
        yield Bundle(tuple(held))


def rows_of(bundle: Bundle, wanted: int) -> list[Row]:
    """`wanted` questions a document, shared out among the sections."""
    passages = bundle.passages
    wanted *= len(bundle.documents)
    sections = sections_of(passages, wanted)
    language = language_of(prose_of(passages))
    paths = {document.id: document.path for document in bundle.documents}
    return [
        Row(
            id=f"{bundle.id}#{number}",
            bundle=bundle.id,
            passages=section,
            wanted=wanted // len(sections) + (number < wanted % len(sections)),
            language=language,
            paths=tuple(dict.fromkeys(paths[passage.document_id] for passage in section)),
        )
        for number, section in enumerate(sections)
    ]


def shape_of(rows: Sequence[Row]) -> Shape:
    """Of rows together: their passages are read by three models."""
    return Shape(
        characters=sum(len(passage.text) for row in rows for passage in row.passages),
        calls=_CALLS * len(rows),
        pairs=sum(row.wanted for row in rows),
        readings=_CALLS,
        answer=_ANSWER,
    )


@dataclass(slots=True)
class Steps:
    """What is done with a row between two models; remembers what was dropped, by bundle."""

    design: DataDesigner
    rows: Mapping[str, Row]
    written: dict[str, Written] = field(default_factory=dict)

    def found(self, row: Mapping[str, Any]) -> str:
        return told.found_of(loaded(row["artefacts"]).get(told.ARTEFACTS, []))

    def drafts(self, row: Mapping[str, Any]) -> str:
        """Those whose quotes are there, in the document's language and complex enough."""
        asked = self.rows[row["row"]]
        document = self.written[asked.bundle]
        items = loaded(row["questions"]).get("pairs", [])
        drafts, ungrounded = read_drafts(items, asked.passages, asked.wanted, hops=self.design.hops)
        document.ungrounded += ungrounded
        spoken = [draft for draft in drafts if not is_of_another(draft.question, asked.language)]
        document.foreign += len(drafts) - len(spoken)
        kept = [draft for draft in spoken if draft.complexity is None or draft.complexity >= self.design.complexity]
        _count(document, SIMPLE, len(spoken) - len(kept))
        return json.dumps([asdict(draft) for draft in kept], ensure_ascii=False)

    def distinct(self, row: Mapping[str, Any]) -> str:
        """Of two drafts whose vectors are nearly the same the first."""
        drafts = loaded(row["drafts"])
        vectors = (loaded(row.get("vectors")) or {}).get("embeddings", [])
        if len(vectors) != len(drafts):
            return json.dumps(drafts, ensure_ascii=False)
        kept: list[int] = []
        for place, vector in enumerate(vectors):
            if all(_cosine(vector, vectors[other]) < self.design.duplicateCosine for other in kept):
                kept.append(place)
        _count(self.written[self.rows[row["row"]].bundle], ALIKE, len(drafts) - len(kept))
        return json.dumps([drafts[place] for place in kept], ensure_ascii=False)

    def graded(self, row: Mapping[str, Any]) -> str:
        return told.graded_of(self.rows[row["row"]].passages, _drafts_in(row["distinct"]))

    def finish(self, done: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        """Rows that are done: their pairs go to their bundles, in the documents' order. Returns the rows' ids."""
        finished = {str(row["row"]): row for row in done}
        for row in self.rows.values():
            if row.id in finished:
                self._judged(finished[row.id])
                self.written[row.bundle].usage.calls += 1
        return frozenset(finished)

    def _judged(self, row: Mapping[str, Any]) -> None:
        asked = self.rows[row["row"]]
        document = self.written[asked.bundle]
        drafts = _drafts_in(row["distinct"])
        verdict = _verdict(row.get("judgement"))
        scores = read_scores(verdict, len(drafts))
        for place, (draft, score) in enumerate(zip(drafts, scores, strict=True)):
            if score is None:  # without a score it would pass the threshold of prep
                document.unjudged += 1
                continue
            pair = Pair.about(asked.bundle, draft.question, draft.passage_ids, kind=draft.type, score=score)
            document.pairs.append(pair)
            document.marks[pair.id] = {
                "complexity": draft.complexity,
                "reasoning": draft.reasoning if draft.reasoning in REASONING else "",
                "criteria": _criteria(verdict, place),
            }


def _drafts_in(value: Any) -> list[Draft]:
    return [Draft(**{**one, "passage_ids": tuple(one["passage_ids"])}) for one in loaded(value)]


def _verdict(value: Any) -> list[Any]:
    """The judge's scores; a score as a whole that it forgot is the mean of the others."""
    found = loaded(value) if value is not None and value == value else None  # NaN where the column was skipped
    items = found.get(SCORES, []) if isinstance(found, dict) else []
    return [_with_score(item) if isinstance(item, dict) else item for item in items]


def _with_score(item: dict[str, Any]) -> dict[str, Any]:
    known = [value for name in told.CRITERIA if isinstance(value := item.get(name), int | float)]
    if item.get("score") is None and len(known) == len(told.CRITERIA):
        return {**item, "score": sum(known) / len(known)}
    return item


def _criteria(verdict: Sequence[Any], place: int) -> dict[str, float]:
    item = next((one for one in verdict if isinstance(one, dict) and str(one.get("index")) == str(place)), {})
    return {name: float(item[name]) for name in told.CRITERIA if isinstance(item.get(name), int | float)}


def _count(document: Written, name: str, number: int) -> None:
    document.counts[name] = document.counts.get(name, 0) + number


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norms = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / norms if norms else 0.0
