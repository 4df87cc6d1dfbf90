"""The families of models that can be used, one module each. Standard library only at import.

To add one, write its module and name its object in FAMILIES (CONTRIBUTING.md: how to add a model family).
"""

from __future__ import annotations

from typing import Any, Final

from embedding_stages.encoder.configuration import FIELD, Config, rotations
from embedding_stages.encoder.families.bert import BERT
from embedding_stages.encoder.families.family import Family, Unsupported
from embedding_stages.encoder.families.gemma3 import GEMMA3
from embedding_stages.encoder.families.llama import LLAMA_BIDIRECTIONAL
from embedding_stages.encoder.families.ministral3 import MINISTRAL3_BIDIRECTIONAL
from embedding_stages.encoder.families.modernbert import MODERNBERT
from embedding_stages.encoder.families.mpnet import MPNET
from embedding_stages.encoder.families.qwen3 import QWEN3
from embedding_stages.encoder.families.roberta import ROBERTA
from embedding_stages.encoder.pooling import POOLINGS, Pooling
from embedding_stages.errors import BadInput

__all__ = ["FAMILIES", "Family", "Unsupported", "family_named", "family_of", "pooling_in", "unpoolable", "unsupported"]

FAMILIES: Final[tuple[Family, ...]] = (  # the first that recognises a model has it; docs/models.md has a row for each
    BERT,
    ROBERTA,
    MPNET,
    MODERNBERT,
    LLAMA_BIDIRECTIONAL,
    MINISTRAL3_BIDIRECTIONAL,
    QWEN3,
    GEMMA3,
)
DOCUMENT: Final = "docs/models.md"
_STATIC_ROPE: Final = ("default", "linear", "llama3", "yarn")  # angles that do not depend on a text's length


def family_of(config: Config) -> Family:
    """The family of the model with this config.json. Raises BadInput `BaseModelUnsupported`."""
    if config.get("quantization_config"):
        raise unsupported("quantized weights cannot be trained; name the unquantized model")
    family = next((family for family in FAMILIES if family.recognises(config)), None)
    if family is None:
        near = _nearest(config)
        what = f"model_type {config.get('model_type')!r} is of no family that is known here"
        raise unsupported(f"{what}; the nearest is {near.title}, such as {near.example}")
    try:
        family.check(config)
    except Unsupported as error:
        raise unsupported(str(error)) from error
    activation = family.activation(config)
    if activation not in family.activations:
        raise unsupported(f"activation {activation!r}")
    pooling_in(config, family)
    for rope in rotations(config):
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
    """The refusal of a model, with the document that lists what can be used."""
    message = f"the base model cannot be used: {what}; {DOCUMENT} lists the models that can"
    return BadInput("BaseModelUnsupported", message, field=FIELD)


def _nearest(config: Config) -> Family:
    """The family to look at instead: the one that says so, else one with layers of the same kind."""
    kind = config.get("model_type")
    told = next((family for family in FAMILIES if kind in family.resembles), None)
    # Decoders norm by the root of the mean square, and say with which epsilon; encoders of BERT's kind do not.
    return told or (LLAMA_BIDIRECTIONAL if "rms_norm_eps" in config else BERT)
