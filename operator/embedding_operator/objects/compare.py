"""Does a live object still say what we asked for? Pure.

The API server adds defaults, so the question is whether every value of the desired object is in the live one. Of a
container that is not enough: a command more, or variables more, and it is another server.
Lists must agree in length and order; resource quantities are compared by value, since "1024Mi" is stored as "1Gi".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_SUFFIX: Final[Mapping[str, Decimal]] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY: Final = re.compile(r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)([numkMGTPE]?|[KMGTPE]i)")
_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})
# One key more, and a Service reaches no pod.
_EXACT: Final = frozenset({"selector"})
# Values the server may keep as it likes: identity, and owners' bookkeeping.
_IGNORED: Final = frozenset({"apiVersion", "kind", "namespace", "ownerReferences"})


# What a pod or a container may have that was not asked for: the server's defaults, and what admission policies say
# about where pods run and whence images come.
_POD_MAY_HAVE: Final = frozenset(
    {
        "affinity",
        "dnsConfig",
        "dnsPolicy",
        "imagePullSecrets",
        "nodeSelector",
        "overhead",
        "preemptionPolicy",
        "priority",
    }
    | {"priorityClassName", "restartPolicy", "runtimeClassName", "schedulerName", "tolerations"}
    | {"terminationGracePeriodSeconds", "topologySpreadConstraints"}
)
_CONTAINER_MAY_HAVE: Final = frozenset(
    {"imagePullPolicy", "resources", "securityContext", "terminationMessagePath", "terminationMessagePolicy"}
)


def differs(desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
    """True when the object is missing, lacks something that is desired, or runs its containers in another way."""
    return live is None or not _contains(live, desired, quantities=False) or _runs_more(live, desired)


def _runs_more(live: Mapping[str, Any], desired: Mapping[str, Any]) -> bool:
    """For what has a pod template and contains what is desired."""
    template: Mapping[str, Any] = (desired.get("spec") or {}).get("template") or {}
    if "spec" not in template:
        return False
    wanted, found = template["spec"], live["spec"]["template"]["spec"]
    if _added(found, wanted, _POD_MAY_HAVE):
        return True
    return any(
        _added(there, asked, _CONTAINER_MAY_HAVE)
        for kind in ("initContainers", "containers")
        for there, asked in zip(found.get(kind) or (), wanted.get(kind) or (), strict=False)
    )


def _added(live: Mapping[str, Any], desired: Mapping[str, Any], may_have: frozenset[str]) -> bool:
    more = live.keys() - desired.keys() - may_have
    return any(live[key] not in (None, "", [], {}, False) for key in more)


def _contains(live: Any, desired: Any, *, quantities: bool) -> bool:
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return not desired and live is None  # an empty mapping may be dropped
        if quantities:
            return all(_same_quantity(str(live.get(key, "0")), str(value)) for key, value in desired.items())
        return all(
            live.get(key) == value
            if key in _EXACT
            else key in _IGNORED or _contains(live.get(key), value, quantities=key in _QUANTITY_MAPS)
            for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(live, list)
            and len(live) == len(desired)
            and all(_contains(a, b, quantities=False) for a, b in zip(live, desired, strict=True))
        )
    if live is None:
        return desired in ("", 0, False)  # the server omits zero values
    if isinstance(desired, str) and isinstance(live, str) and desired != live:
        return _same_quantity(live, desired)
    return bool(live == desired)


def _same_quantity(live: str, desired: str) -> bool:
    try:
        return quantity(live) == quantity(desired)
    except ArithmeticError:
        return live == desired


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number. Raises ArithmeticError when it is none."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ArithmeticError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * _SUFFIX[match[2]]
