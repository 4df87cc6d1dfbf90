"""Which model a server builds of a published folder, by the rules of one: vLLM 0.33.0.

That release's own configuration reader was run on the folder of every family (docs/compatibility.md): `READ` is what
it said. The rules below are its rules, so that a folder that it would read otherwise fails here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.stages.tiny_models import MAKERS

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.files import ModelFiles
from embedding_stages.encoder.pooling import POOLINGS
from embedding_stages.finetune.lora import add_adapters

# The architecture, whether tokens see those after them, and Dense modules as (in, out).
READ: dict[str, tuple[str, bool, list[tuple[int, int]]]] = {
    "bert": ("BertModel", True, []),
    "roberta": ("RobertaModel", True, []),
    "modernbert": ("ModernBertModel", True, []),
    "llama_bidirectional": ("LlamaBidirectionalModel", True, []),
    "ministral3_bidirectional": ("Ministral3Model", True, []),
    "qwen3": ("Qwen3Model", False, []),
    "gemma3_text": ("Gemma3TextModel", True, [(24, 64), (64, 32)]),
}
POOLED = {"mean": "MEAN", "cls": "CLS", "last_token": "LAST"}
# Encoders that it knows by their class; of a decoder it asks config.json.
ENCODERS = {"BertModel", "RobertaModel", "XLMRobertaModel", "ModernBertModel"}
DECODERS = {"LlamaBidirectionalModel", "Ministral3Model", "Qwen3Model", "Qwen3ForCausalLM", "Gemma3TextModel"}
MODULES = "sentence_transformers.models."
ACTIVATIONS = {"identity", "tanh", "relu", "gelu"}  # of a Dense module, by the last word of the class


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def published(root: Path, name: str, **changes: Any) -> Path:
    base = MAKERS[name](root / "base")
    config = read(base / "config.json") | changes
    (base / "config.json").write_text(json.dumps(config))
    PaddedEncoder.load(base, device="cpu", dtype=torch.float32).save(root / "checkpoint")
    return root / "checkpoint"


def both_ways(config: dict[str, Any]) -> bool:
    architecture = config["architectures"][0]
    if architecture in ENCODERS or architecture == "LlamaBidirectionalModel":
        return True
    if architecture == "Gemma3TextModel":
        return bool(config["use_bidirectional_attention"])
    return config.get("is_causal", True) is False


@pytest.mark.parametrize("name", READ)
def test_vllm_builds_the_model_that_was_trained(name: str, tmp_path: Path) -> None:
    folder = published(tmp_path, name)
    config, modules = read(folder / "config.json"), read(folder / "modules.json")
    architecture, sees_all, dense = READ[name]
    assert config["architectures"] == [architecture]
    assert architecture in ENCODERS | DECODERS
    assert both_ways(config) is sees_all
    encoder = PaddedEncoder.load(folder, device="cpu")
    assert sees_all is not encoder.description.family.causal
    kinds = [module["type"].removeprefix(MODULES) for module in modules]
    assert kinds == ["Transformer", "Pooling", *("Dense" for _ in dense), "Normalize"]  # Normalize: of length 1
    pooling = read(folder / modules[1]["path"] / "config.json")
    flags = [key.removeprefix("pooling_mode_").split("_")[0] for key, value in pooling.items() if value is True]
    found = ["LAST" if flag == "lasttoken" else flag.upper() for flag in flags]
    assert found == [POOLED[encoder.description.pooling]]
    if architecture == "LlamaBidirectionalModel":  # which asks config.json a second time, and goes by what it says
        assert {"avg": "MEAN", "cls": "CLS", "last": "LAST"}[config["pooling"]] == found[0]
    for module, (before, after) in zip(modules[2:-1], dense, strict=True):
        said = read(folder / module["path"] / "config.json")
        assert (said["in_features"], said["out_features"]) == (before, after)
        assert said["activation_function"].startswith("torch.nn.modules.")
        assert said["activation_function"].rpartition(".")[2].lower() in ACTIVATIONS
    assert POOLINGS[encoder.description.pooling].module_flag in pooling
    assert read(folder / "sentence_bert_config.json")["max_seq_length"] == encoder.description.max_tokens


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("bert", {"architectures": ["BertForMaskedLM"]}, "BertModel"),
        ("bert", {"architectures": None}, "BertModel"),
        ("roberta", {"architectures": ["RobertaForMaskedLM"]}, "RobertaModel"),
        ("roberta", {"architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta"}, "XLMRobertaModel"),
        ("roberta", {"architectures": ["CamembertModel"], "model_type": "camembert"}, "RobertaModel"),
        ("mpnet", {"architectures": ["MPNetForMaskedLM"]}, "MPNetModel"),
        ("modernbert", {"architectures": ["ModernBertForMaskedLM"]}, "ModernBertModel"),
        ("gemma3_text", {"architectures": ["Gemma3ForCausalLM"]}, "Gemma3TextModel"),
        ("qwen3", {"architectures": ["Qwen3ForCausalLM"]}, "Qwen3ForCausalLM"),  # as published ones say
    ],
)
def test_an_encoder_of_a_model_with_a_head_is_published_as_an_encoder(
    name: str, changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """Of `BertForMaskedLM` vLLM serves the logits of each token, of a name that it does not know nothing."""
    assert read(published(tmp_path, name, **changes) / "config.json")["architectures"] == [expected]


# The prefix of the encoder's tensors in a model with a head, and one of the head's.
WITH_HEADS = {
    "bert": ("bert.", "cls.predictions.bias"),
    "roberta": ("roberta.", "lm_head.bias"),
    "mpnet": ("mpnet.", "lm_head.bias"),
    "modernbert": ("model.", "decoder.bias"),
    "qwen3": ("model.", "lm_head.weight"),
}


def below_a_head(folder: Path, name: str) -> set[str]:
    """Name the tensors as those of a model with a head, BERT's norms as in its old files. The names before."""
    prefix, head = WITH_HEADS[name]
    tensors = load_file(folder / "model.safetensors")
    before = set(tensors)
    if name == "bert":
        tensors = {key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
                   for key, value in tensors.items()}  # fmt: skip
    save_file(
        {**{prefix + key: value for key, value in tensors.items()}, head: torch.zeros(5)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return before


def all_weights(base: Path, folder: Path) -> None:
    PaddedEncoder.load(base, device="cpu", dtype=torch.float32).save(folder)


def packed_weights(base: Path, folder: Path) -> None:
    encoder = PaddedEncoder.load(base, device="cpu", dtype=torch.float32)
    packed = encoder.description.family.packed_model()
    model = packed.of(json.loads((base / "config.json").read_text()), encoder.description, device="cpu",
                      dtype=torch.float32)  # fmt: skip
    folder.mkdir()
    ModelFiles.fill(model, base, encoder.description).save(model, folder)


def merged_adapters(base: Path, folder: Path) -> None:
    encoder = PaddedEncoder.load(base, device="cpu", dtype=torch.float32)
    adapters = add_adapters(encoder, Lora(rank=4, alpha=8), seed=1)
    trained = {name: value for name, value in encoder.module.named_parameters() if value.requires_grad}
    adapters.save(folder, base, trained, encoder.description)


@pytest.mark.parametrize("writer", [all_weights, packed_weights, merged_adapters])
@pytest.mark.parametrize("name", WITH_HEADS)
def test_tensors_have_the_names_of_the_class_without_a_head(name: str, writer: Any, tmp_path: Path) -> None:
    """vLLM reads a ModernBERT below `model.`, and does not start on a BERT below `bert.`."""
    base = MAKERS[name](tmp_path / "base", hidden_size=64)  # heads of 16, the least that packs compute
    expected = PaddedEncoder.load(base, device="cpu", dtype=torch.float32).embed(["key1"], role="query")
    names = below_a_head(base, name)
    writer(base, tmp_path / "checkpoint")
    assert set(load_file(tmp_path / "checkpoint" / "model.safetensors")) == names
    if writer is all_weights:
        found = PaddedEncoder.load(tmp_path / "checkpoint", device="cpu", dtype=torch.float32)
        np.testing.assert_array_equal(found.embed(["key1"], role="query"), expected)


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert"])
def test_vllm_finds_the_kind_of_positions(kind: str, tmp_path: Path) -> None:
    """It stops without the field, which transformers 5 leaves out of what it saves."""
    config = read(published(tmp_path, "roberta", model_type=kind) / "config.json")
    assert config["position_embedding_type"] == "absolute"
    assert "position_embedding_type" not in read(tmp_path / "base" / "config.json")


def test_vllm_finds_how_a_ministrals_queries_grow(tmp_path: Path) -> None:
    config = read(published(tmp_path, "ministral3_bidirectional") / "config.json")
    assert config["llama_4_scaling"] == {"beta": 0.1, "original_max_position_embeddings": 32}
    assert config["rope_parameters"]["llama_4_scaling_beta"] == 0.1, "where transformers finds it"
