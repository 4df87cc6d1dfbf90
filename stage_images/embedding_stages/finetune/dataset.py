"""The training set (see formats/training_set.py) as token ids, tokenized once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.finetune.batches import Example
from embedding_stages.formats.training_set import read_training_set


@dataclass(frozen=True)
class TrainingSet:
    """`rows` are the token ids of all queries, then of all passages in use; examples point into them."""

    rows: list[list[int]]
    examples: list[Example]  # all with scores, or none

    @property
    def scored(self) -> bool:
        """Whether the examples carry a teacher's scores."""
        return bool(self.examples and self.examples[0].scores)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.rows]

    @cached_property
    def packed(self) -> Ragged:
        """The rows in one array."""
        return Ragged.of(self.rows)


def load_training_set(
    folder: Path, tokenizer: TextTokenizer, *, negatives_per_query: int, with_scores: bool = True
) -> TrainingSet:
    """The first `negatives_per_query` negatives of each example are used; an example may have fewer.

    Their scores come along where the file has any, unless `with_scores` is False.
    Raises BadInput `TrainingSetInvalid`, `TrainingSetEmpty`, `NegativesMissing` or `PassageMissing`.
    """
    passages, read = read_training_set(folder)
    chosen = [(example.positive, *example.negatives[:negatives_per_query]) for example in read]
    used = sorted({name for names in chosen for name in names})
    number = {name: len(read) + place for place, name in enumerate(used)}
    queries = tokenizer.encode([example.query for example in read], "query")
    rows = queries + tokenizer.encode([passages[name] for name in used], "passage")
    examples = [
        Example(
            query,
            candidates=tuple(number[name] for name in names),
            scores=example.scores[: len(names)] if with_scores else (),
        )
        for query, (example, names) in enumerate(zip(read, chosen, strict=True))
    ]
    return TrainingSet(rows=rows, examples=examples)
