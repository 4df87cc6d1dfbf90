"""The words of a text, as they are compared: case folded, without marks of punctuation. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from embedding_stages.formats.characters import MARKS, for_words

# Scripts without spaces between words, as they stand within the brackets of a pattern. A character of an alphabet says
# as little as a Latin letter does.
UNSPACED_ALPHABETS: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
KANA: Final = "\u3040-\u30ff"
IDEOGRAPHS: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese, and Japanese kanji
_UNSPACED: Final = UNSPACED_ALPHABETS + KANA + IDEOGRAPHS
# Runs of one kind: those, and other words, with the marks of scripts that write vowels with them.
_RUN: Final = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+(?:[{MARKS}]+[^\W{_UNSPACED}]*)*")
_FIRST_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")


def words_of(text: str) -> Iterator[str]:
    """In the text's order, as often as they stand there; in scripts without spaces two neighbouring characters each."""
    for run in _RUN.findall(for_words(text).casefold()):
        if not _FIRST_UNSPACED.match(run) or len(run) == 1:
            yield run
        else:
            yield from (run[at : at + 2] for at in range(len(run) - 1))
