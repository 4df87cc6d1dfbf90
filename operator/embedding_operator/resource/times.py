"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import datetime


def stamp(moment: datetime) -> str:
    """For example `2026-01-05T02:00:00Z`; `moment` is in UTC."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def parse_time(text: str | None) -> datetime | None:
    """None where there is none. Raises ValueError for anything else that is no time."""
    return datetime.fromisoformat(text) if text else None
