"""One control plane with the simulator beside it, and what they told."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.scale import audit
from bench.scale.plane import SIMULATOR, Plane
from bench.scale.process import ROOT, Program, load

Event = dict[str, Any]


@dataclass
class Lab:
    plane: Plane
    log: audit.Log
    simulator: Program
    events: list[Event] = field(default_factory=list)
    offset: int = 0

    def configure(self, **conf: Any) -> None:
        """Fields of simulator.Conf; others stay as they are."""
        path = self.plane.folder / "conf.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        new = path.with_suffix(".new")
        new.write_text(json.dumps({**known, **conf}))
        new.rename(path)

    def told(self) -> list[Event]:
        """All that the simulator has written."""
        if not self.simulator.is_alive():
            raise RuntimeError(f"the simulator ended: {self.simulator.log}")
        path = self.plane.folder / "events.jsonl"
        if path.exists():
            with path.open("rb") as lines:
                lines.seek(self.offset)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self.offset += len(line)
                    self.events.append(json.loads(line))
        return self.events

    def chains(self) -> dict[audit.Place, str]:
        """What each Job, pod and Deployment was made for."""
        found: dict[audit.Place, str] = {}
        for event in self.told():
            if event["what"] in ("run", "rollout"):
                found[event["namespace"], event["name"]] = event["chain"]
            elif event["what"] == "pod":
                found[event["namespace"], event["pod"]] = event["chain"]
        return found

    def phases(self, kind: str) -> dict[str, tuple[str, float]]:
        """The last phase of everything that users made of a kind, and since when, by UID."""
        found: dict[str, tuple[str, float]] = {}
        for event in self.told():
            if event["what"] in ("made", "phase") and event["kind"] == kind:
                found[event["uid"]] = (event.get("phase", ""), event["t"])
        return found

    def done(self, kind: str) -> int:
        return sum(phase == "Done" for phase, _ in self.phases(kind).values())

    def refusals(self) -> list[Event]:
        return [event for event in self.told() if event["what"] == "refused"]

    def wait_done(self, kind: str, count: int, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.done(kind) >= count:
                return True
            time.sleep(0.5)
        return False


@contextmanager
def open_lab(folder: Path, audited: tuple[str, ...], users: tuple[str, ...] = ("bench.scale.users",)) -> Iterator[Lab]:
    """`users` is the module that runs beside the simulator, with its arguments after the folder."""
    plane = Plane(folder, audited)
    simulator: Program | None = None
    try:
        plane.start()
        identity = plane.administrator(SIMULATOR)
        told = {
            "port": plane.api.port,
            "kubelet_port": plane.kubelet_port,
            "endpoint_port": plane.endpoint_port,
            "certificate": str(identity.certificate),
            "key": str(identity.key),
            "authority": str(identity.authority),
        }
        (folder / "simulator.json").write_text(json.dumps(told))
        command = [sys.executable, "-m", users[0], str(folder), *users[1:]]
        simulator = Program("simulator", command, folder, {"PYTHONPATH": str(ROOT)})
        simulator.start()
        yield Lab(plane, audit.Log(plane.audit_log), simulator)
    finally:
        if simulator is not None:
            simulator.kill()
        plane.stop()


def say(text: str) -> None:
    """Progress on stderr: stdout has the tables alone."""
    print(f"{time.strftime('%H:%M:%S')} load {load()} | {text}", file=sys.stderr, flush=True)
