"""Which model a server builds of a published folder, by the rules of one: vLLM 0.33.0.

That release's own configuration reader was run on the folder of every family (docs/compatibility.md): `READ` is what
it said. The rules below are its rules, so that a folder that it would read otherwise fails here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages.tiny_models import MAKERS

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.pooling import POOLINGS

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
