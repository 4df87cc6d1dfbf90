"""Remove images that nobody needs any more: each change of a source makes new ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import loader
import target
from catalogue import PREFIX
from tools import ImagesError, cache_home, run, say


def prune(kept: set[str]) -> None:
    if target.with_docker():
        raise ImagesError("with Docker, `docker image prune` does this")
    socket = _running_cluster()
    if socket is not None:
        # A run under way keeps the images that it began with, however old they are.
        kept = kept | _in_use(socket)
    old = [name for name in _built() if name.startswith(f"{target.prefix()}/") and name not in kept]
    for name in old:
        _quietly("buildah", "rmi", name)
    # What is left without a name is the cache of unfinished steps of images that are gone.
    _quietly("buildah", "rmi", "--prune")
    loaded = _loaded(socket) - kept if socket is not None else set()
    if socket is not None and loaded:
        loader.ctr(socket, "images", "rm", "--sync", *sorted(loaded))
    say(f"removed {len(old)} images here and {len(loaded)} in the cluster")


def purge() -> None:
    """Every image of the project and its bases, whatever cluster is chosen now. What was pushed stays pushed."""
    pushed: set[str] = set()
    for table in cache_home().glob("references-*.json"):
        pushed |= set(json.loads(table.read_text()).values())
    for engine, name in (("buildah", "Name"), ("docker", "Repository")):
        if not (target.docker_answers() if engine == "docker" else shutil.which(engine)):
            continue
        listed = run([engine, "images", "--format", f"{{{{.{name}}}}}:{{{{.Tag}}}}"]).split()
        ours = [reference for reference in listed if reference.startswith(f"{PREFIX}/") or reference in pushed]
        for reference in ours:
            _quietly(engine, "rmi", "--force", reference)
        say(f"removed {len(ours)} images from {engine}")
    if shutil.which("buildah"):
        _quietly("buildah", "rmi", "--prune")


def _running_cluster() -> Path | None:
    if target.cluster() != target.LOCALKUBE:
        return None
    try:
        return loader.containerd_socket()
    except ImagesError:
        return None


def _loaded(socket: Path) -> set[str]:
    return {name for name in loader.ctr(socket, "images", "ls", "-q").split() if name.startswith(f"{PREFIX}/")}


def _in_use(socket: Path) -> set[str]:
    """All of the project's images while a container of any of them exists: the images of stages
    that are still to come stand in the operator's settings, where nobody can see them from here."""
    lines = loader.ctr(socket, "containers", "ls").splitlines()[1:]
    images = {words[1] for line in lines if len(words := line.split()) > 1}
    return _loaded(socket) if any(name.startswith(f"{PREFIX}/") for name in images) else images


def _built() -> list[str]:
    return run(["buildah", "images", "--format", "{{.Name}}:{{.Tag}}"]).split()


def _quietly(*command: str) -> None:
    """An image that a step of another one still needs stays; that is no failure."""
    subprocess.run(command, capture_output=True, check=False)
