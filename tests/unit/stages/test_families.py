"""What every model family must do, and that a family is one module: a causal one with other poolings as the proof."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from transformers import LlamaConfig, LlamaModel
from unit.stages.tiny_models import MAKERS, make_bert, make_llama

import embedding_stages
from embedding_stages.encoder import families
from embedding_stages.encoder.attention import visible
from embedding_stages.encoder.configuration import for_library
from embedding_stages.encoder.description import EncoderDescription, describe_model
from embedding_stages.encoder.families import FAMILIES, Family, family_named, family_of
from embedding_stages.encoder.families.bert import BERT
from embedding_stages.encoder.families.llama import LLAMA_BIDIRECTIONAL
from embedding_stages.encoder.model import PaddedEncoder, pool
from embedding_stages.encoder.pooling import POOLINGS, Pooling
from embedding_stages.errors import BadInput
from embedding_stages.export.attention import mask_scores
from embedding_stages.export.build import build_onnx
from embedding_stages.export.graph import Graph
from embedding_stages.export.inputs import ATTENTION_MASK, INPUT_IDS
from embedding_stages.export.parity import OnnxEncoder, measure_parity, sample_texts
from embedding_stages.export.pooling import ONNX_POOLINGS

ROWS = [[5, 6, 7], [9] * 11, [8]]
STAGES = Path(embedding_stages.__file__).parent


@pytest.fixture(params=FAMILIES, ids=[family.name for family in FAMILIES])
def family(request: pytest.FixtureRequest) -> Any:
    return request.param


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def test_every_family_has_a_tiny_model() -> None:
    assert list(MAKERS) == [family.name for family in FAMILIES]


def test_a_family_recognises_its_own_models_alone(family: Family, tmp_path: Path) -> None:
    config = config_of(MAKERS[family.name](tmp_path))
    assert [other.name for other in FAMILIES if other.recognises(config)] == [family.name]
    assert family_of(config) is family_named(family.name) is family


def test_a_familys_layers_are_cut_for_shards(family: Family, tmp_path: Path) -> None:
    folder = MAKERS[family.name](tmp_path)
    encoder = PaddedEncoder.load(folder, device="cpu")
    assert len(encoder.backbone.layers()) == config_of(folder)["num_hidden_layers"]


def test_a_family_is_exported(family: Family, tmp_path: Path) -> None:
    encoder = PaddedEncoder.load(MAKERS[family.name](tmp_path / "model"), device="cpu", dtype=torch.float32)
    assert parity_of(encoder, tmp_path / "out") > 0.99999


def test_a_refusal_names_the_nearest_family(family: Family) -> None:
    for kind in family.resembles:
        with pytest.raises(BadInput, match=f"the nearest is {re.escape(family.title)}, such as {family.example}"):
            family_of({"model_type": kind})


def test_the_table_of_models_has_a_row_for_each_family(family: Family) -> None:
    rows = [
        line for line in (Path(__file__).parents[3] / families.DOCUMENT).read_text().splitlines() if line[:1] == "|"
    ]
    name = family.title.partition(" (")[0]
    assert [line for line in rows if line.startswith(f"| {name} |") and family.example.rpartition("/")[2] in line]


def test_only_its_module_names_a_family(family: Family) -> None:
    quoted = f'"{family.name}"'
    naming = {path.relative_to(STAGES).as_posix() for path in STAGES.rglob("*.py") if quoted in path.read_text()}
    # These read config.json files by their model_type, and say which models other people's servers take.
    (module,) = naming - {"encoder/packed/readings.py", "contract/nim.py", "contract/servers.py"}
    assert module.startswith("encoder/families/")


def test_recognising_a_model_takes_the_standard_library_alone() -> None:
    code = "import sys, embedding_stages.encoder.description; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(STAGES.parent)}, check=True, capture_output=True, text=True
    )
    assert not {"torch", "transformers", "numpy", "tokenizers", "onnx", "triton"} & set(done.stdout.split())


# The tokens whose states each pooling averages, for each of three texts.
TAKEN: dict[Pooling, list[list[int]]] = {
    "mean": [[0, 1, 2], [0, 1, 2, 3], [0]],
    "last_token": [[2], [3], [0]],
    "cls": [[0], [0], [0]],
}


def states_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    return torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)), mask


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_pooling_takes_the_states_of(pooling: Pooling) -> None:
    states, mask = states_and_mask()
    taken = torch.stack([states[row, tokens].mean(0) for row, tokens in enumerate(TAKEN[pooling])])
    torch.testing.assert_close(pool(states, mask, pooling), torch.nn.functional.normalize(taken, dim=-1))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_graph_pools_like_torch(pooling: Pooling, tmp_path: Path) -> None:
    states, mask = states_and_mask()
    graph = Graph("fp32")
    graph.rename(ONNX_POOLINGS[pooling](graph, "states"), "pooled")
    graph.save(
        tmp_path / "pool.onnx",
        inputs=[
            helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "tokens", 8]),
            helper.make_tensor_value_info(ATTENTION_MASK, TensorProto.INT64, ["batch", "tokens"]),
        ],
        outputs=[helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", 8])],
    )
    session = onnxruntime.InferenceSession(tmp_path / "pool.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"states": states.numpy(), ATTENTION_MASK: mask.numpy()})[0]
    np.testing.assert_allclose(found, POOLINGS[pooling].padded(states, mask).numpy(), atol=1e-6)


@pytest.mark.parametrize("window", [None, 0, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_a_graph_hides_what_torch_does(causal: bool, window: int | None, tmp_path: Path) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]])
    graph = Graph("fp32")
    graph.rename(mask_scores(graph, (1, 2), causal=causal, window=window), "scores")
    graph.save(
        tmp_path / "mask.onnx",
        inputs=[
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in (INPUT_IDS, ATTENTION_MASK)
        ],
        outputs=[helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1, "queries", "keys"])],
    )
    session = onnxruntime.InferenceSession(tmp_path / "mask.onnx", providers=["CPUExecutionProvider"])
    scores = session.run(None, {INPUT_IDS: mask.numpy(), ATTENTION_MASK: mask.numpy()})[0]
    expected = visible(mask, causal=causal, window=window)
    tokens = mask.bool()  # what padding sees does not matter
    np.testing.assert_array_equal(np.broadcast_to(scores == 0, expected.shape)[:, 0][tokens], expected[:, 0][tokens])
    assert scores.max() == 0
    assert scores.min() <= -30_000


class _CausalLlama(type(LLAMA_BIDIRECTIONAL)):  # type: ignore[misc]
    """A third family: every difference from the bidirectional Llama is here."""

    name = "causal_llama"
    title = "causal Llama (model_type causal)"
    causal = True
    poolings = ("last_token", "mean")

    def recognises(self, config: Any) -> bool:
        return config.get("model_type") == "causal"

    def check(self, config: Any) -> None:
        """All of them can be used."""


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (_CausalLlama(), BERT, LLAMA_BIDIRECTIONAL))


def edit(folder: Path, name: str, **changes: Any) -> Path:
    (folder / name).parent.mkdir(exist_ok=True)
    raw = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({key: value for key, value in (raw | changes).items() if value is not None}))
    return folder


def parity_of(encoder: PaddedEncoder, target: Path) -> float:
    """The smallest cosine between the exported graph's vectors and the encoder's."""
    encoder.save(target)
    build_onnx(encoder, target / "model.onnx", "fp32")
    return measure_parity(encoder, OnnxEncoder(target), sample_texts(None, encoder.description)).min_cosine


def test_a_causal_family_with_last_token_pooling_computes_what_transformers_does(third: None, tmp_path: Path) -> None:
    folder = edit(make_llama(tmp_path / "model"), "config.json", model_type="causal", pooling=None)
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    assert (encoder.description.architecture, encoder.description.pooling) == ("causal_llama", "last_token")
    ids, mask = (torch.from_numpy(array) for array in encoder.tokenizer.pad(ROWS))
    library = LlamaModel.from_pretrained(folder, config=LlamaConfig(**for_library(config_of(folder)))).eval()
    with torch.inference_mode():
        states = library(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = torch.nn.functional.normalize(states[range(len(ROWS)), mask.sum(1) - 1], dim=-1)
        torch.testing.assert_close(encoder.vectors(ROWS), expected, rtol=0, atol=2e-6)
    assert parity_of(encoder, tmp_path / "out") > 0.99999
    assert EncoderDescription.load(tmp_path / "out") == encoder.description


Change = Callable[[Path], Path]
NAMED: list[tuple[str, Change, str]] = [
    ("no file", lambda folder: folder, "mean"),
    (
        "an old Pooling module",
        lambda f: edit(f, "1_Pooling/config.json", pooling_mode_cls_token=True),
        "cls",
    ),
    ("a new Pooling module", lambda f: edit(f, "1_Pooling/config.json", pooling_mode="cls"), "cls"),
    ("config.json", lambda f: edit(f, "config.json", pooling="cls"), "cls"),
    (
        "both, which disagree",
        lambda f: edit(edit(f, "config.json", pooling="mean"), "1_Pooling/config.json", pooling_mode="cls"),
        "cls",
    ),
]


@pytest.mark.parametrize(("sentence", "change", "expected"), NAMED, ids=[row[0] for row in NAMED])
def test_the_pooling_is_named_by(sentence: str, change: Change, expected: str, third: None, tmp_path: Path) -> None:
    folder = change(make_bert(tmp_path / "model"))
    assert describe_model(folder, prefixes=None, max_tokens=None).pooling == expected


def test_a_saved_model_names_its_pooling_for_sentence_transformers(third: None, tmp_path: Path) -> None:
    folder = edit(make_bert(tmp_path / "model"), "1_Pooling/config.json", pooling_mode="cls")
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    assert parity_of(encoder, tmp_path / "saved") > 0.99999
    (tmp_path / "saved" / "encoder.json").unlink()  # what is left is what other libraries read
    assert describe_model(tmp_path / "saved", prefixes=None, max_tokens=None).pooling == "cls"


@pytest.mark.parametrize("pooling", ["last", "max"])
def test_a_pooling_that_the_family_lacks_is_refused_with_those_it_has(
    pooling: str, third: None, tmp_path: Path
) -> None:
    folder = edit(make_bert(tmp_path), "config.json", pooling=pooling)
    with pytest.raises(BadInput, match=rf"pooling '{pooling}'; only mean or first-token \(CLS\) pooling can be used"):
        describe_model(folder, prefixes=None, max_tokens=None)
