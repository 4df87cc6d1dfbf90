"""What the run of a revision may use, and how long what has ended is kept."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Of Jobs by how they ended, None: a day, or longer; and how many revisions can be pinned."""

    succeeded_s: int | None
    failed_s: int | None
    revisions: int

    @classmethod
    def of(cls, asked: tables.Retention) -> Retention:
        return cls(succeeded_s=asked.succeededSeconds, failed_s=asked.failedSeconds, revisions=asked.revisions)
