"""python3 -m bench.scale.soak [--minutes 120] [--resources 1000] [--every 10] [--seed 1]

Resources are made, edited and removed for hours while something goes wrong every few seconds: the operator is killed
or paused, the API server or etcd is away, connections break or go silent. What must hold is checked all the time, and
at the end, with no more faults, every resource must reach Ready. The operator is killed in the first part only; in the
second its memory is watched. Exits with 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.scale import faults, invariants
from bench.scale.api import LOOPBACK
from bench.scale.faults import Fault
from bench.scale.figures import beyond_what_is_held, growth_per_hour
from bench.scale.goals import Row, goals_table
from bench.scale.lab import Lab, open_lab
from bench.scale.operator_process import Operator, install
from bench.scale.ordeal import Ordeal
from bench.scale.plane import end_on_sigterm
from bench.scale.process import load, machine
from bench.scale.wire import Wire

MOST_MIB_AN_HOUR = 5
_WARM_UP_SHARE = 0.25  # of the time without kills
_LEAST_WATCHED_MIN = 30  # a shorter line says nothing of an hour
HOLDINGS = "holdings.jsonl"
_NOBODY = "nobody"  # no audit log is read here


def report(soak: Ordeal, left: list[str], warm_up_s: float) -> list[Row]:
    """`left` are those that are not Ready in the end."""
    told = soak.lab.told()
    again = invariants.repeated(told)
    with soak.operator.program.log.open(errors="replace") as lines:
        traces = invariants.tracebacks(lines)
    watched = (soak.samples[-1][0] - soak.samples[0][0] - warm_up_s) / 60 if soak.samples else 0.0
    slope = growth_per_hour(soak.samples, warm_up_s=warm_up_s)
    rest = beyond_what_is_held(soak.samples, soak.children, empty=soak.empty_mib)
    goal = MOST_MIB_AN_HOUR if watched >= _LEAST_WATCHED_MIN else None
    begin = soak.samples[0][0] + warm_up_s if soak.samples else 0.0
    children = [count for when, count in soak.children if when >= begin] or [0]
    edits = sum(event["what"] == "edited" and event["code"] == 200 for event in told)
    refused = [
        event
        for event in told
        if event["what"] in ("refused", "edited") and event["code"] >= 400 and event["code"] != 404
    ]
    return [
        Row(
            what="faults",
            measured=sum(soak.done.values()),
            unit="",
            note=", ".join(f"{n} {what}" for what, n in soak.done.items()),
        ),
        Row(
            what="resources that reached Ready",
            measured=sum(event["what"] == "phase" and event["phase"] == "Done" for event in told),
            unit="times",
            note=f"{edits} edits, {sum(event['what'] == 'removed' for event in told)} removals",
        ),
        Row(what="work done twice", measured=len(again), unit="", goal=0, note="; ".join(again[:2])),
        Row(
            what="objects that belong to nobody",
            measured=len(soak.leaks),
            unit="",
            goal=0,
            note=str(sorted(map(str, soak.leaks))[:2]) if soak.leaks else "",
        ),
        Row(
            what="resources that are not Ready in the end",
            measured=len(left),
            unit="",
            goal=0,
            note="; ".join(left[:2]),
        ),
        Row(what="ends of the operator by its own doing", measured=soak.deaths, unit="", goal=0),
        Row(
            what="tracebacks in its log",
            measured=sum(traces.values()),
            unit="",
            goal=0,
            note="; ".join(f"{n} {text}" for text, n in list(traces.items())[:3]),
        ),
        Row(
            what="growth of its memory",
            measured=slope,
            unit="MiB/h",
            goal=goal,
            note=f"over {watched:.0f} min, while children went from {children[0]:,} to {children[-1]:,}; "
            f"at most {soak.operator.program.peak_mib():.0f} MiB; load {load()}",
        ),
        Row(
            what="growth of its memory beyond what more children take",
            measured=growth_per_hour(rest, warm_up_s=warm_up_s),
            unit="MiB/h",
            goal=goal,
            note=f"{soak.empty_mib:.0f} MiB with none",
        ),
        _holdings(_told(soak.lab.plane.folder / HOLDINGS, begin)),
        Row(
            what="requests that the API server refused to users",
            measured=len(refused),
            unit="",
            goal=0,
            note=str(refused[0])[:120] if refused else "",
        ),
    ]


def _told(path: Path, begin: float) -> list[dict[str, Any]]:
    """What the operator's process has told of itself since `begin`, on the monotonic clock. A kill may cut a line."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if one["at"] >= begin]


def _holdings(told: list[dict[str, Any]]) -> Row:
    """A step of the memory with as many blocks as before is a moment that needed more than any before it, and no leak:
    what is free lies between what is held.
    """
    blocks = [(one["at"], one["blocks"] / 1000) for one in told]
    malloc = [one["mallocUsed"] / 2**20 for one in told] or [0.0]
    counts = [count for _, count in blocks] or [0.0]
    return Row(
        what="growth of what the operator holds",
        measured=growth_per_hour(blocks, warm_up_s=0.0),
        unit="thousand blocks/h",
        note=f"{min(counts):.0f} to {max(counts):.0f} thousand of Python's blocks; {min(malloc):.0f} to "
        f"{max(malloc):.0f} MiB of glibc's",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.scale.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--resources", type=int, default=1000)
    parser.add_argument("--every", type=float, default=10, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and of what users do")
    parser.add_argument("--stage-s", type=float, default=3.0, help="how long a stage runs")
    parser.add_argument(
        "--kills", type=float, default=0.4, help="part of the time in which the operator is killed, too"
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench-soak"), help="emptied at the start")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    end_on_sigterm()
    print(f"{machine()}; seed {asked.seed}\n", flush=True)
    seconds = 60 * asked.minutes
    planned = faults.plan(asked.seed, seconds=seconds, every_s=asked.every, kills_until=asked.kills * seconds)
    with open_lab(asked.folder, (_NOBODY,), ("bench.scale.churn", str(asked.seed))) as lab:
        rows = _run(lab, asked, planned, seconds)
    print(goals_table(rows), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")
    return 1 if any(row.verdict == "missed" for row in rows) else 0


def _run(lab: Lab, asked: argparse.Namespace, planned: list[Fault], seconds: float) -> list[Row]:
    install(lab.plane)
    lab.plane.start_collector()
    wire = Wire(lab.plane.api.port)
    path = lab.plane.folder / "operator.kubeconfig"
    conf = json.loads(path.read_text())
    conf["clusters"][0]["cluster"]["server"] = f"https://{LOOPBACK}:{wire.port}"
    path.write_text(json.dumps(conf))
    operator = Operator(lab.plane, {"BENCH_HOLDINGS": str(lab.plane.folder / HOLDINGS)})
    soak = Ordeal(lab, operator, wire)
    try:
        operator.start()
        lab.configure(active=asked.resources, total=0, stage_s=asked.stage_s, gap_s=0.5, jitter=0.5)
        begin = time.monotonic()
        for fault in planned:
            while (early := begin + fault.at - time.monotonic()) > 0:
                soak.wait(min(early, 2.0))
                soak.look()
            if time.monotonic() - begin > seconds:
                break
            soak.happen(fault)
        left = soak.settle()
        return report(soak, left, _WARM_UP_SHARE * (1 - asked.kills) * seconds)
    finally:
        operator.program.end()


if __name__ == "__main__":
    sys.exit(main())
