"""A model whose queries go through a map: what is read, what is refused, and what it answers in each role."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from unit.stages.query_maps import a_map, mapped, with_map
from unit.stages.test_serve_requests import description
from unit.stages.tiny_models import MAKERS, make_bert, run_stage
from unit.stages.tiny_serving import HIDDEN, call, make_serving_folder, serving

from embedding_stages.contract import ENCODER_FILE, Artefact, ExitCode, Stage
from embedding_stages.encoder.description import QUERY_MAP_FILE, EncoderDescription, Role, describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.protocol import Encoder
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.errors import BadInput
from embedding_stages.export.stage import work as export
from embedding_stages.inputs.hugging_face import _small_files
from embedding_stages.serve.checkpoint_model import CheckpointModel
from embedding_stages.serve.model import self_test
from embedding_stages.serve.onnx_model import OnnxModel
from embedding_stages.serve.requests import parse_request
from embedding_stages.serve.server import log

TEXTS = ["topic1 topic2", "topic3", "is this topic7 ?"]
CLOSE = 1e-5  # the largest difference of a component that rounding makes: two products of float32 vectors of length 1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_the_identity_changes_nothing_but_the_last_digit() -> None:
    vectors = np.random.default_rng(1).normal(size=(50, HIDDEN)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = QueryMap(np.eye(HIDDEN, dtype=np.float32)).apply(vectors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, rtol=0, atol=2.0**-22)


@pytest.mark.parametrize("size", [None, 3])
def test_the_map_is_the_matrix_on_the_left_and_the_cut_comes_after_it(size: int | None) -> None:
    some, vectors = a_map(HIDDEN), np.random.default_rng(1).normal(size=(5, HIDDEN)).astype(np.float32)
    np.testing.assert_allclose(some.apply(vectors, size), mapped(some.weight, vectors, size), rtol=0, atol=CLOSE)


def padded(folder: Path) -> Encoder:
    return PaddedEncoder.load(folder, device="cpu")


def packed(folder: Path) -> Encoder:
    return PackedEncoder.load(folder, device=DEVICE, dtype=torch.float32)


@pytest.mark.parametrize(
    ("family", "load"), [("bert", padded), ("llama_bidirectional", padded), ("llama_bidirectional", packed)]
)
def test_queries_are_mapped_and_passages_are_the_base_models_bit_for_bit(
    tmp_path: Path, family: str, load: Callable[[Path], Encoder]
) -> None:
    hidden = 64  # that the packed model's kernels take
    base = MAKERS[family](tmp_path / "base", hidden_size=hidden)
    some = a_map(hidden)
    before, after = load(base), load(with_map(base, tmp_path / "tuned", some))
    assert after.embed(TEXTS, role="passage").tobytes() == before.embed(TEXTS, role="passage").tobytes()
    queries = before.embed(TEXTS, role="query")
    np.testing.assert_allclose(after.embed(TEXTS, role="query"), mapped(some.weight, queries), rtol=0, atol=CLOSE)
    after.save(tmp_path / "saved")
    assert load(tmp_path / "saved").embed(TEXTS, role="query").tobytes() == after.embed(TEXTS, role="query").tobytes()


def test_a_model_without_a_map_is_described_as_by_releases_that_knew_none(tmp_path: Path) -> None:
    make_serving_folder(tmp_path / "model")
    assert "query_map" not in json.loads((tmp_path / "model" / ENCODER_FILE).read_text())
    assert EncoderDescription.load(tmp_path / "model").query_map is False


def _no_file(folder: Path) -> None:
    (folder / QUERY_MAP_FILE).unlink()


def _cut_off(folder: Path) -> None:
    path = folder / QUERY_MAP_FILE
    path.write_bytes(path.read_bytes()[:-4])


def _of_another_size(folder: Path) -> None:
    a_map(HIDDEN - 1).save(folder)


def _not_finite(folder: Path) -> None:
    weight = np.eye(HIDDEN, dtype=np.float32)
    weight[1, 2] = np.nan
    QueryMap(weight).save(folder)


def _another_type(folder: Path) -> None:
    save_file({"query_map.weight": np.eye(HIDDEN)}, folder / QUERY_MAP_FILE)


def _another_name(folder: Path) -> None:
    save_file({"weight": np.eye(HIDDEN, dtype=np.float32)}, folder / QUERY_MAP_FILE)


def _no_word(folder: Path) -> None:
    raw = json.loads((folder / ENCODER_FILE).read_text())
    (folder / ENCODER_FILE).write_text(json.dumps(raw | {"query_map": "yes"}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_no_file, "ModelIncomplete"),
        (_cut_off, "ModelDamaged"),
        (_of_another_size, "ModelDamaged"),
        (_not_finite, "ModelDamaged"),
        (_another_type, "ModelDamaged"),
        (_another_name, "ModelDamaged"),
        (_no_word, "EncoderDescriptionInvalid"),
    ],
)
def test_a_map_that_cannot_be_used_is_refused(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    folder = with_map(make_serving_folder(tmp_path / "base"), tmp_path / "model", a_map(HIDDEN))
    damage(folder)
    with pytest.raises(BadInput) as caught:
        OnnxModel(folder)
    assert caught.value.reason == reason


def test_a_mapped_model_is_no_base_model(tmp_path: Path) -> None:
    folder = with_map(make_bert(tmp_path / "base"), tmp_path / "tuned", a_map(32))
    (folder / ENCODER_FILE).unlink()
    with pytest.raises(BadInput, match="maps its queries; take the model that it was made of"):
        describe_model(folder, prefixes=None, max_tokens=None)
    assert _small_files(["config.json", "README.md", QUERY_MAP_FILE]) == ["config.json", QUERY_MAP_FILE]


def answered(url: str, texts: list[str], **fields: object) -> np.ndarray:
    status, body = call(f"{url}/v1/embeddings", {"input": texts, "model": "tiny", **fields})
    assert status == 200, body
    return np.array([item["embedding"] for item in body["data"]], dtype=np.float32)


@pytest.mark.parametrize("prefixes", [{"query": "query: ", "passage": "passage: "}, {"query": "", "passage": ""}])
@pytest.mark.parametrize("size", [HIDDEN, 4])
def test_the_server_of_the_graph_maps_queries_alone(tmp_path: Path, prefixes: dict[str, str], size: int) -> None:
    base, some = make_serving_folder(tmp_path / "base", prefixes=prefixes), a_map(HIDDEN)
    model = OnnxModel(base)

    def of_base(role: Role, dimensions: int) -> np.ndarray:
        return np.stack([model.vectors(model.reader.read([text], role, "END"), dimensions)[0] for text in TEXTS])

    with serving(with_map(base, tmp_path / "model", some)) as url:
        passages = answered(url, TEXTS, input_type="passage", dimensions=size)
        queries = answered(url, TEXTS, input_type="query", dimensions=size)
        many = answered(url, TEXTS * 200, input_type="query", dimensions=size)
        if prefixes["query"] == prefixes["passage"]:
            plain = answered(url, TEXTS, dimensions=size)
            assert plain.tobytes() == passages.tobytes(), "who names no role is answered as before there was a map"
        metadata = call(f"{url}/v1/metadata")[1]
    np.testing.assert_allclose(passages, of_base("passage", size), rtol=0, atol=CLOSE)
    expected = mapped(some.weight, of_base("query", HIDDEN), size)
    np.testing.assert_allclose(queries, expected, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(many, np.tile(expected, (200, 1)), rtol=0, atol=CLOSE)
    assert metadata["encoder"]["query_map"] is True


def test_a_model_with_prefixes_wants_to_be_told_the_role(tmp_path: Path) -> None:
    with serving(with_map(make_serving_folder(tmp_path / "base"), tmp_path / "model", a_map(HIDDEN))) as url:
        status, body = call(f"{url}/v1/embeddings", {"input": TEXTS, "model": "tiny"})
    assert (status, body["error"]["param"]) == (400, "input_type")
    one = replace(description(query="", passage=""), query_map=True)
    assert parse_request({"input": "a", "model": "m"}, model="m", description=one).role == "passage"
    assert not one.symmetric


def test_the_self_test_finds_a_map_that_gives_no_direction(tmp_path: Path) -> None:
    nothing = QueryMap(np.zeros((HIDDEN, HIDDEN), dtype=np.float32))
    with pytest.raises(BadInput, match="a query in 8 dimensions") as caught:
        self_test(OnnxModel(with_map(make_serving_folder(tmp_path / "base"), tmp_path / "model", nothing)))
    assert caught.value.reason == "SelfTestFailed"


def test_the_server_of_the_checkpoint_maps_queries_alone(tmp_path: Path) -> None:
    base, some = make_bert(tmp_path / "base"), a_map(32)
    folder = with_map(base, tmp_path / "model", some)
    model = CheckpointModel(folder, log)
    self_test(model)
    encoder = PaddedEncoder.load(base, device="cpu")
    with serving(folder) as url:
        queries, passages = (answered(url, TEXTS, input_type=role) for role in ("query", "passage"))
    np.testing.assert_allclose(passages, encoder.embed(TEXTS, role="passage"), rtol=0, atol=CLOSE)
    expected = mapped(some.weight, encoder.embed(TEXTS, role="query"))
    np.testing.assert_allclose(queries, expected, rtol=0, atol=CLOSE)


def test_the_exported_folder_has_the_base_models_graph_and_the_map(tmp_path: Path) -> None:
    base = make_bert(tmp_path / "base")
    describe_model(base, prefixes=None, max_tokens=None).save(base)
    tuned = with_map(base, tmp_path / "tuned", a_map(32))
    graphs = []
    for folder, name in ((base, "a"), (tuned, "b")):
        inputs = {Artefact.CHECKPOINT: folder}
        code, result = run_stage(Stage.EXPORT, export, tmp_path, settings={}, inputs=inputs, fingerprint=name * 64)
        assert code == ExitCode.DONE, result.message
        graphs.append(tmp_path / result.artefacts[Artefact.SERVING_MODEL].path)
    plain, with_one = graphs
    assert (plain / "model.onnx").read_bytes() == (with_one / "model.onnx").read_bytes()
    assert not (plain / QUERY_MAP_FILE).exists()
    assert (with_one / QUERY_MAP_FILE).read_bytes() == (tuned / QUERY_MAP_FILE).read_bytes()
    expected = PaddedEncoder.load(tuned, device="cpu").embed(TEXTS, role="query")
    with serving(with_one) as url:
        np.testing.assert_allclose(answered(url, TEXTS, input_type="query"), expected, rtol=0, atol=1e-4)
