"""A teacher's scores for the tests' examples, and the loss towards them as it is written on paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from embedding_stages.finetune.batches import Example


def scores_of(number: int, count: int) -> tuple[float, ...]:
    """Scores of an example's candidates, other ones for its neighbours."""
    return tuple(round(0.9 - 0.11 * ((number + 3 * place) % 5), 2) for place in range(count))


def scored(examples: Sequence[Example]) -> list[Example]:
    """The examples with scores, and with two to four candidates."""
    cut = [replace(example, candidates=example.candidates[: 2 + example.query // 3 % 3]) for example in examples]
    return [replace(example, scores=scores_of(example.query, len(example.candidates))) for example in cut]


def score_lines(folder: Path) -> None:
    """Give each line of a training set its scores."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["scores"] = scores_of(number, 1 + len(line["negatives"]))
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def ranking_losses(vectors: torch.Tensor, examples: Sequence[Example], temperature: float) -> torch.Tensor:
    """float64, one an example: sum of p * log(p / q) over its candidates. `vectors` are all rows', of length 1."""
    losses = []
    for example in examples:
        cosines = vectors[list(example.candidates)].double() @ vectors[example.query].double()
        student = torch.softmax(cosines / temperature, dim=0)
        teacher = torch.softmax(student.new_tensor(example.scores) / temperature, dim=0)
        losses.append((teacher * (teacher / student).log()).sum().cpu())
    return torch.stack(losses)
