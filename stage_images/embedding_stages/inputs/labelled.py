"""The user's own BEIR set: checked line by line, then written in one normal form (see formats/beir.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from embedding_stages import git_lfs
from embedding_stages.errors import BadInput, Transient, printable
from embedding_stages.formats import beir, characters
from embedding_stages.formats.beir import BeirPassage, BeirQuery, BeirReader, Judgement
from embedding_stages.formats.lines import Bounds, FormatError
from embedding_stages.inputs import safe_files
from embedding_stages.inputs.safe_files import NotRegularError

_BOUNDS: Final = Bounds(line_bytes=10 << 20, lines=20_000_000)  # a character may take 6 bytes, as \u and digits
MAX_TEXT_CHARACTERS: Final = 1 << 20  # no more is read of a text: `encoder.tokens.MAX_TEXT_CHARACTERS`


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCounts:
    """Sizes of the set as it is written; queries without a relevant passage are left out: they have no score."""

    passages: int
    queries: int
    judgements: int
    skipped_queries: int
    unknown_passages: int  # relevant judgements of passages that the corpus lacks; they count as not found
    repeated_judgements: int  # lines that are left out because another says the same
    shared_ids: tuple[str, ...] = ()  # of queries that have the id of a passage with another text; see `warnings`

    def told(self) -> dict[str, int]:
        """What is worth a word where there is any."""
        found = {
            "skippedLabelledQueries": self.skipped_queries,
            "unknownPassages": self.unknown_passages,
            "repeatedJudgements": self.repeated_judgements,
            "sharedIds": len(self.shared_ids),
        }
        return {name: number for name, number in found.items() if number}

    def warnings(self, field: str) -> list[str]:
        """What may be wrong with a set that can be used, for people."""
        if not self.shared_ids:
            return []
        which = f"{len(self.shared_ids)} queries, such as {printable(self.shared_ids[0], 40)}, have the id of a passage"
        what = "with another text and, as in BEIR, never find it; rename them where the same id is chance"
        return [f"{field}: {which} {what}"]


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Where the set lies, and the manifest's field that says so."""

    folder: Path
    field: str

    def write(self, target: Path) -> LabelledCounts:
        """Check the set and write it to `target`. Memory holds the ids, the queries and the judgements.

        Raises BadInput `LabelledSetIncomplete`, `LabelledSetForbidden` or `LabelledSetInvalid`, with file and line.
        """
        try:
            reader = BeirReader(self._open, _BOUNDS, MAX_TEXT_CHARACTERS, _clean)
            return self._write(reader, target)
        except FormatError as error:
            raise BadInput("LabelledSetInvalid", str(error), field=self.field) from error

    def _write(self, reader: BeirReader, target: Path) -> LabelledCounts:
        passages: set[str] = set()

        def noted() -> Iterator[BeirPassage]:
            for passage in reader.passages():
                passages.add(passage.id)
                yield passage

        beir.write_passages(target, noted())
        queries = {query.id: query for query in reader.queries()}
        judgements = reader.judgements(queries, passages)
        scored = {judgement.query_id for judgement in judgements if judgement.score > 0}
        if not scored:
            raise FormatError(beir.JUDGEMENTS, "no query has a relevant passage; give scores above 0")
        kept = [judgement for judgement in judgements if judgement.query_id in scored]
        beir.write_queries(target, (query for query in queries.values() if query.id in scored))
        beir.write_judgements(target, kept)
        return LabelledCounts(
            passages=len(passages),
            queries=len(scored),
            judgements=len(kept),
            skipped_queries=len(queries) - len(scored),
            unknown_passages=judgements.unknown_passages,
            repeated_judgements=judgements.repeated,
            shared_ids=_shared_ids(reader, kept, queries, passages),
        )

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        """A file of the set: a regular one, below the folder. Raises Transient `SourceChanged` beside `write`'s."""
        permitted = safe_files.permitted("the labelled set", reason="LabelledSetForbidden", field=self.field)
        try:
            with permitted, safe_files.open_file(self.folder, name) as stream:
                if git_lfs.is_pointer(stream.read(git_lfs.MOST_BYTES)):
                    raise BadInput("LabelledSetIncomplete", f"{name} {git_lfs.CURE}", field=self.field)
                stream.seek(0)
                yield stream
        except FileNotFoundError as error:
            if not self.folder.is_dir():  # as where git-sync has moved on to another commit
                raise Transient(
                    "SourceChanged", "the folder of the labelled set was removed while it was read"
                ) from error
            raise self._missing(name, "is missing") from error
        except NotRegularError as error:
            raise self._missing(name, "is a link or no regular file") from error

    def _missing(self, file: str, what: str) -> BadInput:
        message = f"{file} {what}; a BEIR set has {', '.join(beir.FILES)}"
        return BadInput("LabelledSetIncomplete", message, field=self.field)


def _shared_ids(
    reader: BeirReader, judgements: list[Judgement], queries: Mapping[str, BeirQuery], passages: Collection[str]
) -> tuple[str, ...]:
    """Queries that have a passage's id by chance, as far as texts tell, and will not find that passage.

    A query that is a passage (ArguAna, Quora) has its text; one that is judged relevant to itself finds itself. The
    passages are read once more where there is any such id: memory holds no texts.
    """
    found = {one.query_id for one in judgements if one.query_id in passages}
    found -= {one.query_id for one in judgements if one.query_id == one.passage_id and one.score > 0}
    if not found:
        return ()
    same = (one.id for one in reader.passages() if one.id in found and _says_the_same(queries[one.id].text, one))
    return tuple(sorted(found.difference(same)))


def _says_the_same(text: str, passage: BeirPassage) -> bool:
    return text.split() in (passage.text.split(), passage.title.split(), passage.full_text.split())


def _clean(text: str) -> str:
    """Raises NotTextError."""
    characters.check_text(text)
    return characters.clean(text).strip()
