"""python3 -m bench.scale.soak [--minutes 120] [--resources 1000] [--every 10] [--seed 1]

Resources are made, edited and removed for hours while something goes wrong every few seconds: the operator is killed
or paused, the API server or etcd is away, connections break or go silent. What must hold is checked all the time, and
at the end, with no more faults, every resource must reach Ready. The operator is killed in the first part only; in the
second its memory is watched. Exits with 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.scale import faults, invariants
from bench.scale.api import LOOPBACK, Refused
from bench.scale.faults import Fault
from bench.scale.figures import growth_per_hour
from bench.scale.goals import Row, goals_table
from bench.scale.lab import Lab, open_lab, say
from bench.scale.operator_process import Operator, install, user
from bench.scale.plane import end_on_sigterm
from bench.scale.process import load, machine
from bench.scale.wire import Wire

KIND: Final = "EmbeddingFineTune"
MOST_MIB_AN_HOUR: Final = 5
_SAMPLE_S, _LOOK_S, _WARM_UP_SHARE, _SETTLE_S = 5.0, 60.0, 0.25, 900.0
_GRACE_S = 150.0  # garbage collection takes a while, and longer where the API server was away
_CHILDREN: Final = {
    "Job": "/apis/batch/v1/jobs",
    "Pod": "/api/v1/pods",
    "Deployment": "/apis/apps/v1/deployments",
    "Service": "/api/v1/services",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
    "ConfigMap": "/api/v1/configmaps",
}


@dataclass
class Soak:
    lab: Lab
    operator: Operator
    wire: Wire
    samples: list[tuple[float, float]] = field(default_factory=list)  # since the last start of the operator
    deaths: int = 0  # by its own doing
    orphans: dict[invariants.Place, float] = field(default_factory=dict)  # since when
    leaks: set[invariants.Place] = field(default_factory=set)
    done: dict[str, int] = field(default_factory=dict)
    sampled = looked = 0.0

    # -- faults --------------------------------------------------------------------------------------------------------
    def happen(self, fault: Fault) -> None:
        """Begin it, wait, and put it right."""
        self.done[fault.what] = self.done.get(fault.what, 0) + 1
        programs = self.lab.plane.programs
        if fault.what == faults.KILL:
            self.operator.program.kill()
            time.sleep(fault.lasts)
            self._start()
        elif fault.what == faults.API_KILLED:
            programs["kube-apiserver"].kill()
            self.wait(fault.lasts)
            self.lab.plane.start_api()
        elif fault.what == faults.CUT:
            self.wire.cut()
        elif fault.what == faults.SILENT:
            self.wire.silence(True)
            self.wait(fault.lasts)
            self.wire.silence(False)
        else:
            paused = {
                faults.PAUSE: self.operator.program,
                faults.API_PAUSED: programs["kube-apiserver"],
                faults.ETCD_PAUSED: programs["etcd"],
            }[fault.what]
            paused.signal(signal.SIGSTOP)
            self.wait(fault.lasts)
            paused.signal(signal.SIGCONT)

    def _start(self) -> None:
        self.samples.clear()
        self.operator.start()

    # -- watching ------------------------------------------------------------------------------------------------------
    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
            self._sample()

    def _sample(self) -> None:
        if time.monotonic() - self.sampled < _SAMPLE_S:
            return
        self.sampled = time.monotonic()
        if not self.operator.program.is_alive():
            self.deaths += 1
            say("the operator ended by itself")
            self._start()
        self.samples.append((time.monotonic(), self.operator.program.rss_mib()))

    def look(self) -> None:
        """Look for what belongs to nobody."""
        if time.monotonic() - self.looked < _LOOK_S:
            return
        self.looked = time.monotonic()
        api = self.lab.plane.api
        try:
            # Children first: a resource that is made meanwhile must not look like one that is gone.
            objects = [
                (kind, raw)
                for kind, path in _CHILDREN.items()
                for raw in api.items(f"{path}?labelSelector={invariants.OWNER_UID}")
            ]
            alive = {
                raw["metadata"]["uid"] for raw in api.items("/apis/embedding-operator.dev/v1alpha1/embeddingfinetunes")
            }
        except Refused:
            return
        found = invariants.leaked(objects, alive)
        self.orphans = {place: self.orphans.get(place, self.looked) for place in found}
        self.leaks |= {place for place, since in self.orphans.items() if self.looked - since > _GRACE_S}
        repeated = len(invariants.repeated(self.lab.told()))
        say(
            f"{len(alive)} resources, {self.lab.done(KIND)} Ready, {len(objects)} children, {len(found)} to be "
            f"collected, {len(self.leaks)} leaked, {repeated} repeated, {self.operator.program.rss_mib():.0f} MiB"
        )

    def settle(self) -> list[str]:
        """No more faults and no more changes: what is not Ready after a while."""
        self.lab.configure(total=1)
        end = time.monotonic() + _SETTLE_S
        while time.monotonic() < end:
            self.wait(5)
            self.look()
            left = self._not_ready()
            if not left:
                break
        last = time.monotonic() + _GRACE_S + _LOOK_S
        while self.orphans and time.monotonic() < last:
            self.wait(5)
            self.look()
        return left

    def _not_ready(self) -> list[str]:
        items = self.lab.plane.api.items("/apis/embedding-operator.dev/v1alpha1/embeddingfinetunes")
        return [
            f"{raw['metadata']['namespace']}/{raw['metadata']['name']}: {(raw.get('status') or {}).get('phase')}"
            for raw in items
            if (raw.get("status") or {}).get("phase") != "Ready"
            or raw["status"].get("observedGeneration") != raw["metadata"]["generation"]
        ]

    def rows(self, left: list[str], warm_up_s: float) -> list[Row]:
        told = self.lab.told()
        again = invariants.repeated(told)
        with self.operator.program.log.open(errors="replace") as lines:
            traces = invariants.tracebacks(lines)
        slope = growth_per_hour(self.samples, warm_up_s=warm_up_s)
        watched = (self.samples[-1][0] - self.samples[0][0] - warm_up_s) / 60 if self.samples else 0.0
        edits = sum(event["what"] == "edited" and event["code"] == 200 for event in told)
        refused = [
            event
            for event in told
            if event["what"] in ("refused", "edited") and event["code"] >= 400 and event["code"] != 404
        ]
        return [
            Row(
                what="faults",
                measured=sum(self.done.values()),
                unit="",
                note=", ".join(f"{n} {what}" for what, n in self.done.items()),
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
                measured=len(self.leaks),
                unit="",
                goal=0,
                note=str(sorted(map(str, self.leaks))[:2]) if self.leaks else "",
            ),
            Row(
                what="resources that are not Ready in the end",
                measured=len(left),
                unit="",
                goal=0,
                note="; ".join(left[:2]),
            ),
            Row(what="ends of the operator by its own doing", measured=self.deaths, unit="", goal=0),
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
                goal=MOST_MIB_AN_HOUR,
                note=f"over {watched:.0f} min; at most {self.operator.program.peak_mib():.0f} MiB; load {load()}",
            ),
            Row(
                what="requests that the API server refused to users",
                measured=len(refused),
                unit="",
                goal=0,
                note=str(refused[0])[:120] if refused else "",
            ),
        ]


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
    with open_lab(asked.folder, (user(),), ("bench.scale.churn", str(asked.seed))) as lab:
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
    operator = Operator(lab.plane)
    soak = Soak(lab, operator, wire)
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
        return soak.rows(left, _WARM_UP_SHARE * (1 - asked.kills) * seconds)
    finally:
        operator.program.end()


if __name__ == "__main__":
    sys.exit(main())
