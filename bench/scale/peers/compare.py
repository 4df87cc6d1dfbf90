"""The same number of pipelines through each contestant, each on a fresh control plane with the same simulated Pods."""

from __future__ import annotations

import argparse
import time

from bench.scale import audit
from bench.scale.figures import quantile
from bench.scale.goals import number, table
from bench.scale.lab import Lab, open_lab, say
from bench.scale.peers.build import NotBuilt
from bench.scale.peers.contestants import Contestant, contestants
from bench.scale.process import load

ACTIVE = 20
STAGE_S = 2.0
_MOST_S = 400
_LOG_LAG_S = 4
_TITLES = (
    "controller", "how", "owner's end to next create: p50 / p99, ms", "pod's end to next create: p50 / p99, ms",
    "pipelines/min", "CPU s a pipeline", "peak MiB", "reads a pipeline", "writes a pipeline", "note",
)  # fmt: skip


def compare(asked: argparse.Namespace) -> str:
    rows = []
    for contestant in contestants(asked.peers.split(",")):
        say(f"{contestant.name}, {contestant.how}")
        try:
            with open_lab(asked.folder / "peers", (contestant.user,)) as lab:
                found = _measure(lab, contestant, asked.pipelines)
        except (NotBuilt, TimeoutError, RuntimeError) as error:
            say(f"{contestant.name} is left out: {error}")
            rows.append([contestant.name, contestant.how, *[""] * (len(_TITLES) - 3), f"left out: {str(error)[:120]}"])
            continue
        rows.append([contestant.name, contestant.how, *found])
        say(" | ".join(found))
    return table(_TITLES, rows)


def _measure(lab: Lab, contestant: Contestant, pipelines: int) -> list[str]:
    kind = contestant.kind
    program = contestant.start(lab)
    try:
        time.sleep(3)
        lab.log.forget()
        began, cpu = time.time(), program.cpu_s()
        before = load()
        lab.configure(kind=kind.name, active=ACTIVE, total=pipelines, stage_s=STAGE_S, gap_s=1.0, jitter=0.2)
        whole = lab.wait_done(kind.name, pipelines, _MOST_S)
        ended = max((when for _, when in lab.phases(kind.name).values()), default=time.time())
        time.sleep(_LOG_LAG_S)
        if not whole:
            told = lab.refusals()
            raise RuntimeError(
                f"{lab.done(kind.name)} of {pipelines} done in {_MOST_S} s"
                + (f": {told[0]['message']}" if told else "")
            )
        cpu_s = program.cpu_s() - cpu
        requests = [item for item in lab.log.read() if item.start >= began]
        return [
            *_latencies(lab, contestant, requests),
            number(60 * pipelines / (ended - began)),
            number(cpu_s / pipelines),
            f"{program.peak_mib():.0f}",
            *_requests(contestant, requests, pipelines),
            f"{kind.steps} {'pods' if kind.name == 'Workflow' else 'Jobs'} each; load {before}",
        ]
    finally:
        program.end(15)


def _latencies(lab: Lab, contestant: Contestant, requests: list[audit.Request]) -> list[str]:
    found = audit.transitions(requests, contestant.user, lab.chains())
    pod = found.get("pod to job", []) or found.get("pod to pod", [])
    return [_quantiles(found.get("job to job", [])), _quantiles(pod)]


def _quantiles(steps: list[audit.Transition]) -> str:
    if not steps:
        return "has none"
    values = [item.seconds for item in steps]
    return f"{1000 * quantile(values, 0.5):,.0f} / {1000 * quantile(values, 0.99):,.0f}"


def _requests(contestant: Contestant, requests: list[audit.Request], pipelines: int) -> list[str]:
    asked = list(audit.of(requests, contestant.user))
    reads, writes = sum(item.is_read for item in asked), sum(item.is_write for item in asked)
    return [number(reads / pipelines), number(writes / pipelines)]
