"""Kopf, used for its watches alone: it compares, remembers and writes nothing, and never gives up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from itertools import chain, count, repeat
from typing import Any, Final, cast

import kopf
from kopf._cogs.clients import fetching, watching
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from embedding_operator.cluster.errors import ClusterError
from embedding_operator.resource.api import GROUP, KIND, PLURAL, VERSION
from embedding_operator.resource.labels import OWNER_LABEL

CHILDREN: Final = {  # kind -> what Kopf watches
    "Job": ("batch", "v1", "jobs"),
    "Pod": ("", "v1", "pods"),
    "Deployment": ("apps", "v1", "deployments"),
    "Service": ("", "v1", "services"),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims"),
}
WATCHED: Final = {KIND: (GROUP, VERSION, PLURAL), **CHILDREN}
_KINDS: Final = {words: kind for kind, words in WATCHED.items()}
# Of a kind in a namespace, None for all: the version from which a watch tells of all that is not known. ClusterError.
Listed = Callable[[str, str | None], Awaitable[str]]
log = logging.getLogger(__name__)
_BEGIN_AGAIN_S: Final = 5.0
_ANSWER_S: Final = 60  # of Kopf's own requests; a connection that is dead without a word would hold up every watch
_IDLE_S: Final = 0.2  # so long Kopf keeps an object and its task after an event: with 5 s a start fills the memory


class Endless:
    """Seconds between Kopf's attempts at a request, without end; each request begins anew.

    Kopf lets the error out after the last one, and the process ends with it: a load balancer that answers 503 for a
    minute, or rights that are not loaded yet (403), must not stop the watches.
    """

    def __iter__(self) -> Iterator[float]:
        return chain((1, 1, 2, 3, 5, 8, 13), repeat(21))


_one_watch: Final = watching.continuous_watch


async def begun_again(**named: Any) -> AsyncIterator[Any]:
    """Kopf's list and watch of a kind, of which an end means that both are begun anew.

    What it takes for fatal ends the process: an error in the stream, an answer that is no JSON because a proxy gave it,
    credentials that were refused (401) and not renewed yet. A list of everything cures them all.
    """
    try:
        async with aclosing(cast("AsyncGenerator[Any, None]", _one_watch(**named))) as events:
            async for event in events:
                yield event
    except Exception as error:  # whatever it is, the other watches and the passes go on
        log.warning("the watch of %s begins anew: %s: %s", named["resource"], type(error).__name__, error)
        await asyncio.sleep(_BEGIN_AGAIN_S)


class Logins:
    """Kopf's credentials, each time as new ones: those that were refused once (401) it never takes again. An API server
    refuses what is right while it cannot check it, such as at its start, and the token on disk stays the same.
    """

    def __init__(self) -> None:
        self._number = count()

    async def again(self, **named: Any) -> kopf.ConnectionInfo | None:
        """Those of the pod's ServiceAccount, or of the kubeconfig; None where there are none at the start."""
        number = next(self._number)
        while True:
            if number:
                await asyncio.sleep(_BEGIN_AGAIN_S)
            found = kopf.login_with_service_account(**named) or kopf.login_with_kubeconfig(**named)
            if found is not None:
                return replace(found, priority=number)
            if not number:  # later, Kopf would ask no more
                return None


def from_own_lists(listed: Listed) -> Callable[..., AsyncIterator[Any]]:
    """In place of Kopf's list of a kind before it watches, which would decode every object, wake a task for each, and
    tell of nothing that was deleted before. `listed` takes in what was missed, and tells from where to go on.
    """

    async def pages(**named: Any) -> AsyncIterator[Any]:
        resource = named["resource"]
        kind = _KINDS[resource.group, resource.version, resource.plural]
        pauses = iter(Endless())
        while True:
            try:
                version = await listed(kind, named["namespace"])
            except ClusterError as error:
                log.warning("the watch of %s cannot begin: %s", resource, error)
                await asyncio.sleep(next(pauses))
            else:
                yield [], version
                return

    return pages


class NoDiffs(kopf.DiffBaseStorage):
    """Kopf compares each event's object with the last one for handlers that nobody has here: two deep copies each."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept in the objects."""


class NoProgress(kopf.StatusProgressStorage):
    """The same for handlers that are tried again."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class NoMemories(ResourceMemories):
    """Kopf remembers objects for handlers that nobody has here, and never forgets one that went unheard."""

    async def recall(self, raw_body: kopf.RawBody, **named: Any) -> ResourceMemory:
        return await super().recall(raw_body, **{**named, "ephemeral": True})


def configure(settings: kopf.OperatorSettings, listed: Listed) -> None:
    """Use Kopf for its watches alone; see `from_own_lists`."""
    watching.continuous_watch = begun_again
    fetching.fetch_objs = from_own_lists(listed)
    settings.posting.enabled = False
    settings.networking.error_backoffs = Endless()
    settings.networking.request_timeout = _ANSWER_S
    settings.queueing.idle_timeout = _IDLE_S
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    for resource in CHILDREN.values():
        settings.watching.label_selectors[resource] = OWNER_LABEL
    settings.scanning.disabled = True  # no rights on CRDs and namespaces are needed then
