"""Whether the disks have room for all that is still to be made, asked once and at the start."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from choice import GIVEN, KIND, LOCALKUBE, Choice, localkube
from tools import ROOT, ClusterError, cache_home, quiet

# Measured after a cold run, with some air. kind's images carry PyTorch for GPUs, and Docker and the node keep one each.
PROGRAMS_GB, DISK_GB, VENV_GB = 6.0, 9.0, 7.0
IMAGES_GB = {LOCALKUBE: 5.0, GIVEN: 8.0, KIND: 16.0}
BUILDAH_ROOT = Path("/var/lib/containers")


@dataclass(frozen=True)
class Need:
    """Something that is not there yet."""

    what: str
    folder: Path
    gigabytes: float


def check(choice: Choice, *, with_venv: bool) -> None:
    by_disk: dict[int, list[Need]] = defaultdict(list)
    for need in _needs(choice, with_venv=with_venv):
        by_disk[_existing(need.folder).stat().st_dev].append(need)
    for needs in by_disk.values():
        folder, wanted = _existing(needs[0].folder), sum(need.gigabytes for need in needs)
        free = shutil.disk_usage(folder).free / 1e9
        if free < wanted:
            parts = ", ".join(f"{need.what} {need.gigabytes:.0f}" for need in needs)
            raise ClusterError(
                f"this needs {wanted:.0f} GB on the disk of {folder} and {free:.0f} GB are free (in GB: {parts}); "
                "make room (`make purge` removes all that this project has made) or move it with XDG_CACHE_HOME "
                "and LOCALKUBE_DIR"
            )


def _needs(choice: Choice, *, with_venv: bool) -> Iterator[Need]:
    if choice.name == LOCALKUBE:
        if not localkube("bin"):
            yield Need("Kubernetes compiled from source", cache_home(), PROGRAMS_GB)
        disk = Path(choice.kubeconfig).with_name("disk.img")
        used = disk.stat().st_blocks * 512 / 1e9 if disk.exists() else 0
        yield Need("the node's disk", disk.parent, max(0.0, DISK_GB - used))
    if not _images_are_built():
        yield Need("images", _images_root(choice), IMAGES_GB[choice.name])
    if with_venv and not _venv().exists():
        yield Need("the development environment", cache_home(), VENV_GB)


def _images_are_built() -> bool:
    command = [sys.executable, str(ROOT / "hack" / "images"), "references"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _images_root(choice: Choice) -> Path:
    if choice.name != LOCALKUBE:
        root = quiet("docker", "info", "--format", "{{.DockerRootDir}}").stdout.strip()
        if root and Path(root).is_dir():  # Not so where the engine runs in a machine of its own.
            return Path(root)
    return BUILDAH_ROOT


def _venv() -> Path:
    lock = hashlib.sha256((ROOT / "requirements" / "dev.lock").read_bytes()).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return cache_home() / f"venv-{version}-{lock}" / "complete"


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
