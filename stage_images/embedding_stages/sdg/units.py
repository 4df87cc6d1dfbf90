"""Reads a plain document as units: headings, signatures, sentences and pieces of code. Pure.

Understands underlined headings, headings in capitals, manual pages such as pydoc's (signatures with an indented
description, lines behind a gutter of `|`), and of Markdown what people write in plain texts too: headings, fences,
lists. Files of Markdown are read by markdown.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from embedding_stages.sdg.sentences import cut, split_sentences

MAX_UNIT_CHARACTERS: Final = 1000
_MAX_HEADING_CHARACTERS: Final = 200  # what is longer is text
_MAX_LINE_CHARACTERS: Final = 2000  # patterns below see no more at once, whatever a document holds
_MAX_PARAGRAPH_LINES: Final = 100


class Kind(StrEnum):
    """What a unit is. Headings and signatures introduce what follows and do not count as sentences."""

    HEADING = "heading"
    SIGNATURE = "signature"
    SENTENCE = "sentence"
    CODE = "code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A piece of a document."""

    kind: Kind
    text: str
    starts_line: bool = True  # else it continues the paragraph of the unit before it
    heading: str = ""  # the nearest heading above
    signature: str = ""  # the signature that it describes
    opens: bool = False  # first sentence below its heading or signature


_GUTTER = re.compile(r"^ {1,8}\|(?:  ?|$)")
# Three marks and no mark behind them: "``` pip install foo ```" is code within a line, and opens nothing.
_FENCE = re.compile(r"^\s*(?:`{3,}[^`]*|~{3,}[^~]*)$")
_ATX = re.compile(r"^ {0,3}#{1,6}\s+(\S.*?)\s*#*$")
_CAPITALS = re.compile(r"^[A-Z][A-Z0-9 /&,'-]{2,60}$")
_RULER = re.compile(r"^\s*([-=~^*_])\1{3,}\s*$")
_BULLET = re.compile(r"^\s*(?:[-*+•·]|\(?\d{1,3}[.)]|[a-z]\))\s+(?=\S)")
_NAME = r"[A-Za-z_][\w.]*"
_SIGNATURE = re.compile(
    rf"^(?P<indent>\s*)(?:(?:async|class|def|function|func|static)\s+)*(?:{_NAME}\s*=\s*)?(?:class\s+)?{_NAME}"
    r"(?:\((?!\s*a\.k\.a).*\)?(?:\s*->.*)?(?:\s+(?:from|method of|unbound|class method).*)?|(?<=\w)\s*=\s*<.*>)\s*:?$"
)
_CLASS = re.compile(rf"^(?P<indent>\s*)class {_NAME}(?:\(.*\))?:?$")
_CLASS_LIKE = re.compile(r"^(?:class\s|(?:\w+\.)*[A-Z])")
_PROMPT = re.compile(r"^\s*(?:>>>|\.\.\.|\$|%|In \[\d)\s")
_CODE_LINE = re.compile(  # but a semicolon behind Greek ends a question
    r"[=({\[,\\]$|(?<![\u0370-\u03ff\u1f00-\u1fff]);$|^\s*[\w.]+(?:\(.*\)|\[.*\])\s*(?:#.*)?$"
    r"|^\s*[\w.\[\], ]+ [-+*/|&]?= \S|^\s*[}\])]"
)
_COLUMNS = re.compile(r"\S {3,}\S")


def read_units(text: str) -> list[Unit]:
    """The units of a document, in order; their texts are all of it, white space aside."""
    reader = _Reader()
    for line in text.split("\n"):
        for part in cut(line.expandtabs(8), _MAX_LINE_CHARACTERS) or [""]:
            reader.feed(_GUTTER.sub("", part, count=1))
    return reader.finish()


def can_be_heading(text: str) -> bool:
    """Whether a text that stands where a heading does is as short as one."""
    return len(text) <= _MAX_HEADING_CHARACTERS


class Collector:
    """Units in their order, each with what stands above it."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self._heading = ""
        self._signature = ""
        self._signature_indent = -1
        self._opens = False

    def add_heading(self, text: str) -> None:
        if not can_be_heading(text):
            self.add_sentences(text)
            return
        self._heading, self._signature, self._signature_indent = text, "", -1
        self._opens = True
        self._add(Kind.HEADING, text)

    def add_code(self, text: str) -> None:
        for part in cut(text.strip("\n"), MAX_UNIT_CHARACTERS):
            self._add(Kind.CODE, part)

    def add_sentences(self, text: str) -> None:
        for number, sentence in enumerate(split_sentences(text, max_characters=MAX_UNIT_CHARACTERS)):
            self._add(Kind.SENTENCE, sentence, starts_line=number == 0)

    def _add(self, kind: Kind, text: str, *, starts_line: bool = True) -> None:
        opens = self._opens and kind is Kind.SENTENCE
        self.units.append(
            Unit(
                kind=kind,
                text=text,
                starts_line=starts_line,
                heading=self._heading,
                signature=self._signature,
                opens=opens,
            )
        )
        if opens or kind is Kind.CODE:
            self._opens = False


class _Reader(Collector):
    """Collects lines into paragraphs and paragraphs into units."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._fence = False
        self._after_blank = True

    def feed(self, line: str) -> None:
        if _FENCE.match(line):
            self._flush(code=self._fence)
            self._fence = not self._fence
        elif len(self._lines) >= _MAX_PARAGRAPH_LINES:
            self._flush(code=self._fence)
            self._lines.append(line)
        elif self._fence:
            self._lines.append(line)
        elif not line.strip():
            self._flush()
            self._after_blank = True
        else:
            self._feed_text(line)
            self._after_blank = False

    def finish(self) -> list[Unit]:
        self._flush(code=self._fence)
        return self.units

    def _feed_text(self, line: str) -> None:
        atx = _ATX.match(line)
        if atx or (self._after_blank and _CAPITALS.match(line)):
            self._flush()
            self.add_heading(atx[1] if atx else line.strip())
        elif _RULER.match(line):
            if len(self._lines) == 1 and len(self._lines[0]) < 120 and line.strip()[0] in "-=~^*":
                self.add_heading(self._lines.pop().strip())
            self._flush()
        elif self._is_signature(line):
            self._flush()
            self._signature = line.strip()
            self._signature_indent = len(line) - len(line.lstrip())
            self._opens = True
            for part in cut(line.strip(), MAX_UNIT_CHARACTERS):
                self._add(Kind.SIGNATURE, part)
        elif _BULLET.match(line):
            self._flush()
            self._lines.append(line)
        else:
            self._lines.append(line)

    def _is_signature(self, line: str) -> bool:
        if self._lines or not (_SIGNATURE.match(line) or _CLASS.match(line)):
            return False
        if _CODE_LINE.search(line) and line.rstrip().endswith((",", "(", "[", "{", ";")):
            return False
        indent = len(line) - len(line.lstrip())
        # A call inside the description of another signature is an example, unless it is a method.
        inside = bool(self._signature) and indent > self._signature_indent and not self._signature.startswith("class ")
        return not inside

    def _flush(self, *, code: bool = False) -> None:
        lines, self._lines = self._lines, []
        written = [line for line in lines if line.strip()]
        if not written:
            return
        lines = lines if code else written
        indent = min(len(line) - len(line.lstrip()) for line in written)
        # pydoc indents what a function does, but writes what a class is below its signature.
        least = self._signature_indent + (not _CLASS_LIKE.match(self._signature))
        if self._signature and indent < least and not _BULLET.match(lines[0]):
            self._signature, self._signature_indent = "", -1
        if code or _is_code(lines):
            self.add_code("\n".join(line[indent:].rstrip() for line in lines))
        else:
            self.add_sentences(" ".join(lines))


def _is_code(lines: list[str]) -> bool:
    """Prompts, mostly lines that look like statements, or aligned columns."""
    if _PROMPT.match(lines[0]):
        return True
    marked = sum(bool(_CODE_LINE.search(line.lstrip())) for line in lines)  # its time grows with indents squared
    columns = sum(bool(_COLUMNS.search(line.strip())) for line in lines)
    return marked > 0.6 * len(lines) or (len(lines) > 1 and columns > 0.6 * len(lines))
