"""The packed encoder against the padded one: the same vectors, gradients, files and training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.stages import rounding
from unit.stages.scored import ranking_losses, scored
from unit.stages.tiny_models import make_bert, make_llama

from embedding_stages.encoder.load import load_encoder
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.encoder.packed.readings import shape_of
from embedding_stages.encoder.packed.small import SmallPacks
from embedding_stages.errors import OutOfMemory, StageError
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.trainer import Trainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHORT = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter multiplies no bfloat16
TEXTS = ["the key1 of", "", "noise1 noise2 key7 a"]
ROWS = [[5, 6, 7], [9] * 20, [8], [5, 6, 9, 11], [12] * 7]
EXAMPLES = [Example(0, (1, 2)), Example(3, (4, 2, 1))]
CONFIG = {"hidden_size": 64, "num_hidden_layers": 2}
TERMS = rounding.backward_terms(CONFIG, tokens=sum(map(len, ROWS)))


# Adding the same to all keys changes no attention: the gradient of their bias is rounding alone.
NOTHING = "key.bias"


def _llama(folder: Path) -> Path:
    """Grouped-query attention, Llama 3's scaled positions."""
    scaling = {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    return make_llama(folder, **CONFIG, num_key_value_heads=2, rope_scaling=scaling)


def _bert(folder: Path) -> Path:
    return make_bert(folder, **CONFIG, max_position_embeddings=128)


@pytest.fixture(scope="module", params=[_llama, _bert])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp("models") / "model")
    return made


@pytest.fixture(scope="module")
def small(folder: Path) -> SmallPacks:
    return SmallPacks(PackedEncoder.load(folder, device=DEVICE, dtype=torch.float32), sizes=(64, 128))


def _packed(folder: Path, dtype: torch.dtype = torch.float32) -> PackedEncoder:
    return PackedEncoder.load(folder, device=DEVICE, dtype=dtype)


def _padded(folder: Path) -> PaddedEncoder:
    return PaddedEncoder.load(folder, device=DEVICE, dtype=torch.float32)


def _gradients(encoder: PackedEncoder) -> dict[str, torch.Tensor]:
    """By the names on disk."""
    encoder.model.finish_gradients()
    return dict(encoder.model.on_disk(encoder.model.gradient))


def _assert_same_vectors(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding.of_vectors(CONFIG, expected))


def test_the_same_vectors_in_the_texts_order(folder: Path) -> None:
    expected = _padded(folder).embed(TEXTS, role="query")
    encoder = _packed(folder)
    encoder._budget = 16  # several packs
    seen: list[tuple[int, int]] = []
    found = encoder.embed(TEXTS, role="query", progress=lambda done, total: seen.append((done, total)))
    _assert_same_vectors(found, expected)
    assert seen[-1] == (3, 3)
    assert encoder.embed([], role="query").shape == (0, 64)


@pytest.mark.parametrize("budget", [4, 30, 1000])
def test_packs_are_filled_across_the_parts_that_are_tokenized(
    folder: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr("embedding_stages.encoder.packed.encoder._FIRST_TEXTS", 1)
    monkeypatch.setattr("embedding_stages.encoder.packed.encoder._MOST_TEXTS", 3)
    texts = [f"key{number} of noise{number % 3}" for number in range(9)]
    encoder = _packed(folder)
    encoder._budget = budget
    found = encoder.embed(texts, role="query")
    _assert_same_vectors(found, _padded(folder).embed(texts, role="query"))


def test_the_same_gradients(folder: Path) -> None:
    padded, packed = _padded(folder), _packed(folder)
    packed.model.hold_gradients()
    weights = torch.randn(len(ROWS), 64, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
    (padded.vectors(ROWS) * weights).sum().backward()
    expected = {name: value.grad for name, value in padded.module.named_parameters()}
    for rows in ([0, 1, 2], [3, 4]):  # two packs add up
        pack = packed.send(packed.pack(Ragged.of(ROWS), rows))
        (packed.vectors(pack) * weights[rows]).sum().backward()
    rounding.assert_same_gradients(_gradients(packed), expected, terms=TERMS, skip=NOTHING)


def test_gradients_are_returned_where_none_are_held(tmp_path: Path) -> None:
    """As wrappers expect that shard parameters."""
    folder = _llama(tmp_path)
    held, plain = _packed(folder), _packed(folder)
    held.model.hold_gradients()
    for encoder in (held, plain):
        encoder.vectors(encoder.send(encoder.pack(Ragged.of(ROWS), [0, 3])))[:, 0].sum().backward()
    held.model.finish_gradients()
    for name, value in plain.model.named.items():
        torch.testing.assert_close(value.grad, held.model.named[name].grad)


def test_saved_under_the_names_and_in_the_type_it_came_in(folder: Path, tmp_path: Path) -> None:
    encoder = _packed(folder)
    encoder.save(tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    found = _padded(tmp_path).embed(TEXTS, role="passage")
    _assert_same_vectors(found, encoder.embed(TEXTS, role="passage"))


def test_half_the_bits_stay_close(folder: Path) -> None:
    exact = _padded(folder).embed(TEXTS, role="passage")
    rounded = _packed(folder, SHORT).embed(TEXTS, role="passage")
    assert (exact * rounded).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("budget", [32, 1024], ids=["several packs", "one pack"])
def test_gradients_of_a_ranking_are_those_on_paper(folder: Path, budget: int) -> None:
    padded, encoder = _padded(folder), _packed(folder)
    examples = scored(EXAMPLES)
    assert [len(example.scores) for example in examples] == [2, 3], "lists of uneven length"
    expected = ranking_losses(padded.vectors(ROWS), examples, 0.1).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    trainer = PackedTrainer(encoder, temperature=0.1, weight_decay=0.01, token_budget=budget)
    loss = trainer._agreed_gradients(examples, Ragged.of(ROWS), weight=1 / len(examples))
    assert float(loss) == pytest.approx(float(expected.detach()), rel=0, abs=rounding.of_loss(CONFIG, temperature=0.1))
    wanted = {name: value.grad for name, value in padded.module.named_parameters()}
    rounding.assert_same_gradients(dict(encoder.model.on_disk(trainer.gradient)), wanted, terms=TERMS, skip=NOTHING)


def test_training_takes_the_same_steps(folder: Path) -> None:
    padded = Trainer(_padded(folder), temperature=0.1, weight_decay=0.01, micro_batch=4, texts_per_example=4)
    packed = PackedTrainer(_packed(folder), temperature=0.1, weight_decay=0.01, token_budget=32)
    texts = Ragged.of(ROWS)
    limits = rounding.TrainedLimits(TERMS)
    for rate in (1e-3, 1e-2):
        expected = padded.step(EXAMPLES, ROWS, rate)
        found = packed.step(EXAMPLES, texts, rate, following=EXAMPLES)
        limits.after_step(padded.tensors(), rate)
        assert found.loss == pytest.approx(expected.loss, rel=0, abs=rounding.of_loss(CONFIG, temperature=0.1))
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=rounding.of_sum(TERMS))
    limits.assert_same(packed.tensors(), skip=NOTHING)
    limits.assert_same({f"weights.{name}": value for name, value in packed.encoder.model.on_disk()}, skip=NOTHING)


def test_a_step_with_infinite_loss_leaves_everything(folder: Path) -> None:
    trainer = PackedTrainer(_packed(folder), temperature=1e-42, weight_decay=0.01, token_budget=64)
    before = trainer.master.clone()
    with pytest.raises(StageError, match="lower the learning rate"):
        trainer.step(EXAMPLES, Ragged.of(ROWS), 1e-2)
    torch.testing.assert_close(trainer.master, before, rtol=0, atol=0)
    assert not trainer.gradient.any()
    assert trainer.updates == 0


def test_out_of_memory_halves_the_packs_and_repeats_the_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = PackedTrainer(_packed(folder), temperature=0.1, weight_decay=0.0, token_budget=2048)
    trainer = PackedTrainer(_packed(folder), temperature=0.1, weight_decay=0.0, token_budget=8192)
    send, failures = trainer.encoder.send, [2]

    def short_of_memory(*arguments: object) -> object:
        if failures[0]:
            failures[0] -= 1
            raise torch.OutOfMemoryError("no room")
        return send(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.encoder, "send", short_of_memory)
    texts = Ragged.of(ROWS)
    assert trainer.step(EXAMPLES, texts, 1e-3) == expected.step(EXAMPLES, texts, 1e-3)
    assert trainer.token_budget == 2048
    failures[0] = 10**6
    with pytest.raises(OutOfMemory, match="maxTokens"):
        trainer.step(EXAMPLES, texts, 1e-3)


_MINISTRAL = {"model_type": "ministral3", "num_key_value_heads": 2}
_GROWING = {"rope_theta": 1e4, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 8}
_GEMMA = {"model_type": "gemma3_text", "num_key_value_heads": 2, "use_bidirectional_attention": True}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attention_bias": True}, "biases"),
        ({"mlp_bias": True}, "biases"),
        ({"model_type": "modernbert", "pad_token_id": 0, "norm_bias": True}, "biases"),
        ({"hidden_act": "relu"}, "activation relu"),
        ({"num_key_value_heads": 3}, "4 heads of 16 for 3 key heads"),
        ({"head_dim": 96}, "4 heads of 96"),
        ({"num_attention_heads": 5}, "the library refuses"),
        ({"model_type": "gpt2"}, "model_type gpt2"),
        ({**_MINISTRAL, "sliding_window": 5}, "a window in every layer"),
        ({**_MINISTRAL, "rope_parameters": {"rope_type": "default", **_GROWING}}, "queries that grow"),
        ({**_GEMMA, "attn_logit_softcapping": 3.0}, "soft cap"),
    ],
)
def test_a_shape_that_packs_cannot_run_says_why(change: dict[str, object], reason: str) -> None:
    config: dict[str, object] = {
        "vocab_size": 10,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    with pytest.raises(ValueError, match=reason):
        shape_of(config | change, positions=16)


def test_a_cpu_gets_the_padded_encoder(folder: Path) -> None:
    kind = PackedEncoder if DEVICE == "cuda" else PaddedEncoder
    assert isinstance(load_encoder(folder), kind)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [[5] * 64]], ids=["several", "one", "a full pack"])
def test_small_packs_give_the_same_vectors(folder: Path, small: SmallPacks, rows: list[list[int]]) -> None:
    expected = _padded(folder).vectors(rows)
    with torch.inference_mode():
        found = [small.vectors(Ragged.of(some)) for some in (rows, [[9] * 30], rows)]
    torch.testing.assert_close(found[0], expected.detach(), rtol=0, atol=rounding.of_vectors(CONFIG, expected.detach()))
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=0)  # nothing of the pack between is left


def test_what_is_no_small_pack_is_left_to_others(small: SmallPacks) -> None:
    with torch.inference_mode():
        assert small.vectors(Ragged.of([[5] * 129])) is None
        assert small.vectors(Ragged.of([[5]] * 17)) is None
