"""What a language model writes: which of it is read, believed and kept. No endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.sdg import prompts
from embedding_stages.sdg.openai_client import AnswerInvalidError, Usage, parse_object
from embedding_stages.sdg.openai_provider import _Document, _outcome, sections_of


def pair(question: str, quote: str, kind: str = "contextual") -> dict[str, Any]:
    evidence = [{"passage": 0, "quote": quote}]
    return {"type": kind, "question": question, "answer": "An answer.", "evidence": evidence}


PASSAGES = [
    Passage(f"d-{n}", "d", text) for n, text in enumerate(("Alpha is the first letter.", "Omega ends the alphabet."))
]
DRAFTS = {
    "grounded": (pair("What is alpha?", "Alpha is the first"), ("d-0",)),
    "grounded in another passage than it says": (pair("What is omega?", "omega ends the ALPHABET."), ("d-1",)),
    "a quote too short to prove anything": (pair("What is alpha?", "Alpha"), None),
    "a quote that is not there": (pair("What is beta?", "Beta is the second letter."), None),
    "one of two quotes is not there": (
        {
            **pair("What is alpha?", "x"),
            "evidence": [{"passage": 0, "quote": "Alpha is the first"}, {"passage": 1, "quote": "no such text at all"}],
        },
        None,
    ),
    "no evidence": ({"question": "What is alpha?", "answer": "a letter", "evidence": []}, None),
    "no answer": ({**pair("What is alpha?", "Alpha is the first"), "answer": " "}, None),
    "a question that is no text": ({**pair("x", "Alpha is the first"), "question": 5}, None),
    "hidden characters": (pair("What is \u202ealpha?", "Alpha is the first"), None),
    "an endless question": (pair("why " * 200, "Alpha is the first"), None),
    "no object": ("What is alpha?", None),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAFTS)
def test_only_what_quotes_the_document_is_believed(name: str) -> None:
    raw, passage_ids = DRAFTS[name]
    drafts, dropped = prompts.read_drafts({"pairs": [raw]}, PASSAGES, 5)
    assert [draft.passage_ids for draft in drafts] == ([passage_ids] if passage_ids else [])
    assert dropped == (0 if passage_ids else 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure!\n```json\n{"a": 1}\n``` bye', {"a": 1}),
        ('<think>{"b": 2}</think> {"a": 1}', {"a": 1}),
    ],
)
def test_json_is_found_in_what_models_write(text: str, expected: dict[str, int]) -> None:
    assert parse_object(text) == expected


@pytest.mark.parametrize("text", ["", "[1]", '{"a": ', "{" * 100_000])
def test_what_is_no_json_is_said_so(text: str) -> None:
    with pytest.raises(AnswerInvalidError):
        parse_object(text)


@pytest.mark.parametrize(("pairs", "expected"), [(7, [3, 2, 2]), (2, [1, 1, 0]), (1, [1, 0, 0]), (14, [6, 4, 4])])
def test_types_keep_the_proportion_of_the_recipe(pairs: int, expected: list[int]) -> None:
    assert list(prompts.mix(pairs).values()) == expected


def about(document: str, *questions: tuple[str, int]) -> _Document:
    pairs = [Pair.about(document, text, (f"{document}-{passage}",), kind="x", score=9.0) for text, passage in questions]
    return _Document(document, pairs, 0, 0, 0, Usage(calls=1))


SHARED: dict[str, tuple[list[_Document], list[tuple[str, tuple[str, ...]]], int]] = {
    "different questions": (
        [about("a", ("One?", 0)), about("b", ("Two?", 0))], [("One?", ("a-0",)), ("Two?", ("b-0",))], 0,
    ),
    "a question about two documents": (
        [about("a", ("Same?", 0), ("One?", 1)), about("b", ("same", 0))], [("One?", ("a-1",))], 2,
    ),
    "a question about three documents, twice about one": (
        [about("a", ("Same?", 0)), about("b", ("Same?", 0), ("Same?", 1)), about("c", ("Same?", 0))], [], 4,
    ),
    "a question about two places of a document": (
        [about("a", ("Same?", 0), ("Same?", 1))], [("Same?", ("a-0", "a-1"))], 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_a_question_about_two_documents_is_dropped_from_both(name: str) -> None:
    documents, expected, dropped = SHARED[name]
    outcome = _outcome(documents)
    assert [(item.query, item.passage_ids) for item in outcome.pairs] == expected
    assert outcome.counts["droppedDuplicates"] == dropped


def test_a_long_document_is_asked_about_in_a_few_places() -> None:
    passages = [Passage(f"d-{n}", "d", "x" * 2000) for n in range(100)]
    sections = sections_of(passages, 7)
    assert [section[0].id for section in sections] == ["d-0", "d-24", "d-48", "d-72"]
    assert all(sum(len(chunk.text) for chunk in section) <= 12_000 for section in sections)
    assert sections_of(passages[:3], 7) == [passages[:3]]
