"""What float16 does to a model is seen where it is judged, on a CPU that computes in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from unit.stages.tiny_models import make_bert, make_llama

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.export.activation import activated
from embedding_stages.export.build import build_onnx
from embedding_stages.export.calibration import feeds
from embedding_stages.export.graph import Graph
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, INPUT_IDS
from embedding_stages.export.parity import OnnxEncoder, measure_parity, sample_texts
from embedding_stages.export.rounded import write_rounded
from embedding_stages.export.verdict import Candidate
from embedding_stages.export.written import MODEL, write_candidate

TEXT = "key1 of noise2"
WIDE = {"hidden_size": 96, "intermediate_size": 256}  # as wide as what is quantized has to be
modelopt = pytest.mark.filterwarnings("ignore")  # ModelOpt's and its libraries'
ROUNDING = 2e-3  # between two orders of sums in float16, of vectors of length 1


def widened(make: Any, folder: Path, factor: float, **changes: Any) -> PaddedEncoder:
    """An encoder whose first layer has so many times larger numbers inside, and answers the same in float32."""
    encoder = PaddedEncoder.load(make(folder, hidden_act="relu", **changes), device="cpu", dtype=torch.float32)
    layer = encoder.module.encoder.layer[0]  # type: ignore[union-attr, index]
    with torch.no_grad():
        layer.intermediate.dense.weight *= factor  # type: ignore[union-attr, operator]
        layer.intermediate.dense.bias *= factor  # type: ignore[union-attr, operator]
        layer.output.dense.weight /= factor  # type: ignore[union-attr, operator]
    return encoder


def in_float16(encoder: PaddedEncoder, path: Path) -> Any:
    """The vector of TEXT as a machine computes it that has float16: numpy."""
    ids, mask = encoder.tokenizer.pad(encoder.tokenizer.encode([TEXT], "passage"))
    feed = {INPUT_IDS: ids, ATTENTION_MASK: mask, DIMENSIONS: np.full(1, encoder.description.vector_size)}
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(str(path)).run(None, feed)[0]


@pytest.mark.parametrize("make", [make_bert, make_llama])
def test_float16_is_judged_by_a_graph_that_rounds_as_it_does(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    written = write_candidate(Candidate("fp16"), encoder, folder, tmp_path / "out", tmp_path / "judged", list)
    found = OnnxEncoder(written.judged).embed([TEXT], role="passage")
    np.testing.assert_allclose(found, in_float16(encoder, tmp_path / "out" / MODEL), rtol=0, atol=ROUNDING)
    assert np.abs(found - encoder.embed([TEXT], role="passage")).max() > 1e-5  # it does round


@modelopt
@pytest.mark.parametrize(("quantization", "cosine"), [("none", 0.999), ("int8", 0.99), ("fp8", 0.98)])
@pytest.mark.parametrize(("factor", "fits"), [(2.0**4, True), (2.0**15, False)], ids=["has room", "overflows"])
def test_what_overflows_in_float16_fails_parity(
    quantization: Any, cosine: float, factor: float, fits: bool, tmp_path: Path
) -> None:
    """ONNX Runtime on a CPU computes it in float32, where nothing overflows: a GPU would answer NaN."""
    encoder = widened(make_bert, tmp_path / "model", factor, **WIDE)
    written = write_candidate(
        Candidate("fp16", quantization),
        encoder,
        tmp_path / "model",
        tmp_path / "out",
        tmp_path / "judged",
        lambda: list(feeds([TEXT], encoder.tokenizer, encoder.description)),
    )
    parity = measure_parity(encoder, OnnxEncoder(written.judged), sample_texts(None, encoder.description))
    assert parity.min_cosine >= cosine if fits else parity.min_cosine == -1.0
    assert np.isfinite(in_float16(encoder, tmp_path / "out" / MODEL)).all() == fits


@modelopt
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
@pytest.mark.parametrize("make", [make_bert, make_llama])
def test_a_quantized_graph_is_judged_as_float16_computes_it(make: Any, quantization: Any, tmp_path: Path) -> None:
    """A number near the middle of two steps may take the one or the other, so vectors lie a step apart."""
    folder = make(tmp_path / "model", **WIDE)
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    written = write_candidate(
        Candidate("fp16", quantization),
        encoder,
        folder,
        tmp_path / "out",
        tmp_path / "judged",
        lambda: list(feeds([TEXT], encoder.tokenizer, encoder.description)),
    )
    found = OnnxEncoder(written.judged).embed([TEXT], role="passage")
    expected = in_float16(encoder, tmp_path / "out" / MODEL)
    assert (found * expected).sum() > 0.99
    left = {node.name for node in onnx.load(str(tmp_path / "out" / MODEL)).graph.node}
    assert left <= {node.name for node in onnx.load(str(written.judged / MODEL)).graph.node}


def test_weights_beside_a_graph_are_rounded_too(tmp_path: Path) -> None:
    encoder = PaddedEncoder.load(make_llama(tmp_path / "model"), device="cpu", dtype=torch.float32)
    found = []
    for name, options in (("inside", {}), ("beside", {"external_above": 0})):
        source, target = tmp_path / name, tmp_path / f"{name}-judged"
        for place in (source, target):
            encoder.save(place)
        build_onnx(encoder, source / MODEL, "fp16", **options)
        write_rounded(source / MODEL, target / MODEL)
        found.append(OnnxEncoder(target).embed([TEXT], role="passage"))
    assert (tmp_path / "beside-judged" / f"{MODEL}.data").is_file()
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", ["gelu", "gelu_new", "silu", "relu"])
def test_an_activation_takes_what_float16_holds(kind: str, tmp_path: Path) -> None:
    graph = Graph("fp16")
    value = graph.linear("x", "in", np.ones((1, 1), dtype=np.float32), None)
    back = graph.linear(activated(graph, kind, value), "back", np.ones((1, 1), dtype=np.float32), None)
    graph.rename(back, "y")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y")]
    graph.save(tmp_path / MODEL, inputs=ends[:1], outputs=ends[1:])
    given = np.array([[-60_000], [-300], [0], [300], [60_000]], dtype=np.float32)
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(str(tmp_path / MODEL)).run(None, {"x": given})[0]
    np.testing.assert_allclose(found, np.maximum(given, 0.0), rtol=1e-3)
