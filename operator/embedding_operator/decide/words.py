"""Words of others that change while what they tell of stays: a wait of hours is no write every few seconds. Pure.

Kueue, the scheduler and a quota count what is missing, and each count would be a write and an event for everybody who
watches. They are told anew once in five minutes, so that another resource which is short meanwhile is heard of too.
Nobody notes when words were written: those of now are told in the first pass of each five minutes of the run.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Final

from embedding_operator.decide.usage import begun_at
from embedding_operator.decide.waiting import LONG_WAITS, Wait
from embedding_operator.resource.status import StageStatus, Status

_TOLD_EACH_S: Final = 300
_NUMBER: Final = re.compile(r"\b\d+\b")


def as_told(wait: Wait, entry: StageStatus, status: Status, now: datetime, *, poll_s: float) -> Wait:
    """What a stage waits for in the words that its entry has, where that tells of the same wait.

    `poll_s`: the pass is repeated after so long, so that one of them is the first.
    """
    same = (entry.reason, entry.broken) == (wait.reason, wait.broken) and wait.reason in LONG_WAITS
    return replace(wait, message=entry.message) if same and not _is_first(status, now, poll_s) else wait


def counts_as_told(words: str, told: str, status: Status, now: datetime, *, poll_s: float) -> str:
    """The words that were told, where those of now have other numbers in them alone."""
    same = _NUMBER.sub("#", words) == _NUMBER.sub("#", told)
    return told if same and not _is_first(status, now, poll_s) else words


def _is_first(status: Status, now: datetime, poll_s: float) -> bool:
    begun = begun_at(status)
    return begun is None or (now - begun).total_seconds() % _TOLD_EACH_S < poll_s
