"""Users, who keep a number of pipelines going; and the simulator's start."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from bench.scale.api import Api, Identity, Raw
from bench.scale.kinds import KINDS, MADE_LABEL, Kind
from bench.scale.plane import NAMESPACES, namespace_of
from bench.scale.servers import serve
from bench.scale.simulator import Simulator
from bench.scale.stream import Client

_AT_ONCE = 5  # made in each half second at most


class Users:
    """Make one after the other of `conf.kind`, until `conf.active` are on their way."""

    def __init__(self, client: Client, simulator: Simulator) -> None:
        self.client, self.simulator = client, simulator
        self.phases: dict[str, str] = {}
        self.made: dict[str, int] = {}
        self.watching: dict[str, asyncio.Task[None]] = {}

    def saw(self, kind: Kind, event: str, raw: Raw) -> None:
        uid, phase = raw["metadata"]["uid"], kind.phase_of(raw)
        if event == "DELETED":
            self.phases.pop(uid, None)
        elif self.phases.get(uid) != phase:
            meta = raw["metadata"]
            place = {"namespace": meta["namespace"], "name": meta["name"], "uid": uid}
            self.simulator.tell("phase", kind=kind.name, phase=phase, **place)
            self.phases[uid] = phase

    async def run(self) -> None:
        while True:
            for task in self.watching.values():
                if task.done():
                    task.result()  # raises what ended it
            conf = self.simulator.conf
            if conf.kind:
                await self._make_some(KINDS[conf.kind], conf.active, conf.total)
            await asyncio.sleep(0.5)

    async def _make_some(self, kind: Kind, active: int, total: int) -> None:
        if kind.name not in self.watching:
            seen = lambda event, raw: self.saw(kind, event, raw)  # noqa: E731
            self.watching[kind.name] = asyncio.ensure_future(self.client.watch(kind.path, MADE_LABEL, seen))
        busy = sum(phase not in ("Done", "Failed") for phase in self.phases.values())
        left = total - self.made.get(kind.name, 0) if total else active
        for _ in range(max(0, min(active - busy, left, _AT_ONCE))):
            await self._make(kind)

    async def _make(self, kind: Kind) -> None:
        number = self.made.get(kind.name, 0)
        self.made[kind.name] = number + 1
        namespace = namespace_of(number % NAMESPACES)
        body = kind.manifest(namespace, f"run-{number:05d}")
        code, answer = await self.client.call("POST", kind.within(namespace), body)
        if code != 201:
            self.simulator.tell("refused", kind=kind.name, code=code, message=answer.get("message", "")[:300])
            return
        uid = answer["metadata"]["uid"]
        self.phases.setdefault(uid, "")
        self.simulator.tell("made", kind=kind.name, namespace=namespace, name=body["metadata"]["name"], uid=uid)


async def opened(folder: Path) -> tuple[Client, Simulator]:
    """The simulator that FOLDER/simulator.json is for, with the servers that its pods would be."""
    told = json.loads((folder / "simulator.json").read_text())
    identity = Identity(Path(told["certificate"]), Path(told["key"]), Path(told["authority"]))
    client = Client(Api(told["port"], identity))
    await serve(identity, told["kubelet_port"], told["endpoint_port"])
    return client, Simulator(client, folder)


async def _main(folder: Path) -> None:
    client, simulator = await opened(folder)
    await asyncio.gather(simulator.run(), Users(client, simulator).run())


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
