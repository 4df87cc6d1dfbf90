"""The exported file answers what the checkpoint answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from unit.stages import rounding
from unit.stages.tiny_models import MAKERS, make_bert, make_llama, run_stage

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.publish import copy_tokenizer
from embedding_stages.export.build import build_onnx
from embedding_stages.export.graph import Precision
from embedding_stages.export.parity import OnnxEncoder, Parity, batches_of, measure_parity, sample_texts
from embedding_stages.export.stage import work

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LIMIT = rounding.of_sum(rounding.forward_terms({"hidden_size": 32, "num_hidden_layers": 2}))  # of a vector of length 1
MODELS: list[tuple[str, Any, dict[str, Any]]] = [
    ("a BERT", make_bert, {}),
    ("a BERT with ReLU", make_bert, {"hidden_act": "relu"}),
    ("a BERT with the tanh GELU", make_bert, {"hidden_act": "gelu_new"}),
    ("a Llama with shared keys", make_llama, {}),
    ("a Llama with a key head a query", make_llama, {"num_key_value_heads": 4}),
    ("a Llama with Llama 3's positions", make_llama, {"rope_scaling": LLAMA3_ROPE}),
    ("a Llama with linear positions", make_llama, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("a Llama with biases", make_llama, {"attention_bias": True, "mlp_bias": True}),
    ("a Llama with wide heads", make_llama, {"head_dim": 16}),
]


def export(
    folder: Path, target: Path, precision: Precision = "fp32", **options: Any
) -> tuple[PaddedEncoder, OnnxEncoder]:
    target.mkdir()
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    encoder.save(target)
    build_onnx(encoder, target / "model.onnx", precision, **options)
    return encoder, OnnxEncoder(target)


@pytest.mark.parametrize(("sentence", "make", "changes"), MODELS, ids=[row[0] for row in MODELS])
def test_the_export_equals(sentence: str, make: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    encoder, exported = export(make(tmp_path / "model", **changes), tmp_path / "out")
    parity = measure_parity(encoder, exported, sample_texts(None, encoder.description))
    assert parity.min_cosine > 0.99999
    assert parity.max_abs_diff < LIMIT


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([5, 9, 7], [[1, 2, 0]]),
        ([8192, *[16] * 9, 8192], [[0], [10], [1, 2, 3, 4, 5, 6, 7, 8], [9]]),
        ([1024, 1024, 1024], [[0, 1], [2]]),
        ([512] * 9, [[0, 1, 2, 3, 4, 5, 6, 7], [8]]),
    ],
    ids=["longest first", "the longest alone", "long ones in pairs", "a full batch"],
)
def test_batches_hold_a_bounded_number_of_scores(lengths: list[int], expected: list[list[int]]) -> None:
    assert batches_of(lengths) == expected


def test_vectors_come_in_the_order_of_the_texts(tmp_path: Path) -> None:
    encoder, exported = export(make_llama(tmp_path / "model"), tmp_path / "out")
    texts = [" ".join(["key1", *["noise2"] * (number * 7 % 11)]) for number in range(20)]
    np.testing.assert_allclose(
        exported.embed(texts, role="passage"), encoder.embed(texts, role="passage"), rtol=0, atol=LIMIT
    )


@pytest.mark.parametrize("make", [make_bert, make_llama])
def test_half_precision_stays_close_and_halves_the_file(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", hidden_size=128, intermediate_size=256)
    export(folder, tmp_path / "full")
    encoder, exported = export(folder, tmp_path / "half", "fp16")
    parity = measure_parity(encoder, exported, sample_texts(None, encoder.description))
    assert parity.min_cosine > 0.999
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.65 * sizes[0]


@pytest.mark.parametrize("family", MAKERS)
def test_half_precision_stays_close_for_every_family(family: str, tmp_path: Path) -> None:
    encoder, exported = export(MAKERS[family](tmp_path / "model"), tmp_path / "half", "fp16")
    parity = measure_parity(encoder, exported, sample_texts(None, encoder.description))
    assert parity.min_cosine > 0.999


@pytest.mark.parametrize(("make", "a_layer"), [(make_bert, 4), (make_llama, 8)])
def test_half_precision_is_kept_from_product_to_product(make: Any, a_layer: int, tmp_path: Path) -> None:
    """A GPU takes longer over the conversions than over the products. A layer has two sums in float32, which make four;
    rotary positions of queries and keys, too.
    """
    casts = []
    for layers in (1, 2):
        export(make(tmp_path / f"model{layers}", num_hidden_layers=layers), tmp_path / f"half{layers}", "fp16")
        graph = onnx.load(str(tmp_path / f"half{layers}" / "model.onnx")).graph
        casts.append(sum(node.op_type == "Cast" for node in graph.node))
    assert casts[1] - casts[0] == a_layer


@pytest.mark.parametrize("make", [make_bert, make_llama])
def test_every_row_gets_the_dimensions_it_asks_for(make: Any, tmp_path: Path) -> None:
    encoder, _ = export(make(tmp_path / "model"), tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    texts = ["key1", "the key2", "noise1 noise2 noise3", "ask4"]
    ids, mask = encoder.tokenizer.pad(encoder.tokenizer.encode(texts, "query"))

    def embed(dimensions: list[int]) -> Any:
        feed = {"input_ids": ids, "attention_mask": mask, "dimensions": np.array(dimensions, dtype=np.int64)}
        return session.run(None, feed)[0]

    full = encoder.embed(texts, role="query")
    mixed = embed([8, 16, 1000, 0])  # more than there are means all, less than one means one
    assert mixed.shape == (4, 32)
    for row, size in enumerate((8, 16, 32, 1)):
        cut = full[row, :size] / np.linalg.norm(full[row, :size])
        np.testing.assert_allclose(mixed[row, :size], cut, rtol=0, atol=LIMIT)
        assert not mixed[row, size:].any()
    assert embed([8, 8, 8, 8]).shape == (4, 8)
    np.testing.assert_allclose(embed([8]), embed([8, 8, 8, 8]), rtol=0, atol=LIMIT)  # one size for all texts


def test_the_file_says_opset_17_and_the_recipes_names(tmp_path: Path) -> None:
    export(make_llama(tmp_path / "model"), tmp_path / "out", "fp16")
    model = onnx.load(str(tmp_path / "out" / "model.onnx"))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask", "dimensions"]
    assert [value.name for value in model.graph.output] == ["embeddings"]
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    integer, real = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    assert kinds == {"input_ids": integer, "attention_mask": integer, "dimensions": integer, "embeddings": real}


def test_a_large_model_keeps_its_weights_beside_the_graph(tmp_path: Path) -> None:
    encoder, exported = export(make_bert(tmp_path / "model"), tmp_path / "out", external_above=0)
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size > (tmp_path / "out" / "model.onnx").stat().st_size
    parity = measure_parity(encoder, exported, sample_texts(None, encoder.description))
    assert parity.min_cosine > 0.99999


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    PaddedEncoder.load(make_llama(tmp_path / "base"), device="cpu", dtype=torch.float32).save(tmp_path / "checkpoint")
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    corpus = [{"_id": f"d{number}", "title": "a title", "text": f"key{number} of"} for number in range(70)]
    queries = [{"_id": f"q{number}", "text": f"ask{number}"} for number in range(3)]
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (evaluation / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def run_export(workspace: Path, **settings: Any) -> Any:
    inputs = {Artefact.CHECKPOINT: workspace / "checkpoint", Artefact.EVALUATION_SET: workspace / "evaluation"}
    return run_stage(Stage.EXPORT, work, workspace, settings=settings, inputs=inputs)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_stage_publishes_a_model_and_its_contract(precision: str, workspace: Path) -> None:
    code, result = run_export(workspace, precision=precision)
    assert code == ExitCode.DONE
    assert result.metrics["parity"]["minCosine"] >= 0.999
    assert result.counts == {"parityTexts": 64 + 3 + 2 * 9}
    assert result.details["contract"] == {
        "path": "/v1/embeddings",
        "inputTypes": ["query", "passage"],
        "prefixes": {"query": "query: ", "passage": "passage: "},
        "dimensions": [32],
        "normalized": True,
        "maxTokens": 128,
        "precision": precision,
        "opset": 17,
    }
    folder = workspace / result.artefacts[Artefact.SERVING_MODEL].path
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "encoder.json",
        "model.onnx",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert OnnxEncoder(folder).embed(["key1"], role="passage").shape == (1, 32)
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("precision", "cosine", "field", "cure"),
    [
        ("fp16", 0.9989, "spec.stages.export.precision", "set it to fp32"),
        ("fp32", 0.99989, "spec.stages.deploy.backend", "serve the checkpoint itself (backend torch)"),
    ],
)
def test_parity_below_the_gate_stops_the_stage_with_a_cure(
    precision: str, cosine: float, field: str, cure: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_stages.export.stage.measure_parity", lambda *_: Parity(cosine, 0.1, 85))
    code, result = run_export(workspace, precision=precision)
    assert (code, result.reason, result.field) == (ExitCode.STOPPED, "ParityFailed", field)
    assert cure in result.message
    assert "parityMinCosine" not in result.message


def test_export_computes_on_the_cpu_where_a_gpu_is_visible(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has no GPU, whatever were sent to it would fail."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    asked: list[Any] = []
    session = onnxruntime.InferenceSession

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(options["providers"])
        return session(*arguments, **options)

    monkeypatch.setattr("embedding_stages.export.parity.onnxruntime.InferenceSession", counted)
    code, _ = run_export(workspace, precision="fp32")
    assert code == ExitCode.DONE
    assert asked == [["CPUExecutionProvider"]]


def test_a_file_of_other_weights_has_no_parity(workspace: Path) -> None:
    _, exported = export(make_llama(workspace / "other", seed=1), workspace / "out")
    encoder = PaddedEncoder.load(workspace / "checkpoint", device="cpu")
    assert measure_parity(encoder, exported, sample_texts(None, encoder.description)).min_cosine < 0.9


def test_a_checkpoint_changed_after_its_stage_is_refused(workspace: Path) -> None:
    inputs = {Artefact.CHECKPOINT: workspace / "checkpoint"}

    def damage_first(context: Any) -> Any:
        path = workspace / "checkpoint" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-4])
        return work(context)

    code, result = run_stage(Stage.EXPORT, damage_first, workspace, settings={}, inputs=inputs)
    assert (code, result.reason) == (1, "ArtefactDamaged")


def test_an_own_checkpoint_that_is_corrupt_is_bad_input(workspace: Path) -> None:
    path = workspace / "checkpoint" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    code, result = run_export(workspace, precision="fp32")
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "ModelDamaged")


def test_a_broken_evaluation_set_is_bad_input(workspace: Path) -> None:
    (workspace / "evaluation" / "queries.jsonl").write_text("{}\n")
    code, result = run_export(workspace, precision="fp32")
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "EvaluationSetInvalid")


def test_a_frozen_set_that_lost_every_query_gives_its_passages(workspace: Path) -> None:
    (workspace / "evaluation" / "queries.jsonl").write_text("")
    code, result = run_export(workspace, precision="fp32")
    assert (code, result.counts) == (ExitCode.DONE, {"parityTexts": 64 + 2 * 9})


def test_an_unknown_precision_is_refused(workspace: Path) -> None:
    code, result = run_export(workspace, precision="int8")
    assert (code, result.field) == (ExitCode.BAD_INPUT, "spec.stages.export.precision")


def test_the_description_travels_with_the_export(workspace: Path) -> None:
    _, result = run_export(workspace, precision="fp32")
    folder = workspace / result.artefacts[Artefact.SERVING_MODEL].path
    assert EncoderDescription.load(folder) == EncoderDescription.load(workspace / "checkpoint")
    copy_tokenizer(folder, folder)  # onto itself: nothing to do
