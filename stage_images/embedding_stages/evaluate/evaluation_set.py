"""A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), loaded with BEIR's own loader and checked.

The loader overwrites repeated ids, drops the first judgement when there is no header and stops with a KeyError
at a judged query without text; each of these is refused here with a message that names file and cure.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beir.datasets.data_loader import GenericDataLoader

from embedding_stages.errors import BadInput

FIELD = "spec.evaluation.beir"
CORPUS, QUERIES, JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
_WHOLE = re.compile(r"[+-]?\d+")
_EMPTY_PASSAGE = "-"  # some public sets have passages without text, and endpoints refuse an empty one


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Judged queries and all passages, both sorted by id, so that row numbers mean the same everywhere."""

    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    passage_ids: tuple[str, ...]
    passages: tuple[str, ...]  # title and text, joined by a space as BEIR's models do
    relevance: Mapping[str, Mapping[str, int]]  # query id -> passage id -> grade, relevant when > 0

    @property
    def unknown_passages(self) -> int:
        """Relevant judgements of passages that the corpus lacks: no model can find them."""
        known = set(self.passage_ids)
        judged = (item for grades in self.relevance.values() for item in grades.items())
        return sum(grade > 0 and passage not in known for passage, grade in judged)


def load_evaluation_set(folder: Path) -> EvaluationSet:
    """Raises BadInput `EvaluationSetInvalid` that names the file, the fault and the cure."""
    _check_files(folder)
    corpus, queries, relevance = _load(folder)
    _check_unique(folder / CORPUS, len(corpus))
    for name, texts in ((CORPUS, corpus), (QUERIES, queries)):
        if any(not isinstance(key, str) or not key for key in texts):
            raise _invalid(name, "a line has no _id, or one that is not a text; give every line its own")
    query_ids = sorted(queries)
    passage_ids = sorted(corpus)
    for query_id in query_ids:
        if not _is_text(queries[query_id]) or not queries[query_id].strip():
            raise _invalid(QUERIES, f"query {query_id!r} has no text; add it or remove its judgements")
    if not any(grade > 0 for grades in relevance.values() for grade in grades.values()):
        raise _invalid(JUDGEMENTS, "no passage is judged relevant; a score above 0 marks one")
    return EvaluationSet(
        query_ids=tuple(query_ids),
        queries=tuple(queries[key] for key in query_ids),
        passage_ids=tuple(passage_ids),
        passages=tuple(_passage_text(corpus[key], key) for key in passage_ids),
        relevance={key: dict(relevance[key]) for key in query_ids},
    )


def _load(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, int]]]:
    try:
        # The loader draws a progress bar on standard error and leaves a file for the collector to close.
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loader = GenericDataLoader(data_folder=str(folder))
            corpus, queries, relevance = loader.load(split="test")
    except KeyError as error:
        raise _invalid(
            JUDGEMENTS, f"query {error} is judged and {QUERIES} lacks it; add it or remove its judgements"
        ) from error
    except (ValueError, IndexError, TypeError, AttributeError, StopIteration) as error:
        raise _invalid(
            "the set",
            f"{type(error).__name__}: {error}; write one JSON object a line in {CORPUS} and {QUERIES}, "
            f"and at least one judgement in {JUDGEMENTS}",
        ) from error
    return corpus, queries, relevance


def _check_files(folder: Path) -> None:
    for name in (CORPUS, QUERIES, JUDGEMENTS):
        if not (folder / name).is_file():
            raise _invalid(name, "it is missing; a BEIR set has corpus.jsonl, queries.jsonl and qrels/test.tsv")
        if not any(line.strip() for line in _lines(folder / name)):
            raise _invalid(name, "it is empty")
    try:
        _check_judgements(folder / JUDGEMENTS)
    except csv.Error as error:
        raise _invalid(JUDGEMENTS, f"{error}; write one judgement a line, without quotes") from error


def _check_judgements(path: Path) -> None:
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_MINIMAL)  # as the loader reads it
        header = next(rows, [])
        if len(header) < 3 or _WHOLE.fullmatch(header[2].strip()):
            raise _invalid(
                JUDGEMENTS, f"its first line is {header}, not a header; start the file with query-id, corpus-id, score"
            )
        for row in rows:
            if len(row) < 3 or not _WHOLE.fullmatch(row[2].strip()):
                raise _invalid(
                    JUDGEMENTS,
                    f"line {rows.line_num} is {row}; write query-id, corpus-id and a whole score, separated by tabs",
                )


def _check_unique(path: Path, loaded: int) -> None:
    lines = sum(1 for line in _lines(path) if line.strip())
    if lines != loaded:
        raise _invalid(path.name, f"{lines} lines have only {loaded} different _id; give every line its own")


def _lines(path: Path) -> Any:
    with path.open("rb") as stream:
        yield from stream


def _passage_text(record: Mapping[str, Any], passage_id: str) -> str:
    title, text = record.get("title") or "", record.get("text") or ""
    if not _is_text(title) or not _is_text(text):
        raise _invalid(CORPUS, f"title or text of passage {passage_id!r} is not a text")
    return f"{title} {text}".strip() or _EMPTY_PASSAGE


def _is_text(value: Any) -> bool:
    """A str that can be encoded: JSON can spell half a surrogate pair, which no tokenizer reads."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(name: str, what: str) -> BadInput:
    return BadInput("EvaluationSetInvalid", f"evaluation set: {name}: {what}", field=FIELD)
