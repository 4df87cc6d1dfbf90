"""A resource, its operator and the world, driven step by step on a clock of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from simulation.endings import DONE, HANG, Ending
from simulation.fake_cluster import NAMESPACE, Crash, FakeCluster
from simulation.invariants import check_status, spec_errors
from simulation.kueue import Kueue
from simulation.servers import answer_canaries
from simulation.world import World

from embedding_operator.cluster.cache import KINDS, Cache
from embedding_operator.cluster.claims import ExistingClaims
from embedding_operator.cluster.errors import ClusterError
from embedding_operator.cluster.events import EventPoster
from embedding_operator.cluster.lists import Lists
from embedding_operator.cluster.logs import LogTails
from embedding_operator.decide.plan import Defaults
from embedding_operator.reconcile import Reconciler
from embedding_operator.resource.api import API_VERSION, KIND, TORCH_SERVER
from embedding_operator.resource.status import Status
from embedding_stages.contract import Artefact, Stage, StageRequest

Raw = dict[str, Any]
IMAGES: Mapping[str, str] = {name: f"registry.test/{name}:1" for name in (*Stage, TORCH_SERVER)}
NAME = "handbook"
_QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


def a_spec(**sections: Any) -> Raw:
    """A small valid spec; keyword arguments replace its sections, `stages` is merged stage by stage."""
    spec: Raw = {
        "baseModel": {"name": "tiny", "source": {"pvc": {"claimName": "models"}}},
        "corpus": {"source": {"configMap": {"name": "docs"}}},
        "stages": {"sdg": {"provider": {"extractive": {}}}},
    }
    stages = spec["stages"] | sections.pop("stages", {})
    spec |= {**sections, "stages": stages}
    assert spec_errors(spec) == []
    return spec


@dataclass
class Clock:
    """Stands still unless told otherwise."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def log_tails(cluster: FakeCluster) -> LogTails:
    """Read at once, where they are asked for."""
    return LogTails(
        read=lambda namespace, pod, lines: cluster.log_tail(namespace, pod, lines=lines),
        submit=lambda work: work(),
        ring=lambda key: None,
        clock=lambda: cluster.now().timestamp(),
    )


def _reconciler(cluster: FakeCluster) -> Reconciler:
    return Reconciler(
        cluster=cluster,
        cache=Cache(clock=lambda: cluster.now().timestamp()),
        claims=ExistingClaims(cluster),
        logs=log_tails(cluster),
        events=EventPoster(cluster=cluster, submit=lambda work: work()),
        defaults=Defaults(images=IMAGES),
        ask=lambda url, contract: answer_canaries(cluster, url),
        clock=lambda: cluster.now().timestamp(),
    )


class Operator:
    """One process of the operator: a cache of its own, filled by a list, then by the watch."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.reconciler = _reconciler(cluster)
        self.heard = len(cluster.watch)
        Lists(cluster=cluster, cache=self.reconciler.cache, rest=lambda _: False).fill()
        self.reconciler.begin()

    def fork(self, cluster: FakeCluster) -> Operator:
        """One that knows the same."""
        twin = copy(self)
        twin.cluster = cluster
        twin.reconciler = _reconciler(cluster)
        twin.reconciler.cache._objects = {
            kind: {key: {name: copy(kept) for name, kept in known.items()} for key, known in by_owner.items()}
            for kind, by_owner in self.reconciler.cache._objects.items()
        }
        twin.reconciler.cache.unheard = set(self.reconciler.cache.unheard)
        twin.reconciler.doubted.update(self.reconciler.doubted)
        return twin

    def hear(self, until: int | None = None, *, deaf_to: str = "", stutter: bool = False) -> None:
        """Take in the watch up to an event; later ones have not arrived yet."""
        stop = len(self.cluster.watch) if until is None else max(until, self.heard)
        told = self.cluster.watch[self.heard : stop]
        self.heard = stop
        for event, kind, raw in (*told, *reversed(told)) if stutter else told:
            if kind in KINDS and kind != deaf_to:
                self.be_told(event, kind, raw)

    def be_told(self, event: str, kind: str, raw: Raw) -> None:
        """As `Doorbell.hear` does."""
        cache, as_of = self.reconciler.cache, -math.inf if kind == KIND else None
        cache.drop(kind, raw) if event == "DELETED" else cache.put(kind, raw, as_of=as_of)

    def reconcile(self, name: str = NAME) -> float | None:
        return self.reconciler.reconcile((NAMESPACE, name))


class Scene:
    """`a_scene()` is the usual way to get one."""

    def __init__(self, spec: Mapping[str, Any], *, foreground: bool = True) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster(self.clock, foreground=foreground)
        self.cluster.on_status.append(self._look)
        self.world = World(self.cluster)
        self.kueue: Kueue | None = None
        self.history: list[Raw] = []  # every status that was written
        self.crashes = 0
        self.refusals: list[ClusterError] = []
        self.lag = 0  # turns that the watch is behind
        self.ends: list[int] = []  # of the watch, at each turn
        self.deaf_to = ""  # a kind whose watch says nothing
        self.asked_s: float | None = None  # after which the last pass asked for another one; None: for none
        self.stutter = False  # every event comes twice, the second time in reverse
        self.create(spec)
        self.operator = Operator(self.cluster)

    def _look(self, raw: Raw) -> None:
        check_status(self.cluster, raw)
        self.history.append(raw["status"])

    def fork(self) -> Scene:
        """A copy that goes its own way from here, with a fresh operator; objects are never changed in place."""
        twin = copy(self)
        twin.clock = copy(self.clock)
        twin.cluster = self.cluster.fork(twin.clock)
        twin.cluster.on_status = [twin._look]
        twin.world = self.world.fork(twin.cluster)
        twin.kueue = None if self.kueue is None else replace(self.kueue, cluster=twin.cluster)
        twin.history, twin.refusals = list(self.history), list(self.refusals)
        twin.operator = self.operator.fork(twin.cluster)
        return twin

    def restart(self) -> None:
        """A new process of the operator, which knows only what it can list."""
        self.operator = Operator(self.cluster)

    # What users do.

    def create(self, spec: Mapping[str, Any]) -> None:
        meta = {"name": NAME, "namespace": NAMESPACE}
        self.cluster.add({"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": dict(spec)})

    def edit(self, spec: Mapping[str, Any]) -> None:
        self.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw.update(spec=dict(spec)))

    def will(self, stage: Stage, *endings: Ending) -> None:
        """How the next attempts of a stage end; those after them succeed."""
        self.world.endings[stage].extend(endings)

    def running(self, stage: Stage) -> Scene:
        """Run until a stage does; it goes on until `release`, or until its pod is gone."""
        self.will(stage, HANG)
        return self.run(stage_is(stage, "Running"))

    def release(self, ending: Ending = DONE) -> None:
        """Let what `running` holds end."""
        held = self.world.ending_of
        held.update({uid: ending for uid, how in held.items() if how is HANG})

    # What passes.

    def turn(self) -> float:
        """One pass of the operator and one step of the world; the clock moves on by what the pass asked for."""
        self.ends = [*self.ends, len(self.cluster.watch)]
        self.operator.hear(
            self.ends[-1 - min(self.lag, len(self.ends) - 1)], deaf_to=self.deaf_to, stutter=self.stutter
        )
        try:
            after = self.operator.reconcile()
        except Crash:
            self.crashes += 1
            self.restart()
            self.asked_s = 0.0
            return 0.0
        except ClusterError as error:
            self.refusals.append(error)
            after = 1.0
        self.asked_s = after
        self.step()
        seconds = min(after or 5.0, 60.0)
        self.clock.now += timedelta(seconds=round(seconds) or 1)
        return seconds

    def step(self) -> None:
        """Everybody but the operator does something."""
        if self.kueue is not None:
            self.kueue.step()
        self.world.step()

    def run(self, until: Callable[[Scene], bool], turns: int = 150) -> Scene:
        """Turn until it is so; fails when it never is."""
        for _ in range(turns):
            if until(self):
                return self
            self.turn()
        raise AssertionError(f"never so: {self.summary()}")

    def settle(self, turns: int = 40) -> Scene:
        """Turn for a while, whatever happens."""
        for _ in range(turns):
            self.turn()
        return self

    def settle_without_resource(self) -> None:
        """What is left to happen after the resource is gone."""
        for _ in range(5):
            self.operator.hear()
            assert self.operator.reconcile() is None
            self.world.step()

    # What is seen.

    @property
    def resource(self) -> Raw:
        return self.cluster.object(KIND, NAME)

    @property
    def status(self) -> Status:
        return Status.from_json(self.resource["status"])

    def condition(self, kind: str) -> str:
        """For example `False CorpusEmpty`."""
        item = self.status.condition(kind)
        return f"{item.status} {item.reason}" if item is not None else "absent"

    def message(self, kind: str) -> str:
        item = self.status.condition(kind)
        return item.message if item is not None else ""

    def states(self) -> dict[str, str]:
        return {item.name.value: item.state for item in self.status.stages}

    def attempts(self, stage: Stage) -> list[str]:
        return [name for name in self.cluster.created_jobs if f"-{stage}-" in name]

    def ran(self, stage: Stage) -> list[StageRequest]:
        return [request for request in self.world.requests if request.stage is stage]

    def events(self) -> list[str]:
        return [raw["reason"] for raw in self.cluster.find("Event") if raw["involvedObject"]["kind"] == KIND]

    def digest(self, stage: Stage, name: Artefact) -> str:
        return self.status.stage(stage).artefacts[name].digest

    def writes(self) -> int:
        return sum(1 for call in self.cluster.calls if call.writes)

    def summary(self) -> str:
        lines = [f"{item.name} {item.state} {item.reason}: {item.message}" for item in self.status.stages]
        return "\n".join([self.status.phase, self.condition("Ready") + " " + self.message("Ready"), *lines])


def a_ready_quickstart() -> Scene:
    """What people see first: the quickstart's own resource, Ready, with as many figures and warnings as a real run."""
    text = re.sub(r"\$\{[A-Z_]+_IMAGE\}", "registry.test/image:1", _QUICKSTART.read_text())
    (manifest,) = [item for item in yaml.safe_load_all(text) if item["kind"] == KIND]
    assert spec_errors(manifest["spec"]) == []
    scene = Scene(manifest["spec"])
    scene.world.warnings = ["globalBatchSize scaled from 128 to 55: 447 examples", "only 18 steps, fewer than 50"]
    scene.world.interval = (0.04028, 0.11569)
    return scene.run(is_ready).settle(3)


def is_ready(scene: Scene) -> bool:
    """Ready, for the spec as it is now."""
    ready, meta = scene.status.condition("Ready"), scene.resource["metadata"]
    return ready is not None and ready.status == "True" and ready.observed_generation == meta["generation"]


def is_stalled(scene: Scene) -> bool:
    item = scene.status.condition("Stalled")
    return item is not None and item.observed_generation == scene.resource["metadata"]["generation"]


def stage_is(stage: Stage, state: str) -> Callable[[Scene], bool]:
    return lambda scene: scene.status.stage(stage).state == state


def a_scene(*, foreground: bool = True, **sections: Any) -> Scene:
    return Scene(a_spec(**sections), foreground=foreground)
