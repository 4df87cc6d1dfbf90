"""Which characters of a text stay: one rule for documents, labelled sets, questions and requests. Pure.

What belongs to how a word is written stays, also where nobody sees it: joiners, the zero-width space that parts words
of Khmer and Thai, variation selectors, combining marks, the tags of a flag. A model's tokenizer decides about them, and
trained and asked texts are equal. What only says how a line is broken or in which direction it runs goes: soft hyphens,
word joiners and byte-order marks, marks, embeddings and overrides of direction. Controls are no characters of a text:
they go as well, and a text that is full of them is none. docs/decisions/0020-characters.md has the reasons.

A text is put together in the composed form (NFC), so that "é" is one character however it was typed. Words are compared
without all of that, in the compatible form (NFKC): see `for_words`.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

_FLAG: Final = "\U0001f3f4[\U000e0020-\U000e007e]{3,6}\U000e007f"  # England, Scotland and their like
_GOES: Final = re.compile(
    f"({_FLAG})"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline
    "\u00ad\u2060-\u2064\ufeff"  # soft hyphen, word joiner, what stands for a sign in a formula, byte-order mark
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction, and what Unicode has given up
    "\U000e0000-\U000e007f]"  # tags without a flag: nobody sees them, and they can spell an instruction
)
_NEWLINES: Final = re.compile("\r\n?|\u2028|\u2029|\x85|\f|\v")  # slides and Word write \v within a paragraph
_NO_TEXT: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd]")  # controls, and what was not decoded
_MOST_NO_TEXT: Final = 0.1  # share of a text's characters
_UNSEEN_IN_WORDS: Final = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]"
)
_ZERO_WIDTH_SPACE: Final = "\u200b"
_BYTE_ORDER_MARKS: Final = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MARK_BYTES: Final = 4  # of the longest byte-order mark


def _class_of_marks() -> str:
    """The combining marks as they stand within the brackets of a pattern: `re` does not count them as letters."""
    marks = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
    return "".join(map(chr, marks))


MARKS: Final = _class_of_marks()
_MARKS: Final = re.compile(f"[{MARKS}]+")


class NotTextError(ValueError):
    """What is no text: the message says why."""


def decode(content: bytes) -> str:
    """UTF-8, or what a byte-order mark says: UTF-16 or UTF-32. Raises NotTextError also where `check_text` does."""
    encoding = encoding_of(content)
    if encoding == "utf-8" and b"\0" in content:
        raise NotTextError("holds NUL bytes")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotTextError(f"is not {encoding.upper().removesuffix('-SIG')} at byte {error.start}") from error
    check_text(text)
    return text


def encoding_of(content: bytes) -> str:
    """The encoding that the first `MARK_BYTES` bytes tell, for decoding without the mark; utf-8 where there is none."""
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")


def check_text(text: str) -> None:
    """Raises NotTextError for what is mostly controls and what was not decoded, and for halves of character pairs.

    How many characters nobody sees says nothing: in a Khmer text every sixth is a zero-width space.
    """
    try:
        text.encode()  # JSON can spell half a pair, which no tokenizer reads
    except UnicodeEncodeError as error:
        raise NotTextError("holds half a character pair") from error
    if "\0" in text:
        raise NotTextError("holds NUL characters")
    if len(_NO_TEXT.findall(text)) > _MOST_NO_TEXT * len(text):
        raise NotTextError("is mostly control characters and U+FFFD")


def clean(text: str) -> str:
    """The text by the rule above, newlines as `\\n`, composed (NFC). What is clean stays as it is."""
    return unicodedata.normalize("NFC", _GOES.sub(_flag_alone, _NEWLINES.sub("\n", text)))


def for_words(text: str) -> str:
    """The text in the form that its words are compared in; case and marks of punctuation are the caller's.

    A zero-width space is a space. Joiners, variation selectors and marks of direction are gone: people leave them out.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _UNSEEN_IN_WORDS.sub("", text.replace(_ZERO_WIDTH_SPACE, " ")))


def base_letters(text: str) -> str:
    """The text as `for_words` has it, without combining marks: `isalpha` and its like know of none."""
    return text if text.isascii() else _MARKS.sub("", for_words(text))


def seen(text: str) -> str:
    """What people see of a text, for telling whether it is the same as one that another release has cleaned."""
    return text if text.isascii() else _UNSEEN_IN_WORDS.sub("", text.replace(_ZERO_WIDTH_SPACE, ""))


def _flag_alone(found: re.Match[str]) -> str:
    return found[1] or ""
