"""Does a live object still say what we asked for? Pure.

The API server adds defaults, and admission policies add variables, volumes and sidecars, so the question is whether
every value of the desired object is in the live one. Of our containers that is not enough: with a command more it is
another server. Lists whose items have no name must agree in length and order; quantities are compared by value,
since "1024Mi" is stored as "1Gi".
"""

from __future__ import annotations

import posixpath
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


# Lists whose items have a name: what others add to them is left alone.
NAMED_BY: Final[Mapping[str, str]] = {
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
    "containerPorts": "containerPort",
    "ports": "port",
}
# Others that somebody may add to, as policies do: ours have to be among them. Every other list is compared as it is.
MAY_GROW: Final = frozenset(
    {"drop", "tolerations", "topologySpreadConstraints"}
    | {"preferredDuringSchedulingIgnoredDuringExecution", "requiredDuringSchedulingIgnoredDuringExecution"}
)
# What a pod or a container of ours may have that was not asked for: the server's defaults, and what admission policies
# add. A command, a hook or another account would make it another server.
POD_MAY_HAVE: Final = frozenset(
    {"affinity", "dnsConfig", "dnsPolicy", "hostAliases", "imagePullSecrets", "nodeSelector", "os", "overhead"}
    | {"preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resourceClaims", "restartPolicy"}
    | {"runtimeClassName", "schedulerName", "schedulingGates", "terminationGracePeriodSeconds", "tolerations"}
    | {"topologySpreadConstraints"}
)
CONTAINER_MAY_HAVE: Final = frozenset(
    {"env", "imagePullPolicy", "ports", "resources", "securityContext", "terminationMessagePath"}
    | {"terminationMessagePolicy"}
)


# What the NIM Operator's CRD and webhook fill in, and where people may send the pods.
NIM_MAY_HAVE: Final = frozenset(
    {"affinity", "expose", "inferencePlatform", "livenessProbe", "metrics", "nodeSelector", "priorityClassName"}
    | {"readinessProbe", "runtimeClassName", "scale", "schedulerName", "startupProbe", "storage", "tolerations"}
)
_CODE: Final = "/app"  # of the project's images
# Variables that decide which code a container runs, or that the servers and the check read.
_TAKE_OVER: Final = ("EFT_", "LD_", "NIM_", "PATH", "PYTHON")


def differs(desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
    """True when the object is missing, lacks something that is desired, or runs our containers in another way."""
    return live is None or bool(difference(desired, live))


def difference(desired: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """The first field, such as `spec.replicas`, by which the live object is not what is desired; empty when none is."""
    return _difference(live, desired, "", quantities=False) or _runs_more(live, desired)


def _runs_more(live: Mapping[str, Any], desired: Mapping[str, Any]) -> str:
    """The first field that somebody added to our pod or containers and that makes them run otherwise."""
    if desired.get("kind") == "NIMService":
        return _nim_runs_more(live["spec"], desired["spec"])
    template: Mapping[str, Any] = (desired.get("spec") or {}).get("template") or {}
    if "spec" not in template:
        return ""
    path, wanted, found = "spec.template.spec", template["spec"], live["spec"]["template"]["spec"]
    if more := added(found, wanted, POD_MAY_HAVE):
        return f"{path}.{more}"
    claims = volumes_of_claims(found, wanted)
    for kind in ("initContainers", "containers"):
        ours = {item["name"]: item for item in wanted.get(kind) or ()}
        for there in found.get(kind) or ():
            where, asked = f"{path}.{kind}[{there['name']}]", ours.get(there["name"])
            if covered(there, asked or {}, claims):
                return f"{where}.volumeMounts"
            if asked is None:
                continue
            if more := added(there, asked, CONTAINER_MAY_HAVE):
                return f"{where}.{more}"
            if taken := taken_over(there, asked):
                return f"{where}.env[{taken}]"
    return ""


def _nim_runs_more(live: Mapping[str, Any], desired: Mapping[str, Any]) -> str:
    """The same of a NIMService, of which NVIDIA's NIM Operator makes the pods."""
    path = "spec"
    if more := added(live, desired, NIM_MAY_HAVE):
        return f"{path}.{more}"
    if (live.get("scale") or {}).get("enabled"):
        return f"{path}.scale.enabled"
    taken = taken_over(live, desired)
    return f"{path}.env[{taken}]" if taken else ""


def volumes_of_claims(live: Mapping[str, Any], desired: Mapping[str, Any]) -> set[str]:
    """Names of the live pod's volumes that are claims which our pod mounts too, whatever somebody calls them."""

    def claim(volume: Mapping[str, Any]) -> str:
        return str((volume.get("persistentVolumeClaim") or {}).get("claimName", ""))

    ours = {claim(item) for item in desired.get("volumes") or ()} - {""}
    return {item["name"] for item in live.get("volumes") or () if claim(item) in ours}


def added(live: Mapping[str, Any], desired: Mapping[str, Any], may_have: frozenset[str]) -> str:
    more = sorted(live.keys() - desired.keys() - may_have)
    return next((key for key in more if live[key] not in (None, "", [], {}, False)), "")


def covered(live: Mapping[str, Any], desired: Mapping[str, Any], claims: set[str]) -> bool:
    """Whether a mount was added by which what was checked may not be what is read.

    It lies over a read-only folder of ours or over our code, or it is a further mount of one of the `claims`.
    """
    ours = [item["mountPath"] for item in desired.get("volumeMounts") or ()]
    guarded = [item["mountPath"] for item in desired.get("volumeMounts") or () if item.get("readOnly")]
    guarded += [_CODE] if desired else []
    more = [item for item in live.get("volumeMounts") or () if item["mountPath"] not in ours]
    over = any(f"{_clean(item['mountPath'])}/".startswith(f"{folder}/") for item in more for folder in guarded)
    return over or any(item["name"] in claims for item in more)


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def taken_over(live: Mapping[str, Any], desired: Mapping[str, Any]) -> str:
    """The first variable that somebody added and that may change what our container does."""
    ours = {item["name"] for item in desired.get("env") or ()}
    more = (item["name"] for item in live.get("env") or () if item["name"] not in ours)
    return next((name for name in more if name.startswith(_TAKE_OVER)), "")


def _difference(live: Any, desired: Any, path: str, *, quantities: bool) -> str:
    """The path of the first difference; `path` is where the two values stand."""
    here = path or "the object"
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return "" if not desired and live is None else here  # an empty mapping may be dropped
        if quantities:
            return next((f"{path}.{k}" for k, v in desired.items() if not _same_quantity(live.get(k, "0"), v)), "")
        return next((found for key in desired if (found := _of_key(live, desired, key, path))), "")
    if isinstance(desired, list):
        if not isinstance(live, list) or len(live) != len(desired):
            return here
        pairs = enumerate(zip(live, desired, strict=True))
        differences = (_difference(a, b, f"{path}[{index}]", quantities=False) for index, (a, b) in pairs)
        return next((item for item in differences if item), "")
    if live is None:
        return "" if desired in ("", 0, False) else here  # the server omits zero values
    if isinstance(desired, str) and isinstance(live, str) and desired != live:
        return "" if _same_quantity(live, desired) else here
    return "" if live == desired else here


def _of_key(live: Mapping[str, Any], desired: Mapping[str, Any], key: str, path: str) -> str:
    where = f"{path}.{key}" if path else key
    if key in _IGNORED:
        return ""
    if key in _EXACT:
        return "" if live.get(key) == desired[key] else where
    named = "containerPorts" if key == "ports" and "image" in desired else key
    if named in NAMED_BY and isinstance(desired[key], list) and isinstance(live.get(key), list):
        return _named_difference(live[key], desired[key], where, NAMED_BY[named])
    if key in MAY_GROW and holds(live.get(key), desired[key]):
        return ""
    return _difference(live.get(key), desired[key], where, quantities=key in _QUANTITY_MAPS)


def holds(live: Any, desired: Any) -> bool:
    """Whether each item of one list is among those of the other."""
    if not isinstance(live, list) or not isinstance(desired, list):
        return False
    return all(any(not _difference(item, wanted, "", quantities=False) for item in live) for wanted in desired)


def _named_difference(live: list[Any], desired: list[Any], path: str, name: str) -> str:
    """Items that others add are left alone; of two with one name the last counts, as in a container."""
    known = {item.get(name): item for item in live}
    for wanted in desired:
        where = f"{path}[{wanted[name]}]"
        if found := _difference(known.get(wanted[name]), wanted, where, quantities=False):
            return found
    return ""


def _same_quantity(live: Any, desired: Any) -> bool:
    try:
        return quantity(str(live)) == quantity(str(desired))
    except ArithmeticError:
        return str(live) == str(desired)


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number. Raises ArithmeticError when it is none."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ArithmeticError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * _SUFFIX[match[2]]
