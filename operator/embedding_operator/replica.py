"""One process of the operator among others: it works while it leads, and listens all the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from embedding_operator.cluster.election import Terms
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.leadership import Elector, Leases, named
from embedding_operator.metrics import METRICS
from embedding_operator.settings import Settings

log = logging.getLogger(__name__)
# When the operator is asked to end, so long passes have to end by themselves, and then what they told to be posted.
_LAST_PASSES_S: Final = 5.0
_LAST_EVENTS_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Replica:
    """`work` makes passes until it is cancelled, and returns after the last has ended; it may be called again.
    `told` returns once the Events of the passes so far are posted.
    """

    settings: Settings
    leases: Leases
    tenure: Tenure
    work: Callable[[], Coroutine[Any, Any, None]]
    told: Callable[[], Coroutine[Any, Any, None]]
    elector: Elector | None = None
    leading: asyncio.Task[None] | None = None  # `work`, while this replica leads
    joining: asyncio.Task[None] | None = field(default=None, repr=False)

    def start(self, filled: asyncio.Event) -> None:
        """`filled`: once the cache holds everything."""
        METRICS.leader.set_function(lambda: float(self.tenure.holds()))
        if self.settings.election is None:
            self.lead()
        else:
            self.elector = self._elector(self.settings.election, asyncio.get_running_loop())
            self.joining = asyncio.create_task(self._join(self.elector, filled))

    async def _join(self, elector: Elector, filled: asyncio.Event) -> None:
        """Until the cache is filled any other replica is the better leader."""
        await filled.wait()
        elector.start()

    def _elector(self, terms: Terms, loop: asyncio.AbstractEventLoop) -> Elector:
        return Elector(
            leases=self.leases,
            tenure=self.tenure,
            terms=terms,
            me=named(self.settings.pod_name),
            where=self.settings.lease,
            lead=lambda: loop.call_soon_threadsafe(self.lead),
            rest=lambda: asyncio.run_coroutine_threadsafe(self.rest(), loop).result(),
            random=Random(),  # noqa: S311
        )

    def lead(self) -> None:
        """Work from now on, until `rest`."""
        self.leading = asyncio.create_task(self.work())

    async def rest(self) -> None:
        """Work no more; returns when the last pass has ended."""
        leading, self.leading = self.leading, None
        if leading is not None:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
        METRICS.forget_all()

    async def stop(self) -> None:
        """Hand over. Another replica may write as soon as this one surely does not, and no sooner."""
        if self.joining is not None:
            self.joining.cancel()
        if self.elector is not None:
            await asyncio.to_thread(self.elector.stop)
        resting = asyncio.create_task(self.rest())
        await asyncio.wait([resting], timeout=_LAST_PASSES_S)
        # Before another replica may lead, while this one may write. One that is not posted by then is lost, and harms
        # nobody: it holds up neither the other replica nor the end.
        telling = asyncio.create_task(self.told())
        await asyncio.wait([telling], timeout=_LAST_EVENTS_S)
        telling.cancel()
        if self.elector is None:
            return
        if resting.done():
            await asyncio.to_thread(self.elector.release)
        else:
            log.warning("a pass has not ended in %g s, so the Lease is not released: it runs out", _LAST_PASSES_S)

    def alive(self) -> bool:
        """Whether it takes part in the election, and works if it leads."""
        working = self.leading is None or not self.leading.done()
        return working and (self.elector is None or self.elector.alive())
