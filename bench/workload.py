"""What every contestant gets: the model's shape, the seeded texts, and how much arithmetic they take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.models import Shape

Row = npt.NDArray[np.int64]  # the token ids of one text, its prefix first
Example = list[Row]  # a query, its positive passage, its negatives
Step = list[Example]  # what one optimizer step is made of

MAX_TOKENS: Final = 512
MIN_TOKENS: Final = 4
PASSAGES: Final = 5  # a query: one positive, four negatives
PAD_ID: Final = 0
UNKNOWN_ID: Final = 1
QUERY_PREFIX: Final = 77  # the ids of the one-word prefixes: some contestants put them there themselves
PASSAGE_PREFIX: Final = 78
_FIRST_PLAIN_ID: Final = 100
_CORPUS_SEED_OFFSET: Final = 10_000  # the corpus to embed is no copy of the training texts


@dataclass(frozen=True, slots=True)
class LengthModel:
    """Lognormal text lengths in tokens, by their mean and standard deviation before clipping."""

    mean: float
    deviation: float

    def draw(self, generator: np.random.Generator, count: int) -> Row:
        """`count` lengths, rounded and clipped to what the encoder takes."""
        variance = np.log1p((self.deviation / self.mean) ** 2)
        lengths = generator.lognormal(np.log(self.mean) - variance / 2, np.sqrt(variance), count)
        return np.clip(np.round(lengths), MIN_TOKENS, MAX_TOKENS).astype(np.int64)


QUERY_LENGTHS: Final = LengthModel(24, 8)
PASSAGE_LENGTHS: Final = {
    "A": LengthModel(135, 45),  # five sentences, as the embed recipe cuts its documents
    "B": LengthModel(150, 95),  # the same with a heavy tail
    "C": LengthModel(300, 120),
    "D": LengthModel(460, 110),  # most passages close to the limit
}


def training_steps(lengths: str, *, steps: int, examples: int, seed: int, shape: Shape) -> list[Step]:
    """`steps` times `examples` examples: equal arguments, equal tokens."""
    generator = np.random.default_rng(seed)
    batches: list[Step] = []
    for _ in range(steps):
        queries = QUERY_LENGTHS.draw(generator, examples)
        passages = PASSAGE_LENGTHS[lengths].draw(generator, examples * PASSAGES).reshape(examples, PASSAGES)
        batches.append([_example(generator, queries[i], passages[i], shape) for i in range(examples)])
    return batches


def write_corpus(path: Path, lengths: str, *, passages: int, seed: int, shape: Shape) -> None:
    """Write the passages to embed, one JSON object a line: `text`, and `tokens`, its length."""
    generator = np.random.default_rng(seed + _CORPUS_SEED_OFFSET)
    sizes = PASSAGE_LENGTHS[lengths].draw(generator, passages)
    with path.open("w", encoding="utf-8") as file:
        for size in sizes:
            text = as_text(_row(generator, int(size), PASSAGE_PREFIX, shape))
            file.write(json.dumps({"text": text, "tokens": int(size)}) + "\n")


def read_corpus(path: Path) -> list[str]:
    """The texts of a corpus, as a contestant reads them with the clock running."""
    with path.open(encoding="utf-8") as file:
        return [str(json.loads(line)["text"]) for line in file]


def corpus_lengths(path: Path) -> list[int]:
    """The lengths in tokens of a corpus: for the sums, outside the clock."""
    with path.open(encoding="utf-8") as file:
        return [int(json.loads(line)["tokens"]) for line in file]


def step_lengths(step: Step) -> list[int]:
    """The length of every text of one optimizer step."""
    return [len(row) for example in step for row in example]


def as_text(row: Iterable[int]) -> str:
    """The words whose token ids are `row`, in the toy vocabulary."""
    return " ".join(f"w{token}" for token in row)


def training_flops(lengths: Sequence[int], shape: Shape) -> float:
    """Forward and backward over texts of these lengths: valid tokens alone, nothing for padding."""
    sizes = np.asarray(lengths, dtype=np.float64)
    window, every = shape.window
    seeing_all = -(-shape.layers // every)
    pairs = seeing_all * (sizes**2) + (shape.layers - seeing_all) * sizes * np.minimum(sizes, window)
    attention = 12 * shape.heads * shape.head_size * float(pairs.sum()) * (0.5 if shape.causal else 1.0)
    return 6 * shape.linear_parameters * float(sizes.sum()) + attention


def inference_flops(lengths: Sequence[int], shape: Shape) -> float:
    """Forward alone: a third of training."""
    return training_flops(lengths, shape) / 3


def _example(generator: np.random.Generator, query: int, passages: Row, shape: Shape) -> Example:
    rows = [_row(generator, int(query), QUERY_PREFIX, shape)]
    return rows + [_row(generator, int(size), PASSAGE_PREFIX, shape) for size in passages]


def _row(generator: np.random.Generator, size: int, prefix: int, shape: Shape) -> Row:
    """Ids over the whole vocabulary: a GEMM on few distinct rows, or on zeros, would run faster than a real one."""
    row = generator.integers(_FIRST_PLAIN_ID, shape.vocabulary, size, dtype=np.int64)
    row[0] = prefix
    return row
