"""The eval stage under the real frame, with tiny models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.stages.query_maps import a_map, with_map
from unit.stages.test_evaluate_set import write
from unit.stages.tiny_models import TOPICS, make_bert, run_stage

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import TERMINATION_MESSAGE_BYTES, Artefact, ExitCode, Stage, StageResult
from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import BadInput, Stopped
from embedding_stages.evaluate.canaries import embed_canaries
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.evaluate.metrics import measure
from embedding_stages.evaluate.stage import Settings, evaluate_model, work

METRICS = {f"{name}@{k}" for name in ("ndcg", "map", "recall", "precision") for k in (1, 5, 10, 100)}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name, seed in (("base", 0), ("tuned", 1)):
        folder = make_bert(tmp_path / name, seed=seed)
        describe_model(folder, prefixes=None, max_tokens=None).save(folder)
    corpus = [{"_id": f"p{at}", "title": "", "text": f"the key{at} of a"} for at in range(TOPICS)]
    queries = [{"_id": f"q{at}", "text": f"ask{at} key{at}"} for at in range(TOPICS)]
    judgements = "query-id\tcorpus-id\tscore\n" + "".join(f"q{at}\tp{at}\t1\n" for at in range(TOPICS))
    write(tmp_path / "set", corpus, queries, judgements)
    return tmp_path


def evaluate(
    workspace: Path, settings: dict[str, Any] | None = None, more: dict[Artefact, Path] | None = None
) -> tuple[int, StageResult]:
    inputs = {
        Artefact.BASE_MODEL: workspace / "base",
        Artefact.CHECKPOINT: workspace / "tuned",
        Artefact.EVALUATION_SET: workspace / "set",
        **(more or {}),
    }
    return run_stage(Stage.EVAL, work, workspace, settings=settings or {}, inputs=inputs)


def report_of(workspace: Path, result: StageResult) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        (workspace / result.artefacts[Artefact.EVAL_REPORT].path / "report.json").read_text()
    )
    return report


def test_result_and_report_hold_the_same_numbers(workspace: Path) -> None:
    code, result = evaluate(workspace)
    report = report_of(workspace, result)
    assert code == ExitCode.DONE
    assert result.metrics["base"].keys() == result.metrics["fineTuned"].keys() == METRICS
    assert report["metrics"] == result.metrics
    assert result.metrics["base"] != result.metrics["fineTuned"]
    assert result.counts == {"queries": TOPICS, "passages": TOPICS, "unknownPassages": 0}
    assert result.details == {
        "headline": "ndcg@10",
        "relativeUplift": report["relativeUplift"],
        "confidenceInterval": report["confidenceInterval"],
        "precision": "bfloat16" if torch.cuda.is_available() else "float32",
        "comparisons": report["comparisons"],
        "dimensions": {},
        "evaluationSet": digest_of_folder(workspace / "set"),
        "activeCheckpoint": None,
    }
    ratio = result.metrics["fineTuned"]["ndcg@10"] / result.metrics["base"]["ndcg@10"] - 1
    assert report["relativeUplift"] == pytest.approx(ratio, abs=1e-5)
    low, high = report["confidenceInterval"]
    assert low <= ratio <= high
    assert report["perQuery"]["base"].keys() == {f"q{at}" for at in range(TOPICS)}
    assert report["digests"].keys() == {"baseModel", "checkpoint", "evaluationSet"}


def test_a_query_map_counts_for_queries_and_for_their_canaries_alone(workspace: Path) -> None:
    shutil.rmtree(workspace / "tuned")
    with_map(workspace / "base", workspace / "tuned", a_map(32))
    code, result = evaluate(workspace, {"precision": "float32"})
    assert code == ExitCode.DONE, result.message
    tuned, base = (PaddedEncoder.load(workspace / name, device="cpu") for name in ("tuned", "base"))
    evaluation_set = load_evaluation_set(workspace / "set")
    queries = tuned.embed(evaluation_set.queries, role="query")
    passages = base.embed(evaluation_set.passages, role="passage")
    assert result.metrics["fineTuned"] == measure(evaluation_set, queries, passages, (1, 5, 10, 100)).means
    assert result.metrics["fineTuned"] != result.metrics["base"]
    told = report_of(workspace, result)["canaries"]
    of_base = embed_canaries(lambda texts, role: base.embed(texts, role=role))
    assert told["passage"] == of_base["passage"]
    assert told["query"] != of_base["query"]


def test_passages_of_a_query_map_are_embedded_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(workspace / "tuned")
    with_map(workspace / "base", workspace / "tuned", a_map(32))
    seen: list[tuple[str, int]] = []
    embed = PaddedEncoder.embed

    def watched(self: PaddedEncoder, texts: Sequence[str], **options: Any) -> Any:
        seen.append((options["role"], len(texts)))
        return embed(self, texts, **options)

    monkeypatch.setattr(PaddedEncoder, "embed", watched)
    assert evaluate(workspace)[0] == ExitCode.DONE
    canaries = ("query", 8), ("passage", 8)
    assert sorted(seen) == sorted([("passage", TOPICS), ("query", TOPICS), ("query", TOPICS), *canaries])


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_both_models_compute_in_the_precision_that_is_served(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    embed = PaddedEncoder.embed

    def watched(self: PaddedEncoder, texts: Sequence[str], **options: Any) -> Any:
        seen.append(next(self.module.parameters()).dtype)
        return embed(self, texts, **options)

    monkeypatch.setattr(PaddedEncoder, "embed", watched)
    code, result = evaluate(workspace, {"precision": precision})
    assert (code, set(seen), len(seen)) == (ExitCode.DONE, {dtype}, 4 + 2)
    assert result.details["precision"] == report_of(workspace, result)["precision"] == precision
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_message_fits_with_room_to_spare(workspace: Path) -> None:
    _, result = evaluate(workspace, {"kValues": [1, 3, 5, 10, 20, 50, 100, 1000]})
    assert len(result.to_json().encode()) < TERMINATION_MESSAGE_BYTES * 0.8


def test_the_same_model_twice_has_no_uplift(workspace: Path) -> None:
    shutil.rmtree(workspace / "tuned")
    shutil.copytree(workspace / "base", workspace / "tuned")
    _, result = evaluate(workspace)
    assert result.details["relativeUplift"] == 0.0
    assert result.details["confidenceInterval"] == [0.0, 0.0]


def test_an_interrupted_attempt_does_not_embed_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    embed = PaddedEncoder.embed

    def counted(self: PaddedEncoder, texts: Sequence[str], **options: Any) -> Any:
        seen.append(len(texts))
        if len(seen) == 3:
            raise ConnectionError("the node went away")
        return embed(self, texts, **options)

    monkeypatch.setattr(PaddedEncoder, "embed", counted)
    assert evaluate(workspace)[0] == ExitCode.TRANSIENT
    (first,) = workspace.glob("eval/*.partial/scratch-vectors/base-passage-*.npy")
    first.write_bytes(first.read_bytes()[:100])  # cut off by the crash: embedded again
    code, result = evaluate(workspace)
    assert code == ExitCode.DONE
    assert len(seen) == 3 + 3 + 2  # and the canaries of each role
    assert not list(workspace.glob("eval/*/scratch-*"))
    assert result.metrics["base"]["recall@100"] == 1.0


def test_batches_shrink_until_they_fit(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = PaddedEncoder.embed

    def small_memory(self: PaddedEncoder, texts: Sequence[str], *, batch_size: int, **options: Any) -> Any:
        if batch_size > 3:
            raise torch.OutOfMemoryError("no room")
        return embed(self, texts, batch_size=batch_size, **options)

    monkeypatch.setattr(PaddedEncoder, "embed", small_memory)
    code, _ = evaluate(workspace)
    assert code == ExitCode.DONE


def test_one_text_that_does_not_fit_is_out_of_memory(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(PaddedEncoder, "embed", no_memory)
    code, result = evaluate(workspace)
    assert (code, result.reason) == (ExitCode.OUT_OF_MEMORY, "GPUOutOfMemory")


def answering(value: float) -> Callable[[list[str], Any], np.ndarray]:
    return lambda texts, _role: np.full((len(texts), 4), value, dtype=np.float32)


def test_a_model_that_diverged_is_stopped_and_a_damaged_base_is_bad_input(workspace: Path) -> None:
    evaluation_set = load_evaluation_set(workspace / "set")
    with pytest.raises(Stopped, match="lower the learning rate") as stopped:
        evaluate_model("fineTuned", evaluation_set, answering(np.nan), (1,))
    with pytest.raises(BadInput, match="choose another revision") as bad:
        evaluate_model("base", evaluation_set, answering(np.inf), (1,))
    assert stopped.value.field == "spec.stages.finetune.learningRate"
    assert bad.value.field == "spec.baseModel"


@pytest.mark.parametrize(
    "raw", [{"batchSize": 0}, {"batchSize": "8"}, {"kValues": [0]}, {"kValues": []}, {"precision": "int8"}]
)
def test_settings_that_are_none(raw: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        Settings.of(raw)
    assert caught.value.reason == "SettingInvalid"


def test_defaults_are_the_recipes() -> None:
    assert Settings.of({}) == Settings(k_values=(1, 5, 10, 100), batch_size=128)
