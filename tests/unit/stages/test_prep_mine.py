"""Hard negatives: near, but not too near, and never an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from embedding_stages.formats.pairs import Pair
from embedding_stages.prep.mine import choose, highest_negative_score, mine
from embedding_stages.prep.search import Index
from embedding_stages.vectors import Vectors

QUERY = "query"


def fake_embed(scores: dict[str, float]) -> tuple[list[int], object]:
    """Passages whose inner product with every query is the given score; counts the texts of each call."""
    calls: list[int] = []

    def embed(texts: Sequence[str], role: Literal["query", "passage"]) -> Vectors:
        calls.append(len(texts))
        cosines = np.array([1.0 if role == "query" else scores[text] for text in texts], dtype=np.float32)
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)

    return calls, embed


def run_mine(
    scores: dict[str, float],
    *,
    positives: tuple[str, ...] = ("p",),
    texts: dict[str, str] | None = None,
    wanted: int = 2,
    margin: float = 0.95,
    cache: Path | None = None,
) -> list[str]:
    passages = texts or {name: name for name in scores}
    _, embed = fake_embed({passages[name]: score for name, score in scores.items()})
    pair = Pair(id="q", query=QUERY, document_id="d", passage_ids=positives)
    return mine([pair], passages, embed, wanted=wanted, margin=margin, cache=cache).negatives["q"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("positive", "margin", "limit"), [(0.8, 0.95, 0.76), (0.0, 0.95, 0.0), (-0.4, 0.95, -0.4), (0.8, 1.0, 0.8)]
)
def test_the_limit_is_a_share_of_the_positive_and_never_above_it(positive: float, margin: float, limit: float) -> None:
    assert highest_negative_score(positive, margin) == pytest.approx(limit)


RANKED = [("p", 0.9), ("near", 0.88), ("a", 0.8), ("b", 0.7), ("c", 0.6)]


@pytest.mark.parametrize(
    ("excluded", "below", "wanted", "expected"),
    [
        ({"p"}, 0.855, 2, ["a", "b"]),
        ({"p", "a"}, 0.855, 2, ["b", "c"]),
        ({"p"}, 0.855, 5, ["a", "b", "c"]),
        ({"p"}, 0.1, 2, []),
        (set(), 1.0, 1, ["p"]),
    ],
)
def test_the_best_that_are_allowed_are_chosen(
    excluded: set[str], below: float, wanted: int, expected: list[str]
) -> None:
    chosen = choose(RANKED, excluded=frozenset(excluded), below=below, wanted=wanted)
    assert [name for name, _ in chosen] == expected


SCORES = {"p": 0.9, "near": 0.88, "a": 0.8, "b": 0.7, "c": 0.6, "d": -0.5}


def test_negatives_are_the_nearest_below_the_limit() -> None:
    assert run_mine(SCORES) == ["a", "b"]


def test_a_sibling_positive_is_never_a_negative_and_the_lowest_positive_sets_the_limit() -> None:
    assert run_mine(SCORES, positives=("p", "b")) == ["c", "d"]


def test_a_passage_with_the_text_of_a_positive_is_never_a_negative() -> None:
    texts = {name: name for name in SCORES} | {"a": "P "} | {"p": "p"}
    scores = {**SCORES, "a": 0.1}
    passages_scores = {texts[name]: score for name, score in scores.items()}
    _, embed = fake_embed(passages_scores)
    pair = Pair(id="q", query=QUERY, document_id="d", passage_ids=("p",))
    assert mine([pair], texts, embed, wanted=9, margin=0.95).negatives["q"] == ["b", "c", "d"]  # type: ignore[arg-type]


def test_where_the_nearest_are_too_near_the_search_goes_deeper() -> None:
    crowd = {f"near{n}": 0.89 - n * 1e-5 for n in range(500)}
    assert run_mine({"p": 0.9, **crowd, "far": 0.2, "farther": 0.1}) == ["far", "farther"]


def test_a_question_can_be_without_negatives() -> None:
    assert run_mine({"p": 0.9, "near": 0.89}) == []


def test_vectors_of_an_interrupted_attempt_are_found_again(tmp_path: Path) -> None:
    scores = {f"x{n}": n / 6000 for n in range(5000)}
    pair = Pair(id="q", query=QUERY, document_id="d", passage_ids=("x4999",))
    calls, embed = fake_embed(scores)
    first = mine([pair], {name: name for name in scores}, embed, wanted=3, margin=0.95, cache=tmp_path)  # type: ignore[arg-type]
    assert calls == [4096, 904, 1]
    (tmp_path / "passages-4096.npy").write_bytes(b"damaged")
    calls.clear()
    again = mine([pair], {name: name for name in scores}, embed, wanted=3, margin=0.95, cache=tmp_path)  # type: ignore[arg-type]
    assert calls == [904, 1]
    assert again.negatives == first.negatives


def test_search_is_exact_and_best_first() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((300, 16)).astype(np.float32)
    queries = generator.standard_normal((7, 16)).astype(np.float32)
    scores, numbers = Index(vectors).search(queries, 20)
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :20]
    assert np.array_equal(numbers, expected)
    assert np.all(np.diff(scores, axis=1) <= 0)
    assert Index(vectors).search(queries, 1000)[0].shape == (7, 300)
