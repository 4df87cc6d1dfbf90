"""What the run of a revision may use, and how long what has ended is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_stages.contract import settings as tables


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """None: as much as it takes."""

    active_s: int | None = None  # spec.runPolicy.activeDeadlineSeconds
    gpu_s: int | None = None
    llm_tokens: int | None = None

    @classmethod
    def of(cls, policy: tables.RunPolicy, limits: tables.Limits) -> RunLimits:
        return cls(active_s=policy.activeDeadlineSeconds, gpu_s=limits.gpuSeconds, llm_tokens=limits.llmTokens)

    def to_json(self) -> dict[str, int]:
        """As the status keeps them, for a time in which the manifest is not valid."""
        found = {"activeDeadlineSeconds": self.active_s, "gpuSeconds": self.gpu_s, "llmTokens": self.llm_tokens}
        return {key: value for key, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, raw: Any) -> RunLimits:
        """Without what somebody made something else of."""
        known = raw if isinstance(raw, Mapping) else {}
        active, gpu, tokens = (known.get(key) for key in ("activeDeadlineSeconds", "gpuSeconds", "llmTokens"))
        return cls(
            active_s=active if isinstance(active, int) else None,
            gpu_s=gpu if isinstance(gpu, int) else None,
            llm_tokens=tokens if isinstance(tokens, int) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Of Jobs by how they ended, None: a day, or longer; and how many revisions can be pinned."""

    succeeded_s: int | None
    failed_s: int | None
    revisions: int

    @classmethod
    def of(cls, asked: tables.Retention) -> Retention:
        return cls(succeeded_s=asked.succeededSeconds, failed_s=asked.failedSeconds, revisions=asked.revisions)
