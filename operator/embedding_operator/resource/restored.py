"""How often an object that others change was restored, to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_operator.resource.times import noted_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """One object, as it is asked for now."""

    times: int  # in a row; 0: it was applied because it was asked for, and nobody has changed it yet
    at: str  # when it was last applied
    said: str = ""  # once that does not help: who changes what, in the first words

    def to_json(self) -> dict[str, Any]:
        return {"times": self.times, "at": self.at} | ({"said": self.said} if self.said else {})

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Restored:
        """Raises KeyError, TypeError, ValueError or AttributeError for what it has not written."""
        at = str(raw["at"])
        if noted_time(at) is None:
            raise ValueError(f"{at} is no time")
        return cls(times=int(raw["times"]), at=at, said=str(raw.get("said", "")))


def restored_from_json(raw: Any) -> dict[str, Restored]:
    """By object. What cannot be read is forgotten: then it is restored at once, once more."""
    found = {}
    for what, item in raw.items() if isinstance(raw, Mapping) else ():
        try:
            found[str(what)] = Restored.from_json(item)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found
