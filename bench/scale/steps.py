"""More and more resources held: what a restart costs at each number of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.scale import audit
from bench.scale.figures import LEAST_R2, fit, no_worse_than_linear
from bench.scale.goals import Row, number
from bench.scale.held import Copies
from bench.scale.lab import Lab, say
from bench.scale.operator_process import Operator, user
from bench.scale.process import load

KIND = "EmbeddingFineTune"
MOST_CATCH_UP_S, MOST_FIRST_S, MOST_MIB = 90, 30, 512
WAITING = 20  # pipelines whose Jobs end while the operator is down
_LOG_LAG_S = 3
_WAITING_STAGE_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Seconds count from the start of the process."""

    held: int
    healthy_s: float
    first_action_s: float  # the first Job after one that ended while the operator was down
    acted_s: float  # the last of them
    looked_at_s: float  # as many passes as there are resources
    cpu_s: float
    requests: int
    rss_mib: float
    peak_mib: float
    load: str


class Steps:
    """Owns how many there are."""

    def __init__(self, lab: Lab, operator: Operator, *, with_jobs: bool, most_s: float) -> None:
        self.lab, self.operator, self.with_jobs, self.most_s = lab, operator, with_jobs, most_s
        self.held, self.made = 0, 0
        self.copies: Copies | None = None

    def first(self) -> None:
        """One resource, by the operator, as the original of all copies."""
        self.lab.configure(kind=KIND, active=1, total=1, stage_s=0.3, gap_s=0.2)
        self.operator.start()
        self.made = 1
        if not self.lab.wait_done(KIND, 1, 120):
            raise TimeoutError(f"the first resource did not become Ready: {self.lab.plane.folder}/operator.log")
        time.sleep(10)  # the contract and its canaries are written after that
        empty = self.operator.program.rss_mib()
        event = next(event for event in self.lab.told() if event["what"] == "made")
        self.copies = Copies(self.lab.plane, event["namespace"], event["name"], with_jobs=self.with_jobs)
        say(
            f"one resource: {empty:.0f} MiB; a copy is {len(self.copies.found)} objects, {self.copies.kib_each:.0f} KiB"
        )

    def hold(self, number_held: int) -> Restart:
        """Stop the operator in the middle of work, add copies, start it again."""
        lab, operator = self.lab, self.operator
        begun = self._begin_work()
        operator.program.end()
        if self.copies is None:
            raise RuntimeError("call first() first")
        took = self.copies.write(self.held, number_held)
        self.held = number_held
        time.sleep(5 + number_held / 2000)  # the API server takes the copies into its watch cache
        waiting = self._waiting(begun)
        say(f"{number_held} held, written in {took:.0f} s; {len(waiting)} pipelines wait for the operator")
        lab.log.forget()
        before = load()
        found = self._restart(waiting, before)
        say(
            f"{number_held} held: first action {found.first_action_s:.1f} s, all acted on {found.acted_s:.1f} s, "
            f"looked at {found.looked_at_s:.1f} s, {found.rss_mib:.0f} MiB, peak {found.peak_mib:.0f} MiB, "
            f"{found.requests} requests, {found.cpu_s:.1f} CPU s"
        )
        return found

    def _begin_work(self) -> set[str]:
        """Pipelines under way, by UID."""
        self.made += WAITING
        before = set(self.lab.phases(KIND))
        self.lab.configure(active=WAITING, total=self.made, stage_s=_WAITING_STAGE_S, gap_s=1.0, jitter=0.2)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            begun = {event["chain"] for event in self.lab.told() if event["what"] == "run"} - before
            if len(begun) >= WAITING:
                return begun
            time.sleep(0.2)
        return begun

    def _waiting(self, begun: set[str]) -> set[str]:
        """Those whose newest Job has ended and has no successor."""
        time.sleep(2 * _WAITING_STAGE_S + 2)
        running: dict[str, set[str]] = {uid: set() for uid in begun}
        for event in self.lab.told():
            if event.get("chain") in running and event["what"] in ("run", "ended"):
                change = running[event["chain"]].add if event["what"] == "run" else running[event["chain"]].discard
                change(event["name"])
        phases = self.lab.phases(KIND)
        return {uid for uid, jobs in running.items() if not jobs and phases[uid][0] != "Done"}

    def _restart(self, waiting: set[str], before: str) -> Restart:
        operator, begin = self.operator, time.time()
        operator.start()
        healthy = looked_at = float("nan")
        resources = self.held + 1
        while time.time() - begin < self.most_s:
            time.sleep(0.5)
            now = time.time() - begin
            if healthy != healthy and operator.is_healthy():
                healthy = now
            if operator.passes() >= resources:
                looked_at = now
                break
            if not operator.program.is_alive():
                raise RuntimeError(f"the operator ended: {operator.program.log}")
        time.sleep(_LOG_LAG_S)
        followers: dict[str, float] = {}
        chains = self.lab.chains()
        requests = list(audit.of(self.lab.log.read(), user(), begin))
        for item in requests:
            chain = chains.get(item.place, "")
            if chain in waiting and item.is_write and item.resource in ("jobs", "deployments") and item.code < 300:
                followers.setdefault(chain, item.start - begin)
        times = sorted(followers.values())
        missing = float("nan")
        return Restart(
            held=self.held,
            healthy_s=healthy,
            first_action_s=times[0] if times else missing,
            acted_s=times[-1] if len(times) == len(waiting) else missing,
            looked_at_s=looked_at,
            cpu_s=operator.program.cpu_s(),
            requests=len(requests),
            rss_mib=operator.program.rss_mib(),
            peak_mib=operator.program.peak_mib(),
            load=before,
        )

    def finish_work(self) -> None:
        """Let what is under way come to its end."""
        if not self.lab.wait_done(KIND, self.made, 180):
            say(f"{self.made - self.lab.done(KIND)} pipelines are not done after 180 s")


def rows(found: list[Restart]) -> list[Row]:
    last = found[-1]
    held = f"with {last.held:,} held"
    judged = [
        Row(what=f"restart {held}: first action", measured=last.first_action_s, unit="s", goal=MOST_FIRST_S),
        Row(
            what="restart: all that happened meanwhile acted on", measured=last.acted_s, unit="s", goal=MOST_CATCH_UP_S
        ),
        Row(
            what="restart: every resource looked at",
            measured=last.looked_at_s,
            unit="s",
            goal=MOST_CATCH_UP_S,
            note=f"{last.requests:,} requests, {number(last.cpu_s)} CPU s, load before {last.load}",
        ),
        Row(what=f"memory after that, {held}", measured=last.rss_mib, unit="MiB", goal=MOST_MIB),
        Row(what="memory at most, since the start", measured=last.peak_mib, unit="MiB", goal=MOST_MIB),
    ]
    return judged + _lines(found)


def _lines(found: list[Restart]) -> list[Row]:
    """Linear in N, or better: growth that slows down is no failure, and a flat line has no r2 worth naming."""
    rows = []
    xs = [float(item.held) for item in found]
    for what, unit, ys in (
        ("time until every resource was looked at", "s", [item.looked_at_s for item in found]),
        ("memory", "MiB", [item.rss_mib for item in found]),
    ):
        if len(found) < 3:
            continue
        line = fit(xs, ys)
        rows.append(
            Row(
                what=f"{what}: r2 of a straight line in N",
                measured=line.r2,
                unit="",
                goal=LEAST_R2,
                at_least=True,
                note=f"{number(1000 * line.slope)} {unit} a thousand and {number(line.start)} {unit}; "
                + ("the last stretch is no steeper" if no_worse_than_linear(xs, ys) else "the last stretch is steeper"),
            )
        )
    return rows
