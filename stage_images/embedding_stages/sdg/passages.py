"""Passages, which are searched: a few sentences with the headings and signatures above them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embedding_stages.formats.pairs import Passage
from embedding_stages.sdg.units import Kind, Unit

MAX_PASSAGE_CHARACTERS: Final = 2000
_INTRODUCE = (Kind.HEADING, Kind.SIGNATURE)


@dataclass(frozen=True, slots=True)
class UnitPassage(Passage):
    """A passage and the units that it was made of."""

    units: tuple[Unit, ...]


@dataclass(frozen=True, slots=True)
class Fits:
    """How long units are, in tokens, and how long a passage may be."""

    tokens: Sequence[int]  # of each unit
    room: int


def make_passages(document_id: str, units: Sequence[Unit], *, sentences: int) -> list[UnitPassage]:
    """Passages of at most `sentences` sentences (NVIDIA embed recipe: 5) and about `MAX_PASSAGE_CHARACTERS` characters.

    A new passage begins before a heading, and before a signature when the passage is nearly full, so that a
    heading or signature stays with what it introduces.
    """
    return as_passages(document_id, group_units(units, sentences=sentences))


def as_passages(document_id: str, groups: Sequence[Sequence[Unit]]) -> list[UnitPassage]:
    return [
        UnitPassage(f"{document_id}-{number:04d}", document_id, _text(members), tuple(members))
        for number, members in enumerate(groups)
    ]


def group_units(units: Sequence[Unit], *, sentences: int, fits: Fits | None = None) -> list[list[Unit]]:
    """The units of each passage; with `fits` together no longer than its room, where each of them is."""
    groups: list[list[Unit]] = []
    group: list[Unit] = []
    held = 0  # tokens, one more for what stands between two units
    for place, unit in enumerate(units):
        more = fits.tokens[place] + 1 if fits else 0
        overflows = fits is not None and held + more > fits.room + 1
        if group and (overflows or _is_full(group, unit, sentences)):
            head = _split_tail(group)
            groups.append(group)
            group = head
            held = sum(tokens + 1 for tokens in fits.tokens[place - len(head) : place]) if fits else 0
            if fits and head and held + more > fits.room + 1:
                groups.append(head)
                group, held = [], 0
        group.append(unit)
        held += more
    if group:
        groups.append(group)
    return groups


def _is_full(group: Sequence[Unit], unit: Unit, sentences: int) -> bool:
    held = sum(member.kind not in _INTRODUCE for member in group)
    if held == 0:
        return len(_text(group)) + len(unit.text) > MAX_PASSAGE_CHARACTERS and len(group) > 1
    if held >= sentences or len(_text(group)) + len(unit.text) + 1 > MAX_PASSAGE_CHARACTERS:
        return True
    if unit.kind is Kind.HEADING:
        return 2 * held >= sentences
    return unit.kind is Kind.SIGNATURE and held >= sentences - 1


def _split_tail(group: list[Unit]) -> list[Unit]:
    """Remove headings and signatures that end the group, and return them: they introduce the next passage.

    Many of them are a passage of their own, and stay.
    """
    start = len(group)
    while start > 1 and group[start - 1].kind in _INTRODUCE:
        start -= 1
    tail = group[start:]
    if sum(len(unit.text) for unit in tail) >= MAX_PASSAGE_CHARACTERS // 2:
        return []
    del group[start:]
    return tail


def _text(units: Sequence[Unit]) -> str:
    parts: list[str] = []
    for unit in units:
        if parts:
            parts.append("\n" if unit.starts_line else " ")
        parts.append(unit.text)
    return "".join(parts)
