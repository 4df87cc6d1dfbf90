"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

CLOCKS_DIFFER: Final = timedelta(minutes=1)  # of one cluster, at most


def stamp(moment: datetime) -> str:
    """For example `2026-01-05T02:00:00Z`; `moment` is in UTC."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def parse_time(text: str | None) -> datetime | None:
    """None where there is none. Raises ValueError for anything else that is no time."""
    return datetime.fromisoformat(text) if text else None


def noted_time(noted: Any) -> datetime | None:
    """A time that the status tells; None where it tells none, or somebody made something else of it."""
    try:
        found = datetime.fromisoformat(noted) if isinstance(noted, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def is_ahead(noted: datetime, now: datetime) -> bool:
    """Whether it was noted under a clock that has been set back since: what follows from it would come far too late.

    The operator goes by the API server's clock, which may be wrong for a moment.
    """
    return noted > now + CLOCKS_DIFFER
