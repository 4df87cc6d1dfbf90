"""The command line."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import bases
import builder
import loader
import locks
import prune
import publish
import target
from catalogue import IMAGES, STAGES, Image, content_hash, gather
from tools import ImagesError, cache_home, require_free, say

NEEDED_GB = 6.0
BUILDERS = 2  # images built side by side: each waits for downloads, and unpacks them on one core


def main() -> int:
    parser = argparse.ArgumentParser(prog="images", description="The project's images without a registry.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = [image.name for image in IMAGES]
    for name, text in (
        ("bases", "build the base images alone"),
        ("build", "build what is not built yet; prints a JSON object from name to reference"),
        ("load", "build, and load into the cluster or push to REGISTRY"),
        ("publish", "build, and push to REGISTRY under the names that the chart expects"),
        ("names", "print those names as a JSON object, without building"),
        ("references", "print the newest reference of each image as a JSON object, without building"),
        ("stages", "the same of the stages alone: the images that the chart names"),
        ("prune", "remove every image but the newest ones, here and in the cluster"),
        ("purge", "remove every image of this project from this machine"),
        ("lock", "resolve the lock files anew"),
    ):
        command = commands.add_parser(name, help=text)
        if name in ("build", "load", "publish", "lock"):
            command.add_argument("names", nargs="*", metavar="NAME", help=f"of {' '.join(names)} (default: all)")
        if name in ("build", "load"):
            command.add_argument("--product", action="store_true", help="without those that only tests use")
    arguments = parser.parse_args()
    try:
        wanted = getattr(arguments, "names", [])
        if getattr(arguments, "product", False):
            if wanted:
                raise ImagesError("--product goes without names")
            wanted = [image.name for image in IMAGES if not image.for_tests]
        return _dispatch(arguments.command, wanted)
    except ImagesError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(command: str, names: list[str]) -> int:
    if command == "lock":
        locks.write(names)
        return 0
    if command in ("names", "publish"):
        target.choose(target.GIVEN)
    if command == "names":
        print(json.dumps(publish.names(), indent=1))
        return 0
    if command in ("references", "stages"):
        wanted = STAGES if command == "stages" else [image.name for image in IMAGES]
        print(json.dumps({name: reference for name, reference in _remembered().items() if name in wanted}, indent=1))
        return 0
    if command == "purge":
        prune.purge()
        return 0
    published = publish.names() if command == "publish" else {}  # named before anything is built
    names = names or list(published)
    builder.require()
    with (cache_home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if command == "bases":
            references = {name: bases.ensure(name) for name in bases.NEEDED_GB}
        elif command == "prune":
            references = _remembered()
            prune.prune({*references.values(), *map(bases.reference, bases.NEEDED_GB)})
        else:
            references = build(names, loader.load if command == "load" else _leave)
            if command == "publish":
                references = publish.push(references, published)
    print(json.dumps(references, indent=1))
    return 0


def _leave(references: list[str]) -> None:
    """What becomes of images that are only to be built."""


def build(names: list[str], then: Callable[[list[str]], None] = _leave) -> dict[str, str]:
    """Build the named images, or all; remember every reference for whoever deploys them.

    `then` is given the references of those that are ready, while others are still being built.
    """
    unknown = set(names) - {image.name for image in IMAGES}
    if unknown:
        raise ImagesError(f"no such image: {' '.join(sorted(unknown))}")
    started = time.monotonic()
    wanted = [image for image in IMAGES if not names or image.name in names]
    ready: dict[str, str] = {}
    with ThreadPoolExecutor(BUILDERS) as builders:
        running = {builders.submit(_build, image): image.name for image in wanted}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                found = {running.pop(each): each.result() for each in done}
                ready |= found
                _remember(found)
                if not running:
                    say(f"{len(ready)} images are built after {time.monotonic() - started:.0f} s")
                then(list(found.values()))
        except BaseException as error:
            if running:
                say(f"images: {error}\nwaiting for what is being built beside it")
            builders.shutdown(cancel_futures=True)
            raise
    return {image.name: ready[image.name] for image in wanted}


def _build(image: Image) -> str:
    # With Docker there is a registry to pull from, so the Containerfile's public default is the base.
    base = None if target.with_docker() else bases.ensure(image.base)
    with tempfile.TemporaryDirectory(dir=cache_home(), prefix="context-") as scratch:
        context = Path(scratch)
        gather(image.files, context)
        reference = f"{target.prefix()}/{image.name}:{content_hash(context, base or 'public')}"
        if not builder.exists(reference):
            require_free(cache_home(), NEEDED_GB, f"building {image.name}")
            builder.build(image.name, reference, context / image.containerfile, context, base=base)
    return reference


def _table() -> Path:
    """One a cluster, engine and registry: the same image has another name in each."""
    words = f"{target.cluster()} {target.with_docker()} {target.prefix()}"
    return cache_home() / f"references-{hashlib.sha256(words.encode()).hexdigest()[:12]}.json"


def _remembered() -> dict[str, str]:
    if not _table().exists():
        raise ImagesError("nothing is built yet: run `python3 hack/images build`")
    table: dict[str, str] = json.loads(_table().read_text())
    return table


def _remember(references: dict[str, str]) -> None:
    known = {**(_remembered() if _table().exists() else {}), **references}
    _table().write_text(json.dumps(known, indent=1) + "\n")
