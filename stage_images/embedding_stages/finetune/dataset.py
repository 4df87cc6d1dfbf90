"""The training set as token ids, tokenized once. Reads train.jsonl and passages.jsonl of Artefact.TRAINING_SET.

train.jsonl     {"query": text, "positive": passage id, "negatives": [passage id, ...]}: one line a positive
passages.jsonl  {"id": passage id, "text": text}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embedding_stages.contract import Artefact
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.finetune.batches import Example

_FIELD = "spec.stages.finetune.from"


@dataclass(frozen=True)
class TrainingSet:
    """`rows` are the token ids of all queries, then of all passages in use; examples point into them."""

    rows: list[list[int]]
    examples: list[Example]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.rows]

    @cached_property
    def packed(self) -> Ragged:
        """The rows in one array."""
        return Ragged.of(self.rows)


def load_training_set(folder: Path, tokenizer: TextTokenizer, *, negatives_per_query: int) -> TrainingSet:
    """The first `negatives_per_query` negatives of each record are used; a record may have fewer.

    Raises BadInput `TrainingSetInvalid`, `TrainingSetEmpty`, `NegativesMissing` or `PassageMissing`.
    """
    passages = {_text(line, "id", at): _text(line, "text", at) for at, line in _lines(folder / "passages.jsonl")}
    queries: list[str] = []
    chosen: list[tuple[str, ...]] = []
    for at, line in _lines(folder / "train.jsonl"):
        queries.append(_text(line, "query", at))
        chosen.append(_candidates(line, at, passages, negatives_per_query))
    if not queries:
        raise _bad("TrainingSetEmpty", "train.jsonl holds no records; lower the quality threshold or add documents")
    used = sorted({name for names in chosen for name in names})
    number = {name: len(queries) + place for place, name in enumerate(used)}
    rows = tokenizer.encode(queries, "query") + tokenizer.encode([passages[name] for name in used], "passage")
    examples = [Example(query, tuple(number[name] for name in names)) for query, names in enumerate(chosen)]
    return TrainingSet(rows=rows, examples=examples)


def _candidates(line: dict[str, Any], at: str, passages: dict[str, str], limit: int) -> tuple[str, ...]:
    """Passage ids: the positive, then the negatives."""
    positive, negatives = _text(line, "positive", at), line.get("negatives")
    if not isinstance(negatives, list) or not all(isinstance(name, str) for name in negatives):
        raise _bad("TrainingSetInvalid", f"{at}: negatives is not a list of passage ids")
    if not negatives:
        raise _bad("NegativesMissing", f"{at}: a record needs one negative or more; mine them again or remove it")
    if positive in negatives:
        raise _bad("TrainingSetInvalid", f"{at}: passage {positive!r} is both positive and negative")
    names = (positive, *negatives[:limit])
    lost = [name for name in names if name not in passages]
    if lost:
        raise _bad("PassageMissing", f"{at}: passage {lost[0]!r} is not in passages.jsonl; add it")
    return names


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", record) of a JSON-lines file; blank lines are skipped."""
    if not path.is_file():
        raise _bad("TrainingSetInvalid", f"{path.name} is missing; add it")
    with path.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            at = f"{path.name}:{number}"
            try:
                record = json.loads(text)
            except ValueError as error:
                raise _bad("TrainingSetInvalid", f"{at} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise _bad("TrainingSetInvalid", f"{at} is not a JSON object")
            yield at, record


def _text(line: dict[str, Any], key: str, at: str) -> str:
    value = line.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _bad("TrainingSetInvalid", f"{at}: {key} is missing or empty")
    return value


def _bad(reason: str, message: str) -> BadInput:
    return BadInput(reason, f"{Artefact.TRAINING_SET}: {message}", field=_FIELD)
