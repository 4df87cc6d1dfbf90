"""What a resource starts from: its model and its documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedding_stages.contract.declare import Table, setting
from embedding_stages.contract.settings.common import JOINED

ON_CORPUS_CHANGE: Final = ("Run", "Report")
_MINUTE: Final = "[0-5]?[0-9]"
_MONTHS: Final = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS: Final = "sun|mon|tue|wed|thu|fri|sat"


def _times(one: str) -> str:
    """A field of cron: numbers or names, ranges, steps, and lists of them."""
    part = f"([*]|{one}(-{one})?)(/[1-9][0-9]?)?"
    return f"{part}(,{part})*"


# Looks nearer to each other than a quarter of an hour are refused, so the minutes are few.
_CRON: Final = " ".join(
    (
        f"^([*]/(15|20|30)|{_MINUTE}(,{_MINUTE}){{0,3}})",
        _times("([01]?[0-9]|2[0-3])"),
        _times("(0?[1-9]|[12][0-9]|3[01])"),
        _times(f"(0?[1-9]|1[0-2]|(?i:{_MONTHS}))"),
        f"{_times(f'([0-7]|(?i:{_DAYS}))')}$",
    )
)
DEFAULT_INCLUDE: Final = ("**/*.txt", "**/*.md", "**/*.text", "**/+([!.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel(Table):
    FIELD = "spec.baseModel"

    name: str = setting(
        shortest=1, longest=253, says="The model's name, for example nvidia/llama-nemotron-embed-1b-v2."
    )
    maxTokens: int | None = setting(
        None,
        low=8,
        high=8192,
        says="Longer texts are cut in every stage, and by the server where a request says truncate, tokens; "
        "at most 512 when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus(Table):
    FIELD = "spec.corpus"

    include: tuple[str, ...] = setting(
        DEFAULT_INCLUDE,
        most=32,
        shortest=1,
        longest=256,
        says="Globs of the files to read, by gitignore's rules from the root on; when absent .txt, .text, .md and "
        "names without a dot that are not hidden.",
    )
    minTextLength: int = setting(
        50, low=1, high=1_000_000, says="Shorter documents are skipped and counted, characters."
    )
    version: str = setting(
        "",
        longest=64,
        says="Change it when documents, model or labelled set changed in place: everything is looked at again.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Table):
    """When the sources are looked at again."""

    FIELD = "spec.schedule"

    cron: str = setting(
        since=JOINED,
        shortest=1,
        longest=64,
        pattern=_CRON,
        form="the five fields of cron with one space between them (minute, hour, day of the month, month, day of the "
        "week), such as '0 3 * * 1' for Mondays at three; as minute up to four numbers, or */15, */20 or */30",
        says="When the sources are looked at again: minute, hour, day of the month, month, day of the week. "
        "At most every 15 minutes.",
    )
    timeZone: str = setting(
        "UTC",
        since=JOINED,
        shortest=1,
        longest=64,
        pattern="^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$",
        form="a name of the IANA time zone database, such as Europe/Berlin",
        says="The time zone of cron, a name of the IANA database such as Europe/Berlin. A time that a change of the "
        "clocks leaves out is taken right after it, one that comes twice is taken once.",
    )
    onCorpusChange: str = setting(
        "Run",
        since=JOINED,
        choices=ON_CORPUS_CHANGE,
        says="What follows when documents, labelled sets or base model have changed. Run: a new revision, as an edit "
        "makes one. Report: the status says so, and nothing runs.",
    )
