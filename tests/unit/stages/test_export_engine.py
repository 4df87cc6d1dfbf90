"""TensorRT: what it is given, by its published matrix of operators, and what is said where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from unit.stages.tiny_models import MAKERS, make_llama

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import BadInput
from embedding_stages.export.build import build_onnx
from embedding_stages.export.calibration import feeds
from embedding_stages.export.engine import engine_graph, engine_machine, profile_of
from embedding_stages.export.operators import faults_of
from embedding_stages.export.quantize import quantize_graph

TEXTS = ["key1 of noise2", "the key2", "noise1 noise2 noise3", "ask4"]


def encoder_of(folder: Path) -> PaddedEncoder:
    return PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("family", list(MAKERS))
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_tensorrt_reads_every_familys_graph(family: str, precision: Any, tmp_path: Path) -> None:
    build_onnx(encoder_of(MAKERS[family](tmp_path / "m")), tmp_path / "model.onnx", precision)
    engine_graph(tmp_path)  # raises where it does not


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", list(MAKERS))
@pytest.mark.parametrize(("kind", "precision"), [("int8", "fp32"), ("fp8", "fp16")])
def test_tensorrt_reads_every_familys_quantized_graph(family: str, kind: Any, precision: Any, tmp_path: Path) -> None:
    encoder = encoder_of(MAKERS[family](tmp_path / "m"))
    products = build_onnx(encoder, tmp_path / "graph.onnx", precision, opset=19)
    batches = list(feeds(TEXTS, encoder.tokenizer, encoder.description))
    quantize_graph(tmp_path / "graph.onnx", tmp_path / "model.onnx", kind, products, batches)
    engine_graph(tmp_path)


@pytest.mark.parametrize("external_above", [0, 1 << 30])
def test_the_engines_graph_gives_every_column_and_zeros_beyond(external_above: int, tmp_path: Path) -> None:
    encoder = encoder_of(make_llama(tmp_path / "m"))
    build_onnx(encoder, tmp_path / "model.onnx", "fp32", external_above=external_above)
    model = engine_graph(tmp_path)
    assert "ReduceMax" not in {node.op_type for node in model.graph.node}
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    (tmp_path / "full.onnx").write_bytes(model.SerializeToString())
    ids, mask = encoder.tokenizer.pad(encoder.tokenizer.encode(TEXTS, "query"))
    feed = {"input_ids": ids, "attention_mask": mask, "dimensions": np.full(len(ids), 8, dtype=np.int64)}
    narrow, wide = (
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for name in ("model.onnx", "full.onnx")
    )
    assert (narrow.shape, wide.shape) == ((4, 8), (4, 32))
    np.testing.assert_allclose(wide[:, :8], narrow, rtol=0, atol=1e-6)
    assert not wide[:, 8:].any()


def graph_of(
    *nodes: Any, kind: int = TensorProto.FLOAT, opset: int = 17, constants: Sequence[Any] = (), domain: str = ""
) -> Any:
    values = [
        helper.make_tensor_value_info("x", kind, [2, 3]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
    ]
    out = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(list(nodes), "g", values, [out], initializer=list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(name, opset) for name in {"", domain}])


ZERO = numpy_helper.from_array(np.array(0, dtype=np.int8), "zero")
ONE = numpy_helper.from_array(np.array(1, dtype=np.int8), "one")
SCALE = numpy_helper.from_array(np.array(0.5, dtype=np.float32), "scale")
node: Callable[..., Any] = helper.make_node
REFUSED: list[tuple[str, Any, str]] = [
    ("an operator that it lacks", graph_of(node("Unique", ["x"], ["y"])), "(Unique): the operator is not supported"),
    (
        "of another domain",
        graph_of(node("Erf", ["x"], ["y"], domain="com.microsoft"), domain="com.microsoft"),
        "the operator is not supported",
    ),
    ("a type that it lacks", graph_of(node("Erf", ["x"], ["y"]), kind=TensorProto.INT64), "INT64 is not supported"),
    ("double", graph_of(node("Add", ["x", "x"], ["y"]), kind=TensorProto.DOUBLE), "DOUBLE is not supported"),
    ("axes that are computed", graph_of(node("Squeeze", ["x", "n"], ["y"])), "input 1 must be an initializer"),
    (
        "two outputs of a norm",
        graph_of(node("LayerNormalization", ["x", "x"], ["y", "mean"])),
        "only the first 1 of its outputs is supported",
    ),
    (
        "a zero point",
        graph_of(node("QuantizeLinear", ["x", "scale", "one"], ["y"]), constants=[SCALE, ONE]),
        "its zero point must be zero",
    ),
    ("an opset to come", graph_of(node("Erf", ["x"], ["y"]), opset=21), "opset 21 is above 20"),
]


@pytest.mark.parametrize(("sentence", "model", "fault"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_the_matrix_lacks_is_named(sentence: str, model: Any, fault: str) -> None:
    assert any(fault in said for said in faults_of(model)), faults_of(model)


def test_what_the_matrix_has_has_no_fault() -> None:
    quantized = graph_of(node("QuantizeLinear", ["x", "scale", "zero"], ["y"]), constants=[SCALE, ZERO])
    assert faults_of(quantized) == []


def test_an_operator_that_tensorrt_lacks_ends_the_stage(tmp_path: Path) -> None:
    onnx.save(graph_of(node("Unique", ["x"], ["y"])), str(tmp_path / "model.onnx"))
    with pytest.raises(BadInput, match=r"TensorRT cannot read the graph: .*; set it to onnx") as raised:
        engine_graph(tmp_path)
    assert (raised.value.reason, raised.value.field) == ("OperatorUnsupported", "spec.stages.export.format")


@pytest.mark.parametrize(
    ("package", "reason", "field", "cure"),
    [
        (None, "TensorRTMissing", "spec.stages.export.image", "build stage_images/export with --build-arg TENSORRT=1"),
        ("types alone", "TensorRTMissing", "spec.stages.export.image", "--build-arg TENSORRT=1"),
        ("10.13.3.9", "GpuMissing", "spec.stages.export.resources.limits", "give nvidia.com/gpu: 1"),
    ],
)
def test_without_a_gpu_or_the_package_one_sentence_says_so(
    package: str | None, reason: str, field: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = None if package is None else types.ModuleType("tensorrt")
    if package and package[0].isdigit():
        module.__version__ = package
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadInput, match=cure) as raised:
        engine_machine()
    assert (raised.value.reason, raised.value.field) == (reason, field)
    assert ". " not in raised.value.message


def test_an_engine_is_named_after_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("tensorrt")
    module.__version__ = "10.13.3.9"
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    assert engine_machine().to_json() == {"gpu": "NVIDIA H200", "computeCapability": "9.0", "tensorrt": "10.13.3.9"}


@pytest.mark.parametrize(
    ("tokens", "lengths"), [(256, (3, 128, 256)), (512, (3, 128, 512)), (64, (3, 64, 64)), (2, (2, 2, 2))]
)
def test_shapes_of_the_profile(tokens: int, lengths: tuple[int, ...]) -> None:
    found = profile_of(tokens)
    assert found["input_ids"] == found["attention_mask"] == tuple(zip((1, 16, 64), lengths, strict=True))
    assert found["dimensions"] == ((1,), (16,), (64,))


def test_the_stage_without_an_engine_never_imports_tensorrt() -> None:
    code = (
        "import sys; import embedding_stages.export.stage; print('tensorrt' in sys.modules, 'modelopt' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.split() == ["False", "False"]
