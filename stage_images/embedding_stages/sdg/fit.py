"""Units and passages no longer than what the base model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.errors import BadInput
from embedding_stages.sdg.passages import Fits, UnitPassage, as_passages, group_units
from embedding_stages.sdg.sentences import cut
from embedding_stages.sdg.units import Unit

_LEAST_ROOM: Final = 8  # tokens; one character takes up to five
_SLACK: Final = 0.9  # of a text's share by characters, because its tokens are not spread evenly


class Fit:
    """Cuts and groups units by the tokens of the base model, counted exactly."""

    def __init__(self, counter: TokenCounter) -> None:
        if counter.room < _LEAST_ROOM:
            raise BadInput(
                "MaxTokensTooSmall",
                f"of {counter.most} tokens the prefix of passages leaves {max(0, counter.room)} for their text; "
                "raise maxTokens or shorten prefixes.passage",
                field="spec.baseModel.maxTokens",
            )
        self._counter = counter

    @classmethod
    def load(cls, model: Path) -> Fit:
        """For the model of a folder. Raises BadInput `MaxTokensTooSmall`, `ModelDamaged`."""
        return cls(TokenCounter.load(model))

    def make_passages(self, document_id: str, units: Sequence[Unit], *, sentences: int) -> list[UnitPassage]:
        """As `passages.make_passages`, none longer than the model reads."""
        pieces, tokens = self._pieces(units)
        groups = group_units(pieces, sentences=sentences, fits=Fits(tokens, self._counter.room))
        return as_passages(document_id, self._checked(groups))

    def _pieces(self, units: Sequence[Unit]) -> tuple[list[Unit], list[int]]:
        """The units, those that are too long in parts, and the tokens of each."""
        room, pieces = self._counter.room, list(units)
        while True:
            tokens = self._counter.parts([unit.text for unit in pieces])
            if all(count <= room or len(unit.text) == 1 for unit, count in zip(pieces, tokens, strict=True)):
                return pieces, tokens
            pieces = [
                part
                for unit, count in zip(pieces, tokens, strict=True)
                for part in (_parts(unit, room, count) if count > room else (unit,))
            ]

    def _checked(self, groups: Sequence[Sequence[Unit]]) -> list[Sequence[Unit]]:
        """The groups, those halved whose text as a whole takes more tokens than its parts did."""
        kept = list(groups)
        while True:
            counts = self._counter.whole([passage.text for passage in as_passages("", kept)])
            long = [count > self._counter.most and len(group) > 1 for group, count in zip(kept, counts, strict=True)]
            if not any(long):
                return kept
            kept = [
                part
                for group, is_long in zip(kept, long, strict=True)
                for part in ((group[: len(group) // 2], group[len(group) // 2 :]) if is_long else (group,))
            ]


def _parts(unit: Unit, room: int, tokens: int) -> list[Unit]:
    """Parts that should fit; of a text of several characters at least two."""
    length = len(unit.text)
    most = max(1, min(length - 1, int(_SLACK * length * room / tokens)))
    return [
        replace(unit, text=text, starts_line=unit.starts_line and number == 0, opens=unit.opens and number == 0)
        for number, text in enumerate(cut(unit.text, most))
    ]
