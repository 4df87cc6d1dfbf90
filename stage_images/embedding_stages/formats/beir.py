"""A BEIR folder: passages, queries and which passage answers which query.

corpus.jsonl    {"_id", "title" (optional), "text" (optional: some public sets have passages without)}
queries.jsonl   {"_id", "text"}
qrels/test.tsv  query-id, corpus-id, score, separated by tabs, with that header; a score above 0 is relevant

A set of a user's own is read by the same reader as one that prep wrote, in every stage. BEIR's own loader is not used:
it overwrites repeated ids, drops the first judgement when there is no header and stops with a KeyError at a judged
query without text. A test reads one set with both.

Public sets are taken as they are: judgements may name passages that the corpus lacks (ArguAna's do), and a line may
stand twice. Ids are compared as they are written, with quotation marks and spaces.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from embedding_stages.errors import printable
from embedding_stages.formats.lines import Bounds, Faults, FormatError, parse_record, read_lines, write_records

CORPUS: Final = "corpus.jsonl"
QUERIES: Final = "queries.jsonl"
JUDGEMENTS: Final = "qrels/test.tsv"
FILES: Final = (CORPUS, QUERIES, JUDGEMENTS)
HEADER: Final = "query-id\tcorpus-id\tscore"
HIGHEST_SCORE: Final = 127  # and the lowest below zero: trec_eval keeps a table of this length
_SCORE: Final = re.compile(r"[+-]?[0-9]{1,3}(?:\.0*)?")  # tables that had a gap write 1.0
_NO_IDS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # categories: what a line cannot hold

Open = Callable[[str], AbstractContextManager[BinaryIO]]  # the name of one of FILES -> the file
Clean = Callable[[str], str]  # may raise ValueError: the text is not fit to use
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class BeirPassage:
    """A passage with its title, either of which may be empty."""

    id: str
    title: str
    text: str

    @property
    def full_text(self) -> str:
        """Title and text, joined by a space as BEIR's models do."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class BeirQuery:
    """A query; its text is not blank."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well a passage answers a query: relevant above 0, between -`HIGHEST_SCORE` and `HIGHEST_SCORE`."""

    query_id: str
    passage_id: str
    score: int


@dataclass(frozen=True, slots=True)
class Judgements:
    """In the order of the file, each once."""

    items: list[Judgement]
    unknown_passages: int = 0  # relevant judgements of passages that the corpus lacks: no model can find them
    repeated: int = 0  # lines that say once more what another has said

    def __iter__(self) -> Iterator[Judgement]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class BeirReader:
    """Reads line by line. Its methods raise what `open_file` does, and FormatError with file, line, fault and cure; of
    several unsound lines the first ten, when the whole file was read.
    """

    open_file: Open
    bounds: Bounds | None = None  # of untrusted files
    most_characters: int | None = None  # of a query, and of a passage with its title
    clean: Clean = str
    may_be_empty: bool = False  # a frozen set that lost every query

    @classmethod
    def of(cls, folder: Path, *, may_be_empty: bool = False, clean: Clean = str) -> BeirReader:
        """The reader of a folder that a stage wrote."""

        def open_file(name: str) -> BinaryIO:
            try:
                return (folder / name).open("rb")
            except FileNotFoundError as error:
                raise FormatError(name, f"it is missing; a BEIR set has {', '.join(FILES)}") from error

        return cls(open_file, may_be_empty=may_be_empty, clean=clean)

    def passages(self) -> Iterator[BeirPassage]:
        """In the order of the file, one at a time; ids differ."""
        names: set[str] = set()

        def read(line: str, where: str) -> BeirPassage:
            record = parse_record(line, where)
            name = _id_of(record, where, names)
            passage = BeirPassage(name, self._text(record, "title", where), self._text(record, "text", where))
            self._check_length(passage.full_text, where)
            return passage

        yield from self._each(CORPUS, read)
        if not names and not self.may_be_empty:
            raise FormatError(CORPUS, "it holds no passages; write one JSON object with _id and text a line")

    def queries(self) -> Iterator[BeirQuery]:
        """In the order of the file, one at a time; ids differ."""
        names: set[str] = set()

        def read(line: str, where: str) -> BeirQuery:
            record = parse_record(line, where)
            query = BeirQuery(_id_of(record, where, names), self._text(record, "text", where))
            if not query.text.strip():
                raise FormatError(where, "text is empty; add it or remove the line and what refers to it")
            self._check_length(query.text, where)
            return query

        yield from self._each(QUERIES, read)
        if not names and not self.may_be_empty:
            raise FormatError(QUERIES, "it holds no queries; write one JSON object with _id and text a line")

    def judgements(self, queries: Collection[str], passages: Collection[str] | None = None) -> Judgements:
        """Of `queries`. Where `passages` are given, the relevant ones that are none of them are counted, and one at
        least has to be known: else the files are of two sets.
        """
        known: dict[tuple[str, str], Judgement] = {}
        lines = 0

        def read(line: str, where: str) -> Judgement:
            found = _judgement(line, where)
            if found.query_id not in queries:
                fault = f"query {printable(found.query_id)} is not in {QUERIES}; add it there or remove this line"
                raise FormatError(where, fault)
            said = known.setdefault((found.query_id, found.passage_id), found)
            if said.score != found.score:
                fault = f"this passage is judged twice for the query, {said.score} and {found.score}; keep one line"
                raise FormatError(where, fault)
            return found

        for _ in self._each(JUDGEMENTS, read, header=HEADER):
            lines += 1
        relevant = [one.passage_id for one in known.values() if one.score > 0]
        unknown = [] if passages is None else [name for name in relevant if name not in passages]
        if unknown and len(unknown) == len(relevant):
            fault = f"no relevant passage, such as {printable(unknown[0])}, is in {CORPUS}; give the files of one set"
            raise FormatError(JUDGEMENTS, fault)
        return Judgements(list(known.values()), len(unknown), lines - len(known))

    def _each(self, name: str, read: Callable[[str, str], _Read], header: str = "") -> Iterator[_Read]:
        """What `read` makes of each line that is not blank and of where it stands."""
        faults = Faults()
        for number, line in self._lines(name):
            where = f"{name}:{number}"
            if header and number == 1:
                if line.split("\t") != header.split("\t"):
                    raise FormatError(where, f"the header must be {header!r} (with tabs); make it the first line")
                continue
            if not line.strip():
                continue
            try:
                found = read(line, where)
            except FormatError as error:
                faults.note(error)
                continue
            yield found
        faults.check()

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        with self.open_file(name) as stream:
            yield from read_lines(stream, name, self.bounds)

    def _check_length(self, text: str, where: str) -> None:
        if self.most_characters is not None and len(text) > self.most_characters:
            fault = f"the text has {len(text)} characters, at most {self.most_characters} can be embedded; shorten it"
            raise FormatError(where, fault)

    def _text(self, record: Mapping[str, Any], key: str, where: str) -> str:
        value = record.get(key)
        if value is not None and not isinstance(value, str):
            raise FormatError(where, f"{key} must be a string; put it in quotes")
        text = value or ""
        try:
            text.encode()  # JSON can spell half a surrogate pair, which no tokenizer reads
            return self.clean(text)
        except ValueError as error:
            fault = f"{key} is not text; remove control characters and halves of character pairs"
            raise FormatError(where, fault) from error


def write_passages(folder: Path, passages: Iterable[BeirPassage]) -> int:
    """Write one after the other, so that memory holds one. Returns their number."""
    lines = ({"_id": one.id, "title": one.title, "text": one.text} for one in passages)
    return write_records(folder / CORPUS, lines)


def write_queries(folder: Path, queries: Iterable[BeirQuery]) -> int:
    """Returns the number of queries."""
    return write_records(folder / QUERIES, ({"_id": one.id, "text": one.text} for one in queries))


def write_judgements(folder: Path, judgements: Iterable[Judgement]) -> None:
    """Makes the folder of the file."""
    path = folder / JUDGEMENTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(HEADER + "\n")
        stream.writelines(f"{one.query_id}\t{one.passage_id}\t{one.score}\n" for one in judgements)


def copy(source: Path, target: Path) -> None:
    """The files of a set, byte by byte."""
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _id_of(record: Mapping[str, Any], where: str, names: set[str]) -> str:
    """Adds the id to `names`."""
    name = record.get("_id")
    if not isinstance(name, str) or not name or not _NO_IDS.isdisjoint(map(unicodedata.category, name)):
        raise FormatError(where, "_id must be a string, not empty, without tabs and line breaks; write one")
    if name in names:
        raise FormatError(where, f"_id {printable(name)} occurs twice; give every line its own")
    names.add(name)
    return name


def _judgement(line: str, where: str) -> Judgement:
    parts = line.split("\t")
    if len(parts) != 3:
        raise FormatError(where, f"{len(parts)} columns; write query-id, corpus-id and score, separated by tabs")
    score = int(float(parts[2])) if _SCORE.fullmatch(parts[2].strip()) else HIGHEST_SCORE + 1
    if abs(score) > HIGHEST_SCORE:
        fault = f"score {printable(parts[2])} is no whole number from -{HIGHEST_SCORE} to {HIGHEST_SCORE}; rescale them"
        raise FormatError(where, fault)
    return Judgement(parts[0], parts[1], score)
