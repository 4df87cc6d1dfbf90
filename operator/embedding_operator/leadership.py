"""Takes part in the election, in a thread of its own: passes that keep the others busy must not delay a renewal.

The rules are in cluster/election.py. What a pass may still write is in `Tenure`, which ends by itself.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, Protocol

from embedding_operator.cluster.election import Sight, Terms, claimed, left_s, look, pause_s, released
from embedding_operator.cluster.errors import ClusterError, Conflict, Forbidden
from embedding_operator.cluster.tenure import Tenure

log = logging.getLogger(__name__)
_SAID_AGAIN_S: Final = 60.0  # the same trouble
_AT_ONCE_S: Final = 0.1
_CONFLICTS_AT_ONCE: Final = 3  # a webhook may answer 409 each time
_CURE: Final = (
    "no replica can lead before the operator's ServiceAccount may get, create and update leases.coordination.k8s.io in "
    "namespace {}: the chart's Role of the Lease allows it (helm upgrade), or run one replica with "
    "leaderElection.enabled=false"
)


def named(pod_name: str) -> str:
    """A name that no other process has had, of this pod neither: a restarted container is another one."""
    return f"{pod_name or socket.gethostname()}_{secrets.token_hex(4)}"


class Leases(Protocol):
    """Both raise ClusterError; `within_s` is how long they may take."""

    def read_lease(self, namespace: str, name: str, *, within_s: float) -> dict[str, Any] | None:
        """None when there is none."""

    def write_lease(self, lease: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
        """Create it, or replace the one that was read; Conflict where somebody was faster. The Lease as it is now."""


@dataclass(slots=True, kw_only=True)
class Elector:
    """`me` names this process and no other. `lead` is called when it begins to lead. `rest` is called when it leads no
    more, and returns when no pass runs any more: before that this process does not try to lead again.
    """

    leases: Leases
    tenure: Tenure
    terms: Terms
    me: str
    where: tuple[str, str]  # namespace and name of the Lease
    lead: Callable[[], object]
    rest: Callable[[], object]
    random: Random
    utc: Callable[[], datetime] = lambda: datetime.now(UTC)
    leads: bool = False
    resting_since: float | None = None  # while passes of an ended tenure run
    _sight: Sight | None = None
    _newest: bool = False  # whether the Lease was not written by others since it was seen, as far as is known
    _conflicts: int = 0  # in a row
    _trouble: tuple[str, float] = ("", 0.0)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether the election goes on, and no pass of an ended tenure hangs."""
        if self.resting_since is not None and self.tenure.clock() - self.resting_since > 20 * self.terms.lease_s:
            return False
        return self._thread is None or self._thread.is_alive()

    def stop(self) -> None:
        """Take no part any more; the tenure goes on until it ends by itself, or `release` ends it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def release(self) -> None:
        """Let another replica lead at once. Only after `stop`, and when no pass runs."""
        led, self.leads = self.leads and self.tenure.holds(), False
        self.tenure.end()
        if not led or self._sight is None:
            return
        try:
            self.leases.write_lease(released(self._sight, self.where, self.utc()), within_s=self.terms.retry_s)
        except ClusterError as error:
            log.warning("the Lease was not released, so the others wait until it runs out: %s", error)
        else:
            log.info("released Lease %s/%s", *self.where)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                pause = self.turn()
            except Exception:  # the election must not end with a defect of the operator
                log.exception("election failed")
                pause = self.terms.retry_s

    def turn(self) -> float:
        """One look at the Lease and what follows from it; seconds until the next."""
        if self.leads and not self.tenure.holds():
            self._ended(f"it could not renew Lease {'/'.join(self.where)} for {self.terms.renew_s:g} s")
        try:
            if not (self.leads and self._newest):
                self._look(self.leases.read_lease(*self.where, within_s=self.terms.renew_s / 2))
            if self._sight is not None:
                self._go_on(self._sight)
        except ClusterError as error:
            self._newest = False
            self._conflicts = self._conflicts + 1 if isinstance(error, Conflict) else 0
            if 0 < self._conflicts <= _CONFLICTS_AT_ONCE:  # somebody was faster: who?
                return _AT_ONCE_S * (1 + self.random.random())
            self._tell(error)
        else:
            self._trouble, self._conflicts = ("", 0.0), 0
        return pause_s(self._sight, self.me, self.terms, self.tenure.clock(), self.random.random())

    def _look(self, lease: Mapping[str, Any] | None) -> None:
        before = self._sight.record if self._sight is not None else None
        self._sight = look(self._sight, lease, self.terms, self.tenure.clock())
        self._newest = True
        holder = self._sight.record.holder if self._sight.record is not None else ""
        if self.leads and holder != self.me:
            self._ended(f"{holder or 'nobody'} holds Lease {'/'.join(self.where)}")
        elif holder not in (self.me, before.holder if before is not None else ""):
            log.info("standby: %s leads", holder or "nobody")

    def _go_on(self, sight: Sight) -> None:
        if left_s(sight, self.me, self.tenure.clock()) > 0:
            return
        asked_at = self.tenure.clock()  # the others see it later, and wait for longer than `renew_s` from then on
        wanted = claimed(sight, self.me, self.terms, self.where, self.utc())
        written = self.leases.write_lease(wanted, within_s=self.terms.renew_s / 2)
        self._sight = look(sight, written, self.terms, self.tenure.clock())
        self._newest = True
        if self.leads and not self.tenure.holds():  # the answer took too long
            self._ended(f"Lease {'/'.join(self.where)} was renewed too late")
        self.tenure.extend(asked_at + self.terms.renew_s)
        if not self.leads and self.tenure.holds():
            self.leads = True
            log.info("leads as %s: Lease %s/%s", self.me, *self.where)
            self.lead()

    def _ended(self, why: str) -> None:
        self.tenure.end()
        self.leads, self.resting_since = False, self.tenure.clock()
        log.warning("leads no more: %s; nothing is written, and its passes end", why)
        try:
            self.rest()
        finally:
            self.resting_since = None

    def _tell(self, error: ClusterError) -> None:
        """Once, and again while it lasts."""
        now, (said, at) = self.tenure.clock(), self._trouble
        if str(error) == said and now < at + _SAID_AGAIN_S:
            return
        self._trouble = (str(error), now)
        if isinstance(error, Forbidden):
            log.error("%s; %s", error, _CURE.format(self.where[0]))
        else:
            log.warning("%s", error)
