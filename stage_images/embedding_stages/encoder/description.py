"""What an encoder is, without loading it: architecture, pooling, prefixes, lengths. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from embedding_stages.contract import ENCODER_FILE
from embedding_stages.encoder.safetensors_check import TensorEntry, check_weights
from embedding_stages.errors import BadInput

Architecture = Literal["bert", "llama_bidirectional"]
Role = Literal["query", "passage"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

FIELD: Final = "spec.baseModel"
DEFAULT_MAX_TOKENS: Final = 512  # NVIDIA embed recipe, profile llama
_LLAMA_PREFIXES: Final = {"query": "query: ", "passage": "passage: "}  # NVIDIA embed recipe, profile llama
_NO_PREFIXES: Final = {"query": "", "passage": ""}
_MATRYOSHKA: Final = (1024, 768, 512, 384)  # llama-nemotron-embed-1b-v2, beside its hidden size of 2048
_UNLIMITED: Final = 1_000_000  # tokenizers write about 1e30 for "no limit"
_SUPPORTED: Final = "supported are BERT (model_type bert) and bidirectional Llama (llama_bidirec) encoders"
_ACTIVATIONS: Final = {
    "bert": ("gelu", "relu", "gelu_new", "gelu_pytorch_tanh"),
    "llama_bidirectional": ("silu",),
}
_STATIC_ROPE: Final = ("default", "linear", "llama3", "yarn")  # angles that do not depend on a text's length


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDescription:
    """What a caller must know to get the same vectors again; stored as encoder.json in a model folder."""

    architecture: Architecture
    prefixes: Mapping[str, str]  # {"query": ..., "passage": ...}: put before each text
    max_tokens: int  # longer texts are cut, special tokens counted
    hidden_size: int
    dimensions: tuple[int, ...]  # output sizes that may be asked for, the hidden size first
    pooling: Literal["mean"] = "mean"
    normalized: bool = True  # vectors have length 1

    def save(self, folder: Path) -> None:
        """Write encoder.json into `folder`."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=True)
        (folder / ENCODER_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EncoderDescription:
        """Read encoder.json. Raises BadInput `EncoderDescriptionInvalid`."""
        try:
            raw = json.loads((folder / ENCODER_FILE).read_bytes())
            description = cls(
                architecture=raw["architecture"],
                prefixes={role: str(raw["prefixes"][role]) for role in ROLES},
                max_tokens=int(raw["max_tokens"]),
                hidden_size=int(raw["hidden_size"]),
                dimensions=tuple(int(size) for size in raw["dimensions"]),
                pooling=raw["pooling"],
                normalized=raw["normalized"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                "EncoderDescriptionInvalid", f"{ENCODER_FILE} is missing or invalid: {error}", field=FIELD
            ) from error
        known = description.architecture in get_args(Architecture) and description.pooling == "mean"
        if not known or description.max_tokens < 1 or description.normalized is not True:
            raise BadInput(
                "EncoderDescriptionInvalid",
                f"{ENCODER_FILE} describes an encoder unknown here: {raw}",
                field=FIELD,
            )
        return description


def describe_model(folder: Path, *, prefixes: Mapping[str, str] | None, max_tokens: int | None) -> EncoderDescription:
    """Read a Hugging Face or sentence-transformers folder and check that it can be used.

    `prefixes` (roles query and passage) and `max_tokens` override what the folder says; a role that
    `prefixes` leaves out has none. Code that comes with a model (`auto_map`) is ignored and never runs.
    Raises BadInput `BaseModelUnsupported`, `ModelIncomplete`, `ModelPickled`, `ModelDamaged` or
    `MaxTokensTooLarge`.
    """
    description = describe_configuration(folder, prefixes=prefixes, max_tokens=max_tokens)
    config = _json_object(folder / "config.json", required=True)
    _check_embedding_table(check_weights(folder, field=FIELD), config, description.hidden_size)
    return description


def describe_configuration(
    folder: Path, *, prefixes: Mapping[str, str] | None, max_tokens: int | None
) -> EncoderDescription:
    """What `describe_model` says and refuses before it looks at the weights, which need not be there yet."""
    config = _json_object(folder / "config.json", required=True)
    architecture = _architecture(config)
    if not (folder / "tokenizer.json").is_file():
        raise BadInput(
            "ModelIncomplete",
            "the model has no tokenizer.json; save it with its fast tokenizer (AutoTokenizer, use_fast=True)",
            field=FIELD,
        )
    _check_modules(folder)
    hidden_size = _positive(config, "hidden_size")
    dimensions: tuple[int, ...] = (hidden_size,)
    if architecture == "llama_bidirectional":
        dimensions += tuple(size for size in _MATRYOSHKA if size < hidden_size)
    return EncoderDescription(
        architecture=architecture,
        prefixes=_prefixes(folder, architecture, prefixes),
        max_tokens=_max_tokens(folder, config, max_tokens),
        hidden_size=hidden_size,
        dimensions=dimensions,
    )


def _architecture(config: Mapping[str, Any]) -> Architecture:
    model_type = config.get("model_type")
    names = [str(name) for name in config.get("architectures") or []]
    if config.get("quantization_config"):
        raise _unsupported("quantized weights cannot be trained; name the unquantized model")
    if model_type == "bert":
        if config.get("is_decoder") or config.get("add_cross_attention"):
            raise _unsupported("a BERT decoder is no encoder")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise _unsupported(f"BERT with {config['position_embedding_type']} positions")
        return _check_details("bert", config)
    bidirectional = model_type == "llama" and (
        config.get("is_causal") is False
        or bool(config.get("use_bidirectional_attention"))
        or any("Bidirectional" in name for name in names)
    )
    if model_type == "llama_bidirec" or bidirectional:
        return _check_details("llama_bidirectional", config)
    cure = "; a causal Llama is no encoder" if model_type == "llama" else ""
    raise _unsupported(f"model_type {model_type!r}{cure}")


def _check_details(architecture: Architecture, config: Mapping[str, Any]) -> Architecture:
    activation = config.get("hidden_act", _ACTIVATIONS[architecture][0])
    if activation not in _ACTIVATIONS[architecture]:
        raise _unsupported(f"activation {activation!r}")
    if config.get("pooling", "avg") not in ("avg", "mean"):
        raise _unsupported(f"pooling {config['pooling']!r}; only mean pooling can be used")
    rope = config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _STATIC_ROPE:
        raise _unsupported(f"rotary positions of type {kind!r}")
    return architecture


def _check_modules(folder: Path) -> None:
    """sentence-transformers: only Transformer, mean Pooling and Normalize can be reproduced."""
    path = folder / "modules.json"
    if path.is_file():
        modules = _json(path)
        kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
        other = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
        if other:
            raise _unsupported(f"sentence-transformers module {other[0]}")
    pooling = _json_object(folder / "1_Pooling" / "config.json", required=False)
    if pooling:
        chosen = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
        named = pooling.get("pooling_mode")
        if (named is not None and named != "mean") or (named is None and chosen != ["pooling_mode_mean_tokens"]):
            raise _unsupported(f"pooling {named or ', '.join(chosen)}; only mean pooling can be used")


def _check_embedding_table(tensors: Mapping[str, TensorEntry], config: Mapping[str, Any], hidden_size: int) -> None:
    shape = [_positive(config, "vocab_size"), hidden_size]
    for name, entry in tensors.items():
        if name.endswith(("word_embeddings.weight", "embed_tokens.weight")):
            if list(entry.shape) != shape:
                raise BadInput(
                    "ModelDamaged",
                    f"{name} has shape {list(entry.shape)}, config.json says {shape}: they do not match",
                    field=FIELD,
                )
            return
    raise BadInput("ModelIncomplete", "the weights hold no token embedding table", field=FIELD)


def _prefixes(folder: Path, architecture: Architecture, given: Mapping[str, str] | None) -> dict[str, str]:
    if given is not None:
        return {role: given.get(role, "") for role in ROLES}
    prompts = _json_object(folder / "config_sentence_transformers.json", required=False).get("prompts") or {}
    if isinstance(prompts, dict) and prompts.get("query") is not None:
        return {
            "query": str(prompts["query"]),
            "passage": str(prompts.get("passage", prompts.get("document", ""))),
        }
    return dict(_LLAMA_PREFIXES if architecture == "llama_bidirectional" else _NO_PREFIXES)


def _max_tokens(folder: Path, config: Mapping[str, Any], given: int | None) -> int:
    positions = _positive(config, "max_position_embeddings")
    if given is not None:
        if not 1 <= given <= positions:
            raise BadInput(
                "MaxTokensTooLarge",
                f"{given} tokens a text were asked for; the model has {positions} positions",
                field=f"{FIELD}.maxTokens",
            )
        return given
    told = (
        _json_object(folder / "sentence_bert_config.json", required=False).get("max_seq_length"),
        _json_object(folder / "tokenizer_config.json", required=False).get("model_max_length"),
    )
    limits = [int(value) for value in told if isinstance(value, int | float) and 0 < value < _UNLIMITED]
    return min([DEFAULT_MAX_TOKENS, positions, *limits])


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput("ModelDamaged", f"config.json: {key} is {value!r}, expected a number > 0", field=FIELD)
    return value


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInput("ModelDamaged", f"{path.name} is not JSON: {error}; fetch it again", field=FIELD) from error


def _json_object(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise BadInput("ModelIncomplete", f"the model has no {path.name}; add it", field=FIELD)
        return {}
    value = _json(path)
    if not isinstance(value, dict):
        raise BadInput("ModelDamaged", f"{path.name} is not a JSON object; fetch it again", field=FIELD)
    return value


def _unsupported(what: str) -> BadInput:
    return BadInput("BaseModelUnsupported", f"the base model cannot be used: {what}; {_SUPPORTED}", field=FIELD)
