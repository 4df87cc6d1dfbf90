"""What every provider of questions hands to the stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedding_stages.formats.pairs import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a provider has written. `counts` and `details` go into the stage's result."""

    pairs: list[Pair]
    counts: dict[str, int]
    details: dict[str, Any]
