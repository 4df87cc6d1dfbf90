"""A file system of their own for containerd and the kubelet, in a sparse file.

The kubelet can only watch the free space of a real file system, and one
unmount takes everything away again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import settings
from settings import State
from shell import LocalkubeError, human_size, run

NEEDED_FREE = 8 * 1024**3


def mounts_below(folder: Path) -> list[Path]:
    """Mount points at or below a folder, the deepest and latest first."""
    points: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point == folder or folder in point.parents:
            points.append(point)
    return list(reversed(points))


def mount(state: State) -> None:
    state.disk.mkdir(parents=True, exist_ok=True)
    if state.disk in mounts_below(state.disk):
        return
    if not state.disk_image.exists():
        _create(state)
    # `discard` gives the space of removed images back to the machine.
    run(["mount", "-o", "loop,discard,noatime", state.disk_image, state.disk])


def _create(state: State) -> None:
    free = shutil.disk_usage(state.root).free
    if free < NEEDED_FREE:
        raise LocalkubeError(
            f"{state.root} has {human_size(free)} free and a cluster needs {human_size(NEEDED_FREE)}; "
            "make room or point LOCALKUBE_DIR to a larger disk"
        )
    partial = state.disk_image.with_suffix(".new")
    with partial.open("wb") as image:
        image.truncate(settings.DISK_SIZE_GIB * 1024**3)
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", partial])
    partial.rename(state.disk_image)


def unmount_all(state: State) -> None:
    for point in mounts_below(state.root):
        if run(["umount", point], check=False).returncode != 0:
            # A lazy unmount lets go of what a dying process still holds open.
            run(["umount", "--lazy", point], check=False)


def loop_devices(state: State) -> list[str]:
    listing = run(["losetup", "--associated", state.disk_image, "--noheadings", "--output", "NAME"], check=False)
    return listing.stdout.split()
