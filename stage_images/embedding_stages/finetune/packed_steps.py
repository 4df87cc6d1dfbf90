"""Which texts of a step lie together in packs, and what each pack's loss compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ints, Pack, Ragged, balanced
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.loss import tables_of


@dataclass(frozen=True, slots=True)
class StepPack:
    """A pack in main memory."""

    pack: Pack
    rows: tuple[int, ...]  # whose texts it holds, in their order
    tables: tuple[Ints, ...]  # of its examples' losses; none where all packs have one loss together


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The packs of a step that this rank computes."""

    examples: tuple[Example, ...]
    packs: tuple[StepPack, ...]
    budget: int


def of_examples(encoder: PackedEncoder, examples: Sequence[Example], texts: Ragged, budget: int) -> PreparedStep:
    """Whole examples dealt to packs of equal size; a text that several examples of a pack share is in it once."""
    if not examples:
        return PreparedStep((), (), budget)
    lengths = texts.lengths
    weights = [int(sum(lengths[row] for row in (example.query, *example.candidates))) for example in examples]
    packs = []
    for group in balanced(weights, budget):
        chosen = [examples[number] for number in group]
        rows = sorted({row for example in chosen for row in (example.query, *example.candidates)})
        packs.append(StepPack(encoder.pack(texts, rows), tuple(rows), tables_of(chosen, rows)))
    return PreparedStep(tuple(examples), tuple(packs), budget)


def of_rows(
    encoder: PackedEncoder, examples: Sequence[Example], rows: Sequence[int], texts: Ragged, budget: int
) -> PreparedStep:
    """The texts of `rows` dealt to packs of equal size: for a loss that compares the texts of all examples."""
    groups = balanced(texts.lengths[list(rows)], budget) if rows else []
    chosen = [tuple(rows[number] for number in group) for group in groups]
    packs = tuple(StepPack(encoder.pack(texts, group), group, ()) for group in chosen)
    return PreparedStep(tuple(examples), packs, budget)
