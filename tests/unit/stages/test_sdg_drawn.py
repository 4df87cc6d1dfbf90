"""`maxPairs`: as many questions as are wanted, about documents that the seed draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from unit.stages.sdg_work import pairs_in, stage
from unit.stages.test_sdg_turns import manuals

from embedding_stages.sdg.drawn import place_of

KINDS = ["title", "topic", "terms"]


def written(folder: Path, texts: dict[str, str], **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    folder.mkdir()
    code, result, pairs = stage(folder, texts, questionKinds=KINDS, pairsPerDocument=3, **changes)
    assert code == 0
    return pairs_in(pairs), result["counts"]


@pytest.mark.parametrize("most", [1, 20, 60, 149])
def test_so_many_questions_are_written_and_no_more(tmp_path: Path, most: int) -> None:
    pairs, counts = written(tmp_path / "some", manuals(), maxPairs=most)

    assert len(pairs) == most
    assert counts["documents"] == 50
    assert counts["documentsAsked"] < 50 or most > 135


def test_documents_are_drawn_with_the_seed_and_all_passages_are_kept(tmp_path: Path) -> None:
    texts = manuals()
    one, again, other = (
        written(tmp_path / name, texts, maxPairs=20, seed=seed)[0]
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )

    assert one == again
    asked = {pair["document_id"] for pair in one}
    assert asked != {pair["document_id"] for pair in other}
    drawn = sorted(texts, key=lambda name: place_of(name, 1))
    assert asked == set(drawn[: len(asked)])
    cut = next((tmp_path / "one").rglob("chunks.jsonl"))
    assert {json.loads(line)["document_id"] for line in cut.read_text().splitlines()} == set(texts)


def test_more_documents_are_drawn_where_some_give_nothing(tmp_path: Path) -> None:
    """Nine of ten are too short to be asked: the draw goes on until there are enough questions."""
    texts = {f"short{at}": "Too short to ask." for at in range(450)} | manuals()

    pairs, counts = written(tmp_path / "few", texts, maxPairs=60, minTextLength=100)

    assert len(pairs) == 60
    assert counts["documentsAsked"] <= 50


def test_a_corpus_of_fewer_questions_is_asked_whole(tmp_path: Path) -> None:
    whole, _ = written(tmp_path / "whole", manuals())
    capped, counts = written(tmp_path / "capped", manuals(), maxPairs=10_000)

    assert capped == whole
    assert counts["documentsAsked"] == 50
