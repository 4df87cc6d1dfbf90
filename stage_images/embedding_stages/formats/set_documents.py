"""documents.jsonl of an Artefact.EVALUATION_SET that prep split off: which documents its passages were cut from.

{"id", "sha256": of the document's text, "passages": [ids], "sha256_without_spaces"}: one line a document

It lies beside the files of a BEIR folder, whose readers pass it over. A later revision that is scored on the same set
finds by it which documents have changed since. Sets of release 0.1 lack it, and labelled sets have no documents.

The first digest keeps sets known that were written before there was the second: it has a space wherever two passages
meet, so it tells where a text without spaces was cut.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.characters import seen
from embedding_stages.formats.lines import read_records, text_of, texts_of, write_records
from embedding_stages.formats.pairs import Passage

FILE: Final = "documents.jsonl"
_WITHOUT_SPACES: Final = "sha256_without_spaces"


@dataclass(frozen=True, slots=True)
class SetDocument:
    """A document of the set, and the passages that the set has of it."""

    id: str
    sha256: str  # 64 hex digits, see `documents_of`
    passages: tuple[str, ...]
    sha256_without_spaces: str = ""

    @property
    def digest(self) -> str:
        """The better one that the set has: equal for documents that are the same."""
        return self.sha256_without_spaces or self.sha256


def documents_of(passages: Iterable[Passage]) -> list[SetDocument]:
    """The documents that `passages` were cut from, all of each, in order.

    The digests are of what people see of the text, with its white space collapsed and without any, so they do not tell
    how the document was cut, nor which of the characters that nobody sees a release kept.
    """
    hashes: dict[str, tuple[hashlib._Hash, hashlib._Hash]] = {}
    names: dict[str, list[str]] = {}
    for passage in passages:
        words = seen(passage.text).split()
        collapsed, without_spaces = hashes.setdefault(passage.document_id, (hashlib.sha256(), hashlib.sha256()))
        collapsed.update(f"{' '.join(words)} ".encode())
        without_spaces.update("".join(words).encode())
        names.setdefault(passage.document_id, []).append(passage.id)
    return [
        SetDocument(name, collapsed.hexdigest(), tuple(names[name]), without_spaces.hexdigest())
        for name, (collapsed, without_spaces) in hashes.items()
    ]


def write_set_documents(folder: Path, documents: Iterable[SetDocument]) -> None:
    """One line each."""
    lines = (
        {
            "id": one.id,
            "sha256": one.sha256,
            "passages": list(one.passages),
            **({_WITHOUT_SPACES: one.sha256_without_spaces} if one.sha256_without_spaces else {}),
        }
        for one in documents
    )
    write_records(folder / FILE, lines)


def copy(source: Path, target: Path) -> None:
    """The file byte by byte, where the set has one."""
    if (source / FILE).is_file():
        shutil.copyfile(source / FILE, target / FILE)


def read_set_documents(folder: Path) -> list[SetDocument]:
    """Also of a set that lacks the file. Raises FormatError."""
    if not (folder / FILE).is_file():
        return documents_of(_as_cut_by_0_1(folder))
    return [
        SetDocument(
            text_of(line, "id", where),
            text_of(line, "sha256", where),
            texts_of(line, "passages", where),
            text_of(line, _WITHOUT_SPACES, where) if _WITHOUT_SPACES in line else "",
        )
        for where, line in read_records(folder / FILE)
    ]


def _as_cut_by_0_1(folder: Path) -> Iterator[Passage]:
    """The sdg stage of that release named a passage <document>-<number>."""
    for passage in BeirReader.of(folder, may_be_empty=True).passages():
        yield Passage(passage.id, passage.id.rpartition("-")[0], passage.text)
