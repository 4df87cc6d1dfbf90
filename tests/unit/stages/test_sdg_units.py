"""Units and passages of documents."""

from __future__ import annotations

import random

import pytest
from unit.stages.growth import grows_with_the_text

from embedding_stages.sdg.passages import MAX_PASSAGE_CHARACTERS, make_passages
from embedding_stages.sdg.units import Kind, Unit, read_units


def kinds(text: str) -> list[tuple[str, str]]:
    return [(unit.kind.value, unit.text) for unit in read_units(text)]


MANUAL = """\
NAME
    heapq - Heap queue algorithm.

FUNCTIONS
    heappop(heap, /)
        Pop the smallest item off the heap. It shrinks.

    class Queue(object)
     |  Queue(maxsize=0)
     |
     |  A queue.
     |
     |  full(self)
     |      Return True if it is full.
"""


def test_a_manual_page_has_headings_signatures_and_sentences() -> None:
    assert kinds(MANUAL) == [
        ("heading", "NAME"),
        ("sentence", "heapq - Heap queue algorithm."),
        ("heading", "FUNCTIONS"),
        ("signature", "heappop(heap, /)"),
        ("sentence", "Pop the smallest item off the heap."),
        ("sentence", "It shrinks."),
        ("signature", "class Queue(object)"),
        ("signature", "Queue(maxsize=0)"),
        ("sentence", "A queue."),
        ("signature", "full(self)"),
        ("sentence", "Return True if it is full."),
    ]


def test_a_description_knows_its_signature() -> None:
    described = {unit.text: unit.signature for unit in read_units(MANUAL) if unit.kind is Kind.SENTENCE}
    assert described["It shrinks."] == "heappop(heap, /)"
    assert described["A queue."] == "Queue(maxsize=0)"
    assert described["Return True if it is full."] == "full(self)"
    assert described["heapq - Heap queue algorithm."] == ""


MARKDOWN = """\
Install
-------
Run this first:

```sh
make install  # Not. A sentence.

make check
```

## Use it
- One thing. And more.
- Another thing that
  goes on.
1. Numbered.

| a | b |
"""


def test_markdown_has_headings_code_and_lists() -> None:
    assert kinds(MARKDOWN) == [
        ("heading", "Install"),
        ("sentence", "Run this first:"),
        ("code", "make install  # Not. A sentence.\n\nmake check"),
        ("heading", "Use it"),
        ("sentence", "- One thing."),
        ("sentence", "And more."),
        ("sentence", "- Another thing that goes on."),
        ("sentence", "1. Numbered."),
        ("sentence", "| a | b |"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\n   \n```\nOne.", [("sentence", "One.")]),
        (
            "Run:\n``` pip install foo ```\nThen go on.",
            [("sentence", "Run: ``` pip install foo ``` Then go on.")],
        ),
        ("~~~ make ~~~\n\nOne.", [("sentence", "~~~ make ~~~"), ("sentence", "One.")]),
        ("```sh\nmake\n```\nOne.", [("code", "make"), ("sentence", "One.")]),
        ("```\n" + "x\n" * 100 + "   \n```\nOne.", [("code", "\n".join("x" * 100)), ("sentence", "One.")]),
        ("```\n" + " " * 1500 + "deep\nx\n```", [("code", "deep\nx")]),
        ("#   \nOne.", [("sentence", "# One.")]),
        ("Είναι κλειστή η πόρτα;", [("sentence", "Είναι κλειστή η πόρτα;")]),
        ("call(a, b);", [("code", "call(a, b);")]),
        ("# " + "It is so. " * 30, [("sentence", "It is so.")] * 30),
        (f"call({'a, ' * 499}b)", [("signature", f"call({'a, ' * 330}a,"), ("signature", f"{'a, ' * 168}b)")]),
    ],
    ids=[
        "a fence around spaces",
        "a fence that closes itself",
        "a fence of tildes that closes itself",
        "a fence with a language",
        "a hundred lines and one of spaces",
        "code behind many spaces",
        "a heading without words",
        "a question in Greek",
        "a statement",
        "a heading that is a paragraph",
        "a signature longer than a unit",
    ],
)
def test_each_line_is_what_it_looks_like(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text) == expected


PIECES = (
    "", "   ", "\t", "```", "~~~", "``` pip install foo ```", "```py", "Text. More of it.", "# ", "#", "# A", "f(x)",
    "-", "- ", "=====", "NAME", " | ", "|", "x = 1", ">>> y", " " * 1200 + "z", "1.", "a" * 1100, "Title", "    It is.",
)  # fmt: skip


def test_no_mixture_of_lines_breaks_the_reader() -> None:
    for seed in range(500):
        chance = random.Random(seed)
        lines = [chance.choice(PIECES) * chance.choice((1, 1, 1, 2)) for _ in range(chance.randint(1, 12))]
        lines *= chance.choice((1, 1, 1, 1, 50))
        text = "\n".join(lines)
        units = read_units(text)
        assert all(unit.text.strip() for unit in units), seed
        assert all(passage.text.strip() for passage in make_passages("d", units, sentences=3)), seed


def test_a_chunk_has_five_sentences_and_the_signature_above_them() -> None:
    text = "\n\n".join(f"name{n}(x)\n    Sentence {n} is here." for n in range(7))
    passages = make_passages("doc", read_units(text), sentences=5)
    assert [passage.id for passage in passages] == ["doc-0000", "doc-0001"]
    assert passages[0].text.count("Sentence") == 4, "a signature that would not fit with its description opens the next"
    assert passages[1].text.startswith("name4(x)\nSentence 4 is here.")


def test_a_heading_opens_a_chunk_and_never_ends_one() -> None:
    text = "# A\n\nOne. Two. Three. Four. Five.\n\n# B\n\nSix. Seven."
    assert [passage.text for passage in make_passages("d", read_units(text), sentences=5)] == [
        "A\nOne. Two. Three. Four. Five.",
        "B\nSix. Seven.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "word " * 20_000,
        "x" * 50_000,
        "." * 200_000,
        "a.b(" * 20_000,
        "\n".join(["f(x)"] * 3000),
        "\n".join(f"# Heading {n}" for n in range(2000)),
        "`" * 5000 + "\n" + "((((" * 5000,
        "```\n" + "code line\n" * 5000,
        " |  " * 5000,
    ],
)
def test_no_document_makes_a_long_chunk_or_takes_long(text: str) -> None:
    assert grows_with_the_text(lambda part: make_passages("d", read_units(part), sentences=5), text)
    passages = make_passages("d", read_units(text), sentences=5)
    assert max(len(passage.text) for passage in passages) <= MAX_PASSAGE_CHARACTERS + 1
    assert all(passage.text.strip() for passage in passages)


@pytest.mark.parametrize("sentences", [1, 3, 5])
def test_a_long_run_of_signatures_is_in_a_passage(sentences: int) -> None:
    first = [Unit(kind=Kind.SENTENCE, text="One sentence stands here.")]
    run = [Unit(kind=Kind.SIGNATURE, text=f"{'name' * 25}{number:02d}()") for number in range(19)]
    last = [Unit(kind=Kind.SENTENCE, text=f"Sentence {number} ends it.") for number in range(6)]
    units = [*first, *run, *last]
    kept = [unit for passage in make_passages("d", units, sentences=sentences) for unit in passage.units]
    assert kept == units


def test_no_word_is_lost() -> None:
    text = MANUAL + MARKDOWN
    kept = " ".join(passage.text for passage in make_passages("d", read_units(text), sentences=3)).split()
    marks = {"|", "##", "-------", "```sh", "```"}
    assert [w for w in kept if w not in marks] == [w for w in text.split() if w not in marks]
