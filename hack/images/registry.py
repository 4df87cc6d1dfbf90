"""Push images to a registry, for a cluster that nobody can load images into."""

from __future__ import annotations

import target
from tools import run_long


def push(references: list[str]) -> None:
    """What the registry has already is not sent again."""
    for reference in references:
        run_long(f"push {reference}", _command(reference))


def _command(reference: str) -> list[str]:
    if target.with_docker():
        return ["docker", "push", reference]
    # A registry on this machine speaks plain HTTP as a rule.
    insecure = ["--tls-verify=false"] if target.is_loopback(reference) else []
    return ["buildah", "push", *insecure, reference, f"docker://{reference}"]
