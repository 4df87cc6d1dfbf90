"""Operators behind proxies, a world around them, and scenarios played several at a time."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
from apiserver.api import EFT, Api, make_namespace, merge, resource
from apiserver.process import Operator
from faults.plans import Plan, Raw, Rule
from faults.proxy import Proxy
from faults.record import Record
from faults.world import MERGE, Place, World

from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import MANAGED_BY_LABEL

NAME = "docs"
SOON = {"stages": {"deploy": {"drainSeconds": 1}}}  # or each old server would be waited for
_PATIENCE_S = 240
_GONE_S = 30
_STOPPED_S, _WORKS_S = 4.0, 1.5
_QUIET_S = 2.5  # without a write: longer than an operator on busy cores pauses where it has something to do


@dataclass
class Behind(Operator):
    """The operator, whose API server is a proxy."""

    url: str = ""
    token: str = ""

    def _kubeconfig(self) -> Path:
        path = self.api.folder / f"behind-{self.url.rsplit(':', 1)[1]}.kubeconfig"
        raw = {
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "operator", "user": {"token": self.token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        }  # fmt: skip
        path.write_text(json.dumps(raw))
        return path


@dataclass
class Lane:
    """One process of the operator, its proxy, and the namespaces that it watches."""

    proxy: Proxy
    operator: Behind
    kills: int = 0

    def kill(self) -> None:
        self.kills += 1
        self.operator.kill()
        self.operator.start()

    async def up(self) -> None:
        """Until it has read everything that there is, as after each start."""
        while not await asyncio.to_thread(self.operator.ready):
            await asyncio.sleep(0.1)

    async def pause(self) -> None:
        """Stopped for some seconds, and continued for some: what it has in mind is old each time."""
        while True:
            process = self.operator.process
            assert process is not None
            await asyncio.sleep(_WORKS_S)
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(_STOPPED_S)
            finally:
                process.send_signal(signal.SIGCONT)


@dataclass
class Actor:
    """What a script does with its resource."""

    world: World
    place: Place
    plan: Plan
    lanes: Sequence[Lane]
    name: str = NAME

    # What users and strangers do.

    async def create(self, patch: Raw | None = None) -> None:
        manifest = resource(self.place.namespace, SOON, self.name)
        merge(manifest["spec"], patch or {})
        status, answer = await self.world.reach("POST", EFT.format(self.place.namespace), manifest)
        assert status == 201, answer
        await self.until("the resource", lambda: self.seen() is not None)

    async def edit(self, patch: Raw) -> int:
        """The new generation."""
        wanted = int((await self.change(KIND, self.name, {"spec": patch}))["metadata"]["generation"])
        await self.until(
            "the edit", lambda: (self.seen() or {"metadata": {"generation": 0}})["metadata"]["generation"] >= wanted
        )
        return wanted

    async def change(self, kind: str, name: str, patch: Raw) -> Raw:
        return await self.world.send("PATCH", kind, self.place.namespace, name, patch, MERGE)

    async def make(self, kind: str, manifest: Raw) -> None:
        await self.world.send("POST", kind, self.place.namespace, "", manifest)

    async def delete(self, kind: str, name: str, policy: str = "Background") -> None:
        await self.world.send("DELETE", kind, self.place.namespace, name, {"propagationPolicy": policy})

    # What is seen.

    def seen(self) -> Raw | None:
        return self.place.objects.get((KIND, self.name))

    def status(self) -> Raw:
        return (self.seen() or {}).get("status") or {}

    def condition(self, kind: str) -> Raw:
        return next((item for item in self.status().get("conditions", ()) if item["type"] == kind), {})

    def is_ready(self) -> bool:
        raw, ready = self.seen(), self.condition("Ready")
        return (
            raw is not None
            and ready.get("status") == "True"
            and ready.get("observedGeneration") == raw["metadata"]["generation"]
        )

    def is_stalled(self) -> bool:
        raw, stalled = self.seen(), self.condition("Stalled")
        return raw is not None and stalled.get("observedGeneration") == raw["metadata"]["generation"]

    def jobs(self, stage: str) -> list[Raw]:
        return [raw for raw in self.place.find("Job") if f"-{stage}-" in raw["metadata"]["name"]]

    async def until(self, what: str, look: Callable[[], Any]) -> Any:
        """What `look` finds, once it finds something."""
        end = asyncio.get_running_loop().time() + _PATIENCE_S
        while asyncio.get_running_loop().time() < end:
            if found := look():
                return found
            await asyncio.sleep(0.05)
        words = [
            f"{item['type']}={item['status']} {item['reason']}: {item['message']}"
            for item in self.status().get("conditions", ())
        ]
        raise AssertionError(f"not seen: {what}; {'; '.join(words)}")

    async def ready(self) -> None:
        await self.until("Ready", self.is_ready)

    async def rest(self) -> None:
        """Until the operator writes nothing for a while, and old servers are gone."""
        await self.until("one server", lambda: len(self.place.find("Deployment")) <= 1)
        await self.quiet()

    async def quiet(self) -> None:
        loop = asyncio.get_running_loop()
        count, kills, since = -1, -1, loop.time()
        end = loop.time() + _PATIENCE_S
        while loop.time() < since + _QUIET_S:
            if (killed := sum(lane.kills for lane in self.lanes)) != kills:
                await asyncio.gather(*(lane.up() for lane in self.lanes))
                kills, since = killed, loop.time()
            if (now := len(self.plan.writes)) != count:
                count, since = now, loop.time()
            assert loop.time() < end, f"it writes on and on: {[item.label for item in self.plan.writes[-6:]]}"
            await asyncio.sleep(0.1)


Script = Callable[[Actor], Awaitable[None]]


async def first(actor: Actor) -> None:
    """To Ready."""
    await actor.create()
    await actor.ready()
    await actor.rest()


async def edited(actor: Actor) -> None:
    """To Ready, through an edit, to Ready again, until the old server is gone."""
    await actor.create()
    await actor.ready()
    await actor.edit({"stages": {"finetune": {"epochs": 5}}})
    await actor.ready()
    await actor.rest()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row of a table."""

    name: str
    script: Script = edited
    rules: tuple[Rule, ...] = ()
    cost: int = 0  # writes beyond those of the golden run
    golden: str = "edited"  # whose end it shares
    end: str = "all"  # how much of it, see oracles.end_of
    strangers: bool = False  # others change our objects
    may_miss: bool = False  # whether its moment comes depends on what a pass happens to read


@dataclass
class Lab:
    """`async with`; then `play` as often as wanted."""

    api: Api
    account: str
    resync_s: int = 10

    async def __aenter__(self) -> Self:
        settings = self.api.http.configuration
        trusted = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        admin = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        admin.load_cert_chain(settings.cert_file, settings.key_file)
        forever = aiohttp.ClientTimeout(total=None)
        self.forward = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=trusted), timeout=forever)
        self.admin = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=admin), timeout=forever)
        self.world = await World(str(settings.host), self.admin).__aenter__()
        _, _, namespace, name = self.account.split(":")
        self.token = self.api.kubectl("create", "token", name, "-n", namespace, "--duration=8h").strip()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.world.__aexit__()
        await self.forward.close()
        await self.admin.close()
        await asyncio.sleep(0.1)  # aiohttp closes connections of TLS a moment later

    @asynccontextmanager
    async def lane(self, namespaces: Sequence[str]) -> AsyncIterator[Lane]:
        async with Proxy(str(self.api.http.configuration.host), self.forward) as proxy:
            watched = ",".join(namespaces)
            operator = Behind(self.api, self.account, watched, self.resync_s, url=proxy.url, token=self.token)
            lane = Lane(proxy, operator)
            proxy.kill = lane.kill
            operator.start()
            try:
                yield lane
            finally:
                operator.kill()

    async def play(self, scenarios: Sequence[Scenario], operators: int = 1, *, pauses: bool = False) -> list[Record]:
        """All of them at once, in one process of the operator, or in several that watch the same.

        `pauses`: the first of them is stopped and continued again and again.
        """
        namespaces = [await asyncio.to_thread(make_namespace, self.api) for _ in scenarios]
        for namespace in namespaces:
            self.world.place(namespace)
        async with AsyncExitStack() as stack:
            lanes = [await stack.enter_async_context(self.lane(namespaces)) for _ in range(operators)]
            pausing = asyncio.create_task(lanes[0].pause()) if pauses else None
            records = await asyncio.gather(
                *(self._one(lanes, namespace, item) for namespace, item in zip(namespaces, scenarios, strict=True))
            )
            if pausing is not None:
                pausing.cancel()
                await asyncio.gather(pausing, return_exceptions=True)
            for record in records:
                record.kills = sum(lane.kills for lane in lanes)
                record.said = "".join(lane.operator.said() for lane in lanes)
        for namespace in namespaces:
            self.world.places.pop(namespace)
        return list(records)

    async def _one(self, lanes: Sequence[Lane], namespace: str, scenario: Scenario) -> Record:
        place, plan = self.world.place(namespace), Plan(scenario.rules)
        for lane in lanes:
            lane.proxy.plans[namespace] = plan
        actor, record = Actor(self.world, place, plan, lanes), Record(scenario.name)
        try:
            await scenario.script(actor)
            record.uid = actor.seen()["metadata"]["uid"] if actor.seen() else ""
            record.end = list(place.objects.values())
            record.writes, record.asked = list(plan.writes), list(plan.asked)
            record.unmet, record.met = plan.unmet(), plan.met
            plan.lifted = True
            await self._remove(actor, record)
        except Exception as error:  # one scenario that breaks off must not take the others with it
            record.error = f"{type(error).__name__}: {error}"
        record.history = sorted(place.history, key=lambda entry: entry.version)
        return record

    async def _remove(self, actor: Actor, record: Record) -> None:
        """Delete the resource; what is left then has leaked."""
        if actor.seen() is None:
            return
        await actor.delete(KIND, actor.name)

        def left() -> list[str]:
            labels = {key: raw["metadata"].get("labels") or {} for key, raw in actor.place.objects.items()}
            return ["/".join(key) for key, found in labels.items() if MANAGED_BY_LABEL in found]

        until = asyncio.get_running_loop().time() + _GONE_S
        while left() and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
        record.leaked = left()
