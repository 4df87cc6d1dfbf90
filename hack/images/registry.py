"""Push images to a registry, for a cluster that nobody can load images into."""

from __future__ import annotations

import subprocess

import target
from tools import run_long, say


def push(references: list[str]) -> None:
    missing = [reference for reference in references if not _is_there(reference)]
    for reference in missing:
        run_long(f"push {reference}", [*_command("push", reference), reference, *_destination(reference)])
    if not missing:
        say(f"every image is in {target.prefix()} already")


def _is_there(reference: str) -> bool:
    """References name their content, so that one which is there is the right one."""
    words = [] if target.with_docker() else _destination(reference)
    command = [*_command("manifest", reference, "inspect"), *(words or [reference])]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _command(name: str, reference: str, *more: str) -> list[str]:
    if target.with_docker():
        insecure = ["--insecure"] if name == "manifest" and target.is_loopback(reference) else []
        return ["docker", name, *more, *insecure]
    return ["buildah", name, *more, *(["--tls-verify=false"] if target.is_loopback(reference) else [])]


def _destination(reference: str) -> list[str]:
    # With the transport buildah asks the registry and does not look at its own images.
    return [] if target.with_docker() else [f"docker://{reference}"]
