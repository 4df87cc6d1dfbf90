"""The texts whose vectors are compared over years stay what they are, and every server takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from unit.stages.tiny_serving import HIDDEN, call, make_serving_folder, serving

from embedding_stages.contract import canaries, fingerprint_of
from embedding_stages.contract.canaries import CANARIES


def test_the_texts_never_change() -> None:
    """A change here makes every server look like another model: write a new tuple with the next version instead."""
    assert canaries.VERSION == 1
    assert fingerprint_of(CANARIES) == "f98621ea11142fc918bcf8662c5b99c0a9903ba5e80df833d7122ad6eed125e7"


def test_there_are_eight_of_each_role_and_all_differ() -> None:
    assert [role for role, _ in CANARIES] == ["query"] * 8 + ["passage"] * 8
    assert len({text for _, text in CANARIES}) == len(CANARIES)
    lengths = sorted(len(text) for _, text in CANARIES)
    assert lengths[0] == 2
    assert lengths[-1] > 3000, "longer than 512 tokens, so that truncation is seen too"
    assert sum(not text.isascii() for _, text in CANARIES) >= 6


def test_a_server_answers_each_of_them(tmp_path: Path) -> None:
    with serving(make_serving_folder(tmp_path / "tiny")) as url:
        for role in ("query", "passage"):
            texts = [text for its, text in CANARIES if its == role]
            body = {"input": texts, "model": "tiny", "input_type": role, "truncate": "END"}
            status, answer = call(f"{url}/v1/embeddings", body)
            assert status == 200, answer
            found = np.array([item["embedding"] for item in answer["data"]])
            assert found.shape == (8, HIDDEN)
