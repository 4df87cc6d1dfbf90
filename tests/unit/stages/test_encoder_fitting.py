"""What happens when memory is short while texts are embedded: smaller batches, smaller packs, or one clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.stages.tiny_models import make_bert, make_llama

from embedding_stages.encoder.fitting import FittingEncoder
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.errors import OutOfMemory

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEXTS = ["the key1 of", "a", "noise1 noise2 key7 a", "key3"]


def padded(folder: Path) -> PaddedEncoder:
    return PaddedEncoder.load(make_bert(folder), device=DEVICE, dtype=torch.float32)


def packed(folder: Path) -> PackedEncoder:
    return PackedEncoder.load(make_llama(folder, hidden_size=64), device=DEVICE, dtype=torch.float32)


def rows_in(given: Any) -> int:
    """Texts of one forward pass: rows of token ids, or a pack."""
    return len(given) if isinstance(given, list) else len(given.starts) - 1


def with_room_for(texts: int, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a forward pass take so many texts at most; returns the list of the sizes that were tried."""
    tried: list[int] = []
    forward = encoder.vectors

    def tight(given: Any) -> torch.Tensor:
        tried.append(rows_in(given))
        if tried[-1] > texts:
            raise torch.OutOfMemoryError("no room")
        found: torch.Tensor = forward(given)
        return found

    monkeypatch.setattr(encoder, "vectors", tight)
    return tried


@pytest.mark.parametrize("make", [padded, packed])
def test_more_texts_than_fit_go_in_smaller_groups(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(tmp_path)
    whole = encoder.embed(TEXTS, role="query")
    tried = with_room_for(2, encoder, monkeypatch)
    fitting = FittingEncoder(encoder, 4, lambda *_, **__: None)
    np.testing.assert_allclose(fitting.embed(TEXTS, role="query"), whole, atol=2e-6)
    assert tried == [4, 2, 2]


@pytest.mark.parametrize(("make", "logged"), [(padded, 2), (packed, 0)])
def test_one_text_that_does_not_fit_is_refused_without_repeats(
    make: Callable[[Path], Any], logged: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(tmp_path)
    tried = with_room_for(0, encoder, monkeypatch)
    lines: list[str] = []
    fitting = FittingEncoder(encoder, 4, lambda message, **_: lines.append(message))
    with pytest.raises(OutOfMemory, match="one text does not fit") as caught:
        fitting.embed(TEXTS, role="query")
    assert caught.value.reason == "GPUOutOfMemory"
    assert tried == [4, 2, 1]
    assert len(lines) == logged, "only batches that shrink are logged"
