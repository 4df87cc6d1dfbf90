"""The base images: a Debian root file system made here, because there is no registry to pull from."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import builder
from catalogue import PREFIX, content_hash
from tools import cache_home, require_free, run_long

HERE = Path(__file__).resolve().parent
SUITE = "trixie"
PACKAGES = ("ca-certificates", "busybox-static", "python3", "python3-pip")
LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
KEPT = ("/usr/share/doc/*/copyright",)
NEEDED_GB = {"base-python": 2.0, "base-torch": 5.0}
_BUILDING = {name: threading.Lock() for name in NEEDED_GB}  # images that are built side by side share their base


def reference(name: str) -> str:
    """Named after what it is made of; the mirror's state of the day is not part of that."""
    parts = [SUITE, *PACKAGES, *LEFT_OUT, *KEPT]
    if name == "base-torch":
        parts.append(reference("base-python"))
    return f"{PREFIX}/{name}:{content_hash(HERE / name, *parts)}"


def ensure(name: str) -> str:
    """The reference of a base image, which is built first when it is not there."""
    with _BUILDING[name]:
        target = reference(name)
        if not builder.exists(target):
            _build(name, target)
    return target


def _build(name: str, target: str) -> None:
    require_free(cache_home(), NEEDED_GB[name], f"building {name}")
    with tempfile.TemporaryDirectory(dir=cache_home(), prefix="base-") as scratch:
        if name == "base-python":
            _bootstrap(Path(scratch, "rootfs.tar"))
            builder.build(name, target, HERE / name / "Containerfile", Path(scratch), base=None)
        else:
            base = ensure("base-python")
            builder.build(name, target, HERE / name / "Containerfile", Path(scratch), base=base)


def _bootstrap(archive: Path) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in KEPT]
    include = f"--include={','.join(PACKAGES)}"
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", include, *options, SUITE, str(archive)]
    run_long(f"debian {SUITE}", command)
