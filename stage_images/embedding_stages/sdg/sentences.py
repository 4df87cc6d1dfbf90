"""Splits a paragraph into sentences, whatever its language. Pure; its time grows with the length of the text.

The marks are those that Unicode counts as ends of sentences (Sentence_Terminal). A full stop is looked at more closely,
because it also ends abbreviations. docs/decisions/0021-sentences.md tells what else was tried.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from embedding_stages.sdg.abbreviations import stop_ends_nothing

# Marks that do nothing but end a sentence, so that no space has to follow. By script: Chinese and Japanese, Arabic and
# Urdu, Devanagari and its neighbours, Burmese, Khmer, Ethiopic, Armenian, Syriac, N'Ko, Mongolian, Javanese and others.
_SURE: Final = "。！？｡﹖﹗؟۔।॥။។៕።፧፨։܀܁܂߹᠃᠉᥄᥅᭚᭛᭞᭟᰻᰼᱾᱿᜵᜶꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫᪨᪩᪪᪫"
FULL_STOPS: Final = ".。｡۔।॥။។።։"  # which say nothing more than that a sentence ends
_CLOSING: Final = "\"'”’»›)]」』）】〉》*_`"
_CLOSERS: Final = re.escape(_CLOSING)
_OPENING: Final = "\"'“‘„‚«‹([¿¡*`<「『（【〈《"
_OPENERS: Final = re.escape(_OPENING)
_NOTES: Final = r"(?:\[\w{1,4}\])*"  # numbers of footnotes
_HAN: Final = r"\u3040-\u30ff\u3400-\u9fff"
_GREEK: Final = r"\u0370-\u03ff\u1f00-\u1fff"
_INDIC: Final = r"\u0900-\u0dff"
_END: Final = re.compile(
    rf"(?P<sure>(?:[{_SURE}]|፡፡|(?<=[{_HAN}])(?:[!?]|\.(?=[{_HAN}])))[{_SURE}!?.…]*[{_CLOSERS}]*\s*)"
    rf"|(?<![.!?…‼⁇⁈⁉])(?P<stop>[.!?…‼⁇⁈⁉]+)[{_CLOSERS}]*{_NOTES}\s+(?=[{_OPENERS}]*[^\W]|[{_OPENERS}]+$)"
    rf"|(?<=[{_GREEK}])[;\u037e]\s+"  # the Greek question mark
    rf"|(?<=[{_INDIC}])\|{{1,2}}\s+"  # typed for a danda
    r"|(?<![།༎])[།༎]+\s+"  # Tibetan writes its mark between clauses too
)
_GEORGIAN: Final = re.compile(r"[\u10d0-\u10ff]")  # small letters to Unicode, but sentences begin with them
_HIRAGANA: Final = re.compile(r"[\u3041-\u309f]")
# Scripts that part phrases by spaces, and words by nothing; many texts in them have no marks at all.
_PHRASES: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f]")
_LONG_PHRASES: Final = 240  # characters
_PHRASE: Final = 120  # characters
_PAUSES: Final = "，、；：,;:—–" + _SURE
_WORD_SPACE: Final = "\u200b"  # zero width: between the words of scripts that show no space there
_JOINERS: Final = ("Mn", "Mc", "Me", "Cf")


def split_sentences(text: str, *, max_characters: int) -> list[str]:
    """The sentences of one paragraph, white space collapsed, none longer than `max_characters`."""
    text = " ".join(text.split())
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if _ends(text, match, start):
            found.append(text[start : match.end()].strip())
            start = match.end()
    found.append(text[start:].strip())
    return [part for sentence in found if sentence for part in _shortened(sentence, max_characters)]


def _ends(text: str, match: re.Match[str], start: int) -> bool:
    if match.lastgroup == "sure":
        # A quoted sentence that goes on: 「はい。」と言った。
        closed = match["sure"].rstrip()[-1] in _CLOSING
        return not (closed and _HIRAGANA.match(text, match.end()))
    if match.lastgroup != "stop":
        return True
    after = match.end()
    following = text[after : after + 8].lstrip(_OPENING)
    if following[:1].islower() and not _GEORGIAN.match(following):
        return False
    return match["stop"] != "." or not stop_ends_nothing(text, start, match.start(), after)


def _shortened(sentence: str, max_characters: int) -> list[str]:
    if len(sentence) > _LONG_PHRASES and 2 * len(_PHRASES.findall(sentence)) > len(sentence):
        return cut(sentence, min(_PHRASE, max_characters))
    return cut(sentence, max_characters)


def cut(text: str, max_characters: int) -> list[str]:
    """Parts of at most `max_characters`, cut at white space where there is some, else behind a mark, else between two
    characters.
    """
    parts: list[str] = []
    start, end = 0, len(text)
    while end - start > max_characters:
        at = _place(text, start + max_characters // 2, start + max_characters)
        if part := text[start:at].rstrip():
            parts.append(part)
        start = at
        while start < end and text[start].isspace():
            start += 1
    return [*parts, text[start:]] if start < end else parts


def _place(text: str, low: int, high: int) -> int:
    """Where to cut between the two."""
    for mark in (" ", "\n"):
        if (at := text.rfind(mark, low, high)) > 0:
            return at
    for at in range(high, low, -1):
        if text[at - 1] == _WORD_SPACE or text[at - 1] in _PAUSES:
            return at
    for at in range(high, low, -1):
        if unicodedata.category(text[at]) not in _JOINERS:
            return at
    return high
