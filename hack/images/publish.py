"""Push the images under the names that the chart makes of `registry` and `tag`, and say how to install it with them."""

from __future__ import annotations

import os

import registry
import version
from builder import tag
from catalogue import PREFIX, PUBLISHED
from tools import ImagesError, say


def names() -> dict[str, str]:
    """Image -> the reference that the chart makes of registry and tag where its values name no other."""
    folder, build = PREFIX.rpartition("/")[2], version.of_build()
    return {name: f"{_registry()}/{folder}/{name}:{build}" for name in PUBLISHED}


def push(built: dict[str, str], expected: dict[str, str]) -> dict[str, str]:
    """Tag and push what was built. Returns what `names` does, of those; `expected` is what it said before the build."""
    if names() != expected:
        raise ImagesError("what the images are made of changed while they were built; run it again")
    found = {name: reference for name, reference in expected.items() if name in built}
    for name, reference in found.items():
        tag(built[name], reference)
    registry.push(list(found.values()))
    if len(found) == len(PUBLISHED):
        say("install the chart with these images, or upgrade to them:\n" + command(expected))
    return found


def command(expected: dict[str, str]) -> str:
    """Texts, since Helm takes a tag of digits for a number; and an upgrade keeps the values that were set before."""
    build = expected["operator"].rpartition(":")[2]
    return (
        "helm upgrade --install embedding-operator charts/embedding-operator --namespace embedding-operator "
        f"--create-namespace --reset-then-reuse-values --set-string registry={_registry()},tag={build}"
    )


def _registry() -> str:
    found = os.environ.get("REGISTRY", "").rstrip("/")
    if not found:
        raise ImagesError("set REGISTRY to a registry that you may push to, for example registry.example/team")
    if "://" in found:
        raise ImagesError(f"REGISTRY={found} is a URL: leave {found.partition('://')[0]}:// out")
    return found
