"""What every provider of questions hands to the stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embedding_stages.formats.pairs import Pair
from embedding_stages.sdg.answers import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a provider has written. `counts` and `details` go into the stage's result, `odd` into a message that nothing
    was written.
    """

    pairs: list[Pair]
    counts: dict[str, int]
    details: dict[str, Any]
    odd: Tally = field(default_factory=Tally)  # answers of a language model that were of no use
