"""Why the API server makes no object: its words, and the manifest's fields that cure it. Pure.

The words are those of Kubernetes 1.30 and later, about a pod of a Job or a Deployment, or about these themselves: their
paths then begin with `spec.template`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from embedding_operator.objects.injected import is_own_init, is_own_main
from embedding_stages.contract import Stage

# What passes by itself: an admission that does not answer now, a quota that is not counted yet, an account that
# Kubernetes makes in every namespace.
_PASSES: Final = (
    "failed calling webhook",
    "failed to call webhook",
    "status unknown for quota",
    'serviceaccount "default" not found',
)
_LASTS: Final = ("forbidden", "is invalid", "denied the request", "violates PodSecurity")
_MUST_SPECIFY: Final = re.compile(r"must specify (\w[\w./-]* for: .+)")
_ABOVE_LIMIT: Final = re.compile(
    r"\b(?P<kind>containers|initContainers)\[(?P<index>\d+)\]\.resources\.requests: Invalid value: "
    r'"?(?P<asked>[^":]+)"?: must be less than or equal to (?P<resource>[\w./-]+) limit(?: of (?P<limit>\w[\w.]*))?'
)
_LEAST_OR_MOST: Final = re.compile(
    r"(?P<bound>maximum|minimum) (?P<resource>[\w./-]+) usage per (?:Container|Pod) is (?P<value>\w[\w.]*?)"
    r"(?:, but (?P<kind>limit|request) is (?P<found>\w[\w.]*)|\. +No (?P<none>limit|request) is specified)"
)
_RATIO: Final = re.compile(
    r"(?P<resource>[\w./-]+) max limit to request ratio per (?:Container|Pod) is (?P<value>\w[\w.]*?),"
)
_PRIORITY: Final = re.compile(r"no PriorityClass with name (\S+) was found")
_RUNTIME: Final = re.compile(r'RuntimeClass "([^"]+)" not found')
_SCC: Final = "unable to validate against any security context constraint"
_INVALID: Final = re.compile(
    r"\b(?:spec\.template\.)?(?P<path>(?:spec|metadata)\.[\w.\-/\[\]]+): "
    r"(?:Invalid|Required|Unsupported|Duplicate) value"
)
# Paths in a pod, and the field of the stage's section that becomes it.
_FIELDS: Final = (
    (re.compile(r"spec\.containers\[0\]\.resources\.(requests|limits)\[(.+)\]"), r"resources.\1.\2"),
    (re.compile(r"spec\.containers\[0\]\.resources\.(requests|limits)\.(.+)"), r"resources.\1.\2"),
    (re.compile(r"spec\.containers\[0\]\.(image|env)\b.*"), r"\1"),
    (re.compile(r"spec\.(nodeSelector|tolerations|priorityClassName|runtimeClassName)\b(.*)"), r"\1\2"),
)


def lasts(text: str) -> bool:
    """Whether the API server goes on refusing until somebody acts: a webhook that does not answer may come back."""
    return any(word in text for word in _LASTS) and not any(word in text for word in _PASSES)


def cure_of(text: str, stage: Stage) -> str:
    """Which fields of the manifest to change, and how; empty where the words tell nothing of any."""
    cures = [cure for find in _CURES for cure in find(text, f"spec.stages.{stage}")]
    if _SCC in text:
        cures.append("install the operator's chart with openshift: true, so that pods name no user of theirs")
    return "; ".join(dict.fromkeys(cures))


def _unsaid(text: str, section: str) -> list[str]:
    """From the words of a quota, such as `limits.cpu for: a,b; requests.memory for: a`."""
    cures: list[str] = []
    for match in _MUST_SPECIFY.finditer(text):
        wanted: list[str] = []  # of the operator's own containers, which have what the stage has
        others: dict[str, list[str]] = {}  # container -> what it does not say
        for part in match[1].split(";"):
            resource, _, containers = part.strip().partition(" for: ")
            for name in (item.strip() for item in containers.split(",")):
                if not (is_own_main(name) or is_own_init(name)):
                    others.setdefault(name, []).append(resource)
                elif resource not in wanted:
                    wanted.append(resource)
        told = [f"give {', '.join(wanted)} in {section}.resources"] if wanted else []
        told += [
            f"container {name} is not the operator's: whoever adds it, or a LimitRange, gives {', '.join(resources)}"
            for name, resources in others.items()
        ]
        cures.append(f"a quota of the namespace wants more to be said; {'; '.join(told)}")
    return cures


def _above_limit(text: str, section: str) -> list[str]:
    """A request that the manifest leaves to the operator, above a limit that a LimitRange puts where it has none."""
    cures = []
    for match in _ABOVE_LIMIT.finditer(text):
        if match["kind"] == "containers" and match["index"] != "0":  # somebody else's
            continue
        resource, limit = match["resource"], f" of {match['limit']}" if match["limit"] else ""
        cures.append(
            f"set {section}.resources.limits.{resource} to {match['asked']} or more, or lower "
            f"{section}.resources.requests.{resource}: {match['asked']} is requested above a limit{limit}, which a "
            "LimitRange of the namespace gives where the manifest says none"
        )
    return cures


def _least_or_most(text: str, section: str) -> list[str]:
    cures = []
    for match in _LEAST_OR_MOST.finditer(text):
        kind = f"{match['kind'] or match['none']}s"
        bound = "at most" if match["bound"] == "maximum" else "at least"
        field = f"{section}.resources.{kind}.{match['resource']}"
        cures.append(f"set {field} to {bound} {match['value']}, as a LimitRange of the namespace wants it")
    return cures


def _ratio(text: str, section: str) -> list[str]:
    return [
        f"let {section}.resources.limits.{match['resource']} be at most {match['value']} times "
        f"{section}.resources.requests.{match['resource']}, as a LimitRange of the namespace wants it"
        for match in _RATIO.finditer(text)
    ]


def _missing(text: str, section: str) -> list[str]:
    cures = [
        f"{section}.priorityClassName: PriorityClass {match[1]!r} does not exist; create it or correct the field"
        for match in _PRIORITY.finditer(text)
    ]
    cures += [
        f"{section}.runtimeClassName: RuntimeClass {match[1]!r} does not exist; create it or correct the field"
        for match in _RUNTIME.finditer(text)
    ]
    return cures


def _invalid(text: str, section: str) -> list[str]:
    """A path of the pod as the field that it comes from."""
    found = []
    for match in _INVALID.finditer(text):
        fields = (pattern.sub(field, match["path"]) for pattern, field in _FIELDS if pattern.fullmatch(match["path"]))
        found += [f"correct {section}.{field}" for field in fields]
        if match["path"].startswith("spec.imagePullSecrets"):
            found.append("correct spec.imagePullSecrets")
    return found


_CURES: Final[tuple[Callable[[str, str], list[str]], ...]] = (
    _unsaid,
    _above_limit,
    _least_or_most,
    _ratio,
    _missing,
    _invalid,
)
