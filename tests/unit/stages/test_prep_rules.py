"""What trains and what is asked in the evaluation: pure rules."""

from __future__ import annotations

import pytest

from embedding_stages.formats.pairs import Pair
from embedding_stages.formats.training_set import TrainingExample
from embedding_stages.prep.rules import (
    drawn,
    keep_good,
    split_by_document,
    unroll,
    with_known_passages,
    without_leaks,
    without_repeats,
)


def pair(
    name: str, *, query: str = "", document: str = "d", passages: tuple[str, ...] = ("c",), score: float | None = None
) -> Pair:
    return Pair(id=name, query=query or f"what is {name}", document_id=document, passage_ids=passages, score=score)


@pytest.mark.parametrize(("score", "kept"), [(None, True), (7.0, True), (10.0, True), (6.99, False), (1.0, False)])
def test_pairs_below_the_threshold_are_dropped_and_unjudged_ones_pass(score: float | None, kept: bool) -> None:
    assert bool(keep_good([pair("a", score=score)], 7.0)) is kept


@pytest.mark.parametrize(
    ("documents", "fraction", "held_out"), [(10, 0.2, 2), (2, 0.2, 1), (2, 0.9, 1), (3, 0.01, 1), (100, 0.25, 25)]
)
def test_a_share_of_the_documents_is_held_out_and_both_sides_have_one(
    documents: int, fraction: float, held_out: int
) -> None:
    pairs = [pair(f"{n}-{m}", document=f"d{n}") for n in range(documents) for m in range(3)]
    split = split_by_document(pairs, fraction=fraction, seed=42)
    asked = {item.document_id for item in split.evaluation}
    assert len(asked) == held_out
    assert asked.isdisjoint(item.document_id for item in split.training)
    assert len(split.training) + len(split.evaluation) == len(pairs)


def test_the_split_depends_on_the_seed_alone_and_hardly_on_new_documents() -> None:
    pairs = [pair(str(n), document=f"d{n}") for n in range(50)]
    first = split_by_document(pairs, fraction=0.2, seed=42)
    assert split_by_document(list(reversed(pairs)), fraction=0.2, seed=42).evaluation == first.evaluation[::-1]
    assert split_by_document(pairs, fraction=0.2, seed=43) != first
    more = split_by_document([*pairs, pair("new", document="new")], fraction=0.2, seed=42)
    moved = {item.id for item in first.evaluation} ^ {item.id for item in more.evaluation}
    assert len(moved) <= 2


@pytest.mark.parametrize("documents", [0, 1])
def test_fewer_than_two_documents_cannot_be_split(documents: int) -> None:
    with pytest.raises(ValueError, match=f"{documents} documents"):
        split_by_document([pair(str(n)) for n in range(documents)], fraction=0.2, seed=42)


def test_a_training_query_that_the_evaluation_asks_is_dropped() -> None:
    training = [pair("a", query="What is it?"), pair("b"), pair("c", query="Well, what is it?")]
    assert [item.id for item in without_leaks(training, ["what is  it", "well: what is it"])] == ["b"]


def test_pairs_with_one_query_become_one_with_all_passages() -> None:
    merged = without_repeats(
        [pair("a", query="Q?", passages=("c1", "c2")), pair("b", query="q", passages=("c2", "c3"))]
    )
    assert [(item.id, item.passage_ids) for item in merged] == [("a", ("c1", "c2", "c3"))]


def test_passages_that_do_not_exist_are_left_out() -> None:
    pairs = [pair("a", passages=("c1", "gone")), pair("b", passages=("gone",))]
    assert [(item.id, item.passage_ids) for item in with_known_passages(pairs, {"c1"})] == [("a", ("c1",))]


def test_each_positive_gives_an_example_with_the_negatives_of_its_pair() -> None:
    pairs = [pair("a", passages=("c1", "c2", "c3")), pair("b"), pair("c")]
    examples = unroll(pairs, {"a": ["n1", "n2"], "b": [], "c": ["n3"]}, max_positives=2)
    assert examples == [
        TrainingExample(query="what is a", positive="c1", negatives=("n1", "n2")),
        TrainingExample(query="what is a", positive="c2", negatives=("n1", "n2")),
        TrainingExample(query="what is c", positive="c", negatives=("n3",)),
    ]


@pytest.mark.parametrize(("most", "expected"), [(None, 40), (40, 40), (100, 40), (39, 39), (1, 1)])
def test_at_most_so_many_questions_are_drawn_in_their_order(most: int | None, expected: int) -> None:
    pairs = [pair(f"q{i}") for i in range(40)]

    found = drawn(pairs, most, seed=1)

    assert len(found) == expected
    assert found == [one for one in pairs if one in found]


def test_which_questions_are_drawn_depends_on_the_seed_and_hardly_on_new_ones() -> None:
    pairs = [pair(f"q{i}") for i in range(40)]
    names = {one.id for one in drawn(pairs, 20, seed=1)}

    assert names != {one.id for one in drawn(pairs, 20, seed=2)}
    assert len(names - {one.id for one in drawn([*pairs, pair("new")], 20, seed=1)}) <= 1
