"""Reads the pairs artefact, writes the training set and the evaluation set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.errors import StageError
from embedding_stages.prep.pairs import Pair, Row

CORPUS: Final = "corpus.jsonl"
QUERIES: Final = "queries.jsonl"
JUDGEMENTS: Final = "qrels/test.tsv"


@dataclass(frozen=True, slots=True)
class Pairs:
    """What sdg wrote."""

    chunks: dict[str, str]  # id -> text
    documents: dict[str, str]  # chunk id -> document id
    pairs: list[Pair]


def read_pairs(folder: Path) -> Pairs:
    """Raises StageError `PairsDamaged`: sdg wrote what it should not have."""
    chunks: dict[str, str] = {}
    documents: dict[str, str] = {}
    pairs: list[Pair] = []
    try:
        for record in read_lines(folder / "chunks.jsonl"):
            chunks[str(record["id"])] = str(record["text"])
            documents[str(record["id"])] = str(record["document_id"])
        for record in read_lines(folder / "pairs.jsonl"):
            score = record["score"]
            pair = Pair(
                id=str(record["id"]),
                question=str(record["question"]),
                document_id=str(record["document_id"]),
                chunk_ids=tuple(str(name) for name in record["chunk_ids"]),
                score=None if score is None else float(score),
            )
            pairs.append(pair)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError("PairsDamaged", f"the pairs cannot be read: {type(error).__name__} {error}") from error
    return Pairs(chunks, documents, pairs)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def write_lines(path: Path, records: Iterable[Mapping[str, object]]) -> int:
    """Returns the number of records."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_evaluation_set(folder: Path, chunks: Mapping[str, str], pairs: Sequence[Pair]) -> None:
    """BEIR: all chunks are searched, every positive of a question counts 1."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    write_lines(folder / CORPUS, ({"_id": name, "title": "", "text": text} for name, text in chunks.items()))
    write_lines(folder / QUERIES, ({"_id": pair.id, "text": pair.question} for pair in pairs))
    with (folder / JUDGEMENTS).open("w", encoding="utf-8") as stream:
        stream.write("query-id\tcorpus-id\tscore\n")
        stream.writelines(f"{pair.id}\t{name}\t1\n" for pair in pairs for name in pair.chunk_ids)


def copy_evaluation_set(source: Path, target: Path) -> tuple[list[str], int]:
    """Copy a labelled set. Returns its questions and the number of its passages."""
    (target / "qrels").mkdir(parents=True, exist_ok=True)
    for name in (CORPUS, QUERIES, JUDGEMENTS):
        shutil.copyfile(source / name, target / name)
    passages = sum(1 for _ in read_lines(target / CORPUS))
    return [str(record["text"]) for record in read_lines(target / QUERIES)], passages


def write_training_set(folder: Path, chunks: Mapping[str, str], rows: Sequence[Row]) -> None:
    """train.jsonl and, of the passages, those that rows name."""
    used = dict.fromkeys(name for row in rows for name in (row.positive, *row.negatives))
    write_lines(folder / "passages.jsonl", ({"id": name, "text": chunks[name]} for name in sorted(used)))
    write_lines(folder / "train.jsonl", (row.to_json() for row in rows))
