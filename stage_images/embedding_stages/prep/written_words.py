"""The words of a text as they are written, so that it can be cut between two of them. Pure.

Where words are written without spaces so many characters count as one: two in Chinese and Japanese, where a run of
katakana is one word, and three letters with their vowels in Thai, Lao, Burmese and Khmer. That is about how long a word
is there, and no word list is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from embedding_stages.formats.characters import MARKS
from embedding_stages.formats.words import IDEOGRAPHS, KANA, UNSPACED_ALPHABETS

_UNSPACED: Final = UNSPACED_ALPHABETS + KANA + IDEOGRAPHS
_BEFORE: Final = "\u0e40-\u0e44\u0ec0-\u0ec4"  # vowels of Thai and Lao that are written before their letter
_BEHIND: Final = f"{MARKS}\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"  # marks, and vowels that are written behind it
_BELOW: Final = rf"(?<=[\u1039\u17d2])[{UNSPACED_ALPHABETS}]"  # a letter below another one, in Burmese and Khmer
_LETTER: Final = rf"[{_BEFORE}]?[{UNSPACED_ALPHABETS}](?:[{_BEHIND}]|{_BELOW})*"
_KATAKANA: Final = "[\u30a1-\u30fa\u30fc]"
_WORD: Final = re.compile(
    rf"[^\w\s]*(?:{_KATAKANA}{{1,8}}|[{KANA}{IDEOGRAPHS}]{{1,2}}|(?:{_LETTER}){{1,3}})[^\w\s]*\s*"  # with punctuation
    rf"|[^\s{_UNSPACED}]+\s*"
)
_HAS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")
_NO_SPACE_BEHIND: Final = re.compile(rf"[\u3000-\u303f{KANA}{IDEOGRAPHS}\uff00-\uffef]$")  # with full-width marks


def written_words(text: str) -> list[str]:
    """In order, each with the space behind it: together they are the text, white space collapsed."""
    return _WORD.findall(" ".join(text.split()))


def as_text(words: Iterable[str]) -> str:
    """What neighbouring words are as a text."""
    return "".join(words).strip()


def is_unspaced(word: str) -> bool:
    """Whether a word has characters of a script without spaces."""
    return _HAS_UNSPACED.search(word) is not None


def are_unspaced(words: Sequence[str]) -> bool:
    """Whether most of them are of such a script."""
    return 2 * sum(map(is_unspaced, words)) > len(words)


def joined_sentences(sentences: Iterable[str]) -> str:
    """With a space between two of them, unless their script has none there."""
    text = ""
    for sentence in sentences:
        text += sentence if not text or _NO_SPACE_BEHIND.search(text) else f" {sentence}"
    return text
