"""What trains and what is asked in the evaluation: pure rules."""

from __future__ import annotations

import pytest

from embedding_stages.prep.pairs import (
    Pair,
    Row,
    keep_good,
    normalised,
    split_by_document,
    unroll,
    with_known_chunks,
    without_leaks,
    without_repeats,
)


def pair(
    name: str, *, question: str = "", document: str = "d", chunks: tuple[str, ...] = ("c",), score: float | None = None
) -> Pair:
    return Pair(id=name, question=question or f"what is {name}", document_id=document, chunk_ids=chunks, score=score)


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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is it?", "what  is IT", True),
        ("What is it?", "What is it ?!", True),
        ("ｗｈａｔ", "what", True),
        ("What is it?", "What was it?", False),
        ("C++", "C", False),
    ],
)
def test_questions_are_compared_without_case_space_and_final_marks(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


def test_a_training_question_that_the_evaluation_asks_is_dropped() -> None:
    training = [pair("a", question="What is it?"), pair("b")]
    assert [item.id for item in without_leaks(training, ["what is  it"])] == ["b"]


def test_pairs_with_one_question_become_one_with_all_passages() -> None:
    merged = without_repeats(
        [pair("a", question="Q?", chunks=("c1", "c2")), pair("b", question="q", chunks=("c2", "c3"))]
    )
    assert [(item.id, item.chunk_ids) for item in merged] == [("a", ("c1", "c2", "c3"))]


def test_passages_that_do_not_exist_are_left_out() -> None:
    pairs = [pair("a", chunks=("c1", "gone")), pair("b", chunks=("gone",))]
    assert [(item.id, item.chunk_ids) for item in with_known_chunks(pairs, {"c1"})] == [("a", ("c1",))]


def test_each_positive_gives_a_row_with_the_negatives_of_its_pair() -> None:
    pairs = [pair("a", chunks=("c1", "c2", "c3")), pair("b"), pair("c")]
    rows = unroll(pairs, {"a": ["n1", "n2"], "b": [], "c": ["n3"]}, max_positives=2)
    assert rows == [
        Row(query="what is a", positive="c1", negatives=("n1", "n2")),
        Row(query="what is a", positive="c2", negatives=("n1", "n2")),
        Row(query="what is c", positive="c", negatives=("n3",)),
    ]
