"""The families of models that can be used, one module each. Standard library only at import.

To add one, write its module and name its object in FAMILIES (CONTRIBUTING.md: how to add a model family).
"""

from __future__ import annotations

from typing import Any, Final

from embedding_stages.encoder.configuration import FIELD, Config
from embedding_stages.encoder.families.bert import BERT
from embedding_stages.encoder.families.family import Family, Unsupported
from embedding_stages.encoder.families.llama import LLAMA_BIDIRECTIONAL
from embedding_stages.encoder.pooling import POOLINGS, Pooling
from embedding_stages.errors import BadInput

__all__ = ["FAMILIES", "Family", "Unsupported", "family_named", "family_of", "pooling_in", "unpoolable", "unsupported"]

FAMILIES: Final[tuple[Family, ...]] = (BERT, LLAMA_BIDIRECTIONAL)  # the first that recognises a model has it
_STATIC_ROPE: Final = ("default", "linear", "llama3", "yarn")  # angles that do not depend on a text's length


def family_of(config: Config) -> Family:
    """The family of the model with this config.json. Raises BadInput `BaseModelUnsupported`."""
    if config.get("quantization_config"):
        raise unsupported("quantized weights cannot be trained; name the unquantized model")
    family = next((family for family in FAMILIES if family.recognises(config)), None)
    if family is None:
        raise unsupported(f"model_type {config.get('model_type')!r}")
    try:
        family.check(config)
    except Unsupported as error:
        raise unsupported(str(error)) from error
    activation = family.activation(config)
    if activation not in family.activations:
        raise unsupported(f"activation {activation!r}")
    pooling_in(config, family)
    rope = config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _STATIC_ROPE:
        raise unsupported(f"rotary positions of type {kind!r}")
    return family


def family_named(name: str) -> Family:
    """The family of an encoder.json's `architecture`. Raises KeyError."""
    return {family.name: family for family in FAMILIES}[name]


def pooling_in(config: Config, family: Family) -> Pooling:
    """The pooling that config.json names, else the family's first. Raises BadInput `BaseModelUnsupported`."""
    if "pooling" not in config:
        return family.poolings[0]
    named: Any = config["pooling"]
    for pooling in family.poolings:
        if named in POOLINGS[pooling].config_names:
            return pooling
    raise unpoolable(repr(named), family)


def unpoolable(named: str, family: Family) -> BadInput:
    """The refusal of a pooling that the family cannot be used with."""
    titles = " or ".join(POOLINGS[pooling].title for pooling in family.poolings)
    return unsupported(f"pooling {named}; only {titles} pooling can be used")


def unsupported(what: str) -> BadInput:
    """The refusal of a model, with the families that can be used."""
    *most, last = (family.title for family in FAMILIES)
    supported = f"supported are {', '.join(most)} and {last} encoders"
    return BadInput("BaseModelUnsupported", f"the base model cannot be used: {what}; {supported}", field=FIELD)
