"""Writes the random checkpoint that all contestants train, with the config.json that each of them expects.

`python3 -m bench.checkpoint FOLDER --model llama-1b`: its own process, so that the command that starts the
contestants never holds memory of the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from bench.models import SHAPES, Shape
from bench.workload import MAX_TOKENS, PAD_ID, UNKNOWN_ID

DEVIATION: Final = 0.02  # of the initial weights, as in Llama's own initialisation
_BASE: Final[dict[str, Any]] = {
    "hidden_act": "silu",
    "initializer_range": DEVIATION,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "is_causal": False,
    "pad_token_id": PAD_ID,
    "bos_token_id": None,
    "eos_token_id": None,
    "torch_dtype": "bfloat16",
}
_BIDIRECTIONAL: Final = {
    "model_type": "llama_bidirec",
    "architectures": ["LlamaBidirectionalModel"],
    "pooling": "avg",
}
# Families whose config.json names key heads and the size of a head.
_GROUPED: Final = ("qwen3", "ministral3", "gemma3_text")
_OF_GROUPED: Final = ("num_key_value_heads", "head_dim")
_NOT_SAVED: Final = ("is_causal", "use_bidirectional_attention")  # that not every version of the library writes down
# The same weights; what differs is the name that makes each contestant load its own best class.
FLAVOURS: Final[dict[str, dict[str, Any]]] = {
    "ours": _BIDIRECTIONAL,
    "automodel": _BIDIRECTIONAL,
    "sentence_transformers": {"model_type": "llama", "architectures": ["LlamaModel"]},
}


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> None:
    """Fill `folder` with one model folder a flavour; the weights are one file under several names."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    if shape.family == "llama":
        save_file(_weights(shape, seed), weights, metadata={"format": "pt"})
        configs = {flavour: config_of_llama(shape, flavour) for flavour in FLAVOURS}
    else:
        configs = dict.fromkeys(FLAVOURS, _save_library_model(folder, shape, seed))
    tokenizer = json.dumps(tokenizer_of(shape))
    for flavour, config in configs.items():
        target = folder / flavour
        target.mkdir()
        os.link(weights, target / weights.name)
        (target / "config.json").write_text(json.dumps(config, indent=1))
        (target / "tokenizer.json").write_text(tokenizer)
        (target / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG, indent=1))


def config_of_llama(shape: Shape, flavour: str = "ours") -> dict[str, Any]:
    """config.json of a Llama of this shape, as one contestant expects it."""
    return _sizes(shape) | _BASE | FLAVOURS[flavour]


def _save_library_model(folder: Path, shape: Shape, seed: int) -> dict[str, Any]:
    """Write the weights of transformers' own class, as it initialises them: its config.json."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    sizes = {name: size for name, size in _sizes(shape).items() if shape.family in _GROUPED or name not in _OF_GROUPED}
    config = AutoConfig.for_model(shape.family, **sizes, **shape.config, pad_token_id=PAD_ID)
    with torch.device(_device()):  # a billion random numbers take a CPU longer than the contest takes
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="40GB")
    written = folder / "config.json"
    said: dict[str, Any] = json.loads(written.read_text()) | {
        name: value for name, value in shape.config.items() if name in _NOT_SAVED
    }
    written.unlink()
    return said


def _weights(shape: Shape, seed: int) -> dict[str, torch.Tensor]:
    device = _device()
    generator = torch.Generator(device).manual_seed(seed)

    def linear(rows: int, columns: int) -> torch.Tensor:
        values = torch.empty(rows, columns, device=device, dtype=torch.bfloat16)
        return values.normal_(0.0, DEVIATION, generator=generator).cpu()

    def norm() -> torch.Tensor:
        return torch.ones(shape.hidden, dtype=torch.bfloat16)

    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    tensors = {"embed_tokens.weight": linear(shape.vocabulary, shape.hidden), "norm.weight": norm()}
    for index in range(shape.layers):
        layer = {
            "self_attn.q_proj": linear(queries, shape.hidden),
            "self_attn.k_proj": linear(keys, shape.hidden),
            "self_attn.v_proj": linear(keys, shape.hidden),
            "self_attn.o_proj": linear(shape.hidden, queries),
            "mlp.gate_proj": linear(shape.intermediate, shape.hidden),
            "mlp.up_proj": linear(shape.intermediate, shape.hidden),
            "mlp.down_proj": linear(shape.hidden, shape.intermediate),
            "input_layernorm": norm(),
            "post_attention_layernorm": norm(),
        }
        tensors.update({f"layers.{index}.{name}.weight": tensor for name, tensor in layer.items()})
    return tensors


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _sizes(shape: Shape) -> dict[str, int]:
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "intermediate_size": shape.intermediate,
    }


def tokenizer_of(shape: Shape) -> dict[str, Any]:
    """A word-level tokenizer.json: word "w123" is token 123.

    Quicker than a real one, so it flatters whoever tokenizes inside the clock.
    """
    special = {PAD_ID: "<pad>", UNKNOWN_ID: "<unk>"}
    vocabulary = {special.get(token, f"w{token}"): token for token in range(shape.vocabulary)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": word} | flags for token, word in special.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": special[UNKNOWN_ID]},
    }


_TOKENIZER_CONFIG: Final = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "model_max_length": MAX_TOKENS,
    "padding_side": "right",
    "model_input_names": ["input_ids", "attention_mask"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=SHAPES, required=True)
    arguments = parser.parse_args()
    write_checkpoint(arguments.folder, SHAPES[arguments.model])


if __name__ == "__main__":
    main()
