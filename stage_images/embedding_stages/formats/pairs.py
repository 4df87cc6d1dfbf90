"""Artefact.PAIRS: all passages of all documents, and the queries that they answer.

chunks.jsonl  {"id", "document_id", "text"}: the passages that are searched
pairs.jsonl   {"id", "question", "document_id", "chunk_ids", "type", "score"}: score is the judge's, 1 to 10, or null

Here a question is called a query and a chunk a passage, as everywhere; the files keep the words that they were
first written with.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.errors import StageError
from embedding_stages.formats.characters import for_words
from embedding_stages.formats.lines import FormatError, read_records, text_of, texts_of, write_records

PASSAGES: Final = "chunks.jsonl"
PAIRS: Final = "pairs.jsonl"
# What rules write: the query was cut out of the passage that it names.
RULE_TYPES: Final = frozenset(
    {
        *("usage", "definition", "condition", "error", "parameter", "heading", "keywords"),
        *("title", "excerpt", "terms", "topic"),
    }
)
_MARK: Final = re.compile(r"[^\w\s]|_")
_MEANT: Final = frozenset("#%&@")  # punctuation to Unicode, but "C#" is not "C"


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: what is searched."""

    id: str
    document_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A query and the passages that answer it."""

    id: str
    query: str
    document_id: str
    passage_ids: tuple[str, ...]  # at least one
    type: str = ""
    score: float | None = None  # the judge's, 1 to 10; None: nobody judged

    @classmethod
    def about(
        cls, document_id: str, query: str, passage_ids: tuple[str, ...], *, kind: str, score: float | None = None
    ) -> Pair:
        """A pair whose id depends on the document and the query alone."""
        identity = hashlib.sha256(f"{document_id}\n{query}".encode()).hexdigest()
        return cls(
            id=f"q-{identity[:16]}",
            query=query,
            document_id=document_id,
            passage_ids=passage_ids,
            type=kind,
            score=score,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "question": self.query,
            "document_id": self.document_id,
            "chunk_ids": list(self.passage_ids),
            "type": self.type,
            "score": self.score,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any], where: str) -> Pair:
        """Raises FormatError."""
        score = record.get("score")
        if isinstance(score, bool) or not isinstance(score, float | int | None):
            raise FormatError(where, "score is neither a number nor null; write one")
        return cls(
            id=text_of(record, "id", where),
            query=text_of(record, "question", where),
            document_id=text_of(record, "document_id", where),
            passage_ids=texts_of(record, "chunk_ids", where),
            type=text_of(record, "type", where),
            score=None if score is None else float(score),
        )


@dataclass(frozen=True, slots=True)
class PairSet:
    """The artefact, read."""

    passages: dict[str, Passage]  # by id, in the order of the file
    pairs: list[Pair]

    @property
    def texts(self) -> dict[str, str]:
        """Of the passages, by id."""
        return {name: passage.text for name, passage in self.passages.items()}


def write_passages(path: Path, passages: Iterable[Passage]) -> int:
    """Write one after the other, so that memory holds one. Returns their number."""
    lines = ({"id": one.id, "document_id": one.document_id, "text": one.text} for one in passages)
    return write_records(path, lines)


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Returns the number of pairs."""
    return write_records(path, (pair.to_json() for pair in pairs))


def read_pairs(folder: Path) -> PairSet:
    """Raises StageError `PairsDamaged`: sdg wrote what it should not have."""
    passages: dict[str, Passage] = {}
    try:
        for where, record in read_records(folder / PASSAGES):
            name, document = text_of(record, "id", where), text_of(record, "document_id", where)
            passages[name] = Passage(name, document, text_of(record, "text", where))
        pairs = [Pair.from_json(record, where) for where, record in read_records(folder / PAIRS)]
    except FormatError as error:
        raise StageError("PairsDamaged", f"the pairs cannot be read: {error}; run the sdg stage again") from error
    return PairSet(passages, pairs)


def normalised(query: str) -> str:
    """Equal for queries that differ in case, width of letters, white space, punctuation and joiners alone.

    Symbols count ("C++" is not "C"), and so do the marks of scripts that write vowels with them.
    """
    text = _MARK.sub(_blank, for_words(query).casefold())
    return " ".join(text.split())


def _blank(found: re.Match[str]) -> str:
    mark, text, at = found[0], found.string, found.start()
    if mark in "'’" and text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum():
        return "'"  # don't, however it is typed
    return " " if unicodedata.category(mark)[0] == "P" and mark not in _MEANT else mark
