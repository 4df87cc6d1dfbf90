"""Artefact.TRAINING_SET: what trains, and the passages that it names.

train.jsonl     {"query": text, "positive": passage id, "negatives": [passage ids, best first]}: one line a positive
passages.jsonl  {"id", "text"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.contract import Artefact
from embedding_stages.errors import BadInput
from embedding_stages.formats.lines import FormatError, read_records, text_of, texts_of, write_records

EXAMPLES: Final = "train.jsonl"
PASSAGES: Final = "passages.jsonl"
FIELD: Final = "spec.stages.prep"  # the stage that writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExample:
    """A query with one positive and its negatives, best first; passages by id."""

    query: str
    positive: str
    negatives: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {"query": self.query, "positive": self.positive, "negatives": list(self.negatives)}


def write_training_set(folder: Path, passages: Mapping[str, str], examples: Sequence[TrainingExample]) -> None:
    """All examples and, of the passages (id -> text), those that they name."""
    used = {name for example in examples for name in (example.positive, *example.negatives)}
    write_records(folder / PASSAGES, ({"id": name, "text": passages[name]} for name in sorted(used)))
    write_records(folder / EXAMPLES, (example.to_json() for example in examples))


def read_training_set(folder: Path) -> tuple[dict[str, str], list[TrainingExample]]:
    """Passages (id -> text), and the examples, which name no others.

    Raises BadInput `TrainingSetInvalid`, `TrainingSetEmpty`, `NegativesMissing` or `PassageMissing`.
    """
    try:
        passages = {text_of(line, "id", at): text_of(line, "text", at) for at, line in read_records(folder / PASSAGES)}
        examples = list(_examples(read_records(folder / EXAMPLES), passages))
    except FormatError as error:
        raise _bad("TrainingSetInvalid", str(error)) from error
    if not examples:
        message = f"{EXAMPLES} holds no examples; lower the quality threshold or add documents"
        raise _bad("TrainingSetEmpty", message, field=f"{FIELD}.qualityThreshold")
    return passages, examples


def _examples(records: Iterable[tuple[str, dict[str, Any]]], passages: Mapping[str, str]) -> Iterator[TrainingExample]:
    for where, record in records:
        example = TrainingExample(
            query=text_of(record, "query", where),
            positive=text_of(record, "positive", where),
            negatives=texts_of(record, "negatives", where),
        )
        _check(example, where, passages)
        yield example


def _check(example: TrainingExample, where: str, passages: Mapping[str, str]) -> None:
    if not example.negatives:
        raise _bad("NegativesMissing", f"{where}: an example needs one negative or more; mine them again or remove it")
    if example.positive in example.negatives:
        fault = f"passage {example.positive!r} is both positive and negative; remove it from the negatives"
        raise FormatError(where, fault)
    lost = [name for name in (example.positive, *example.negatives) if name not in passages]
    if lost:
        raise _bad("PassageMissing", f"{where}: passage {lost[0]!r} is not in {PASSAGES}; add it")


def _bad(reason: str, message: str, *, field: str = FIELD) -> BadInput:
    return BadInput(reason, f"{Artefact.TRAINING_SET}: {message}", field=field)
