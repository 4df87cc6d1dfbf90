"""The user's own BEIR set: checked line by line, then written in one normal form.

corpus.jsonl    {"_id", "title" (optional), "text"}
queries.jsonl   {"_id", "text"}
qrels/test.tsv  query-id, corpus-id, score, separated by tabs, with that header; a score above 0 is relevant
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.errors import BadInput
from embedding_stages.inputs import safe_files
from embedding_stages.inputs.safe_files import NotRegularError
from embedding_stages.inputs.text import NotTextError, clean

CORPUS: Final = "corpus.jsonl"
QUERIES: Final = "queries.jsonl"
JUDGEMENTS: Final = "qrels/test.tsv"
HEADER: Final = "query-id\tcorpus-id\tscore"
_MAX_LINE_BYTES = 10 << 20
_MAX_LINES = 20_000_000
_OBJECTS = "write one JSON object a line"


@dataclass(frozen=True, slots=True)
class LabelledCounts:
    """Sizes of the set; queries without a relevant passage are left out, because they have no score."""

    passages: int
    queries: int
    judgements: int
    skipped_queries: int


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Where the set lies, and the manifest's field that says so."""

    folder: Path
    field: str

    def write(self, target: Path) -> LabelledCounts:
        """Check the set and write it to `target`. Memory holds the ids and the judgements.

        Raises BadInput `LabelledSetIncomplete`, `LabelledSetForbidden` or `LabelledSetInvalid`, with file and line.
        """
        (target / "qrels").mkdir(parents=True, exist_ok=True)
        passages = self._write_corpus(target / CORPUS)
        queries = self._queries()
        rows = self._judgements(passages, queries)
        scored = {query for query, _, score in rows if score > 0}
        if not scored:
            raise self._invalid(JUDGEMENTS, 0, "no query has a relevant passage; give scores above 0")
        with (target / QUERIES).open("w", encoding="utf-8") as stream:
            for name, text in queries.items():
                if name in scored:
                    stream.write(_line({"_id": name, "text": text}))
        kept = [row for row in rows if row[0] in scored]
        with (target / JUDGEMENTS).open("w", encoding="utf-8") as stream:
            stream.write(HEADER + "\n")
            stream.writelines(f"{query}\t{passage}\t{score}\n" for query, passage, score in kept)
        return LabelledCounts(len(passages), len(scored), len(kept), len(queries) - len(scored))

    def _write_corpus(self, target: Path) -> set[str]:
        names: set[str] = set()
        with target.open("w", encoding="utf-8") as stream:
            for number, record in self._records(CORPUS):
                name = self._name(CORPUS, number, record, names)
                title = self._text(CORPUS, number, record, "title", required=False)
                text = self._text(CORPUS, number, record, "text", required=False)  # some public sets lack it
                stream.write(_line({"_id": name, "title": title, "text": text}))
        if not names:
            raise self._invalid(CORPUS, 0, "it holds no passages; write one JSON object with _id and text a line")
        return names

    def _queries(self) -> dict[str, str]:
        found: dict[str, str] = {}
        names: set[str] = set()
        for number, record in self._records(QUERIES):
            name = self._name(QUERIES, number, record, names)
            found[name] = self._text(QUERIES, number, record, "text", required=True)
        if not found:
            raise self._invalid(QUERIES, 0, "it holds no queries; write one JSON object with _id and text a line")
        return found

    def _judgements(self, passages: set[str], queries: dict[str, str]) -> list[tuple[str, str, int]]:
        rows: list[tuple[str, str, int]] = []
        seen: set[tuple[str, str]] = set()
        for number, line in self._lines(JUDGEMENTS):
            if number == 1:
                if line.split("\t") != HEADER.split("\t"):
                    raise self._invalid(
                        JUDGEMENTS, 1, f"the header must be {HEADER!r} (with tabs); make it the first line"
                    )
                continue
            if not line:
                continue
            query, passage, score = self._judgement(number, line)
            if query not in queries:
                raise self._unknown(number, "query", query, QUERIES)
            if passage not in passages:
                raise self._unknown(number, "passage", passage, CORPUS)
            if (query, passage) in seen:
                raise self._invalid(JUDGEMENTS, number, "this pair is judged twice; keep one of the lines")
            seen.add((query, passage))
            rows.append((query, passage, score))
        return rows

    def _judgement(self, number: int, line: str) -> tuple[str, str, int]:
        parts = line.split("\t")
        if len(parts) != 3:
            raise self._invalid(
                JUDGEMENTS, number, f"{len(parts)} columns; write query-id, corpus-id and score, separated by tabs"
            )
        try:
            score = int(parts[2])
        except ValueError:
            score = -1
        if not 0 <= score <= 100:
            raise self._invalid(
                JUDGEMENTS,
                number,
                f"score {safe_files.printable(parts[2], 20)} is not a whole number from 0 to 100; rescale the scores",
            )
        return parts[0], parts[1], score

    def _records(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in self._lines(name):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._invalid(name, number, f"not JSON: {str(error)[:100]}; {_OBJECTS}") from error
            if not isinstance(record, dict):
                raise self._invalid(name, number, f"not a JSON object; {_OBJECTS}")
            yield number, record

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        try:
            with self._permitted(), safe_files.open_file(self.folder, name) as stream:
                number = 0
                while raw := stream.readline(_MAX_LINE_BYTES + 1):
                    number += 1
                    if len(raw) > _MAX_LINE_BYTES or number > _MAX_LINES:
                        raise self._invalid(
                            name, number, f"longer than {_MAX_LINE_BYTES} bytes or {_MAX_LINES} lines; shorten it"
                        )
                    try:
                        yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                    except UnicodeDecodeError as error:
                        raise self._invalid(name, number, "not UTF-8; convert the file") from error
        except FileNotFoundError as error:
            raise self._missing(name, "is missing") from error
        except NotRegularError as error:
            raise self._missing(name, "is a link or no regular file") from error

    def _permitted(self) -> AbstractContextManager[None]:
        return safe_files.permitted("the labelled set", reason="LabelledSetForbidden", field=self.field)

    def _name(self, file: str, number: int, record: dict[str, Any], names: set[str]) -> str:
        name = record.get("_id")
        if not isinstance(name, str) or not name or not name.isprintable():
            raise self._invalid(
                file, number, "_id must be a string, not empty, without tabs and line breaks; write one"
            )
        if name in names:
            raise self._invalid(file, number, f"_id {safe_files.printable(name)} occurs twice; give every line its own")
        names.add(name)
        return name

    def _text(self, file: str, number: int, record: dict[str, Any], key: str, *, required: bool) -> str:
        value = record.get(key)
        if value is not None and not isinstance(value, str):
            raise self._invalid(file, number, f"{key} must be a string; put it in quotes")
        try:
            # Lone surrogates can be written in JSON but not in UTF-8.
            text = clean(value or "").encode("utf-8").decode().strip()
        except (NotTextError, UnicodeEncodeError) as error:
            raise self._invalid(
                file, number, f"{key} is not text; remove control characters and halves of character pairs"
            ) from error
        if required and not text:
            raise self._invalid(file, number, f"{key} is empty; add it or remove the line and what refers to it")
        return text

    def _unknown(self, number: int, what: str, name: str, file: str) -> BadInput:
        said = f"{what} {safe_files.printable(name)} is not in {file}; add it there or remove this line"
        return self._invalid(JUDGEMENTS, number, said)

    def _invalid(self, file: str, number: int, what: str) -> BadInput:
        at = f"{file}:{number}" if number else file
        return BadInput("LabelledSetInvalid", f"{at}: {what}", field=self.field)

    def _missing(self, file: str, what: str) -> BadInput:
        return BadInput(
            "LabelledSetIncomplete",
            f"{file} {what}; a BEIR set has {CORPUS}, {QUERIES} and {JUDGEMENTS}",
            field=self.field,
        )


def _line(record: dict[str, str]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
