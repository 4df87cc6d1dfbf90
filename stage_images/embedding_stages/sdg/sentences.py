"""Splits a paragraph into sentences. Pure."""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(r"""(?<![.!?])[.!?]+["'”’)\]]*\s+(?=["'“‘(\[`*<]*[A-Z0-9À-ÞΑ-ΩА-Я_])|[。！？]+["」』）]*\s*""")
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(\[])(?:e\.g|i\.e|cf|vs|etc|resp|approx|a\.k\.a|no|nos|fig|figs|eq|sec|ch|vol|pp?|ed|eds|al|st|dr|mr|mrs"
    r"|ms|prof|inc|ltd|co|jr|sr|[a-z]|\d{1,2})\.$",
    re.IGNORECASE,
)


def split_sentences(text: str, *, max_characters: int) -> list[str]:
    """The sentences of one paragraph, white space collapsed, none longer than `max_characters`."""
    text = " ".join(text.split())
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if match.start() < start or _ABBREVIATION.search(text[start : match.start() + 1]):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    found.append(text[start:].strip())
    return [part for sentence in found if sentence for part in cut(sentence, max_characters)]


def cut(text: str, max_characters: int) -> list[str]:
    """Parts of at most `max_characters`, cut at white space where there is some."""
    parts: list[str] = []
    while len(text) > max_characters:
        at = text.rfind(" ", max_characters // 2, max_characters)
        if at < 0:
            at = text.rfind("\n", max_characters // 2, max_characters)
        at = at if at > 0 else max_characters
        if part := text[:at].rstrip():
            parts.append(part)
        text = text[at:].lstrip()
    return [*parts, text] if text else parts
