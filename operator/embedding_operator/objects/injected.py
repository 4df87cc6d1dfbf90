"""Containers in the operator's pods that something else put there: a mesh's proxy, an agent that fetches Secrets. Pure.

How the operator's own container ended is read from that one alone. Of the others two things matter: one that keeps a
pod from starting, and one that runs on when the work is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedding_operator.objects.manifests.job import CONTAINER as STAGE_CONTAINER
from embedding_operator.objects.manifests.serving import CHECK_CONTAINER
from embedding_operator.objects.manifests.serving import CONTAINER as SERVER_CONTAINER
from embedding_operator.objects.manifests.sources import COPY_PREFIX, TOOLS_CONTAINER

Raw = Mapping[str, Any]
MAIN_CONTAINERS: Final = frozenset({STAGE_CONTAINER, SERVER_CONTAINER})
AT_WORK: Final = "is not done yet"  # how the description of a container ends that has no trouble
_BEGINNING: Final = frozenset({"PodInitializing", "ContainerCreating"})
_MESSAGE_CHARACTERS: Final = 300


def main_container(status: Raw) -> Raw:
    """The status of the container that does the work; empty while there is none."""
    return next((item for item in status.get("containerStatuses") or () if item["name"] in MAIN_CONTAINERS), {})


def own_init_containers(status: Raw) -> list[Raw]:
    """The statuses of the operator's own init containers."""
    return [item for item in status.get("initContainerStatuses") or () if is_own_init(item["name"])]


def has_begun(container: Raw) -> bool:
    """Whether a container runs or ran."""
    return bool(_state(container).keys() & {"running", "terminated"} or container.get("lastState"))


def running_sidecars(status: Raw) -> tuple[str, ...]:
    """Names of the containers that run beside the operator's and end when they like."""
    others = (item for item in status.get("containerStatuses") or () if item["name"] not in MAIN_CONTAINERS)
    return tuple(item["name"] for item in others if "running" in _state(item))


def blocker(pod: Raw) -> str:
    """What another container does that the pod's own waits for; empty when it waits for none."""
    status: Raw = pod.get("status") or {}
    native = _native_sidecars(pod)
    begun = has_begun(main_container(status))
    for item in () if begun else status.get("initContainerStatuses") or ():  # one starts after the other
        if _let_the_next_start(item, native):
            continue
        return "" if is_own_init(item["name"]) else _describe(item)
    others = [item for item in status.get("containerStatuses") or () if item["name"] not in MAIN_CONTAINERS]
    return next((text for item in others if "waiting" in _state(item) and (text := _describe(item))), "")


def is_own_main(name: str) -> bool:
    """Whether a container of this name does the work of a pod of the operator's."""
    return name in MAIN_CONTAINERS


def is_own_init(name: str) -> bool:
    """Whether it is one of those that the operator has run before."""
    return name in (CHECK_CONTAINER, TOOLS_CONTAINER) or name.startswith(COPY_PREFIX)


def _native_sidecars(pod: Raw) -> set[str]:
    """Init containers that run as long as the pod does."""
    inits: Sequence[Raw] = (pod.get("spec") or {}).get("initContainers") or ()
    return {item["name"] for item in inits if item.get("restartPolicy") == "Always"}


def _let_the_next_start(item: Raw, native: set[str]) -> bool:
    state = _state(item)
    if item["name"] in native:
        return "running" in state and item.get("started") is not False
    return (state.get("terminated") or {}).get("exitCode") == 0


def _describe(item: Raw) -> str:
    """In words; empty for a container that nobody has looked at yet."""
    state, last = _state(item), (item.get("lastState") or {}).get("terminated") or {}
    ended = state.get("terminated") or last
    if ended.get("exitCode"):
        said = str(ended.get("message", "")).strip()[-_MESSAGE_CHARACTERS:]
        return f"container {item['name']} ended with exit code {ended['exitCode']}{f': {said}' if said else ''}"
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _BEGINNING:
        return ""
    if waiting:
        said = str(waiting.get("message", ""))[:_MESSAGE_CHARACTERS]
        return f"container {item['name']} waits: {waiting.get('reason', '')}{f': {said}' if said else ''}"
    return f"container {item['name']} {AT_WORK}"


def _state(item: Raw) -> Raw:
    found: Raw = item.get("state") or {}
    return found
