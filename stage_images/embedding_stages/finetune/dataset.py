"""The training set (see formats/training_set.py) as token ids, tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from embedding_stages.contract import Artefact, presets
from embedding_stages.contract.settings import Finetune
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.finetune.batches import Example
from embedding_stages.formats.training_set import EXAMPLES, read_training_set


@dataclass(frozen=True)
class TrainingSet:
    """`rows` are the token ids of all queries, then of all passages in use; examples point into them."""

    rows: list[list[int]]
    examples: list[Example]  # all with scores, or none

    @property
    def scored(self) -> bool:
        """Whether the examples carry a teacher's scores."""
        return _scored(self.examples)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.rows]

    @cached_property
    def packed(self) -> Ragged:
        """The rows in one array."""
        return Ragged.of(self.rows)


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """What is trained with: rows are all queries, then all passages in use; examples point into them."""

    queries: list[str]
    passages: list[str]
    examples: list[Example]  # all with scores, or none

    @property
    def scored(self) -> bool:
        """Whether the examples carry a teacher's scores."""
        return _scored(self.examples)


def read_texts(folder: Path, *, negatives_per_query: int, with_scores: bool = True) -> TrainingTexts:
    """The first `negatives_per_query` negatives of each example are used; an example may have fewer.

    Their scores come along where the file has any, unless `with_scores` is False.
    Raises BadInput `TrainingSetInvalid`, `TrainingSetEmpty`, `NegativesMissing` or `PassageMissing`.
    """
    passages, read = read_training_set(folder)
    chosen = [(example.positive, *example.negatives[:negatives_per_query]) for example in read]
    used = sorted({name for names in chosen for name in names})
    number = {name: len(read) + place for place, name in enumerate(used)}
    examples = [
        Example(
            query,
            candidates=tuple(number[name] for name in names),
            scores=example.scores[: len(names)] if with_scores else (),
        )
        for query, (example, names) in enumerate(zip(read, chosen, strict=True))
    ]
    return TrainingTexts(
        queries=[example.query for example in read], passages=[passages[name] for name in used], examples=examples
    )


def load_training_set(
    folder: Path, tokenizer: TextTokenizer, *, negatives_per_query: int, with_scores: bool = True
) -> TrainingSet:
    """`read_texts`, tokenized; raises what it does."""
    return tokenized(read_texts(folder, negatives_per_query=negatives_per_query, with_scores=with_scores), tokenizer)


def tokenized(texts: TrainingTexts, tokenizer: TextTokenizer) -> TrainingSet:
    """The same rows as token ids."""
    rows = tokenizer.encode(texts.queries, "query") + tokenizer.encode(texts.passages, "passage")
    return TrainingSet(rows=rows, examples=texts.examples)


def distinct_queries(queries: Sequence[str], examples: Sequence[Example]) -> int:
    """How many questions `examples` ask of these rows: one that several passages answer is an example for each."""
    return len({queries[example.query] for example in examples})


def asked_texts(folder: Path, settings: Finetune) -> TrainingTexts:
    """What `settings` train with: with scores exactly where the preset learns them.

    Raises BadInput `ScoresMissing`, and as `read_texts` does.
    """
    ranking = settings.preset != presets.RECIPE
    texts = read_texts(folder, negatives_per_query=settings.negativesPerQuery, with_scores=ranking)
    if ranking and not texts.scored:
        raise BadInput(
            "ScoresMissing",
            f"preset {settings.preset} learns a teacher's scores and {Artefact.TRAINING_SET} has none: give each line "
            f"of {EXAMPLES} its scores, or use preset {presets.RECIPE}",
            field=presets.FIELD,
        )
    return texts


def _scored(examples: list[Example]) -> bool:
    return bool(examples and examples[0].scores)
