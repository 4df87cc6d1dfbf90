"""Push the images under the names that the chart expects, and say how to install it with them."""

from __future__ import annotations

import os
import re

import registry
from builder import tag
from catalogue import PREFIX, ROOT, STAGES
from tools import ImagesError, say

CHART = ROOT / "charts" / "embedding-operator"
PUBLISHED = ("operator", *STAGES)


def names() -> dict[str, str]:
    """Image -> the reference that the chart makes of `registry` where its values name no other."""
    folder, version = PREFIX.rpartition("/")[2], _app_version()
    return {name: f"{_registry()}/{folder}/{name}:{version}" for name in PUBLISHED}


def push(built: dict[str, str]) -> dict[str, str]:
    """Tag and push what was built. Returns what `names` does, of those."""
    found = {name: reference for name, reference in names().items() if name in built}
    for name, reference in found.items():
        tag(built[name], reference)
    registry.push(list(found.values()))
    if len(found) == len(PUBLISHED):
        say("install the chart with these images:\n" + command())
    return found


def command() -> str:
    return (
        "helm install embedding-operator charts/embedding-operator --namespace embedding-operator --create-namespace "
        f"--set registry={_registry()}"
    )


def _registry() -> str:
    found = os.environ.get("REGISTRY", "").rstrip("/")
    if not found:
        raise ImagesError("set REGISTRY to a registry that you may push to, for example registry.example/team")
    if "://" in found:
        raise ImagesError(f"REGISTRY={found} is a URL: leave {found.partition('://')[0]}:// out")
    return found


def _app_version() -> str:
    found = re.search(r"^appVersion: *\"?([^\s\"]+)", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    if found is None:
        raise ImagesError(f"{CHART}/Chart.yaml has no appVersion")
    return found[1]
