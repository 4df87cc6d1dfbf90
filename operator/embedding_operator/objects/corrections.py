"""What server-side apply alone gets wrong when it restores an object of ours. Pure.

It leaves alone what others have added, which is right for a sidecar and wrong for a hook in the server's own container
(`corrections`). And where a list or a map has one owner as a whole it takes back what others have added, which is wrong
for a toleration (`keeping`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from embedding_operator.objects.compare import (
    CONTAINER_MAY_HAVE,
    MAY_GROW,
    NIM_MAY_HAVE,
    POD_MAY_HAVE,
    added,
    covered,
    differs,
    holds,
    taken_over,
    volumes_of_claims,
)
from embedding_operator.resource.labels import TEMPLATE_ANNOTATION

Raw = Mapping[str, Any]
Operation = dict[str, Any]
_POD: Final = "/spec/template/spec"
_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")


def keeping(desired: Raw, live: Raw) -> Raw:
    """What is applied: `desired`, and what others have added where one manager owns the whole.

    Of an edited manifest only what it says is applied: nobody knows which of the rest it has said before.
    """
    asked, before = (item["metadata"].get("annotations") or {} for item in (desired, live))
    same = asked.get(TEMPLATE_ANNOTATION) == before.get(TEMPLATE_ANNOTATION)
    found: Raw = _merged(desired, live) if same else desired
    return found


def _merged(desired: Any, live: Any) -> Any:
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        return {key: _kept(key, value, live.get(key)) for key, value in desired.items()}
    if isinstance(desired, list) and isinstance(live, list):
        known = {item.get("name"): item for item in live if isinstance(item, Mapping) and "name" in item}
        return [
            _merged(item, known.get(item["name"])) if isinstance(item, Mapping) and "name" in item else item
            for item in desired
        ]
    return desired


def _kept(key: str, desired: Any, live: Any) -> Any:
    if key in MAY_GROW and holds(live, desired):
        return live
    if key == "nodeSelector" and isinstance(live, Mapping):
        return {**live, **desired}
    return _merged(desired, live)


def corrections(desired: Raw, live: Raw) -> list[Operation]:
    """Operations of a JSON patch, of each list the last items first.

    What runs our containers otherwise is removed; what cannot be merged with ours, such as another source of a volume,
    gives way to it.
    """
    kind = desired["kind"]
    if kind == "Service":
        return list(_same_name(live["spec"], desired["spec"], "/spec", "port"))
    if kind == "NIMService":
        more = _more_keys(live["spec"], desired["spec"], "/spec", NIM_MAY_HAVE)
        return [*more, *_variables(live["spec"].get("env") or (), desired["spec"], "/spec/env")]
    return list(_of_deployment(desired, live)) if kind == "Deployment" else []


def _of_deployment(desired: Raw, live: Raw) -> Iterator[Operation]:
    if differs(desired["spec"]["strategy"], live["spec"].get("strategy")):
        yield {"op": "add", "path": "/spec/strategy", "value": desired["spec"]["strategy"]}
    wanted, found = desired["spec"]["template"]["spec"], live["spec"]["template"]["spec"]
    yield from _more_keys(found, wanted, _POD, POD_MAY_HAVE)
    yield from _replaced(found.get("volumes"), wanted.get("volumes"), f"{_POD}/volumes")
    claims = volumes_of_claims(found, wanted)
    for kind in ("initContainers", "containers"):
        ours = {item["name"]: item for item in wanted.get(kind) or ()}
        for index, there in enumerate(found.get(kind) or ()):
            yield from _of_container(there, ours.get(there["name"]), f"{_POD}/{kind}/{index}", claims)


def _of_container(live: Raw, desired: Raw | None, path: str, claims: set[str]) -> Iterator[Operation]:
    mounts, asked = live.get("volumeMounts") or (), desired or {}
    for index, mount in reversed(list(enumerate(mounts))):
        if covered({"volumeMounts": [mount]}, asked, claims):
            yield {"op": "remove", "path": f"{path}/volumeMounts/{index}"}
    if desired is None:
        return
    yield from _more_keys(live, desired, path, CONTAINER_MAY_HAVE)
    yield from _same_name(live, desired, path, "containerPort")
    for probe in _PROBES:
        if probe in desired and probe in live and differs(desired[probe], live[probe]):
            yield {"op": "replace", "path": f"{path}/{probe}", "value": desired[probe]}
    yield from _variables(live.get("env") or (), desired, f"{path}/env")


def _variables(live: Sequence[Raw], desired: Raw, path: str) -> Iterator[Operation]:
    """Of two with one name the last counts: ours is the only one."""
    ours = {item["name"]: item for item in desired.get("env") or ()}
    first = {item["name"]: index for index, item in reversed(list(enumerate(live)))}
    for index, item in reversed(list(enumerate(live))):
        name = item["name"]
        if taken_over({"env": [item]}, desired) or (name in ours and index != first[name]):
            yield {"op": "remove", "path": f"{path}/{index}"}
        elif name in ours and differs(ours[name], item):
            yield {"op": "replace", "path": f"{path}/{index}", "value": ours[name]}


def _more_keys(live: Raw, desired: Raw, path: str, may_have: frozenset[str]) -> Iterator[Operation]:
    left = dict(live)
    while more := added(left, desired, may_have):
        del left[more]
        yield {"op": "remove", "path": f"{path}/{more}"}


def _same_name(live: Raw, desired: Raw, path: str, number: str) -> Iterator[Operation]:
    """Ports of another number that have a name of ours give way to ours: two of one name are refused."""
    ours = {item["name"]: item for item in desired.get("ports") or ()}
    there = {port[number] for port in live.get("ports") or ()}
    for index, port in reversed(list(enumerate(live.get("ports") or ()))):
        wanted = ours.get(port.get("name"))
        if wanted is None or wanted[number] == port[number]:
            continue
        if wanted[number] in there:
            yield {"op": "remove", "path": f"{path}/ports/{index}"}
        else:  # a Service without any port is refused
            yield {"op": "replace", "path": f"{path}/ports/{index}", "value": wanted}


def _replaced(live: Sequence[Raw] | None, desired: Sequence[Raw] | None, path: str) -> Iterator[Operation]:
    ours = {item["name"]: item for item in desired or ()}
    for index, item in enumerate(live or ()):
        wanted = ours.get(item["name"])
        if wanted is not None and differs(wanted, item):
            yield {"op": "replace", "path": f"{path}/{index}", "value": wanted}
