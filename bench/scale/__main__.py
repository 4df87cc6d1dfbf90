"""python3 -m bench.scale [--quick] [--held 10000] [--active 100] [--steps 1000,2000,5000,10000] [--only PARTS]

Prints what was measured beside its goal, and exits with 1 where one was missed. Parts: steps (restart, time and memory
by the number of resources held), idle, writes, load, peers. etcd, the API server, the operator and the simulator share
this machine: on few cores, what else runs shows in every latency.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.scale import load, steps
from bench.scale.goals import Row, goals_table
from bench.scale.lab import open_lab, say
from bench.scale.operator_process import Operator, install, user
from bench.scale.plane import end_on_sigterm
from bench.scale.process import machine

PARTS = ("steps", "idle", "writes", "load", "peers")
PEERS = ("ours", "jobset", "argo")
QUICK_HELD = 500
QUICK_RESYNC_S = 25


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.scale", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--held", type=int, default=10_000, help="resources that are Ready and left alone")
    parser.add_argument("--active", type=int, default=100, help="pipelines under way")
    parser.add_argument("--steps", default="1000,2000,5000,10000", help="restarts with so many held; up to --held")
    parser.add_argument("--rate", type=float, default=11.0, help="transitions a second that stages' length aims at")
    parser.add_argument("--load-s", type=float, default=240, help="how long the load lasts")
    parser.add_argument("--idle-s", type=float, default=60, help="at least, and until a resync lies within")
    parser.add_argument("--catch-up-s", type=float, default=400, help="how long a restart is watched at most")
    parser.add_argument(
        "--with-jobs", action="store_true", help="held ones still have their Jobs and pods: the first day"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_HELD} held, resync every {QUICK_RESYNC_S} s: under 3 minutes"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--pipelines", type=int, default=40, help="of each peer")
    parser.add_argument("--peers", default=",".join(PEERS), help="who takes part in peers")
    parser.add_argument("--json", type=Path, help="the figures, as they come")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/bench-scale"), help="emptied at the start; 4 GB at 10,000"
    )
    found = parser.parse_args()
    found.only = set(found.only.split(","))
    for option, asked, known in (("--only", found.only, PARTS), ("--peers", set(found.peers.split(",")), PEERS)):
        if unknown := asked - set(known):
            parser.error(f"{option}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if found.quick:
        found.held, found.steps, found.active, found.rate = QUICK_HELD, str(QUICK_HELD), 20, 5.0
        found.load_s, found.idle_s, found.catch_up_s = 30, 30, 60
        found.only.discard("peers")
    counts = sorted({int(text) for text in found.steps.split(",")})
    found.counts = [count for count in counts if count < found.held] + [found.held]
    return found


def own(asked: argparse.Namespace) -> list[Row]:
    """All that is measured of the operator alone."""
    rows: list[Row] = []
    with open_lab(asked.folder / "own", (user(),)) as lab:
        install(lab.plane)
        env = {"RESYNC_S": str(QUICK_RESYNC_S)} if asked.quick else {}
        operator = Operator(lab.plane, env)
        try:
            course = steps.Steps(lab, operator, with_jobs=asked.with_jobs, most_s=asked.catch_up_s)
            course.first()
            if "writes" in asked.only:
                pipelines, stage_s = (4, 1.0) if asked.quick else (6, 10.0)
                rows += load.writes(lab, course.made, pipelines, stage_s)
                course.made += pipelines
                keep(asked.json, rows)
            if asked.only.isdisjoint({"steps", "idle", "load"}):
                return rows
            counts = asked.counts if "steps" in asked.only else asked.counts[-1:]
            rows += steps.rows([_held(course, count) for count in counts])
            keep(asked.json, rows)
            if "idle" in asked.only:
                rows += load.idle(lab, operator, asked.idle_s, asked.held)
                keep(asked.json, rows)
            if "load" in asked.only:
                busy = {"active": asked.active, "rate": asked.rate, "seconds": asked.load_s, "held": asked.held}
                rows += load.busy(lab, operator, **busy)
            for event in lab.refusals()[:3]:
                say(f"the API server refused: {event}")
        finally:
            operator.program.end()
    keep(asked.json, rows)
    return rows


def _held(course: steps.Steps, count: int) -> steps.Restart:
    found = course.hold(count)
    course.finish_work()
    return found


def keep(path: Path | None, rows: list[Row]) -> None:
    if path is not None:
        path.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")


def main() -> int:
    asked = options()
    end_on_sigterm()
    print(f"{machine()}\n", flush=True)
    rows: list[Row] = []
    if asked.only - {"peers"}:
        rows = own(asked)
        print(goals_table(rows), flush=True)
    if "peers" in asked.only:
        from bench.scale.peers import compare

        print(f"\n{compare(asked)}", flush=True)
    return 1 if any(row.verdict == "missed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
