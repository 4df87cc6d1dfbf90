"""Users of a soak: so many resources, each of them edited or removed and made again from time to time.

A process of its own, as users.py: `python3 -m bench.scale.churn FOLDER SEED`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random

from bench.scale.api import Raw
from bench.scale.kinds import KINDS, MADE_LABEL, Kind
from bench.scale.plane import NAMESPACES, namespace_of
from bench.scale.simulator import Simulator
from bench.scale.stream import Client
from bench.scale.users import opened

_MOST_UNDER_WAY = 60  # pipelines: what two cores can carry
_PAUSE_S = 0.5
_POLICIES = ("Background", "Foreground")
# Parts of what users do that are edits: once all resources are there, and before. With these a third of the resources
# has been edited when all are there, and any time later, so that the number of objects stays while memory is watched.
_EDITS, _EDITS_BEFORE = 1 / 5, 1 / 3
KIND: Kind = KINDS["EmbeddingFineTune"]


class Churn:
    """`conf.active` is how many resources there are; `conf.total` other than 0 stops all changes."""

    def __init__(self, client: Client, simulator: Simulator, seed: int) -> None:
        self.client, self.simulator, self.random = client, simulator, Random(seed)
        self.phases: dict[int, str] = {}
        self.edits, self.full = 0, False

    def saw(self, event: str, raw: Raw) -> None:
        meta, phase = raw["metadata"], KIND.phase_of(raw)
        number = int(meta["name"].rsplit("-", 1)[1])
        place = {"kind": KIND.name, "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        if event == "DELETED":
            self.phases.pop(number, None)
            self.simulator.tell("phase", phase="Removed", **place)
        elif self.phases.get(number) != phase:
            self.phases[number] = phase
            self.simulator.tell("phase", phase=phase, **place)

    async def run(self) -> None:
        await asyncio.gather(self.client.watch(KIND.path, MADE_LABEL, self.saw), self._act())

    async def _act(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE_S)
            conf = self.simulator.conf
            under_way = sum(phase not in ("Done", "Failed") for phase in self.phases.values())
            if not conf.active or conf.total or under_way >= _MOST_UNDER_WAY:
                continue
            missing = [number for number in range(conf.active) if number not in self.phases]
            self.full = self.full or not missing
            if self.phases and self.random.random() < (_EDITS if self.full else _EDITS_BEFORE):
                await self._edit(self.random.choice(list(self.phases)))
            elif missing:
                await self._make(self.random.choice(missing))
            else:
                await self._remove(self.random.choice(list(self.phases)))

    @staticmethod
    def _path(number: int) -> str:
        return f"{KIND.within(namespace_of(number % NAMESPACES))}/soak-{number:05d}"

    async def _make(self, number: int) -> None:
        namespace = namespace_of(number % NAMESPACES)
        code, answer = await self.client.call(
            "POST", KIND.within(namespace), KIND.manifest(namespace, f"soak-{number:05d}")
        )
        if code == 201:
            self.phases.setdefault(number, "")
            self.simulator.tell(
                "made", kind=KIND.name, namespace=namespace, name=f"soak-{number:05d}", uid=answer["metadata"]["uid"]
            )
        elif code != 409:
            self.simulator.tell("refused", kind=KIND.name, code=code, message=answer.get("message", "")[:300])

    async def _edit(self, number: int) -> None:
        """A new seed each time: no revision asks for what an earlier one asked for."""
        self.edits += 1
        stage = self.random.choice(("sdg", "finetune"))
        provider = (
            {"provider": {"extractive": {"seed": 1000 + self.edits}}} if stage == "sdg" else {"seed": 1000 + self.edits}
        )
        body = {"spec": {"stages": {stage: provider}}}
        code, answer = await self.client.call("PATCH", self._path(number), body)
        said = "" if code == 200 else answer.get("message", "")[:200]
        self.simulator.tell("edited", number=number, stage=stage, code=code, message=said)

    async def _remove(self, number: int) -> None:
        policy = self.random.choice(_POLICIES)
        await self.client.call("DELETE", self._path(number), {"propagationPolicy": policy})
        self.simulator.tell("removed", number=number, policy=policy)


async def _main(folder: Path, seed: int) -> None:
    client, simulator = await opened(folder)
    await asyncio.gather(simulator.run(), Churn(client, simulator, seed).run())


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2])))
