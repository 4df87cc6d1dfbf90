"""Labels and annotations that the manifest puts on a stage's pods: none by which something finds them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from embedding_operator.resource.api import GROUP, SpecError
from embedding_operator.resource.labels import OWN_LABELS

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DOMAIN_CHARACTERS: Final = 253
# What the operator and the controllers of Jobs and Deployments write, and find their pods by.
_OTHERS_DOMAINS: Final = frozenset({GROUP, "batch.kubernetes.io", "apps.kubernetes.io"})
_OTHERS: Final = OWN_LABELS | {"controller-uid", "job-name", "pod-template-hash"}


def pod_labels(section: Mapping[str, Any], field: str) -> dict[str, str]:
    """`podLabels` of a stage's section. Raises SpecError."""
    found = _texts(section, "podLabels", field)
    for key, value in found.items():
        if not _VALUE.fullmatch(value):
            raise SpecError(
                f"{field}.podLabels",
                f"the value {value!r} of {key!r} must have at most 63 letters, digits, '-', '_' or '.', and begin and "
                "end with a letter or digit; say it in podAnnotations otherwise",
            )
    return found


def pod_annotations(section: Mapping[str, Any], field: str) -> dict[str, str]:
    """`podAnnotations` of a stage's section. Raises SpecError."""
    return _texts(section, "podAnnotations", field)


def _texts(section: Mapping[str, Any], name: str, field: str) -> dict[str, str]:
    found = {str(key): str(value) for key, value in (section.get(name) or {}).items()}
    for key in found:
        domain, _, _ = key.rpartition("/")
        if key in _OTHERS or domain in _OTHERS_DOMAINS:
            raise SpecError(
                f"{field}.{name}", f"{key!r} belongs to the operator or to Kubernetes, which find pods by it; remove it"
            )
        if not _is_key(key):
            raise SpecError(
                f"{field}.{name}",
                f"{key!r} is no key: a name of at most 63 letters, digits, '-', '_' or '.', with a domain and '/' "
                "before it, such as team.example/cost-centre, or without",
            )
    return found


def _is_key(key: str) -> bool:
    domain, slash, name = key.rpartition("/")
    fits = bool(_DOMAIN.fullmatch(domain)) and len(domain) <= _DOMAIN_CHARACTERS if slash else True
    return fits and bool(_NAME.fullmatch(name))
