"""Pairs (a question and the chunks that answer it) and the corpus that they are written about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.sdg.chunks import Chunk, make_chunks
from embedding_stages.sdg.units import read_units

FIELD: Final = "spec.stages.sdg"
INCLUDE_FIELD: Final = "spec.corpus.include"
CHUNKS: Final = "chunks.jsonl"
PAIRS: Final = "pairs.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question and the chunks that answer it."""

    question: str
    document_id: str
    chunk_ids: tuple[str, ...]
    type: str
    score: float | None = None  # the judge's, 1 to 10; None: nobody judged

    def to_json(self) -> dict[str, Any]:
        identity = f"{self.document_id}\n{self.question}".encode()
        return {
            "id": "q-" + hashlib.sha256(identity).hexdigest()[:16],
            "question": self.question,
            "document_id": self.document_id,
            "chunk_ids": list(self.chunk_ids),
            "type": self.type,
            "score": self.score,
        }


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document of the corpus as passages."""

    id: str
    path: str  # within the source
    chunks: list[Chunk]

    @contextmanager
    def named(self) -> Iterator[None]:
        """What fails inside says which document it was."""
        with _named(self.path):
            yield


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"in document {path[:200]!a}: leave it out with {INCLUDE_FIELD} and report this")
        raise


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents, chunked anew at each pass so that they need not all be in memory."""

    folder: Path
    sentences_per_chunk: int
    min_text_length: int  # characters; shorter documents get no questions

    def documents(self) -> Iterator[ChunkedDocument]:
        """In the corpus' order."""
        with (self.folder / "documents.jsonl").open(encoding="utf-8") as stream:
            for line in stream:
                record = json.loads(line)
                name, path = str(record["id"]), str(record.get("path") or record["id"])
                with _named(path):
                    chunks = make_chunks(name, read_units(str(record["text"])), sentences=self.sentences_per_chunk)
                yield ChunkedDocument(name, path, chunks)

    def is_long_enough(self, document: ChunkedDocument) -> bool:
        return sum(len(chunk.text) for chunk in document.chunks) >= self.min_text_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a provider has written. `counts` and `details` go into the stage's result."""

    pairs: list[Pair]
    counts: dict[str, int]
    details: dict[str, Any]
