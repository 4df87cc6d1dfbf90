"""What a checkpoint calls its tensors: by the class without a head, whatever head the base model was published with.

A base model of a class with a head has its encoder's tensors below a prefix (`bert.`, `model.`), and those of the head
beside it; old files of BERT call a norm's weight gamma. transformers reads all of that, a server some of it: vLLM reads
a ModernBERT below its prefix, and does not start on a BERT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from embedding_stages.encoder.families import Family

Tensor = TypeVar("Tensor")


def prefix_of(names: Iterable[str], family: Family) -> str | None:
    """What stands before the encoder's names in the files of a model; None where they hold no table of tokens."""
    table = next((name for name in names if name.endswith(family.table)), None)
    return None if table is None else table.removesuffix(family.table)


def as_published(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """`tensors` of a base model's names by those of a checkpoint; a head's are left out, for it is not trained."""
    prefix = prefix_of(tensors, family) or ""
    return {
        family.own_name(name.removeprefix(prefix)): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
