"""What the run of a revision uses: from its Jobs' pods, and in figures for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed, Plan
from embedding_operator.decide.outcome import said_by
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import MEASURED, StageStatus, Status
from embedding_operator.resource.times import noted_time, stamp
from embedding_operator.resource.usage import PodPart, Spent, Usage, short, total
from embedding_stages.contract import Stage, parse_progress

_TOLD_S: Final = 600  # the status tells what a pod that runs has used in such steps, or each pass would write it
_LATE_S: Final = 1200  # a log that says nothing new makes no writes, and what its pod uses is to be known nevertheless
_A_MOMENT_S: Final = 5
_LEAVING_S: Final = 30  # the same of a pod that is asked to stop
_ENDED: Final = ("Succeeded", "Failed")
_SECONDS_AN_HOUR: Final = 3600


def measured(
    known: Usage, jobs: Sequence[JobView], observed: Observed, begun: datetime | None, *, exact: bool = False
) -> Usage:
    """`known` with what is seen of the pods of `jobs`. `begun`: of the run; what was before it is an earlier run's.

    `exact`: to the second, to be judged by; else as the status tells it.
    """
    step_s = 1 if exact else _TOLD_S
    parts, going = {part.uid: part for part in known.parts}, []
    for job in jobs:
        for pod in job.all_pods:
            created = int(pod.created.timestamp())
            if created < known.since:
                continue
            if not _has_ended(pod):
                going.append(created)
            uid, spent = short(pod.uid), _part_of(job, pod, observed, begun, step_s)
            old = parts.get(uid)
            if old is not None:  # its end is the last word about its time; before that, a clock may go back
                least = Spent(llm_tokens=old.spent.llm_tokens) if pod.ended is not None else old.spent
                spent = spent.most(least)
                told_then = (old.spent.active_s, old.spent.gpu_s) == (spent.active_s, spent.gpu_s)
                if told_then and not exact and not _has_ended(pod):  # its tokens are told with its time
                    spent = old.spent
            if spent != Spent():
                parts[uid] = PodPart(uid=uid, created=created, spent=spent)
    ordered = sorted(parts.values(), key=lambda part: (part.created, part.uid))
    if not ordered:
        return known
    since = max(known.since, min([ordered[-1].created, *going]))
    closed = total([known.closed, *(part.spent for part in ordered if part.created < since)])
    return Usage(closed=closed, since=since, parts=tuple(part for part in ordered if part.created >= since)).bounded()


def is_late(known: Usage, told: Usage, jobs: Sequence[JobView], now: datetime) -> bool:
    """Whether the status says so much too little that it is worth a write of its own.

    What a pod has used that has ended, or is about to, is written while it can be seen. In the first moment after its
    end its Job is about to end as well, which is told with it.
    """
    behind_s = told.spent.active_s - known.spent.active_s
    pods = {short(pod.uid): pod for job in jobs for pod in job.all_pods}
    before = {part.uid: part.spent for part in known.parts}
    for part in told.parts:
        pod, old = pods.get(part.uid), before.get(part.uid, Spent())
        just_ended = pod is not None and pod.ended is not None and (now - pod.ended).total_seconds() < _A_MOMENT_S
        if pod is not None and _has_ended(pod) and not just_ended and part.spent != old:
            return True
        if pod is not None and pod.gone_by is not None and part.spent.active_s - old.active_s >= _LEAVING_S:
            return True
    return behind_s >= _LATE_S


def begin_run(draft: Draft, observed: Observed) -> None:
    """Begin to count from zero: what the run before used is known to the second, and is told nowhere else."""
    status = draft.status
    ended = tuple(_up_to_now(item, status, observed) for item in status.stages)
    draft.ended_run = {item.name: item.usage.spent.beyond(status.stage(item.name).usage.spent) for item in ended}
    stages = tuple(_of_another_run(item) for item in ended)
    draft.status = replace(status, stages=stages, run={"startedAt": stamp(observed.now)})


def end_run(draft: Draft) -> None:
    """Note that the revision has come to its good end. What is measured again later is no work that this run may do."""
    if draft.status.at_rest and MEASURED not in draft.status.resolved:  # of an earlier release: Ready says as much
        return
    resolved = {**draft.status.resolved, MEASURED: draft.status.revision}
    draft.status = replace(draft.status, resolved=resolved)


def with_end_of_run(before: Status, decided: Plan) -> Plan:
    """Of a status of an earlier release that is Ready no more: that its run had ended is noted while it is known."""
    status = decided.status
    known = MEASURED in status.resolved or not before.at_rest or status.at_rest or before.revision != status.revision
    noted = {**status.resolved, MEASURED: status.revision}
    return decided if known else replace(decided, status=replace(status, resolved=noted))


def has_ended(status: Status) -> bool:
    """Whether the run has come to its good end, and nothing has been asked anew since."""
    known = status.resolved.get(MEASURED) == status.revision or status.at_rest
    return known and bool(status.stage(Stage.VERIFY).finished_at)


def _up_to_now(item: StageStatus, status: Status, observed: Observed) -> StageStatus:
    """A stage with what it has used to the second, before another run begins to count."""
    jobs = charged(observed.jobs, item.name, item.fingerprint, status.revision)
    return replace(item, usage=measured(item.usage, jobs, observed, begun_at(status), exact=True))


def charged(jobs: Sequence[JobView], stage: Stage, wanted: str, revision: int) -> list[JobView]:
    """The stage's Jobs that a revision's run pays for: they do the work that is wanted, or the run made them."""
    return [job for job in jobs if job.stage is stage and (job.fingerprint == wanted or job.revision == revision)]


def _has_ended(pod: PodView) -> bool:
    return pod.exit_code is not None or pod.phase in _ENDED


def _part_of(job: JobView, pod: PodView, observed: Observed, begun: datetime | None, step_s: int) -> Spent:
    if begun is not None and _has_ended(pod) and (pod.ended is None or pod.ended <= begun):
        return Spent()
    tokens = _tokens_of(job, observed) if pod is job.pod else 0
    if pod.began is None:
        return Spent(llm_tokens=tokens)
    start = max(pod.began, begun) if begun is not None else pod.began
    seconds = max(0, int((_end_of(pod, observed.now) - start).total_seconds()))
    if not _has_ended(pod) and pod.gone_by is None:
        seconds -= seconds % step_s
    return Spent(active_s=seconds if pod.index == 0 else 0, gpu_s=seconds * pod.gpus, llm_tokens=tokens)


def _end_of(pod: PodView, now: datetime) -> datetime:
    """Of a pod whose kubelet tells nothing any more, no later than it was to be gone."""
    if pod.ended is not None:
        return pod.ended
    if _has_ended(pod):  # nobody knows when: what was seen of it while it ran stands in the status
        return pod.began or now
    return min(now, pod.gone_by) if pod.gone_by is not None else now


def _tokens_of(job: JobView, observed: Observed) -> int:
    """Of the process in the Job's first pod: its last words, or its newest progress."""
    result = said_by(job.pod)
    progress = parse_progress(observed.log_tails.get(job.name, ""))
    return max(result.llm_tokens if result is not None else 0, progress.llm_tokens if progress is not None else 0)


def begun_at(status: Status) -> datetime | None:
    """When the run of the revision began; None for one that an earlier release began."""
    return noted_time(status.run.get("startedAt"))


def figures(status: Status, spec: Spec | None) -> dict[str, Any]:
    """`status.run`; without a valid manifest nobody knows how long it takes."""
    spent = total(item.usage.spent for item in status.stages)
    found: dict[str, Any] = {"startedAt": status.run.get("startedAt", "")}
    if spent.active_s or spent.gpu_s:
        found |= {"activeSeconds": spent.active_s, "gpuHours": f"{spent.gpu_s / _SECONDS_AN_HOUR:.2f}"}
    if spent.llm_tokens:
        found["llmTokens"] = spent.llm_tokens
    if spec is not None and (eta := eta_s(status, spec)) is not None:
        found["etaSeconds"] = eta
    return {key: value for key, value in found.items() if value != ""}


def eta_s(status: Status, spec: Spec) -> int | None:
    """What the running stage says it takes, and what the stages after it took the last time.

    None while none runs that says so, and where one of the others was never done.
    """
    running = next((item for item in status.stages if item.state == "Running"), None)
    if running is None or running.eta_seconds is None:
        return None
    order = list(Stage)
    later = [status.stage(stage) for stage in order[order.index(running.name) + 1 :]]
    left = [item.took_s for item in later if not (item.name is Stage.EXPORT and spec.deploy.serves_checkpoint)]
    known = [took for took in left if took is not None]
    return running.eta_seconds + sum(known) if len(known) == len(left) else None


def _of_another_run(item: StageStatus) -> StageStatus:
    """A stage as a new run finds it: what it has used was used in an earlier one, how long it took is remembered."""
    took_s = _took_s(item) if item.done else None
    return replace(item, usage=item.usage.begun_anew(), took_s=item.took_s if took_s is None else took_s)


def _took_s(item: StageStatus) -> int | None:
    started, finished = noted_time(item.started_at), noted_time(item.finished_at)
    seconds = int((finished - started).total_seconds()) if started and finished else -1
    return seconds if seconds >= 0 else None
