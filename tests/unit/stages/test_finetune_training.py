"""Training steps and the whole finetune stage on tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.stages import rounding
from unit.stages.tiny_models import make_bert, make_llama, run_stage, write_topics

from embedding_stages import contract
from embedding_stages.artefacts import Workspace, digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, ExitCode, Stage, StageRequest, StageResult
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import OutOfMemory, Stopped
from embedding_stages.finetune import on_cpu
from embedding_stages.finetune.dataset import TrainingSet, load_training_set
from embedding_stages.finetune.lanes import Encode
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.runner import StageContext, run

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "globalBatchSize": 8,
    "microBatchSize": 2,
    "learningRate": 3e-3,
    "negativesPerQuery": 3,
    "checkpointEverySteps": 2,
}
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
LOSS_LIMIT = rounding.of_loss(CONFIG, temperature=0.1)
NO_GRADIENT = "key.bias"  # softmax cancels it: its gradient is rounding alone


def made(root: Path) -> Path:
    """A workspace: two tiny models and a set to train on."""
    make_bert(root / "bert")
    make_llama(root / "llama")
    write_topics(root / "set")
    return root


@contextmanager
def micro_batches() -> Iterator[None]:
    """On a CPU too: the tests' sets would else be one part, whatever the micro-batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_cpu, "TOKENS", 0)
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(params=["bert", "llama"])
def base(request: pytest.FixtureRequest, workspace: Path) -> Path:
    return workspace / str(request.param)


@pytest.fixture(autouse=True, scope="module")
def micro_batches_count() -> Iterator[None]:
    with micro_batches():
        yield


def trainer_of(base: Path, **changes: Any) -> Trainer:
    options: dict[str, Any] = {"temperature": 0.1, "weight_decay": 0.01, "micro_batch": 4, "texts_per_example": 1}
    return Trainer(PaddedEncoder.load(base, device="cpu", dtype=torch.float32), **options | changes)


def encodes_by(trainer: Trainer, encode: Encode) -> None:
    """In one lane: others have copies of the encoder's own."""
    trainer._encode, trainer._lanes = encode, None


def data_of(workspace: Path, trainer: Trainer) -> TrainingSet:
    return load_training_set(workspace / "set", trainer.encoder.tokenizer, negatives_per_query=3)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.parameters.items()}


def terms_of(data: TrainingSet) -> int:
    return rounding.backward_terms(CONFIG, tokens=sum(data.lengths))


def gradients(trainer: Trainer, data: TrainingSet) -> tuple[float, dict[str, torch.Tensor]]:
    loss = trainer._gradients(data.examples, data.rows, data.lengths, weight=1.0 / len(data.examples))
    return loss, {name: value.grad.clone() for name, value in trainer.parameters.items() if value.grad is not None}


def test_gradients_are_those_of_the_plain_loss_for_any_micro_batch(base: Path, workspace: Path) -> None:
    plain = trainer_of(base)
    data = data_of(workspace, plain)
    table = plain.encoder.vectors(data.rows)
    queries = table[[example.query for example in data.examples]]
    candidates = table[torch.tensor([example.candidates for example in data.examples])]
    logits = torch.einsum("nh,nch->nc", queries, candidates) / 0.1
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = {name: value.grad for name, value in plain.parameters.items()}
    for micro_batch in (1, 4, 1000):
        loss, got = gradients(trainer_of(base, micro_batch=micro_batch), data)
        assert loss == pytest.approx(float(expected.detach()), rel=0, abs=LOSS_LIMIT)
        rounding.assert_same_gradients(got, wanted, terms=terms_of(data), skip=NO_GRADIENT)


def test_bfloat16_products_keep_float32_gradients_close(base: Path, workspace: Path) -> None:
    exact, fast = trainer_of(base), trainer_of(base, bfloat16=True)
    data = data_of(workspace, exact)
    (loss, wanted), (fast_loss, got) = gradients(exact, data), gradients(fast, data)
    assert fast_loss == pytest.approx(loss, rel=0.05)
    assert fast_loss != loss
    flat = [torch.cat([value.flatten() for value in side.values()]) for side in (wanted, got)]
    assert all(value.dtype == torch.float32 for value in got.values())
    assert torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0) > 0.98


def test_micro_batches_of_one_and_four_give_the_same_weights(workspace: Path) -> None:
    one, four = (trainer_of(workspace / "bert", micro_batch=size) for size in (1, 4))
    data = data_of(workspace, one)
    limits = rounding.TrainedLimits(terms_of(data))
    for _ in range(2):
        one.step(data.examples[:7], data.rows, 1e-3)
        limits.after_step(one.tensors(), 1e-3)
        four.step(data.examples[:7], data.rows, 1e-3)
    limits.assert_same(four.tensors(), skip=NO_GRADIENT)


def test_a_table_whose_gradient_is_kept_as_rows_learns_the_same(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = trainer_of(workspace / "bert", micro_batch=1)
    monkeypatch.setattr(on_cpu, "_LARGE", 1)
    rows = trainer_of(workspace / "bert", micro_batch=1)
    data = data_of(workspace, dense)
    limits = rounding.TrainedLimits(terms_of(data))
    _, gathered = gradients(rows, data)
    assert any(value.is_sparse for value in gathered.values())
    rows.optimizer.zero_grad()
    for _ in range(2):
        loss = dense.step(data.examples[:7], data.rows, 1e-3).loss
        limits.after_step(dense.tensors(), 1e-3)
        assert rows.step(data.examples[:7], data.rows, 1e-3).loss == pytest.approx(loss, rel=0, abs=LOSS_LIMIT)
    limits.assert_same(rows.tensors(), skip=NO_GRADIENT)


def test_a_cpu_takes_more_texts_a_pass_than_the_micro_batch(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(tokens: int) -> int:
        monkeypatch.setattr(on_cpu, "TOKENS", tokens)
        sizes: list[int] = []
        trainer = trainer_of(workspace / "bert", micro_batch=1)
        encodes_by(trainer, lambda rows: (sizes.append(len(rows)), trainer.encoder.vectors(rows))[1])
        data = data_of(workspace, trainer)
        trainer.step(data.examples, data.rows, 1e-3)
        return len(sizes)

    assert passes(4096) < passes(0)


def test_biases_and_norms_do_not_decay(base: Path) -> None:
    trainer = trainer_of(base)
    decayed, plain = trainer.optimizer.param_groups
    names = {id(value): name for name, value in trainer.parameters.items()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    spared = {names[id(value)] for value in plain["params"]}
    assert spared == {name for name in names.values() if "norm" in name.lower() or name.endswith("bias")}
    assert len(decayed["params"]) + len(spared) == len(names)


class SmallMemory:
    """Encodes like the encoder, but fails like a GPU above `limit` padded tokens a pass."""

    def __init__(self, encoder: PaddedEncoder, limit: int) -> None:
        self.encoder, self.limit = encoder, limit

    def __call__(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        if len(rows) * max(map(len, rows)) > self.limit:
            raise torch.OutOfMemoryError("no memory left\nmore")
        return self.encoder.vectors(rows)


def test_too_small_a_memory_halves_the_micro_batch_and_keeps_the_step(workspace: Path) -> None:
    roomy, tight = trainer_of(workspace / "bert"), trainer_of(workspace / "bert")
    encodes_by(tight, SmallMemory(tight.encoder, limit=tight.encoder.description.max_tokens))
    data = data_of(workspace, roomy)
    reports = [trainer.step(data.examples, data.rows, 1e-3) for trainer in (roomy, tight)]
    assert (roomy.micro_batch, tight.micro_batch) == (4, 1)
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=0, abs=LOSS_LIMIT)
    limits = rounding.TrainedLimits(terms_of(data))
    limits.after_step(roomy.tensors(), 1e-3)
    limits.assert_same(tight.tensors(), skip=NO_GRADIENT)


def test_a_memory_too_small_for_one_example_is_said(workspace: Path) -> None:
    trainer = trainer_of(workspace / "bert")
    encodes_by(trainer, SmallMemory(trainer.encoder, limit=1))
    data = data_of(workspace, trainer)
    with pytest.raises(OutOfMemory) as caught:
        trainer.step(data.examples, data.rows, 1e-3)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_a_loss_that_is_not_finite_stops_without_an_update(workspace: Path) -> None:
    trainer = trainer_of(workspace / "bert", temperature=float("nan"))
    data = data_of(workspace, trainer)
    before = weights_of(trainer)
    with pytest.raises(Stopped) as caught:
        trainer.step(data.examples, data.rows, 1e-3)
    assert (caught.value.reason, caught.value.field) == ("LossNotFinite", "spec.stages.finetune.learningRate")
    assert all(torch.equal(value, before[name]) for name, value in weights_of(trainer).items())


def separation(folder: Path, workspace: Path) -> float:
    """Mean of cosine(query, positive) - cosine(query, hardest negative)."""
    encoder = PaddedEncoder.load(folder, device="cpu")
    lines = [json.loads(line) for line in (workspace / "set" / "passages.jsonl").read_text().splitlines()]
    place = {line["id"]: number for number, line in enumerate(lines)}
    passages = encoder.embed([line["text"] for line in lines], role="passage")
    gaps = []
    for text in (workspace / "set" / "train.jsonl").read_text().splitlines():
        record = json.loads(text)
        scores = passages @ encoder.embed([record["query"]], role="query")[0]
        gaps.append(scores[place[record["positive"]]] - max(scores[place[name]] for name in record["negatives"]))
    return float(np.mean(gaps))


def stage(workspace: Path, base: Path, fingerprint: str, **changes: Any) -> tuple[int, StageResult]:
    inputs = {Artefact.BASE_MODEL: base, Artefact.TRAINING_SET: workspace / "set"}
    return run_stage(
        Stage.FINETUNE, work, workspace, settings=SETTINGS | changes, inputs=inputs, fingerprint=fingerprint
    )


def test_the_stage_separates_positives_from_negatives(base: Path, workspace: Path) -> None:
    code, result = stage(workspace, base, f"sep-{base.name}", epochs=12, temperature=0.05)
    assert code == ExitCode.DONE
    assert result.counts == {"examples": 24, "steps": 36, "globalBatchSize": 8, "microBatchSize": 2}
    assert result.details["lastLoss"] < 0.7 * result.details["firstLoss"]
    assert result.details["precision"] == "fp32"
    assert len(result.details["warnings"]) == 1
    checkpoint = workspace / result.artefacts[Artefact.CHECKPOINT].path
    assert separation(checkpoint, workspace) > separation(base, workspace) + 0.2
    assert not list(checkpoint.parent.glob("scratch-*"))
    card = (checkpoint / "README.md").read_text()
    assert "on 24 questions" in card
    assert "training set `sha256:" in card


@pytest.mark.parametrize("side", ["both", "query"])
def test_the_card_counts_questions_and_not_the_passages_that_answer_them(side: str, workspace: Path) -> None:
    folder = write_topics(workspace / f"answered-twice-{side}")
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    more = [record | {"positive": other["positive"]} for record, other in zip(records[::2], records[1::2], strict=True)]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*records, *more]))
    inputs = {Artefact.BASE_MODEL: workspace / "bert", Artefact.TRAINING_SET: folder}
    settings = SETTINGS | {"epochs": 1, "side": side}
    code, result = run_stage(Stage.FINETUNE, work, workspace, settings=settings, inputs=inputs, fingerprint=folder.name)
    assert (code, result.counts["examples"]) == (ExitCode.DONE, 36), result.message
    assert "on 24 questions" in (workspace / result.artefacts[Artefact.CHECKPOINT].path / "README.md").read_text()


def test_a_set_without_negatives_ends_as_bad_input(workspace: Path) -> None:
    folder = write_topics(workspace / "broken")
    (folder / "train.jsonl").write_text(json.dumps({"query": "a", "positive": "p0-0", "negatives": []}) + "\n")
    inputs = {Artefact.BASE_MODEL: workspace / "bert", Artefact.TRAINING_SET: folder}
    code, result = run_stage(Stage.FINETUNE, work, workspace, settings=SETTINGS, inputs=inputs, fingerprint="broken")
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "NegativesMissing")


@pytest.mark.parametrize("data", ["set", "broken"])
def test_a_process_that_does_not_lead_publishes_nothing_and_logs_failures_alone(
    data: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if data == "broken":
        (workspace / data).mkdir(exist_ok=True)
    request = context_of(workspace, f"follows-{data}").request
    request = replace(
        request,
        settings=SETTINGS | {"epochs": 1},
        inputs={
            name: ArtefactRef(path=folder, digest=digest_of_folder(workspace / folder))
            for name, folder in ((Artefact.BASE_MODEL, "bert"), (Artefact.TRAINING_SET, data))
        },
    )
    env = {
        contract.ENV_REQUEST: request.to_json(),
        contract.ENV_WORKSPACE: str(workspace),
        contract.ENV_TERMINATION_LOG: str(workspace / "follower-log"),
    }
    code = run(Stage.FINETUNE, work, env, leads=False)
    result = StageResult.from_json((workspace / "follower-log").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert not (workspace / "finetune" / request.fingerprint).exists()
    if data == "set":
        assert (code, lines, dict(result.artefacts)) == (ExitCode.DONE, [], {})
    else:
        assert code == ExitCode.BAD_INPUT
        assert [json.loads(line)["message"] for line in lines] == ["stage ended"]


def test_the_gpus_precision_trains_on_a_cpu_too(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_stages.finetune.stage.trains_in_bfloat16", lambda _: True)
    code, result = stage(workspace, workspace / "bert", "bf16", epochs=1)
    assert (code, result.details["precision"]) == (ExitCode.DONE, "bf16")


def context_of(workspace: Path, fingerprint: str) -> StageContext:
    request = StageRequest(
        stage=Stage.FINETUNE,
        fingerprint=fingerprint,
        attempt=1,
        revision=1,
        image="test",
        settings=SETTINGS,
        inputs={Artefact.BASE_MODEL: ArtefactRef(path="bert", digest="")},
    )
    return StageContext(request=request, workspace=Workspace(workspace), sources=workspace, secrets=workspace)
