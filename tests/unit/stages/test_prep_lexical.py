"""BM25 against its formula, and what counts as a word."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedding_stages.prep.lexical import LexicalIndex, terms_of

TEXTS = ("the crystalline lens", "lens, lenses and LENS capsules", "the placenta of the rat", "")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Crystalline lenses", ["cryst", "lense"]),
        ("x-ray, 5 mg", ["x", "ray", "5", "mg"]),
        ("Straße", ["stras"]),  # as casefold has it
        ("東京都", ["東京", "京都"]),
        ("水 is water", ["水", "is", "water"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("می\u200cخواهم", ["میخوا"]),
        ("हिंदी किताबें", ["हिंदी", "किताब"]),
        ("ខ្ញុំ\u200bអាន", ["ខ្", "្ញ", "ញុ", "ុំ", "អា", "ាន"]),
        ("--- ...", []),
    ],
)
def test_words_count_by_their_beginning(text: str, terms: list[str]) -> None:
    assert list(terms_of(text)) == terms


def test_scores_are_those_of_the_formula() -> None:
    found = LexicalIndex(TEXTS).scores("lens of what")

    lengths = [len(list(terms_of(text))) for text in TEXTS]
    average = sum(lengths) / len(lengths)

    def part(times: int, length: int, passages_with: int) -> float:
        rarity = math.log(1 + (len(TEXTS) - passages_with + 0.5) / (passages_with + 0.5))
        return rarity * times * 1.9 / (times + 0.9 * (0.6 + 0.4 * length / average))

    # "lens" and "lense" are two terms; "of" is in one passage, "what" in none
    expected = [part(1, lengths[0], 2), part(2, lengths[1], 2), part(1, lengths[2], 1), 0.0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_is_found_where_nothing_is() -> None:
    assert LexicalIndex([]).scores("lens").shape == (0,)
    assert LexicalIndex(["", "..."]).scores("lens").tolist() == [0.0, 0.0]
