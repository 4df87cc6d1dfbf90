"""Artefact.TRAINING_SET: what trains, and the passages that it names.

train.jsonl     {"query": text, "positive": passage id, "negatives": [passage ids, best first]}: one line a positive
passages.jsonl  {"id", "text"}

A line of train.jsonl may have "scores" too: a teacher's scores of its candidates on the scale of cosines, the
positive's first, then the negatives' in their order. Then the positive is the candidate that the teacher ranks first.
All lines have scores, or none.
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
_LARGEST: Final = 1e6  # of a score: no cosine is near it, and divided by a temperature it is still a float32
_SCORES: Final = "write one number a candidate, the positive's first"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExample:
    """A query with one positive and its negatives, best first; passages by id.

    `scores` are empty, or the teacher's: one a candidate, the positive's first.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    scores: tuple[float, ...] = ()

    def to_json(self) -> dict[str, object]:
        record: dict[str, object] = {
            "query": self.query,
            "positive": self.positive,
            "negatives": list(self.negatives),
        }
        return record | ({"scores": list(self.scores)} if self.scores else {})


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
    first: TrainingExample | None = None
    for where, record in records:
        example = TrainingExample(
            query=text_of(record, "query", where),
            positive=text_of(record, "positive", where),
            negatives=texts_of(record, "negatives", where),
            scores=_scores_of(record, where),
        )
        _check(example, where, passages)
        first = first or example
        if bool(example.scores) != bool(first.scores):
            fault = "this line has scores and those before have none" if example.scores else "this line has no scores"
            raise FormatError(where, f"{fault}; score the candidates of every line, or of none")
        yield example


def _scores_of(record: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """The line's scores, empty where it has none; `_check` counts them."""
    if "scores" not in record:
        return ()
    values = record["scores"]
    if not isinstance(values, list) or not values or not all(type(value) in (int, float) for value in values):
        raise FormatError(where, f"scores is not a list of numbers; {_SCORES}")
    for value in values:
        if not abs(value) <= _LARGEST:  # NaN is not, either
            raise FormatError(where, f"scores holds {value!s:.20}; write finite numbers on the scale of cosines")
    return tuple(float(value) for value in values)


def _check(example: TrainingExample, where: str, passages: Mapping[str, str]) -> None:
    if not example.negatives:
        raise _bad("NegativesMissing", f"{where}: an example needs one negative or more; mine them again or remove it")
    if example.positive in example.negatives:
        fault = f"passage {example.positive!r} is both positive and negative; remove it from the negatives"
        raise FormatError(where, fault)
    candidates = 1 + len(example.negatives)
    if example.scores and len(example.scores) != candidates:
        raise FormatError(where, f"{len(example.scores)} scores for {candidates} candidates; {_SCORES}")
    lost = [name for name in (example.positive, *example.negatives) if name not in passages]
    if lost:
        raise _bad("PassageMissing", f"{where}: passage {lost[0]!r} is not in {PASSAGES}; add it")


def _bad(reason: str, message: str, *, field: str = FIELD) -> BadInput:
    return BadInput(reason, f"{Artefact.TRAINING_SET}: {message}", field=field)
