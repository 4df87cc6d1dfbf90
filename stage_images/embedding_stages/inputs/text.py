"""From bytes to clean text. Pure."""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 controls but tab and newline, zero-width and direction marks, the byte-order mark, and tag characters:
# people do not see them, models do, and they can hide instructions in a document.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
_NEWLINES = re.compile("\r\n?|\u2028|\u2029|\x85|\f")
_MOST_HIDDEN = 0.1  # share of control characters above which a file is no text


class NotTextError(ValueError):
    """The bytes are not text: not UTF-8, or full of control characters."""


def decode(content: bytes) -> str:
    """UTF-8, strictly, without control and direction characters, newlines as `\\n`, composed (NFC).

    Raises NotTextError.
    """
    if b"\0" in content:
        raise NotTextError("holds NUL bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotTextError(f"is not UTF-8 at byte {error.start}") from error
    return clean(text)


def clean(text: str) -> str:
    """Text without what people cannot see. Raises NotTextError when that is most of it."""
    text = _NEWLINES.sub("\n", text)
    stripped = _HIDDEN.sub("", text)
    if len(text) - len(stripped) > _MOST_HIDDEN * len(text):
        raise NotTextError("is mostly control characters")
    return unicodedata.normalize("NFC", stripped)
