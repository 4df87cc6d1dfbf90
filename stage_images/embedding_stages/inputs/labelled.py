"""The user's own BEIR set: checked line by line, then written in one normal form (see formats/beir.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from embedding_stages import git_lfs
from embedding_stages.errors import BadInput
from embedding_stages.formats import beir, characters
from embedding_stages.formats.beir import BeirPassage, BeirReader
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

    def told(self) -> dict[str, int]:
        """What is worth a word where there is any."""
        found = {
            "skippedLabelledQueries": self.skipped_queries,
            "unknownPassages": self.unknown_passages,
            "repeatedJudgements": self.repeated_judgements,
        }
        return {name: number for name, number in found.items() if number}


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
        )

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        """A file of the set: a regular one, below the folder."""
        permitted = safe_files.permitted("the labelled set", reason="LabelledSetForbidden", field=self.field)
        try:
            with permitted, safe_files.open_file(self.folder, name) as stream:
                if git_lfs.is_pointer(stream.read(git_lfs.MOST_BYTES)):
                    raise BadInput("LabelledSetIncomplete", f"{name} {git_lfs.CURE}", field=self.field)
                stream.seek(0)
                yield stream
        except FileNotFoundError as error:
            raise self._missing(name, "is missing") from error
        except NotRegularError as error:
            raise self._missing(name, "is a link or no regular file") from error

    def _missing(self, file: str, what: str) -> BadInput:
        message = f"{file} {what}; a BEIR set has {', '.join(beir.FILES)}"
        return BadInput("LabelledSetIncomplete", message, field=self.field)


def _clean(text: str) -> str:
    """Raises NotTextError."""
    characters.check_text(text)
    return characters.clean(text).strip()
