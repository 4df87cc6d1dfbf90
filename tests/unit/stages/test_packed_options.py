"""What trains over packs as it does over padded batches: adapters, in-batch negatives and Dense modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.stages import rounding
from unit.stages.tiny_families import make_gemma3, make_modernbert, make_qwen3
from unit.stages.tiny_models import make_bert, make_llama, make_mpnet

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.in_batch import Pool
from embedding_stages.finetune.lora import add_adapters
from embedding_stages.finetune.packed_lora import add_packed_adapters
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.trainer import Trainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = {"hidden_size": 64, "num_hidden_layers": 2}  # of the tiny models: the wider ones' limits
ROWS = [[5, 6, 7], [9, 4] * 10, [8], [5, 6, 9, 11], [12] * 7, [9, 4] * 10]
# Row 5 has the text of row 1: a pool holds it once.
EXAMPLES = [Example(0, (1, 2)), Example(3, (4, 2, 5)), Example(0, (4, 2))]
DATA = TrainingSet(rows=ROWS, examples=EXAMPLES)
TERMS = rounding.backward_terms(CONFIG, tokens=sum(map(len, ROWS)))
LOSS_LIMIT = rounding.of_loss(CONFIG, temperature=0.1)
NOTHING = ("key.bias", "attn.k.bias")  # whose gradient is rounding alone


@dataclass(frozen=True)
class Case:
    """A model, and how it is trained."""

    make: Callable[..., Path]
    config: Mapping[str, Any]
    targets: tuple[str, ...] = ()  # of adapters; without, all weights are trained
    pool: bool = False
    sizes: tuple[int, ...] = ()

    @property
    def lora(self) -> Lora | None:
        return Lora(rank=4, alpha=8, targets=self.targets) if self.targets else None


ALL = ("all-linear",)
CASES = {
    "Llama, adapters everywhere": Case(make_llama, CONFIG, ALL),
    "Llama, two of three": Case(make_llama, CONFIG, ("q_proj", "v_proj")),
    "Llama, one layer alone": Case(make_llama, CONFIG, ("layers.1.mlp.down_proj",)),
    "BERT, adapters everywhere": Case(make_bert, CONFIG, ALL),
    "BERT, one of two": Case(make_bert, CONFIG, ("query", "attention.output.dense"), sizes=(16,)),
    "ModernBERT, adapters everywhere": Case(make_modernbert, {"hidden_size": 64}, ALL),
    "Qwen3, adapters everywhere": Case(make_qwen3, {}, ALL),
    "Gemma 3, adapters before Dense modules": Case(make_gemma3, {}, ALL),
    "Gemma 3, all weights": Case(make_gemma3, {}),
    "MPNet, all weights": Case(make_mpnet, CONFIG),
    "MPNet, adapters everywhere": Case(make_mpnet, CONFIG, ALL),
    "Llama, a pool": Case(make_llama, CONFIG, pool=True, sizes=(16,)),
    "Gemma 3, adapters and a pool": Case(make_gemma3, {}, ("q_proj",), pool=True),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.make(tmp_path_factory.mktemp("models") / "model", **case.config)


def _options(case: Case) -> dict[str, Any]:
    pool = Pool(DATA) if case.pool else None
    return {"temperature": 0.1, "weight_decay": 0.01, "sizes": case.sizes, "pool": pool}


def padded_trainer(case: Case, folder: Path) -> Trainer:
    encoder = PaddedEncoder.load(folder, device=DEVICE, dtype=torch.float32)
    adapters = add_adapters(encoder, case.lora, seed=3) if case.lora else None
    return Trainer(encoder, micro_batch=4, texts_per_example=4, adapters=adapters, **_options(case))


def packed_trainer(case: Case, folder: Path, budget: int = 32) -> PackedTrainer:
    encoder = PackedEncoder.load(folder, device=DEVICE, dtype=torch.float32)
    adapters = add_packed_adapters(encoder, case.lora, seed=3) if case.lora else None
    return PackedTrainer(encoder, token_budget=budget, adapters=adapters, **_options(case))


def begun(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With adapters that do something: of a B of zeros A's first gradient is zero, and its next one B's rounding."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) / 8
        if name.startswith("weights.") and name.endswith(".lora_B")
        else value
        for name, value in state.items()
    }


def test_training_takes_the_same_steps_and_leaves_the_same_model(case: Case, folder: Path, tmp_path: Path) -> None:
    padded, packed = padded_trainer(case, folder), packed_trainer(case, folder)
    before = {name: value.clone() for name, value in packed.encoder.model.views()}
    assert packed.tensors().keys() == padded.tensors().keys(), "a resume point of either is one of the other"
    assert packed.trained == padded.trained
    state = begun(padded.tensors())
    for trainer in (padded, packed):
        trainer.restore(state, step=0, micro_batch=4)
    limits = rounding.TrainedLimits(TERMS)
    for rate in (1e-3, 1e-2):
        expected = padded.step(EXAMPLES, ROWS, rate)
        found = packed.step(EXAMPLES, Ragged.of(ROWS), rate, following=EXAMPLES)
        limits.after_step(padded.tensors(), rate)
        assert found.loss == pytest.approx(expected.loss, rel=0, abs=LOSS_LIMIT)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=rounding.of_sum(TERMS))
    limits.assert_same(packed.tensors(), skip=NOTHING)
    limits.assert_same({f"weights.{name}": value for name, value in packed.moved.views()}, skip=NOTHING)
    if case.lora:
        frozen = dict(packed.encoder.model.views())
        assert all(torch.equal(value, frozen[name]) for name, value in before.items())
        assert packed.encoder.model.gradient is None, "no memory for the gradients of what is not trained"

    packed.save(tmp_path / "packed", folder)
    padded.save(tmp_path / "padded", folder)
    saved, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("packed", "padded"))
    assert saved.keys() == wanted.keys()
    files = [sorted(path.relative_to(root) for path in root.rglob("*")) for root in tmp_path.iterdir()]
    assert files[0] == files[1]
    loaded = PaddedEncoder.load(tmp_path / "packed", device=DEVICE, dtype=torch.float32).vectors(ROWS).detach()
    trained = packed.embed(range(len(ROWS)), Ragged.of(ROWS))
    torch.testing.assert_close(trained, loaded, rtol=0, atol=4 * rounding.of_vectors(CONFIG, loaded))


@pytest.fixture(scope="module")
def stepped(case: Case, folder: Path) -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What a trainer says of its first step, and its tensors after the first and after the second."""
    trainer, texts = packed_trainer(case, folder, budget=2048), Ragged.of(ROWS)
    said = trainer.step(EXAMPLES, texts, 1e-2)
    first = {name: value.clone() for name, value in trainer.tensors().items()}
    trainer.step(EXAMPLES, texts, 1e-2)
    return said, first, trainer.tensors()


def test_a_resumed_run_is_exact(case: Case, folder: Path, stepped: Any) -> None:
    _, first, second = stepped
    resumed = packed_trainer(case, folder, budget=2048)
    resumed.restore({name: value.clone() for name, value in first.items()}, step=1, micro_batch=1)
    resumed.step(EXAMPLES, Ragged.of(ROWS), 1e-2)
    assert all(torch.equal(value, resumed.tensors()[name]) for name, value in second.items())


def test_memory_that_is_short_makes_smaller_packs(
    case: Case, folder: Path, stepped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = packed_trainer(case, folder, budget=4096)
    send, failures = trainer.encoder.send, [1]

    def short_of_memory(*arguments: Any) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise torch.OutOfMemoryError("no room")
        return send(*arguments)

    monkeypatch.setattr(trainer.encoder, "send", short_of_memory)
    assert trainer.step(EXAMPLES, Ragged.of(ROWS), 1e-2) == stepped[0]
    assert trainer.token_budget == 2048


def test_dense_modules_give_the_padded_vectors_and_keep_their_format(tmp_path: Path) -> None:
    """They are float32 beside layers in half precision, as in EmbeddingGemma's folder."""
    base = make_gemma3(tmp_path / "base")
    texts = ["the key1 of", "", "noise1 noise2 key7 a"]
    encoder = PackedEncoder.load(base, device=DEVICE, dtype=torch.float32)
    expected = PaddedEncoder.load(base, device=DEVICE, dtype=torch.float32).embed(texts, role="query")
    found = encoder.embed(texts, role="query")
    assert found.shape == (3, encoder.description.vector_size) == (3, 32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding.of_vectors(CONFIG, expected))
    encoder.save(tmp_path / "saved", encoder.master_weights())
    for module in ("2_Dense", "3_Dense"):
        before, after = (load_file(root / module / "model.safetensors") for root in (base, tmp_path / "saved"))
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
