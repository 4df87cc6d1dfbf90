"""Candidates with a teacher's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from unit.stages.prep_work import count_words, lines, records, stage

from embedding_stages.contract import Artefact
from embedding_stages.formats.pairs import RULE_TYPES, Pair
from embedding_stages.prep.mine import Embed
from embedding_stages.prep.score import AHEAD, WEIGHT, Scored, score
from embedding_stages.sdg.prompts import TYPES
from embedding_stages.vectors import Vectors

LENS, SAME, NEAR, FAR = "lens protein of the eye", "Lens  protein of the eye", "protein in the eye", "a storm at sea"


def embedder(cosines: dict[str, float]) -> Embed:
    def embed(texts: Sequence[str], role: Literal["query", "passage"]) -> Vectors:
        found = np.array([1.0 if role == "query" else cosines[text] for text in texts], dtype=np.float32)
        return np.stack([found, np.sqrt(1 - found**2)], axis=1).astype(np.float32)

    return embed


def scored(
    kind: str, passages: dict[str, str], cosines: dict[str, float], *, names: tuple[str, ...] = ("a",), **more: Any
) -> Scored:
    pair = Pair(id="q", query="lens protein", document_id="d", passage_ids=names, type=kind)
    asked = {"wanted": 3, "by_rule": RULE_TYPES, "most_positives": 5, "seed": 1} | more
    return score([pair], passages, embedder(cosines), **asked)


def test_what_a_rule_asks_about_is_no_candidate_and_neither_is_its_twin() -> None:
    passages = {"a": LENS, "b": SAME, "c": NEAR, "d": FAR}

    found = scored("topic", passages, {LENS: 0.9, SAME: 0.9, NEAR: 0.5, FAR: 0.1})

    (example,) = found.examples
    assert (example.positive, example.negatives) == ("c", ("d",))
    np.testing.assert_allclose(example.scores, (0.5 + WEIGHT, 0.1), atol=1e-6)  # c is the best other in words


def test_words_and_vectors_rank_together() -> None:
    passages = {"a": LENS, "b": "protein", "c": NEAR, "d": FAR}

    found = scored("topic", passages, {LENS: 0.9, "protein": 0.40, NEAR: 0.42, FAR: 0.45})

    (example,) = found.examples
    assert example.positive == "b"  # the shorter of two that match, though another is nearer
    assert set(example.negatives) == {"c", "d"}
    assert example.scores[0] == pytest.approx(0.40 + WEIGHT)


@pytest.mark.parametrize("kind", ["", *TYPES])
def test_an_answer_that_somebody_named_is_ranked_first(kind: str) -> None:
    passages = {"a": FAR, "b": LENS, "c": NEAR, "d": "nothing else"}
    cosines = {LENS: 0.9, NEAR: 0.5, FAR: 0.1, "nothing else": 0.0}

    found = scored(kind, passages, cosines, names=("a",))

    (example,) = found.examples
    assert example.positive == "a"
    assert set(example.negatives) == {"b", "c", "d"}
    assert example.scores[0] == pytest.approx(max(example.scores[1:]) + AHEAD)


def test_every_named_answer_is_an_example_and_none_is_another_s_negative() -> None:
    passages = {"a": FAR, "b": LENS, "c": NEAR, "d": "nothing else"}
    cosines = {LENS: 0.9, NEAR: 0.5, FAR: 0.1, "nothing else": 0.0}

    found = scored("multi_hop", passages, cosines, names=("a", "b"))

    assert [example.positive for example in found.examples] == ["a", "b"]
    assert all(set(example.negatives) == {"c", "d"} for example in found.examples)


@pytest.mark.parametrize("passages", [{"a": LENS}, {"a": LENS, "b": SAME}, {"a": LENS, "b": NEAR}])
def test_a_query_without_two_candidates_is_counted(passages: dict[str, str]) -> None:
    found = scored("topic", passages, {LENS: 0.9, SAME: 0.9, NEAR: 0.5})

    assert (found.examples, found.bare) == ([], 1)


def test_candidates_are_of_three_kinds_without_repeats() -> None:
    passages = {f"p{n}": f"text number{n}" for n in range(400)}
    cosines = {text: 0.9 - n / 1000 for n, text in enumerate(passages.values())}

    found = scored("topic", passages, cosines, names=("p7",), wanted=7)
    again = scored("topic", passages, cosines, names=("p7",), wanted=7)

    (example,) = found.examples
    assert example == again.examples[0]
    names = [example.positive, *example.negatives]
    places = [int(name[1:]) for name in names]
    assert len(set(names)) == 8
    assert "p7" not in names
    assert places[0] == 0
    assert {1, 2, 3} < set(places)
    assert sum(place > 64 for place in places) >= 1  # from anywhere
    assert example.scores[0] == max(example.scores)


def test_the_stage_scores_candidates_where_it_is_told_to(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *records(), scoreCandidates=True, hardNegatives=7)

    assert code == 0, result
    training = lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "train.jsonl")
    assert len(training) == result.counts["trainingRows"] == 8 * 2  # one a query: rules asked it
    for row in training:
        assert len(row["scores"]) == 1 + len(row["negatives"]) == 8
        assert row["scores"][0] == max(row["scores"])
        if row["query"].startswith("What says"):
            own = f"d{row['query'].removeprefix('What says word')[0]}-0"
            assert own not in {row["positive"], *row["negatives"]}


def test_vectors_of_an_interrupted_attempt_are_used_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def embed(texts: Sequence[str], role: Literal["query", "passage"]) -> Vectors:
        calls.append(len(texts))
        return count_words(texts, role)

    pair = Pair(id="q", query="lens protein", document_id="d", passage_ids=("a",), type="topic")
    passages = {"a": LENS, "b": NEAR, "c": FAR}
    first, second = (
        score([pair], passages, embed, wanted=2, by_rule=RULE_TYPES, most_positives=5, seed=1, cache=tmp_path)
        for _ in range(2)
    )

    assert first.examples == second.examples
    assert calls == [3, 1, 1]
