"""With all of them held: the operator left alone, a few pipelines, and a hundred of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.scale import audit, garbage
from bench.scale.figures import quantile
from bench.scale.goals import Row, number
from bench.scale.lab import Event, Lab, say
from bench.scale.operator_process import Operator, user
from bench.scale.process import load
from bench.scale.steps import KIND, MOST_MIB

MOST_P50_MS, MOST_P99_MS, LEAST_RATE, MOST_WRITES, MOST_IDLE_PERCENT = 50, 1000, 10, 40, 1
MOST_IDLE_REQUESTS = 40  # a minute: watches that begin anew, and lists that do not depend on how many there are
_LOG_LAG_S = 3
_STEP = "job to job"
_NOT_BEFORE_A_JOB = ("export", "verify")


def idle(lab: Lab, operator: Operator, seconds: float, held: int) -> list[Row]:
    """Nobody asks for anything, from one resync's end to the next one's, and for so many `seconds` at least."""
    say("waits for the end of a resync")
    operator.wait_resync()
    seconds = max(seconds, 1.15 * operator.resync_interval_s())  # they are 0.9 to 1.1 intervals apart
    say(f"idle for {seconds:.0f} s")
    lab.log.forget()
    begin, cpu, passes = time.time(), operator.program.cpu_s(), operator.passes()
    time.sleep(seconds)
    used, end = operator.program.cpu_s() - cpu, time.time()
    looks = operator.passes() - passes
    time.sleep(_LOG_LAG_S)
    asked = list(audit.of(lab.log.read(), user(), begin, end))
    minutes = (end - begin) / 60
    most = ", ".join(f"{count} {verb} {resource}" for (verb, resource), count in audit.counts(asked).most_common(4))
    named = sum(bool(item.name) or bool(item.namespace) for item in asked)
    return [
        Row(
            what=f"idle for {seconds:.0f} s with {held:,} held: CPU",
            measured=100 * used / (end - begin),
            unit="% of a core",
            goal=MOST_IDLE_PERCENT,
            note=f"{looks:,.0f} passes; load {load()}",
        ),
        Row(
            what="idle: requests a minute, all",
            measured=len(asked) / minutes,
            unit="",
            goal=MOST_IDLE_REQUESTS,
            note=most,
        ),
        Row(what="idle: requests a minute for single objects or namespaces", measured=named / minutes, unit="", goal=0),
    ]


def writes(lab: Lab, first: int, pipelines: int, stage_s: float) -> list[Row]:
    """From quiet to quiet and with nothing else held, so that all that is asked in between belongs to these."""
    say(f"{pipelines} pipelines, stages of {stage_s:.0f} s")
    lab.log.forget()
    began = time.time()
    lab.configure(kind=KIND, active=pipelines, total=first + pipelines, stage_s=stage_s, gap_s=1.0, jitter=0.2)
    done = lab.wait_done(KIND, first + pipelines, 60 + 12 * (stage_s + 3))
    time.sleep(10 + _LOG_LAG_S)
    asked = list(audit.of(lab.log.read(), user(), began))
    wrote = [item for item in asked if item.is_write]
    events = sum(item.resource == "events" for item in wrote)
    kinds = ", ".join(
        f"{count / pipelines:.1f} {what[0]} {what[1]}" for what, count in audit.counts(wrote).most_common(5)
    )
    followed = audit.transitions(lab.log.requests, user(), lab.chains()).get(_STEP, [])
    quiet = [item.seconds for item in followed]
    return [
        Row(
            what=f"writes a pipeline, stages of {stage_s:.0f} s",
            measured=len(wrote) / pipelines if done else float("nan"),
            unit="",
            goal=MOST_WRITES,
            note=f"of which {events / pipelines:.1f} Events: {kinds}",
        ),
        Row(
            what="reads a pipeline",
            measured=sum(item.is_read for item in asked) / pipelines,
            unit="",
            note=f"beside them {sum(item.is_dry for item in asked) / pipelines:.1f} dry runs of writes",
        ),
        Row(what=f"Job Complete to next Job, {pipelines} active: p50", measured=1000 * quantile(quiet, 0.5), unit="ms"),
        Row(
            what=f"Job Complete to next Job, {pipelines} active: p99", measured=1000 * quantile(quiet, 0.99), unit="ms"
        ),
    ]


def busy(lab: Lab, operator: Operator, *, active: int, rate: float, seconds: float, held: int) -> list[Row]:
    """`active` pipelines, whose stages last so long that `rate` of them end each second."""
    gap = 1.0
    stage = max(0.5, active / rate - gap)
    say(f"{active} active, stages of {stage:.1f} s, for {seconds:.0f} s")
    lab.configure(kind=KIND, active=active, total=0, stage_s=stage, gap_s=gap, jitter=0.5)
    time.sleep(1.5 * stage + active / 8)  # until all of them are under way and no longer in step
    lab.log.forget()
    begin, cpu, other = time.time(), operator.program.cpu_s(), lab.simulator.cpu_s()
    time.sleep(seconds)
    end = time.time()
    used, others = operator.program.cpu_s() - cpu, lab.simulator.cpu_s() - other
    time.sleep(_LOG_LAG_S + 2)  # what ended in this time is followed by then; the load goes on, as its end is a burst
    requests, now = lab.log.read(), time.time()
    found = {
        name: [item for item in steps if item.ended < end]
        for name, steps in audit.transitions(requests, user(), lab.chains()).items()
    }
    every = sum(len(values) for name, values in found.items() if not name.startswith("pod")) / (end - begin)
    waits = still_waiting(lab.told(), begin, end, now)
    lab.configure(active=0)
    # Whoever still waits has waited that long at least: without them the slowest would not count.
    steps = [*(item.seconds for item in found.get(_STEP, ())), *waits]
    held_note = f"{held:,} held, {active} active"
    asked = list(audit.of(requests, user(), begin, end))
    return [
        Row(
            what=f"transitions a second, {held_note}",
            measured=every,
            unit="",
            goal=LEAST_RATE if rate >= LEAST_RATE else None,
            at_least=True,
            note=f"operator {100 * used / (end - begin):.0f} % of a core, simulator "
            f"{100 * others / (end - begin):.0f} %, {len(asked) / (end - begin):.0f} requests/s; load {load()}",
        ),
        Row(what="Job Complete to next Job: p50", measured=1000 * quantile(steps, 0.5), unit="ms", goal=MOST_P50_MS),
        Row(
            what="Job Complete to next Job: p99",
            measured=1000 * quantile(steps, 0.99),
            unit="ms",
            goal=MOST_P99_MS,
            note=f"{len(steps)} of them, at most {number(1000 * max(steps, default=float('nan')))} ms; "
            f"{len(waits)} still wait in the end; {_when_slowest(found.get(_STEP, ()), begin)}",
        ),
        Row(
            what="an answer of the API server to a write: p99",
            measured=1000 * quantile([item.end - item.start for item in asked if item.is_write], 0.99),
            unit="ms",
            note=_slowest_answer(asked, begin),
        ),
        _garbage(lab, found.get(_STEP, ()), begin, end),
        Row(
            what="Deployment available to verify: p99",
            measured=1000 * quantile([item.seconds for item in found.get("deployment to job", ())], 0.99),
            unit="ms",
        ),
        Row(
            what="memory under load, at most since the start",
            measured=operator.program.peak_mib(),
            unit="MiB",
            goal=MOST_MIB,
        ),
        Row(what="stages that ran twice", measured=len(twice(lab)), unit="", goal=0, note=", ".join(twice(lab)[:2])),
    ]


def _when_slowest(steps: Sequence[audit.Transition], begin: float) -> str:
    """Whether the slowest hundredth came of one moment of the machine, or of many."""
    ended = sorted(round(item.ended - begin) for item in _slowest(steps))
    return f"the slowest hundredth after {', '.join(map(str, ended))} s" if ended else "none"


def _slowest(steps: Sequence[audit.Transition]) -> list[audit.Transition]:
    """A hundredth of them."""
    return sorted(steps, key=lambda item: item.seconds)[-max(1, len(steps) // 100) :]


def _garbage(lab: Lab, steps: Sequence[audit.Transition], begin: float, end: float) -> Row:
    """What the API server's collections take of the cores meanwhile, and what was slow because of them."""
    program = lab.plane.programs["kube-apiserver"]
    with program.log.open(errors="replace") as log:
        found = [item for item in garbage.collections(log, program.started) if item.meets(begin, end)]
    slowest = _slowest(steps)
    met = sum(any(item.meets(step.ended, step.ended + step.seconds) for item in found) for step in slowest)
    return Row(
        what="the API server collects garbage",
        measured=sum(item.seconds for item in found),
        unit="s",
        note=f"{len(found)} times, at most {number(max((item.seconds for item in found), default=0.0))} s; "
        f"{met} of the slowest {len(slowest)} fell into it",
    )


def _slowest_answer(asked: Iterable[audit.Request], begin: float) -> str:
    slowest = max((item for item in asked if item.is_write), key=lambda item: item.end - item.start, default=None)
    if slowest is None:
        return "none"
    took_ms = number(1000 * (slowest.end - slowest.start))
    return f"at most {took_ms} ms, {slowest.verb} {slowest.resource} after {slowest.start - begin:.0f} s"


def still_waiting(told: Iterable[Event], begin: float, end: float, now: float) -> list[float]:
    """For how long Jobs have been complete that another Job should have followed, of those that ended from `begin` to
    `end`.
    """
    last: dict[str, Event] = {}
    stages: dict[str, str] = {}
    for event in told:
        if event["what"] == "run":
            stages[event["uid"]] = event["stage"]
        if event["what"] in ("run", "ended", "rollout"):
            last[event["chain"]] = event
    return [
        now - event["t"]
        for event in last.values()
        if event["what"] == "ended" and begin <= event["t"] < end and stages.get(event["uid"]) not in _NOT_BEFORE_A_JOB
    ]


def twice(lab: Lab) -> list[str]:
    """Work that more than one Job did: same resource, stage and fingerprint."""
    runs: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for event in lab.told():
        if event["what"] == "run" and event.get("fingerprint"):
            runs[event["owner"], event["stage"], event["fingerprint"]].add(event["name"])
    return [f"{owner[:8]} {stage}: {sorted(jobs)}" for (owner, stage, _), jobs in runs.items() if len(jobs) > 1]
