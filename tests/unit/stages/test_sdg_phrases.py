"""Runs of words and phrases, and how they are counted within bounded memory."""

from __future__ import annotations

import pytest
from unit.stages.sdg_work import chunks_of

from embedding_stages.sdg.phrases import PhraseCounts, phrases_of, runs_of


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("free fatty acids, of the plasma", [["free", "fatty", "acids"], ["of", "the", "plasma"]]),
        ("the (fetal) level", [["the"], ["fetal"], ["level"]]),
        ("x-ray beams and don't", [["x-ray", "beams", "and", "don't"]]),
        ("call `get_nowait` of C++ in 3.5 seconds", [["call"], ["get_nowait"], ["of", "C++", "in"], ["seconds"]]),
        ("see https://example.org/a now", [["see"], ["now"]]),
        ("f(x) = a[k] | b", [["b"]]),
        ("训练 model 完成", [["model"]]),
        ("राजधानी है। यह", [["राजधानी", "है"], ["यह"]]),
        ("", []),
    ],
)
def test_a_mark_a_number_and_a_formula_end_a_run(text: str, runs: list[list[str]]) -> None:
    assert runs_of(text) == runs


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("propagation of waves", {"propagation", "waves", "propagation of waves"}),
        ("signal is weak", {"signal", "weak"}),
        ("the ray", set()),
        ("Free Acids", {"free", "acids", "free acids"}),
        ("results are described", set()),
    ],
)
def test_no_phrase_begins_or_ends_with_a_function_word(text: str, phrases: set[str]) -> None:
    assert {" ".join(phrase) for phrase in phrases_of(text.split())} == phrases


def count(counts: PhraseCounts, *texts: str) -> None:
    for number, text in enumerate(texts):
        counts.add(chunks_of(f"d{number}", text))


def test_a_phrase_counts_once_a_passage() -> None:
    counts = PhraseCounts()
    count(counts, "signing keys and signing keys", "the signing keys expire", "other keys of ours", "signing keys")
    assert counts["signing", "keys"] == 3
    assert counts[("keys",)] == 4
    assert counts["other", "keys"] == counts["never", "seen"] == 1


def test_no_more_phrases_are_held_than_allowed_and_the_frequent_ones_stay() -> None:
    counts = PhraseCounts(most=40)
    for number in range(200):
        word = "".join(chr(ord("a") + int(digit)) for digit in f"{number // 2:04d}")
        count(counts, f"signing keys of {word} and vowel{word}")
        assert len(counts) <= 40
    assert counts["signing", "keys"] == 200
