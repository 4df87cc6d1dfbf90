"""Reads a file of Markdown as units, by CommonMark and with tables. Pure; its time grows with the length of the text.

Of a link stays its text, of an image its description; comments, tags and the marks of emphasis go. A title in the
front matter is the document's first heading, where the document does not begin with one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from embedding_stages.sdg.sentences import cut
from embedding_stages.sdg.units import Collector, Unit, can_be_heading, read_units

SUFFIXES: Final = (".md", ".markdown", ".mdown", ".mkd")
# Blocks within blocks, a list of lists having two a level: the parser's time grows with them, and it leaves out what is
# deeper. Quotes are none of a passage's business, so those within more than a few others count as within these.
_DEEPEST: Final = 40
_DEEPEST_QUOTE: Final = 6
_QUOTES: Final = re.compile(rf"^((?: {{0,3}}> ?){{{_DEEPEST_QUOTE}}})(?: {{0,3}}> ?)+", re.MULTILINE)
_SECTION: Final = 200_000  # characters parsed at once, because a token takes some hundred bytes
_CELL: Final = 10  # characters that a cell counts as at least: the parser adds those that a row lacks
_INLINE: Final = 2000  # characters of a paragraph parsed at once
_SHOWN_HTML: Final = re.compile(r"</?[A-Za-z][^<>]*>|<[!?][^<>]*>")
_HIDDEN: Final = re.compile(r"<!--|<script\b|<style\b", re.IGNORECASE | re.ASCII)  # else "ſ" is an "s"
_ENDS: Final = {
    "<!--": re.compile("-->"),
    "<script": re.compile("</script>", re.IGNORECASE | re.ASCII),
    "<style": re.compile("</style>", re.IGNORECASE | re.ASCII),
}
_NO_CHARACTER: Final = re.compile(r"&#(?:[0-9]{8,}|[Xx][0-9A-Fa-f]{7,});?")  # Python reads no number of 5,000 digits
_ANCHOR: Final = re.compile(r"\s*\{[#.:][^{}]*\}\s*$")  # of a heading, as site generators write it
_FRONT: Final = re.compile(r"(?P<mark>---|\+\+\+)[ \t]*\n(?:[ \t]*(?:#[^\n]*)?\n)*[\w\"'-]+[ \t]*[:=]")
_CLOSED: Final = {
    "---": re.compile(r"^(?:---|\.\.\.)[ \t]*$\n?", re.MULTILINE),
    "+++": re.compile(r"^\+\+\+[ \t]*$\n?", re.MULTILINE),
}
_KEY: Final = re.compile(r"[^\s\-#:\]}][^\s:=]*(?: [^\s:=]+){0,3}[ \t]*[:=](?P<value>.*)")
_BESIDE_A_VALUE: Final = re.compile(r"^[ \t]*[&!]\S+|(?:^|[ \t])#.*")  # an anchor, a tag, a comment
_TITLE: Final = re.compile(r"^title[ \t]*[:=][ \t]*(\S[^\n]*)$", re.MULTILINE | re.IGNORECASE)
_FENCE: Final = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")

_BLOCKS: Final = MarkdownIt("commonmark", {"maxNesting": _DEEPEST}).enable("table").disable("inline")
_INLINES: Final = MarkdownIt("commonmark")
_WITHOUT_LINKS: Final = MarkdownIt("commonmark").disable(["link", "image"])


def is_markdown(path: str) -> bool:
    """Whether a file's name says that it is Markdown."""
    return path.lower().endswith(SUFFIXES)


def read_markdown(text: str) -> list[Unit]:
    """The units of a document, in order."""
    title, text = _without_front_matter(text)
    found = _Markdown(title)
    for section in _sections(text):
        tokens = _BLOCKS.parse(_QUOTES.sub(r"\1", section), found.references)
        if any(token.level >= _DEEPEST - 2 for token in tokens):
            return read_units(text)
        found.read(tokens)
    return found.finish()


def _without_front_matter(text: str) -> tuple[str, str]:
    """(its title, the text behind it); nothing is taken where the block is not closed, or is text between two rules."""
    opening = _FRONT.match(text)
    if opening is None:
        return "", text
    closed = _CLOSED[opening["mark"]].search(text, opening.end())
    if closed is None or (opening["mark"] == "---" and not _is_yaml(text[opening.end("mark") : closed.start()])):
        return "", text
    title = _TITLE.search(text, 0, closed.start())
    return title[1].strip().strip("\"'").strip() if title else "", text[closed.end() :]


def _is_yaml(block: str) -> bool:
    """Whether each line is a key, or belongs to one: prose may begin with "Note:" as well."""
    complete = after_empty = False  # the last key has its value; the line before is empty
    for line in block.split("\n"):
        if not line.strip():
            after_empty = True
            continue
        if key := _KEY.match(line):
            value = _BESIDE_A_VALUE.sub("", key["value"]).strip()
            complete = bool(value) and value[0] not in "|>" and value[-1] not in "[{,"
        elif line[0] not in " \t#]}" and line[:2] not in ("-", "- ", "-\t"):
            return False
        elif complete and line[0] != "#":
            if after_empty or line[0] == "-":
                return False
            complete = False
        after_empty = False
    return True


def _sections(text: str) -> Iterator[str]:
    """Parts of about `_SECTION` characters, parted at an empty line outside of fences; where none comes, as in a long
    table, behind any line: what follows in a table is then read as text with the same words.
    """
    lines: list[str] = []
    size, fence, columns = 0, "", 0
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line.rstrip("\n"))
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line.strip(f" \n{fence[0]}"):
            fence = ""
        lines.append(line)
        columns = (columns or _columns(line)) if line.strip() else 0
        size += max(len(line), _CELL * columns)
        if size >= _SECTION and not fence and (not line.strip() or size >= 2 * _SECTION):
            yield "".join(lines)
            lines, size = [], 0
    yield "".join(lines)


def _columns(line: str) -> int:
    """Of the table that a line of marks begins, at most; 0 of any other line."""
    return 0 if line.strip(" \t\n>|:-") or "-" not in line else line.count("|")


class _Markdown(Collector):
    """Collects the blocks of a document into units."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.references: dict[str, object] = {}  # the links that are defined somewhere, which the parser adds to
        self._title = title
        self._marks: list[str] = []  # of the lists around, innermost last
        self._mark = ""  # of the list item that begins
        self._row: list[str] = []

    def read(self, tokens: Sequence[Token]) -> None:
        for place, token in enumerate(tokens):
            self._read(token, tokens[place - 1].type if place else "")

    def finish(self) -> list[Unit]:
        if self._title:  # of a document without any block
            self._begin(is_heading=False)
        return self.units

    def _read(self, token: Token, before: str) -> None:
        match token.type:
            case "inline" if before == "heading_open":
                self._add_block_heading(_ANCHOR.sub("", self._shown(token.content)))
            case "inline" if before in ("th_open", "td_open"):
                self._row.append(self._shown(token.content))
            case "inline":
                self._add_text(self._shown(token.content))
            case "tr_close":
                self._add_text(f"| {' | '.join(self._row)} |")
                self._row = []
            case "fence" | "code_block" if token.content.strip():
                self._mark = ""
                self._begin(is_heading=False)
                self.add_code(_outdented(token.content))
            case "html_block":
                self._add_text(_without_tags(token.content))
            case "list_item_open":
                self._mark = f"{token.info}{token.markup}"
            case _:
                pass

    def _add_block_heading(self, text: str) -> None:
        if not can_be_heading(text):  # a paragraph above a rule looks like one
            self._add_text(text)
        elif text:
            self._begin(is_heading=True)
            self.add_heading(text)

    def _add_text(self, text: str) -> None:
        mark, self._mark = self._mark, ""
        if text.strip():
            self._begin(is_heading=False)
            self.add_sentences(f"{mark} {text}" if mark else text)

    def _begin(self, *, is_heading: bool) -> None:
        title, self._title = self._title, ""
        if title and not is_heading:
            self.add_heading(title)

    def _shown(self, text: str) -> str:
        """What a reader sees of a paragraph, on one line."""
        parts = cut(text, _INLINE)
        return " ".join(" ".join("".join(_words(self._inline(part))).split()) for part in parts)

    def _inline(self, text: str) -> Sequence[Token]:
        parser = _INLINES if "]" in text else _WITHOUT_LINKS  # which saves the search for ends that are not there
        return parser.parseInline(text, self.references)[0].children or ()


def _words(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        match token.type:
            case "text":
                yield token.content
            case "code_inline":
                yield f"`{token.content}`"
            case "softbreak" | "hardbreak":
                yield " "
            case "html_inline" if token.content.startswith(("<br", "<BR")):
                yield " "
            case "image":
                yield from _words(token.children or ())
            case _:
                pass


def _without_tags(text: str) -> str:
    """What a browser shows of a block of HTML."""
    kept: list[str] = []
    place = 0
    while hidden := _HIDDEN.search(text, place):
        kept.append(text[place : hidden.start()])
        end = _ENDS[hidden[0].lower()].search(text, hidden.end())
        place = end.end() if end else len(text)
    kept.append(text[place:])
    shown = _SHOWN_HTML.sub(" ", "".join(kept))
    return html.unescape(" ".join(_NO_CHARACTER.sub("\ufffd", shown).split()))


def _outdented(code: str) -> str:
    """Without the white space that all lines begin with."""
    lines = [line.rstrip() for line in code.expandtabs(8).split("\n")]
    indent = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return "\n".join(line[indent:] for line in lines)
