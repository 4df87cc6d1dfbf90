"""The tag that a build is published under. It names the build, so that no two different ones share it: a tag that is
overwritten rolls nothing out, and nodes that have its image go on with the old one.

<appVersion>                      a release: the commit that git calls v<appVersion>
<appVersion>-<commit>             any other commit
<appVersion>-<commit>-<digest>    the same, with changes that are not committed
<appVersion>-<digest>             without git, or without a repository of the project's own, as in a tarball

Commit and digest are about what the published images are made of; what else changes is no part of a tag.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from catalogue import IGNORED, IMAGES, PUBLISHED, ROOT, content_hash, gather
from tools import ImagesError, run

CHART = ROOT / "charts" / "embedding-operator"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # as the chart's schema has it
COMMIT_CHARACTERS = 12  # said, or git takes as many as are unique in this clone
HERE = "hack/images"  # how images are built, and their bases


def of_build() -> str:
    """VERSION where it is set, else by the rules above."""
    given = os.environ.get("VERSION", "")
    if given and not TAG.fullmatch(given):
        raise ImagesError(f"VERSION={given} is no tag of an image: write up to 128 letters, digits, '.', '-' and '_'")
    return given or _by_rules()


def _by_rules() -> str:
    release, files = _app_version(), _files()
    commit = _commit()
    if not commit:
        return f"{release}-{_digest(files)}"
    if _has_changes(files):
        return f"{release}-{commit}-{_digest(files)}"
    is_release = f"v{release}" in _git("tag", "--points-at", "HEAD").split()
    return release if is_release else f"{release}-{commit}"


def _has_changes(files: list[str]) -> bool:
    """What git is told to ignore is built all the same, but for what the builds leave out."""
    told = _git("status", "--porcelain", "--ignored", "--untracked-files=normal", "--", *files).splitlines()
    names = [(line, Path(line[3:].strip('"')).name) for line in told]
    return any(not (line.startswith("!!") and IGNORED("", [name])) for line, name in names)


def _files() -> list[str]:
    return sorted({HERE, *(name for image in IMAGES if image.name in PUBLISHED for name in image.files)})


def _digest(files: list[str]) -> str:
    with tempfile.TemporaryDirectory(prefix="embedding-operator-") as scratch:
        gather(files, Path(scratch))
        return content_hash(Path(scratch))


def _commit() -> str:
    """Empty where git knows none of this tree: a tarball may lie in a repository of something else."""
    if shutil.which("git") is None:
        return ""
    top = _git("rev-parse", "--show-toplevel", check=False)
    if not top and (ROOT / ".git").exists():
        print(
            "git does not tell of this tree, perhaps since another user owns it: tagged by its content", file=sys.stderr
        )
    if not top or Path(top).resolve() != ROOT:
        return ""
    return _git("rev-parse", "--verify", "--quiet", f"--short={COMMIT_CHARACTERS}", "HEAD", check=False)


def _git(*arguments: str, check: bool = True) -> str:
    # Without locks: as root it would leave files in the repository that its owner cannot write.
    return run(["git", "--no-optional-locks", "-C", ROOT, *arguments], check=check).strip()


def _app_version() -> str:
    found = re.search(r"^appVersion: *\"?([^\s\"]+)", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    if found is None:
        raise ImagesError(f"{CHART}/Chart.yaml has no appVersion")
    return found[1]
