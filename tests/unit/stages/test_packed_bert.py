"""What is BERT's own over packs: its kernels, positions that start later, poolings, and files of several ages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder
from unit.stages.tiny_models import make_bert

from embedding_stages.encoder.description import description_of
from embedding_stages.encoder.model import PaddedEncoder, pool
from embedding_stages.encoder.packed import biased
from embedding_stages.encoder.packed.bert import PackedBert
from embedding_stages.encoder.packed.bert_shape import FAR, BertShape, bucket_table
from embedding_stages.encoder.packed.biased import Activation
from embedding_stages.encoder.packed.check import distances_error
from embedding_stages.encoder.packed.device import DevicePack, send
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.ops import Heads
from embedding_stages.encoder.packed.packs import Ragged, build_pack
from embedding_stages.encoder.packed.pooling import PACKED_POOLINGS
from embedding_stages.encoder.pooling import Pooling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = [[5, 6, 7], [9] * 20, [8], [5, 6, 9, 11]]
EPS = 1e-5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _random(*size: int) -> torch.Tensor:
    return torch.randn(*size, device=DEVICE)


def _leaf(*size: int) -> torch.Tensor:
    return _random(*size).requires_grad_()


def _pack(rows: list[list[int]]) -> DevicePack:
    return send(build_pack(Ragged.of(rows), range(len(rows)), query_tile=16, key_tile=16), torch.device(DEVICE))


@pytest.mark.parametrize("width", [32, 48])
def test_layer_norm_of_a_sum(width: int) -> None:
    x, delta = _leaf(7, width), _random(7, width)
    bias, gain, shift = _leaf(width), _leaf(width), _leaf(width)
    expected = torch.nn.functional.layer_norm(x + delta + bias, (width,), gain, shift, EPS)
    vectors = torch.stack([bias.detach(), gain.detach(), shift.detach()])
    normed = biased.add_layer_norm(x.detach(), delta, vectors, EPS)
    torch.testing.assert_close(normed.out, expected.detach())
    torch.testing.assert_close(biased.add_layer_norm_(x.detach(), delta.clone(), vectors, EPS), expected.detach())

    grad = _random(7, width)
    expected.backward(grad)  # type: ignore[no-untyped-call]
    dx, parts = biased.layer_norm_backward(grad, normed.kept(), vectors[1])
    torch.testing.assert_close(dx, x.grad)
    sums = torch.ones(3, width, device=DEVICE)
    biased.add_columns_(sums, parts)
    for value, found in zip((bias, gain, shift), sums - 1, strict=True):
        torch.testing.assert_close(found, value.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 2])
def test_embedding_and_its_gradients(first: int) -> None:
    words, positions, types, norm = _leaf(12, 32), _leaf(22, 32), _leaf(2, 32), _random(2, 32)
    pack = _pack(ROWS)
    total = words[pack.ids.long()] + positions[first + pack.positions.long()] + types[0]
    expected = torch.nn.functional.layer_norm(total, (32,), norm[0], norm[1], EPS)
    tables = words.detach(), positions.detach(), types.detach()
    found = biased.embed(tables, norm, EPS, ids=pack.ids, places=pack.positions, first=first, keep=True)
    torch.testing.assert_close(found.out, expected.detach())
    grad = _random(len(pack.ids), 32)
    grad[pack.tokens :] = 0
    expected.backward(grad)  # type: ignore[no-untyped-call]
    dx, _ = biased.layer_norm_backward(grad, found.kept(), norm[0])
    table = torch.ones(22, 32, device=DEVICE)
    biased.add_position_sums_(table, dx, pack.starts, first=first)
    torch.testing.assert_close(table - 1, positions.grad, atol=1e-5, rtol=1e-5)


FUNCTIONS: Mapping[Activation, Any] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
}


@pytest.mark.parametrize("width", [32, 300])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_activation_of_a_sum(kind: Activation, width: int) -> None:
    x, bias = (3 * _random(9, width)).requires_grad_(), _leaf(width)
    expected = FUNCTIONS[kind](x + bias)
    torch.testing.assert_close(biased.activate(x.detach(), bias.detach(), kind), expected.detach())
    torch.testing.assert_close(biased.activate_(x.detach().clone(), bias.detach(), kind), expected.detach())
    grad = _random(9, width)
    expected.backward(grad)  # type: ignore[no-untyped-call]
    change, parts = biased.activate_backward_(x.detach().clone(), bias.detach(), grad, kind)
    torch.testing.assert_close(change, x.grad)
    for each in (parts, biased.column_sums(change)):
        torch.testing.assert_close(each.sum(0), bias.grad, atol=1e-5, rtol=1e-5)


def test_attention_with_summands_of_distances() -> None:
    """Of texts longer than the distance that all beyond share, with its gradients; buckets are the library's."""
    places = torch.arange(-FAR, FAR + 1)
    buckets = torch.tensor(bucket_table(), dtype=torch.int32)
    assert torch.equal(MPNetEncoder.relative_position_bucket(places), buckets.long())
    heads = Heads(queries=2, keys=2, size=16)
    assert distances_error(heads, buckets, torch.device(DEVICE), torch.float32) < 1e-5


@pytest.mark.parametrize("pooling", PACKED_POOLINGS)
def test_packs_pool_like_padded_rows(pooling: Pooling) -> None:
    pack = _pack(ROWS)
    states = _leaf(len(pack.ids), 32)
    found = PACKED_POOLINGS[pooling].forward(states.detach(), pack)
    lengths = [len(row) for row in ROWS]
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths], device=DEVICE)
    parts = torch.split(states[: pack.tokens], lengths)
    padded = torch.stack([torch.nn.functional.pad(part, (0, 0, 0, max(lengths) - len(part))) for part in parts])
    expected = pool(padded, mask, pooling)
    torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), expected.detach())

    leaf, grad = found.clone().requires_grad_(), _random(len(ROWS), 32)
    expected.backward(grad)  # type: ignore[no-untyped-call]
    torch.nn.functional.normalize(leaf, dim=-1).backward(grad)  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    rows = PACKED_POOLINGS[pooling].backward(leaf.grad, pack, torch.zeros_like(states))
    torch.testing.assert_close(rows, states.grad)


def test_positions_may_start_later(tmp_path: Path) -> None:
    """As those of RoBERTa do, whose first rows no token has."""
    folder = make_bert(tmp_path / "model", hidden_size=64)
    encoder = PackedEncoder.load(folder, device=DEVICE, dtype=torch.float32)
    assert isinstance(encoder.model, PackedBert)
    encoder.model.shape = replace(encoder.model.shape, first=2)
    module = PaddedEncoder.load(folder, device=DEVICE, dtype=torch.float32).module
    ids = torch.tensor([ROWS[1]], device=DEVICE)
    states = module(input_ids=ids, position_ids=torch.arange(2, 2 + ids.shape[1], device=DEVICE)[None])[0]
    with torch.inference_mode():
        found = encoder.vectors(encoder.send(encoder.pack(Ragged.of(ROWS), [1])))
    expected = pool(states, torch.ones_like(ids), encoder.description.pooling)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old", [False, True])
def test_a_saved_folder_is_the_padded_encoders(prefix: str, old: bool, tmp_path: Path) -> None:
    """Also of files that call a norm's gain gamma, and of tensors that the encoder has no use for."""
    base = make_bert(tmp_path / "base", hidden_size=64, num_hidden_layers=1)
    weights = {prefix + name: value for name, value in load_file(base / "model.safetensors").items()}
    if old:
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for now, then in names.items():
            weights = {name.replace(now, then): value for name, value in weights.items()}
        weights[f"{prefix}embeddings.position_ids"] = torch.arange(48)[None]
    assert any("pooler" in name for name in weights)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    packed = PackedEncoder.load(base, device=DEVICE, dtype=torch.float32)
    assert not any("pooler" in name for name, _ in packed.model.on_disk())
    packed.save(tmp_path / "packed")
    PaddedEncoder.load(base, device="cpu", dtype=torch.float32).save(tmp_path / "padded")
    found, expected = (load_file(tmp_path / kind / "model.safetensors") for kind in ("packed", "padded"))
    own = {
        name.removeprefix(prefix).replace("gamma", "weight").replace("beta", "bias"): value
        for name, value in weights.items()
    }
    assert found.keys() == expected.keys() == own.keys()
    for name, value in own.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    listed = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in _roots(tmp_path)]
    assert listed[0] == listed[1]
    for path in (name for name in listed[0] if name.endswith(".json")):
        first, second = (json.loads((root / path).read_text()) for root in _roots(tmp_path))
        assert first == second, path


def _roots(folder: Path) -> list[Path]:
    return [folder / "packed", folder / "padded"]


@pytest.mark.parametrize(
    ("change", "reason"), [({"num_attention_heads": 8}, "8 heads in 64"), ({"num_attention_heads": 3}, "3 heads in 64")]
)
def test_a_shape_that_packs_cannot_run_says_why(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "model", hidden_size=64, num_hidden_layers=1)
    config = json.loads((folder / "config.json").read_text())
    BertShape.of(config, description_of(folder))
    with pytest.raises(ValueError, match=reason):
        BertShape.of(config | change, description_of(folder))


def test_a_size_that_the_file_leaves_out_is_the_librarys(tmp_path: Path) -> None:
    folder = make_bert(
        tmp_path / "model", hidden_size=192, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
    )
    config = json.loads((folder / "config.json").read_text())
    expected = BertShape.of(config, description_of(folder))
    for key in ("num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps", "type_vocab_size"):
        del config[key]
    assert BertShape.of(config, description_of(folder)) == expected
