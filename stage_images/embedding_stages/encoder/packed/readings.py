"""What packs make of a config.json: the shape of each kind of model that they run, and its rotary angles.

The library's configuration classes fill in what a file leaves out, and know older ways to write it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import torch

from embedding_stages.encoder.configuration import for_library
from embedding_stages.encoder.packed.gates import Activation
from embedding_stages.encoder.packed.ops import EVERYTHING, Heads, Norm, Sight
from embedding_stages.encoder.packed.packs import ROUND
from embedding_stages.encoder.packed.pooling import PACKED_POOLINGS
from embedding_stages.encoder.packed.shape import GEMMA3, LLAMA, MODERNBERT, QWEN3, Shape
from embedding_stages.encoder.pooling import Pooling, carried

Angles = tuple[torch.Tensor, torch.Tensor]  # cosine and sine, float32 (positions, head size / 2)

_FULL: Final = "full_attention"  # in the library's words, a layer that sees everything
_SIZES: Final = (16, 32, 64, 128, 256)  # of heads: a tile has a power of 2 of columns, and a tile of 512 has no room
_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How models of one kind are read."""

    package: str  # of transformers.models
    classes: str  # what the names of its configuration and of its rotary positions begin with
    shape: Callable[[Any], dict[str, Any]]  # from the library's configuration: fields of Shape beyond the sizes
    defaults: Mapping[str, Any] | None = None  # of rope_parameters, which the library asks for

    def configured(self, config: Mapping[str, Any]) -> Any:
        """The library's configuration. Raises ValueError where the library refuses it."""
        settings = for_library(config)
        for key in ("rope_parameters", "rope_scaling"):
            if self.defaults and isinstance(settings.get(key), dict):
                settings[key] = {**self.defaults, **settings[key]}
        family = import_module(f"transformers.models.{self.package}.configuration_{self.package}")
        try:
            return getattr(family, f"{self.classes}Config")(**settings)
        except Exception as error:  # its validation has classes of its own
            raise ValueError(f"a configuration that the library refuses: {error}") from error

    def rotary(self, configured: Any) -> Any:
        """The library's module of rotary positions."""
        family = import_module(f"transformers.models.{self.package}.modeling_{self.package}")
        return getattr(family, f"{self.classes.removesuffix('Text')}RotaryEmbedding")(configured)


def shape_of(
    config: Mapping[str, Any], *, pooling: Pooling = "mean", causal: bool = False, positions: int = 0
) -> Shape:
    """The shape of the model with this config.json. `positions`: the most tokens that a text may have.

    Raises ValueError with the reason when packs cannot run it.
    """
    reading = _reading(config)
    found = reading.configured(config)
    queries = int(found.num_attention_heads)
    keys = int(getattr(found, "num_key_value_heads", None) or queries)
    size = int(getattr(found, "head_dim", None) or found.hidden_size // queries)
    if any(getattr(found, key, False) for key in ("attention_bias", "mlp_bias", "norm_bias")):
        raise ValueError("projections or norms with biases")
    if size not in _SIZES or queries % keys:
        raise ValueError(f"{queries} heads of {size} for {keys} key heads; heads of {_SIZES} can be run")
    activation = str(getattr(found, "hidden_activation", None) or getattr(found, "hidden_act", "silu"))
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation {activation}")
    if _grows(found, positions):
        raise ValueError("queries that grow with their position")
    kinds = _kinds(found)
    fields: dict[str, Any] = {
        "heads": Heads(queries=queries, keys=keys, size=size),
        "norm": Norm(float(getattr(found, "rms_norm_eps", 1e-6))),
        "sights": tuple(Sight(causal=causal) if kind == _FULL else _windowed(found, causal) for kind in kinds),
        "kinds": tuple(kinds.index(kind) for kind in _layer_types(found)),
        "activation": _ACTIVATIONS[activation],
    }
    return Shape(
        vocabulary=int(found.vocab_size),
        hidden=int(found.hidden_size),
        intermediate=int(found.intermediate_size),
        layers=int(found.num_hidden_layers),
        pooling=carried(PACKED_POOLINGS, pooling),
        **fields | reading.shape(found),
    )


def angles_of(config: Mapping[str, Any], positions: int) -> tuple[Angles, ...]:
    """The rotary angles of each kind of layer, with whatever scaling the configuration asks for.

    At least as many as a pack's filler has tokens.
    """
    reading = _reading(config)
    found = reading.configured(config)
    rotary = reading.rotary(found)
    places = torch.arange(max(positions, ROUND)).float()
    angles = []
    for kind in _kinds(found):
        start = f"{kind}_" if hasattr(rotary, f"{kind}_inv_freq") else ""
        turns = torch.outer(places, getattr(rotary, f"{start}inv_freq").float())
        scale = float(getattr(rotary, f"{start}attention_scaling"))
        angles.append((turns.cos() * scale, turns.sin() * scale))
    return tuple(angles)


def _reading(config: Mapping[str, Any]) -> Reading:
    kind = str(config.get("model_type", "llama")).removesuffix("_bidirec")
    if kind not in READINGS:
        raise ValueError(f"model_type {kind}")
    return READINGS[kind]


def _layer_types(found: Any) -> Sequence[str]:
    """The kind of each layer, in the library's words."""
    return getattr(found, "layer_types", None) or [_FULL] * int(found.num_hidden_layers)


def _kinds(found: Any) -> list[str]:
    return sorted(set(_layer_types(found)))


def _windowed(found: Any, causal: bool) -> Sight:
    """The library counts the token itself; a causal window of n is the token and the n - 1 before it."""
    return Sight(causal=causal, window=int(found.sliding_window) - 1)


def _grows(found: Any, positions: int) -> bool:
    """Whether queries of a text so long are scaled by their position, as Ministral 3's beyond its first length."""
    rope = getattr(found, "rope_parameters", None) or {}
    beta = rope.get("llama_4_scaling_beta")
    return bool(beta) and positions > int(rope["original_max_position_embeddings"])


def _llama(found: Any) -> dict[str, Any]:  # noqa: ARG001 - nothing beyond the sizes
    return {"names": LLAMA}


def _ministral3(found: Any) -> dict[str, Any]:
    if getattr(found, "sliding_window", None):
        raise ValueError("a window in every layer")
    return {"names": LLAMA}


def _qwen3(found: Any) -> dict[str, Any]:  # noqa: ARG001
    return {"names": QWEN3}


def _gemma3(found: Any) -> dict[str, Any]:
    if getattr(found, "attn_logit_softcapping", None):
        raise ValueError("scores with a soft cap")
    heads = Heads(
        queries=int(found.num_attention_heads),
        keys=int(found.num_key_value_heads),
        size=int(found.head_dim),
        scale=float(found.query_pre_attn_scalar) ** -0.5,
    )
    return {
        "names": GEMMA3,
        "heads": heads,
        "norm": Norm(float(found.rms_norm_eps), plus_one=True),
        "embedding_scale": float(found.hidden_size) ** 0.5,
    }


def _modernbert(found: Any) -> dict[str, Any]:
    local = Sight(window=int(found.local_attention) // 2)  # which counts both sides
    return {
        "names": MODERNBERT,
        "norm": Norm(float(found.norm_eps), center=True),
        "first_norm": False,
        "sights": tuple(EVERYTHING if kind == _FULL else local for kind in _kinds(found)),
    }


READINGS: Final[Mapping[str, Reading]] = {  # by model_type, without "_bidirec"
    "llama": Reading(package="llama", classes="Llama", shape=_llama),
    "ministral3": Reading(
        package="ministral3",
        classes="Ministral3",
        shape=_ministral3,
        defaults={"llama_4_scaling_beta": 0.0, "original_max_position_embeddings": 1},
    ),
    "qwen3": Reading(package="qwen3", classes="Qwen3", shape=_qwen3),
    "gemma3_text": Reading(package="gemma3", classes="Gemma3Text", shape=_gemma3),
    "modernbert": Reading(package="modernbert", classes="ModernBert", shape=_modernbert),
}
