"""How far documents have moved from those that were trained on. Time is linear in both; memory is bounded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedding_stages.errors import StageError
from embedding_stages.formats.documents import Document, read_documents
from embedding_stages.formats.words import words_of

_MOST_TERMS: Final = 1 << 16  # that are remembered of each side
_PLACES: Final = 5


class TermSample:
    """The different terms of texts: all of them up to a bound, beyond it those whose hash ends in enough zeros.

    Which ones are kept follows from the term alone, so the samples of two corpora can be compared, and the share of
    one that the other lacks is that of all terms.
    """

    def __init__(self, most: int = _MOST_TERMS) -> None:
        self._most = most
        self._mask = 0  # the bits of a hash that have to be 0
        self._kept: set[int] = set()

    def add(self, text: str) -> None:
        for word in set(words_of(text)):
            number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
            if not number & self._mask:
                self._kept.add(number)
        while len(self._kept) > self._most:
            self._mask = self._mask << 1 | 1
            self._kept = {number for number in self._kept if not number & self._mask}

    def share_missing_in(self, other: TermSample) -> float:
        """The share of these terms that `other` does not have."""
        mask = self._mask | other._mask
        mine = {number for number in self._kept if not number & mask}
        return len(mine - other._kept) / len(mine) if mine else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Documents that differ, and shares of the new corpus."""

    new_documents: int  # whose text the trained corpus lacks, the edited ones among them
    gone_documents: int  # whose text is not there any more
    new_text: float  # characters of new documents
    unseen_terms: float  # different terms that the trained corpus lacks

    def to_json(self) -> dict[str, object]:
        """As `status.schedule.drift` shows it: decimals are texts."""
        return {
            "newDocuments": self.new_documents,
            "goneDocuments": self.gone_documents,
            "newText": f"{self.new_text:.{_PLACES}f}",
            "unseenTerms": f"{self.unseen_terms:.{_PLACES}f}",
        }


def drift_between(trained: Iterable[Document], now: Iterable[Document]) -> Drift:
    """Holds a digest of each text and a bounded number of terms."""
    before, terms_before, terms_now = set[bytes](), TermSample(), TermSample()
    for document in trained:
        before.add(_digest(document))
        terms_before.add(document.text)
    known, new, characters, new_characters = set[bytes](), 0, 0, 0
    for document in now:
        terms_now.add(document.text)
        characters += len(document.text)
        digest = _digest(document)
        if digest in before:
            known.add(digest)
        else:
            new += 1
            new_characters += len(document.text)
    return Drift(
        new_documents=new,
        gone_documents=len(before - known),
        new_text=new_characters / characters if characters else 0.0,
        unseen_terms=terms_now.share_missing_in(terms_before),
    )


def measured(trained: Path, now: Path) -> Drift | None:
    """Between two folders of documents; None where the trained ones cannot be read, which stops no look."""
    try:
        return drift_between(read_documents(trained), read_documents(now))
    except (StageError, OSError):
        return None


def _digest(document: Document) -> bytes:
    return hashlib.blake2b(document.text.encode(), digest_size=16).digest()
