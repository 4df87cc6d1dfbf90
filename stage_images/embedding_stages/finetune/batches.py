"""Which examples make a step, and which texts go through the encoder together. Pure.

A step's gradient is that of the mean loss over its examples, whatever its texts' grouping. Two groupings give
it, and `plan_step` takes the cheaper one:

- one part: the step's distinct texts are encoded once. Groups whose graphs do not fit the memory are encoded a
  second time for their gradients (a forward pass more, about a third of a forward and backward pass);
- several parts: examples in runs that fit the memory whole. Nothing is encoded a second time, but a passage
  that two parts share is encoded in both.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_LENGTH_SPREAD = 0.75  # a group's shortest text is at least this share of its longest: at most 25 % padding
_FORWARD = 1  # cost of a padded token's forward pass; forward and backward together cost three
_FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True, slots=True)
class Example:
    """Row numbers (see `TrainingSet.rows`) of one query, its positive and its negatives."""

    query: int
    candidates: tuple[int, ...]  # the positive first
    scores: tuple[float, ...] = ()  # the teacher's, one a candidate; empty where the label is learned


@dataclass(frozen=True, slots=True)
class Part:
    """Examples whose losses are computed together. `groups` hold their distinct rows, each once."""

    examples: tuple[Example, ...]
    groups: tuple[tuple[int, ...], ...]  # one forward pass each
    kept: frozenset[int]  # numbers of the groups whose graph is kept until the loss is known


def examples_of_step(step: int, *, examples: int, global_batch: int, seed: int) -> list[int]:
    """Numbers of the examples of optimizer step `step` (0-based): a function of its arguments alone, so that a
    resumed run goes on with the same batches. Every epoch is another permutation; its last step may be smaller.
    """
    steps_per_epoch = -(-examples // global_batch)
    epoch, place = divmod(step, steps_per_epoch)
    order = _order(examples, f"{seed}/{epoch}")
    return list(order[place * global_batch : (place + 1) * global_batch])


@lru_cache(maxsize=2)  # this step's epoch and the next one's: a million examples take half a second to shuffle
def _order(examples: int, seed: str) -> tuple[int, ...]:
    order = list(range(examples))
    random.Random(seed).shuffle(order)  # noqa: S311 - not a secret
    return tuple(order)


def split(examples: Sequence[Example], lengths: Sequence[int] | NDArray[np.int64], ranks: int) -> list[list[Example]]:
    """The step's examples dealt to `ranks` workers so that each has about as many tokens; a share may be empty.

    The longest example left goes to the worker with the least so far: at most an example's length apart. A passage
    that two examples of a worker share counts twice, which evens out.
    """
    if ranks == 1:
        return [list(examples)]
    weights = [int(sum(lengths[row] for row in (example.query, *example.candidates))) for example in examples]
    loads = [0] * ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for number in sorted(range(len(examples)), key=lambda number: (-weights[number], number)):
        rank = min(range(ranks), key=lambda rank: (loads[rank], rank))
        loads[rank] += weights[number]
        shares[rank].append(number)
    return [[examples[number] for number in sorted(share)] for share in shares]


def plan_step(examples: Sequence[Example], lengths: Sequence[int], *, token_budget: int) -> list[Part]:
    """The cheaper of the two groupings. `lengths` are tokens a row; a group or the kept groups of a part
    together take at most `token_budget` padded tokens (a single longer text is its own group).
    """
    whole = [_part(examples, lengths, token_budget)]
    split = _split(examples, lengths, token_budget)
    return min(whole, split, key=lambda parts: sum(cost(part, lengths) for part in parts))


def plan_rows(examples: Sequence[Example], rows: Sequence[int], lengths: Sequence[int], *, token_budget: int) -> Part:
    """One part of which these rows alone are encoded here: others are encoded elsewhere."""
    return _part(examples, lengths, token_budget, rows)


def cost(part: Part, lengths: Sequence[int]) -> int:
    """Padded tokens, weighted by the passes they take."""
    return sum(
        padded_tokens(group, lengths) * (_FORWARD_AND_BACKWARD + (0 if number in part.kept else _FORWARD))
        for number, group in enumerate(part.groups)
    )


def padded_tokens(group: Sequence[int], lengths: Sequence[int]) -> int:
    """Tokens of a forward pass: all rows as long as the longest."""
    return len(group) * max(lengths[row] for row in group)


def rows_of(examples: Sequence[Example]) -> list[int]:
    """The distinct rows of these examples, in order."""
    return sorted({row for example in examples for row in (example.query, *example.candidates)})


def _part(examples: Sequence[Example], lengths: Sequence[int], budget: int, rows: Sequence[int] | None = None) -> Part:
    rows = rows_of(examples) if rows is None else rows
    groups = groups_of(sorted(rows, key=lambda row: (-lengths[row], row)), lengths, budget)
    room, kept = budget, set()
    for number in sorted(range(len(groups)), key=lambda number: -padded_tokens(groups[number], lengths)):
        tokens = padded_tokens(groups[number], lengths)
        if tokens <= room:
            room -= tokens
            kept.add(number)
    if not kept:
        kept.add(0)  # one graph must fit in any case
    return Part(examples=tuple(examples), groups=tuple(groups), kept=frozenset(kept))


def groups_of(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """Rows, longest first, cut where a group would outgrow the budget or its rows get much shorter."""
    groups: list[list[int]] = []
    for row in rows:
        last = groups[-1] if groups else None
        if last is not None:
            longest = lengths[last[0]]
            if (len(last) + 1) * longest <= budget and lengths[row] >= _LENGTH_SPREAD * longest:
                last.append(row)
                continue
        groups.append([row])
    return [tuple(group) for group in groups]


def _split(examples: Sequence[Example], lengths: Sequence[int], budget: int) -> list[Part]:
    """Runs of examples that fit the budget; neighbours share their positive, so their passages repeat less."""
    ordered = sorted(examples, key=lambda example: (example.candidates[0], example.query))
    parts: list[Part] = []
    run: list[Example] = []
    for example in ordered:
        part = _part([*run, example], lengths, budget)
        if run and len(part.kept) < len(part.groups):
            parts.append(_part(run, lengths, budget))
            run = []
        run.append(example)
    return [*parts, _part(run, lengths, budget)] if run else parts
