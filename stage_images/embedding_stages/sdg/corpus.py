"""The corpus that questions are written about: documents, cut into passages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedding_stages.formats.documents import read_documents
from embedding_stages.sdg.fit import Fit
from embedding_stages.sdg.markdown import is_markdown, read_markdown
from embedding_stages.sdg.passages import UnitPassage, make_passages
from embedding_stages.sdg.units import read_units

INCLUDE_FIELD: Final = "spec.corpus.include"


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document of the corpus as passages."""

    id: str
    path: str  # within the source
    passages: list[UnitPassage]

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
class CutCorpus:
    """The documents, cut anew at each pass: a provider needs the whole corpus counted before it writes its first
    question, and the passages of all documents at once would not fit in memory.
    """

    folder: Path
    sentences_per_passage: int
    min_text_length: int  # characters; shorter documents get no questions
    fit: Fit | None = None  # passages are no longer than the base model reads

    def documents(self, chosen: Callable[[str], bool] = lambda _: True) -> Iterator[CutDocument]:
        """Those whose ids are chosen, in the corpus' order. Raises StageError `CorpusDamaged`."""
        for document in read_documents(self.folder):
            if not chosen(document.id):
                continue
            with _named(document.path):
                read = read_markdown if is_markdown(document.path) else read_units
                units = read(document.text)
                make = self.fit.make_passages if self.fit else make_passages
                passages = make(document.id, units, sentences=self.sentences_per_passage)
            yield CutDocument(document.id, document.path, passages)

    def is_long_enough(self, document: CutDocument) -> bool:
        return sum(len(passage.text) for passage in document.passages) >= self.min_text_length
