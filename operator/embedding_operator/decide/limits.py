"""What the run of a revision may use, and what happens when it has: the stage ends as if it had stopped itself. Pure.

Its artefacts and resume points stay in the workspace, and what serves goes on serving. Another revision, be it by a
higher limit or by another retryToken, is another run: it counts from zero, and goes on where this one was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from embedding_operator.decide.outcome import Failure
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec
from embedding_operator.resource.limits import RunLimits
from embedding_operator.resource.pods import count_gpus
from embedding_operator.resource.status import Status
from embedding_operator.resource.usage import Spent
from embedding_stages.contract import Stage

POLL_S: Final = 10.0  # tokens are read of the stage's progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    field: str
    reason: str
    unit: str
    most: Callable[[RunLimits], int | None]
    used: Callable[[Spent], int]
    uses: Callable[[Spec, Stage], bool]  # whether a stage uses any of it
    uses_now: Callable[[JobView, Spent], bool]  # whether a Job that runs does


def _runs_pods(spec: Spec, stage: Stage) -> bool:
    return stage in spec.stages


def _asks_gpus(spec: Spec, stage: Stage) -> bool:
    return count_gpus(spec.stages[stage].pod.resources, f"spec.stages.{stage}") > 0


def _asks_a_model(spec: Spec, stage: Stage) -> bool:
    return stage is Stage.SDG and spec.stages[stage].settings.get("provider") != "extractive"


_LIMITS: Final = (
    _Limit(
        field="spec.runPolicy.activeDeadlineSeconds",
        reason="DeadlineExceeded",
        unit="seconds",
        most=lambda limits: limits.active_s,
        used=lambda spent: spent.active_s,
        uses=_runs_pods,
        uses_now=lambda _job, _spent: True,
    ),
    _Limit(
        field="spec.limits.gpuSeconds",
        reason="GPUBudgetSpent",
        unit="GPU seconds",
        most=lambda limits: limits.gpu_s,
        used=lambda spent: spent.gpu_s,
        uses=_asks_gpus,
        uses_now=lambda job, _spent: any(pod.gpus for pod in job.pods),
    ),
    _Limit(
        field="spec.limits.llmTokens",
        reason="TokenBudgetSpent",
        unit="tokens",
        most=lambda limits: limits.llm_tokens,
        used=lambda spent: spent.llm_tokens,
        uses=_asks_a_model,
        uses_now=lambda _job, spent: spent.llm_tokens > 0,
    ),
)


def overrun(status: Status, spec: Spec, stage: Stage, spent: Spent) -> Failure | None:
    """The first limit of the run that is used up, of those that `stage` uses. `spent`: by that stage, to the second."""
    return _overrun(status, spec.limits, stage, spent, lambda limit: limit.uses(spec, stage))


def overrun_by(status: Status, limits: RunLimits, job: JobView, spent: Spent) -> Failure | None:
    """The same of those that a Job uses which runs. `spent`: by its stage."""
    return _overrun(status, limits, job.stage, spent, lambda limit: limit.uses_now(job, spent))


def _overrun(
    status: Status, limits: RunLimits, stage: Stage, spent: Spent, uses: Callable[[_Limit], bool]
) -> Failure | None:
    by_stage = _by_stage(status, stage, spent)
    for limit in _LIMITS:
        most, used = limit.most(limits), sum(map(limit.used, by_stage.values()))
        if most is None or used < most or not uses(limit):
            continue
        parts = ", ".join(f"{name} {amount}" for name, each in by_stage.items() if (amount := limit.used(each)))
        message = (
            f"this revision's run has used {used} of {most} {limit.unit} ({parts}): raise it, or give another "
            "spec.retryToken for as much again; what was done is kept, and the stage goes on from there"
        )
        return Failure(kind="Stopped", reason=limit.reason, field=limit.field, message=message)
    return None


def left_s(status: Status, limits: RunLimits, job: JobView, spent: Spent) -> float | None:
    """Seconds until a limit may be used up by the pods of `job` that run; None where none is set."""
    by_stage = _by_stage(status, job.stage, spent)
    running = [pod for pod in job.pods if pod.running_since is not None]
    paces = (min(1, sum(pod.index == 0 for pod in running)), sum(pod.gpus for pod in running))
    found = []
    for limit, pace in zip(_LIMITS, paces, strict=False):
        most = limit.most(limits)
        if most is not None and pace:
            found.append((most - sum(map(limit.used, by_stage.values()))) / pace)
    if limits.llm_tokens is not None and running:
        found.append(POLL_S)
    return min(found, default=None)


def _by_stage(status: Status, stage: Stage, spent: Spent) -> Mapping[Stage, Spent]:
    return {**{item.name: item.usage.spent for item in status.stages}, stage: spent}
