"""A control plane, an operator on it, and what goes wrong between them; what must hold is looked at all the time."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import Final

from bench.scale import faults, invariants
from bench.scale.api import Refused
from bench.scale.faults import Fault
from bench.scale.lab import Lab, say
from bench.scale.operator_process import RESOURCES, Operator
from bench.scale.wire import Wire

KIND: Final = "EmbeddingFineTune"
_SAMPLE_S, _LOOK_S, _SETTLE_S = 5.0, 60.0, 900.0
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
class Ordeal:
    lab: Lab
    operator: Operator
    wire: Wire
    samples: list[tuple[float, float]] = field(default_factory=list)  # since the last start of the operator
    children: list[tuple[float, int]] = field(default_factory=list)  # how many there are, at times
    deaths: int = 0  # by its own doing
    orphans: dict[invariants.Place, float] = field(default_factory=dict)  # since when
    leaks: set[invariants.Place] = field(default_factory=set)
    done: dict[str, int] = field(default_factory=dict)
    empty_mib: float = 0.0  # of an operator that holds nothing
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
            # It would have lost its lease, too. One that lived on was seen to never collect what belonged to resources
            # that were removed soon after.
            self.lab.plane.start_collector()
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
            alive = {raw["metadata"]["uid"] for raw in api.items(RESOURCES)}
        except Refused:
            return
        self.children.append((self.looked, len(objects)))
        if not objects:
            self.empty_mib = self.operator.program.rss_mib()
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
        items = self.lab.plane.api.items(RESOURCES)
        return [
            f"{raw['metadata']['namespace']}/{raw['metadata']['name']}: {(raw.get('status') or {}).get('phase')}"
            for raw in items
            if (raw.get("status") or {}).get("phase") != "Ready"
            or raw["status"].get("observedGeneration") != raw["metadata"]["generation"]
        ]
