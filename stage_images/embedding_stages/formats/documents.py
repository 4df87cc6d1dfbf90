"""documents.jsonl of Artefact.CORPUS: one line a document, sorted by path.

{"id": 16 hex digits, "path": within the source, "text"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedding_stages.contract import Artefact
from embedding_stages.errors import StageError
from embedding_stages.formats.lines import FormatError, read_records, text_of, write_records

FILE: Final = "documents.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document of the corpus, as clean text."""

    id: str
    path: str  # within the source
    text: str


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write one after the other, so that memory holds one. Returns their number."""
    return write_records(path, ({"id": one.id, "path": one.path, "text": one.text} for one in documents))


def read_documents(folder: Path) -> Iterator[Document]:
    """In the order of the file, one at a time. Raises StageError `CorpusDamaged`."""
    try:
        for where, record in read_records(folder / FILE):
            name = text_of(record, "id", where)
            path = str(record.get("path") or name)
            yield Document(id=name, path=path, text=text_of(record, "text", where))
    except FormatError as error:
        raise StageError("CorpusDamaged", f"{Artefact.CORPUS}: {error}; run the inputs stage again") from error
