"""int8 and float8 by ModelOpt, bf16, the gate on cosine and ranking, and what is built when it trips."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from unit.stages.test_export_half import WIDE, modelopt, widened
from unit.stages.tiny_models import MAKERS, TOPICS, make_bert, make_llama, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.contract.settings import Export
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.evaluate.metrics import measure
from embedding_stages.export import stage as export_stage
from embedding_stages.export.build import build_onnx
from embedding_stages.export.calibration import calibration_texts, feeds
from embedding_stages.export.parity import OnnxEncoder, Parity, measure_parity, sample_texts
from embedding_stages.export.quantize import quantizable, quantize_graph
from embedding_stages.export.ranking import ndcg_at_10, ranking_set
from embedding_stages.export.stage import work
from embedding_stages.export.verdict import Candidate, Figures, candidates, fault
from embedding_stages.export.written import write_candidate


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    encoder = PaddedEncoder.load(make_llama(tmp_path / "base", **WIDE), device="cpu", dtype=torch.float32)
    encoder.save(tmp_path / "checkpoint")
    write_topics(tmp_path / "training")
    write_evaluation_set(tmp_path / "evaluation")
    return tmp_path


def write_evaluation_set(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{number}", "text": f"key{number} of noise{number}"} for number in range(TOPICS)]
    queries = [{"_id": f"q{number}", "text": f"ask{number} noise{number}"} for number in range(TOPICS)]
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [f"q{number}\td{(number + step) % TOPICS}\t{2 - step}" for number in range(TOPICS) for step in (0, 1)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


def run_export(workspace: Path, **settings: Any) -> Any:
    inputs = {
        Artefact.CHECKPOINT: workspace / "checkpoint",
        Artefact.EVALUATION_SET: workspace / "evaluation",
        Artefact.TRAINING_SET: workspace / "training",
    }
    return run_stage(Stage.EXPORT, work, workspace, settings=settings, inputs=inputs)


@modelopt
@pytest.mark.parametrize(
    ("family", "changes"),
    [*((name, {}) for name in MAKERS), *(("bert", {"hidden_act": kind}) for kind in ("relu", "gelu_new"))],
    ids=[*MAKERS, "bert with relu", "bert with the tanh GELU"],
)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_every_family_is_quantized(family: str, changes: dict[str, str], kind: Any, tmp_path: Path) -> None:
    wide = changes if family == "gemma3_text" else WIDE | changes  # its Dense modules belong to one size
    encoder = PaddedEncoder.load(MAKERS[family](tmp_path / "m", **wide), device="cpu", dtype=torch.float32)
    texts = [f"key{number} of noise{number}" for number in range(16)]
    batches = list(feeds(texts, encoder.tokenizer, encoder.description))
    (tmp_path / "out").mkdir()
    products = build_onnx(encoder, tmp_path / "graph.onnx", "fp32", opset=19)
    chosen = quantizable(products, kind, encoder.module.config.intermediate_size)
    assert quantize_graph(tmp_path / "graph.onnx", tmp_path / "out" / "model.onnx", kind, chosen, batches) == len(
        chosen
    )
    assert len(chosen) == len(products) - (2 if kind == "int8" else 0)  # of two layers, each leads back once
    encoder.save(tmp_path / "out")
    exported = OnnxEncoder(tmp_path / "out")
    cosines = (exported.embed(texts, role="passage") * encoder.embed(texts, role="passage")).sum(1)
    assert cosines.min() > (0.95 if kind == "int8" else 0.9)
    numbers = {onnx.TensorProto.INT8 if kind == "int8" else onnx.TensorProto.FLOAT8E4M3FN}
    weights = onnx.load(str(tmp_path / "out" / "model.onnx")).graph.initializer
    assert numbers <= {item.data_type for item in weights if len(item.dims) == 2}


@modelopt
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_the_stage_publishes_a_quantized_model(precision: str, quantization: str, workspace: Path) -> None:
    code, result = run_export(workspace, precision=precision, quantization=quantization, minCosine=0.8, maxNdcgDrop=0.3)
    assert (code, result.reason) == (ExitCode.DONE, "Completed"), result.message
    contract = result.details["contract"]
    assert (contract["precision"], contract["quantization"], contract["opset"]) == (precision, quantization, 19)
    built = result.details["built"]
    assert (built["products"], built["quantizedProducts"]) == (14, 12 if quantization == "int8" else 14)
    assert 0 < result.metrics["parity"]["checkpointNdcg@10"] <= 1
    folder = workspace / result.artefacts[Artefact.SERVING_MODEL].path
    assert OnnxEncoder(folder).embed(["key1"], role="passage").shape == (1, 96)
    assert sorted(path.name for path in folder.iterdir() if "onnx" in path.name) == ["model.onnx"]


@modelopt
def test_weights_beside_the_graph_are_quantized_too(workspace: Path) -> None:
    encoder = PaddedEncoder.load(workspace / "checkpoint", device="cpu", dtype=torch.float32)
    source, target = workspace / "g" / "model.onnx", workspace / "o" / "model.onnx"
    for path in (source, target):
        path.parent.mkdir()
    products = build_onnx(encoder, source, "fp32", opset=19, external_above=0)
    batches = list(feeds(calibration_texts(workspace / "training"), encoder.tokenizer, encoder.description))
    assert quantize_graph(source, target, "fp8", products, batches) == len(products)
    encoder.save(target.parent)
    parity = measure_parity(encoder, OnnxEncoder(target.parent), sample_texts(None, encoder.description))
    assert parity.min_cosine > 0.9
    assert sorted(path.name for path in source.parent.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_bf16_is_judged_by_a_graph_that_rounds_as_it_does(workspace: Path) -> None:
    code, result = run_export(workspace, precision="bf16", maxNdcgDrop=0.1)
    assert code == ExitCode.DONE, result.message
    assert result.details["contract"]["precision"] == "bf16"
    folder = workspace / result.artefacts[Artefact.SERVING_MODEL].path
    model = onnx.load(str(folder / "model.onnx"))
    assert onnx.TensorProto.BFLOAT16 in {item.data_type for item in model.graph.initializer}
    encoder = PaddedEncoder.load(workspace / "checkpoint", device="cpu", dtype=torch.float32)
    written = write_candidate(
        Candidate("bf16"), encoder, workspace / "checkpoint", workspace / "f", workspace / "s", list
    )
    found = OnnxEncoder(written.judged).embed(["key1 of"], role="passage")
    exact = encoder.embed(["key1 of"], role="passage")
    assert 1e-4 < np.abs(found - exact).max() < 0.05  # it does round


@modelopt
def test_what_fails_parity_falls_back_and_says_so(workspace: Path) -> None:
    code, result = run_export(workspace, quantization="int8", minCosine=0.99999, onParityFail="FallBack")
    assert (code, result.reason) == (ExitCode.DONE, "ParityFellBack")
    assert result.details["built"]["candidate"] == "fp32"
    assert "quantization" not in result.details["contract"]
    assert [item["candidate"] for item in result.details["left"]] == ["int8 with fp32"]
    assert result.details["warnings"][0].startswith("int8 with fp32 was left, fp32 was built instead: smallest cosine")
    assert result.message == result.details["warnings"][0]
    folder = workspace / result.artefacts[Artefact.SERVING_MODEL].path
    assert onnx.load(str(folder / "model.onnx")).opset_import[0].version == 17


@modelopt
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_a_quantized_model_that_overflows_in_float16_is_not_published(quantization: str, tmp_path: Path) -> None:
    """Of fp16 nothing else would tell: a CPU computes it in float32."""
    widened(make_bert, tmp_path / "base", 2.0**15, **WIDE).save(tmp_path / "checkpoint")
    write_topics(tmp_path / "training")
    write_evaluation_set(tmp_path / "evaluation")
    settings = {"precision": "fp16", "quantization": quantization, "minCosine": 0.5, "maxNdcgDrop": 1.0}
    code, result = run_export(tmp_path, **settings)
    assert (code, result.reason) == (ExitCode.STOPPED, "ParityFailed")
    assert f"in {quantization} with fp16: smallest cosine -1.000000" in result.message
    code, result = run_export(tmp_path, **settings, onParityFail="FallBack")
    assert (code, result.reason) == (ExitCode.DONE, "ParityFellBack")
    assert [item["candidate"] for item in result.details["left"]] == [f"{quantization} with fp16", "fp16"]
    assert result.details["built"]["candidate"] == "fp32"


@modelopt
def test_what_fails_parity_stops_with_a_cure(workspace: Path) -> None:
    code, result = run_export(workspace, quantization="int8", minCosine=0.99999)
    assert (code, result.reason) == (ExitCode.STOPPED, "ParityFailed")
    assert result.field == "spec.stages.export.quantization"
    assert "set it to none, or spec.stages.export.onParityFail to FallBack" in result.message


def test_a_fall_of_the_ranking_alone_trips_the_gate(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.9, 0.8])
    monkeypatch.setattr(export_stage, "ndcg_at_10", lambda *_: next(figures))
    code, result = run_export(workspace, precision="bf16")
    assert (code, result.reason, result.field) == (ExitCode.STOPPED, "ParityFailed", "spec.stages.export.precision")
    assert "NDCG@10 0.8000 where the checkpoint has 0.9000" in result.message


def test_when_all_fail_each_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_stage, "measure_parity", lambda *_: Parity(0.5, 0.1, 85))
    code, result = run_export(workspace, precision="fp16", onParityFail="FallBack")
    assert (code, result.field) == (ExitCode.STOPPED, "spec.stages.deploy.backend")
    assert "in fp32" in result.message
    assert "; fp16 before it: smallest cosine 0.500000" in result.message


REFUSED: list[tuple[Mapping[str, Any], str, str]] = [
    ({"precision": "bf16", "quantization": "fp8"}, "spec.stages.export.precision", "set it to fp16 or fp32"),
    ({"quantization": "int4"}, "spec.stages.export.quantization", "none or int8 or fp8"),
    ({"onParityFail": "Ignore"}, "spec.stages.export.onParityFail", "Stop or FallBack"),
    ({"format": "engine"}, "spec.stages.export.format", "onnx or tensorrt"),
    ({"format": "tensorrt"}, "spec.stages.export.image", "--build-arg TENSORRT=1"),
]


@pytest.mark.parametrize(("settings", "field", "cure"), REFUSED)
def test_bad_settings_are_named_with_a_cure(
    settings: Mapping[str, Any], field: str, cure: str, workspace: Path
) -> None:
    code, result = run_export(workspace, **settings)
    assert (code, result.field) == (ExitCode.BAD_INPUT, field)
    assert cure in result.message


def test_a_training_set_without_passages_cannot_calibrate(workspace: Path) -> None:
    (workspace / "training" / "passages.jsonl").write_text("")
    code, result = run_export(workspace, quantization="int8")
    assert (code, result.reason, result.field) == (
        ExitCode.BAD_INPUT,
        "TrainingSetEmpty",
        "spec.stages.export.quantization",
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["fp32"]),
        ({"quantization": "int8"}, ["int8 with fp32"]),
        ({"onParityFail": "FallBack"}, ["fp32"]),
        ({"quantization": "int8", "onParityFail": "FallBack"}, ["int8 with fp32", "fp32"]),
        (
            {"precision": "fp16", "quantization": "fp8", "onParityFail": "FallBack"},
            ["fp8 with fp16", "fp16", "fp32"],
        ),
    ],
)
def test_what_is_tried_in_which_order(settings: Mapping[str, Any], expected: list[str]) -> None:
    assert [str(item) for item in candidates(Export.of(settings))] == expected


@pytest.mark.parametrize(
    ("candidate", "cosine", "drop", "settings", "good"),
    [
        (Candidate("fp32"), 0.9999, 0.0, {}, True),
        (Candidate("fp32"), 0.99989, 0.0, {}, False),
        (Candidate("fp16"), 0.999, 0.0, {"precision": "fp16"}, True),
        (Candidate("fp32", "fp8"), 0.969, 0.0, {"quantization": "fp8"}, False),
        (Candidate("fp32", "fp8"), 0.969, 0.0, {"quantization": "fp8", "minCosine": 0.9}, True),
        (Candidate("fp32"), 0.95, 0.0, {"quantization": "fp8", "minCosine": 0.9}, False),  # of what is asked for alone
        (Candidate("fp32", "int8"), 0.9, 0.01, {"quantization": "int8"}, True),
        (Candidate("fp32", "int8"), 0.9, 0.0101, {"quantization": "int8"}, False),
        (Candidate("fp32", "int8"), 0.9, -0.2, {"quantization": "int8"}, True),  # it rose
        (Candidate("fp32"), float("nan"), 0.0, {}, False),
    ],
)
def test_when_a_candidate_is_good_enough(
    candidate: Candidate, cosine: float, drop: float, settings: Mapping[str, Any], good: bool
) -> None:
    figures = Figures(min_cosine=cosine, max_abs_diff=0.1, texts=9, ndcg=0.5 - drop, checkpoint_ndcg=0.5)
    assert (fault(candidate, figures, Export.of(settings)) == "") is good


def test_the_ranking_is_scored_as_the_evaluation_scores_it(tmp_path: Path) -> None:
    write_evaluation_set(tmp_path / "set")
    found, whole = ranking_set(tmp_path / "set"), load_evaluation_set(tmp_path / "set")
    assert found is not None
    generator = np.random.default_rng(3)

    def vectors(count: int) -> Any:
        some = generator.normal(size=(count, 8)).astype(np.float32)
        return some / np.linalg.norm(some, axis=1, keepdims=True)

    queries, passages = vectors(len(whole.queries)), vectors(len(whole.passages))
    places = [whole.passages.index(text) for text in found.passages]
    rows = [whole.queries.index(text) for text in found.queries]
    expected = measure(whole, queries, passages, (10,)).means["ndcg@10"]
    assert ndcg_at_10(found, queries[rows], passages[places]) == pytest.approx(expected, abs=1e-6)


def test_calibration_reads_passages_from_all_of_the_file(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"p{number}", "text": f"t{number}"}) for number in range(512)]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines) + "\n")
    assert calibration_texts(tmp_path) == [f"t{number}" for number in range(0, 512, 4)]
