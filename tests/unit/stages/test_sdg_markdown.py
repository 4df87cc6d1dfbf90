"""Files of Markdown as units."""

from __future__ import annotations

import random
from typing import Any

import pytest
from unit.stages.growth import grows_with_the_text

from embedding_stages.sdg.markdown import _BLOCKS, is_markdown, read_markdown
from embedding_stages.sdg.passages import MAX_PASSAGE_CHARACTERS, make_passages

FRONT = """\
---
title: "The desk"
author: nobody

tags: [a, b]
---
"""
FULL_FRONT = """\
---
# Made by hand.
title: One
Last Updated: today
x-i18n:
    hash: 0f96
"og:title": One
description: >
  What it is about,

  in several words.
text: it goes on
  here

  and here.
tags:
- a
- b

links: [
  c
]
---
"""
LONG = " ".join(["It is so."] * 30)  # too long for a heading


def kinds(text: str) -> list[tuple[str, str]]:
    return [(unit.kind.value, unit.text) for unit in read_markdown(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<div>\n<\u017fcript>Seen.\n</div>", [("sentence", "<\u017fcript>Seen.")]),
        ("<div>\nNo &#" + "9" * 5000 + "; sign.\n</div>", [("sentence", "No \ufffd sign.")]),
        ("# One\nText. More.", [("heading", "One"), ("sentence", "Text."), ("sentence", "More.")]),
        ("One\nand two\n---\nText.", [("heading", "One and two"), ("sentence", "Text.")]),
        ("## One ##\n", [("heading", "One")]),
        ("## One {#one}\n", [("heading", "One")]),
        ("#One\n", [("sentence", "#One")]),
        ("\\# One", [("sentence", "# One")]),
        ("    # One\n\nText.", [("code", "# One"), ("sentence", "Text.")]),
        ("- # One\n  Text.", [("heading", "One"), ("sentence", "- Text.")]),
        ("> # One\n> Text.", [("heading", "One"), ("sentence", "Text.")]),
        ("***\nText.", [("sentence", "Text.")]),
        ("````\n```\n# One\n```\n````\nText.", [("code", "```\n# One\n```"), ("sentence", "Text.")]),
        ("~~~\n```\n# One\n~~~\nText.", [("code", "```\n# One"), ("sentence", "Text.")]),
        ("```sh\nmake\n\nmake it\n```", [("code", "make\n\nmake it")]),
        ("```\n\n```\nText.", [("sentence", "Text.")]),
        ("- One. Two.\n- It\n  goes.", [("sentence", "- One."), ("sentence", "Two."), ("sentence", "- It goes.")]),
        ("3. One\n4) Two", [("sentence", "3. One"), ("sentence", "4) Two")]),
        ("- One\n  - Two\n\n    Three.", [("sentence", "- One"), ("sentence", "- Two"), ("sentence", "Three.")]),
        ("| a | b |\n|---|---|\n| *c* | `d` |", [("sentence", "| a | b |"), ("sentence", "| c | `d` |")]),
        ("A [link](http://a.test/b \"t\") and ![a picture](c.png).", [("sentence", "A link and a picture.")]),
        ("A [link][1].\n\n[1]: http://a.test/b", [("sentence", "A link.")]),
        ("See <http://a.test>, **bold**, _it_ and `a*b`.", [("sentence", "See http://a.test, bold, it and `a*b`.")]),
        ("a_name_b and 2 * 3 &lt; 7", [("sentence", "a_name_b and 2 * 3 < 7")]),
        ("One <!-- no --> two.<br>Three.", [("sentence", "One two."), ("sentence", "Three.")]),
        ("<!-- # no\n\nno -->\n\nText.", [("sentence", "Text.")]),
        ("<div>\n<p>One &amp; two.</p>\n<script>no()</script>\n</div>", [("sentence", "One & two.")]),
        (FRONT + "Text.", [("heading", "The desk"), ("sentence", "Text.")]),
        (FRONT + "\n# Desk\n\nText.", [("heading", "Desk"), ("sentence", "Text.")]),
        (FRONT, [("heading", "The desk")]),
        ("---\nlayout: page\n...\nText.", [("sentence", "Text.")]),
        ("+++\ntitle = 'One'\n+++\nText.", [("heading", "One"), ("sentence", "Text.")]),
        ("---\nText.\n\n---\nMore.", [("sentence", "Text."), ("sentence", "More.")]),
        ("---\na: b\n\nText.", [("sentence", "a: b"), ("sentence", "Text.")]),
        (f"{LONG}\n---\nText.", [*[("sentence", "It is so.")] * 30, ("sentence", "Text.")]),
        (f"# {LONG}\n\nText.", [*[("sentence", "It is so.")] * 30, ("sentence", "Text.")]),
        (f"- {LONG}\n  ---", [("sentence", "- It is so."), *[("sentence", "It is so.")] * 29]),
        (f"---\ntitle: {LONG}\n---\nText.", [*[("sentence", "It is so.")] * 30, ("sentence", "Text.")]),
        (f"{FRONT}{LONG}\n---", [("heading", "The desk"), *[("sentence", "It is so.")] * 30]),
        ("---\nNote: it holds.\n\nMore of it.\n\n---\nText.",
         [("sentence", "Note: it holds."), ("sentence", "More of it."), ("sentence", "Text.")]),
        ("---\nNote: it holds\nfor all.\n\n---\nText.",
         [("sentence", "Note: it holds for all."), ("sentence", "Text.")]),
        ("---\nNote: it holds.\n\n- One.\n\n---\nText.",
         [("sentence", "Note: it holds."), ("sentence", "- One."), ("sentence", "Text.")]),
        ("---\nNote: all of these:\n- One.\n\n---\nText.",
         [("sentence", "Note: all of these:"), ("sentence", "- One."), ("sentence", "Text.")]),
        (FULL_FRONT + "Text.", [("heading", "One"), ("sentence", "Text.")]),
        ("", []),
    ],
)  # fmt: skip
def test_blocks_are_read_as_commonmark_reads_them(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text) == expected


def test_a_sentence_knows_its_heading() -> None:
    units = read_markdown("# A\n\nOne. Two.\n\n## B\n\nThree.")
    assert [(unit.text, unit.heading, unit.opens) for unit in units if unit.kind == "sentence"] == [
        ("One.", "A", True),
        ("Two.", "A", False),
        ("Three.", "B", True),
    ]


@pytest.mark.parametrize(
    ("path", "is_it"), [("a/b.md", True), ("README.MD", True), ("a.markdown", True), ("a.txt", False), ("md", False)]
)
def test_the_name_of_a_file_says_what_it_is(path: str, is_it: bool) -> None:
    assert is_markdown(path) is is_it


def test_a_long_document_is_read_in_sections() -> None:
    part = "# A\n\n```\n# no\n\nx\n```\n\nText. [link][1]\n\n"
    units = read_markdown("[1]: http://a.test\n\n" + part * 5_000)
    assert len(units) == 3 * 5_000
    assert {unit.text for unit in units} == {"A", "# no\n\nx", "Text. link"}


def test_no_section_is_longer_because_no_line_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_stages.sdg.markdown._SECTION", 2_000)
    sizes: list[int] = []
    parse = _BLOCKS.parse

    def noted(text: str, references: Any) -> Any:
        sizes.append(len(text))
        return parse(text, references)

    monkeypatch.setattr(_BLOCKS, "parse", noted)
    units = read_markdown("|a|b|\n|-|-|\n" + "| c | d |\n" * 1_000)
    assert max(sizes) < 4_100
    assert " ".join(unit.text for unit in units).count("| c | d |") == 1_000


def test_cells_that_rows_lack_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of such tables would take 30 GB."""
    tokens: list[int] = []
    parse = _BLOCKS.parse

    def noted(text: str, references: Any) -> Any:
        found = parse(text, references)
        tokens.append(len(found))
        return found

    monkeypatch.setattr(_BLOCKS, "parse", noted)
    read_markdown(("|a" * 500 + "|\n" + "|-" * 500 + "|\n" + "|\n" * 130 + "\n") * 3)
    assert len(tokens) > 2
    assert max(tokens) < 150_000


def test_what_lies_too_deep_for_the_parser_is_kept() -> None:
    assert "Deep." in {unit.text.lstrip("> ") for unit in read_markdown("> " * 200 + "Deep.")}


@pytest.mark.parametrize(("mark", "depth"), [("> ", 30), (">", 30), ("> - ", 12), ("- ", 12)])
def test_what_lies_deep_is_read_as_markdown(mark: str, depth: int) -> None:
    units = read_markdown(mark * depth + "Some *deep* words.\nand more\n\n# Next\n\nLast.")
    assert [unit.text.lstrip("- ") for unit in units] == ["Some deep words. and more", "Next", "Last."]


@pytest.mark.parametrize("mark", ["> ", ">", "   > ", "> - "])
def test_quotes_within_quotes_cost_no_more_than_a_few(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser reads every line once for each quote around it."""
    levels: list[int] = []
    parse = _BLOCKS.parse

    def noted(text: str, references: Any) -> Any:
        found = parse(text, references)
        levels.append(max(token.level for token in found))
        return found

    monkeypatch.setattr(_BLOCKS, "parse", noted)
    units = read_markdown(mark * 90 + "one\n" + "two\n" * 9)
    assert "two" in units[-1].text
    assert max(levels) <= 40


PIECES = (
    "", "   ", "\t", "```", "~~~", "Text. More of it.", "# ", "#", "# A", "- ", "=====", "---", "> a", " | ", "|-|-|",
    "|a|b|", "x = 1", " " * 1200 + "z", "1.", "a" * 1100, "    It is.", "<div>", "<!--", "-->", "[a]: b", "[a]", "![",
)  # fmt: skip


def test_no_mixture_of_lines_breaks_the_reader() -> None:
    for seed in range(500):
        chance = random.Random(seed)
        lines = [chance.choice(PIECES) * chance.choice((1, 1, 1, 2)) for _ in range(chance.randint(1, 12))]
        units = read_markdown("\n".join(lines * chance.choice((1, 1, 1, 20))))
        assert all(unit.text.strip() for unit in units), seed
        passages = make_passages("d", units, sentences=3)
        assert max((len(passage.text) for passage in passages), default=0) <= MAX_PASSAGE_CHARACTERS + 1, seed


@pytest.mark.parametrize(
    "piece",
    ["# A b\n\nSome *words* of [a link](b).\n\n", "- a\n", "> a\n", "|a|b|\n|-|-|\n", "<!-- \n", "<div>\n", "[a\n",
     "[a]: b\n", "*a **b ", "`a``", "[", "![", "<a ", "```\n", "- ", "> ", "|", "a\n", "---\n", "<!-- <script "],
)  # fmt: skip
def test_the_time_grows_with_the_text(piece: str) -> None:
    assert grows_with_the_text(read_markdown, piece * (100_000 // len(piece)))


def test_a_title_with_a_gap_is_read_once() -> None:
    assert grows_with_the_text(read_markdown, "---\ntitle: a" + " " * 100_000 + "b\n---\n")
