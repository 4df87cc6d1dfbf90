"""The tag that `make images REGISTRY=...` pushes: two different builds never share one, and what it prints installs it.

Everything runs in a copy of the tree, with a Docker that builds nothing and writes down what it was asked to push.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = "charts/embedding-operator/Chart.yaml"
APP_VERSION = str(yaml.safe_load((ROOT / CHART).read_text())["appVersion"])
REGISTRY = "registry.example/team"
SOURCE = "stage_images/embedding_stages/runner.py"
COMMIT = DIGEST = "[0-9a-f]{12}"
# It has every image already, so nothing is built. EDITED is a file that somebody edits meanwhile.
DOCKER = """#!/bin/sh
[ "$1" = push ] && echo "$2" >>"$PUSHED"
[ "$1" = image ] && [ -n "$EDITED" ] && echo "# edited" >>"$EDITED"
exit 0
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What is published, as a tarball has it."""
    root = tmp_path / "tree"
    for name in ("hack/images", "operator", "stage_images"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / CHART).parent.mkdir(parents=True)
    shutil.copy(ROOT / CHART, root / CHART)
    (root / "README.md").write_text("as it is\n")
    (root / ".gitignore").write_text("__pycache__/\n")
    return root


def environment(tree: Path, **more: str) -> dict[str, str]:
    """Of whoever runs git and hack/images: neither the settings of this machine nor those of a hook that runs tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") and key != "VERSION"}
    who = {f"GIT_{role}_{part}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **who, **quiet, "XDG_CACHE_HOME": str(tree.parent / "cache"), "REGISTRY": REGISTRY, **more}


def git(tree: Path, *arguments: str) -> str:
    command = ["git", "-C", str(tree), *arguments]
    done = subprocess.run(command, env=environment(tree), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(tree: Path, *tags: str) -> str:
    """A repository of the tree, with a tag or several; the beginning of its commit's hash."""
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message", "everything")
    for tag in tags:
        git(tree, "tag", tag)
    return git(tree, "rev-parse", "HEAD")[:12]


def edit(tree: Path, name: str, text: str = "# edited\n") -> None:
    (tree / name).write_text((tree / name).read_text() + text)


def images(tree: Path, command: str, **more: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(tree / "hack" / "images"), command]
    return subprocess.run(tool, env=environment(tree, **more), capture_output=True, text=True, check=False)


def tag_of(references: Mapping[str, str]) -> str:
    """The one tag of all eight images."""
    assert len(references) == 8
    parts = {name: reference.rpartition(":") for name, reference in references.items()}
    assert {name: part[0] for name, part in parts.items()} == {
        name: f"{REGISTRY}/embedding-operator/{name}" for name in references
    }
    (tag,) = {part[2] for part in parts.values()}
    return tag


def tag(tree: Path, **more: str) -> str:
    done = images(tree, "names", **more)
    assert done.returncode == 0, done.stderr
    return tag_of(json.loads(done.stdout))


def test_a_release_is_named_by_its_version_alone(tree: Path) -> None:
    committed(tree, f"v{APP_VERSION}", "another")
    assert tag(tree) == APP_VERSION


@pytest.mark.parametrize("tags", [(), ("v0.0.9",), (APP_VERSION,)], ids=["no tag", "another release", "no v"])
def test_a_commit_that_is_no_release_is_named(tree: Path, tags: tuple[str, ...]) -> None:
    commit = committed(tree, *tags)
    assert tag(tree, VERSION="") == f"{APP_VERSION}-{commit}"


@pytest.mark.parametrize("tags", [(), (f"v{APP_VERSION}",)], ids=["a commit", "a release"])
def test_what_is_not_committed_has_a_name_of_its_own(tree: Path, tags: tuple[str, ...]) -> None:
    commit = committed(tree, *tags)
    clean, found = tag(tree), []
    edits = (SOURCE, "operator/requirements.lock", "hack/images/builder.py")
    for name in edits:
        edit(tree, name)
        found.append(tag(tree))
    (tree / SOURCE).with_name("new.py").write_text("")
    found.append(tag(tree))
    assert all(re.fullmatch(f"{re.escape(APP_VERSION)}-{commit}-{DIGEST}", name) for name in found)
    assert len(set(found)) == len(edits) + 1
    git(tree, "add", ".")
    assert tag(tree) == found[-1]
    git(tree, "reset", "--quiet", "--hard")
    assert tag(tree) == clean


def test_what_git_ignores_and_images_hold_is_part_of_the_name(tree: Path) -> None:
    (tree / ".gitignore").write_text("__pycache__/\nlocal_*.py\n")
    commit = committed(tree, f"v{APP_VERSION}")
    left_out = (tree / SOURCE).parent / "__pycache__"
    left_out.mkdir()
    (left_out / "a.pyc").write_text("")
    assert tag(tree) == APP_VERSION
    (tree / SOURCE).with_name("local_a.py").write_text("")
    assert re.fullmatch(f"{re.escape(APP_VERSION)}-{commit}-{DIGEST}", tag(tree))


def test_what_no_image_is_made_of_is_no_part_of_the_name(tree: Path) -> None:
    commit = committed(tree)
    edit(tree, "README.md")
    (tree / "my-values.yaml").write_text("replicas: 1\n")
    assert tag(tree) == f"{APP_VERSION}-{commit}"


def only_a_tarball(tree: Path) -> None:
    """As it is."""


def of_somebody_elses(tree: Path) -> None:
    """A tarball in a repository that has a history of its own and does not look at it."""
    (tree.parent / ".gitignore").write_text("*\n!.gitignore\n")
    committed(tree.parent)


def before_the_first_commit(tree: Path) -> None:
    git(tree, "init", "--quiet")


@pytest.mark.parametrize("prepare", [only_a_tarball, of_somebody_elses, before_the_first_commit])
def test_without_a_commit_the_sources_name_it(tree: Path, tmp_path: Path, prepare: object) -> None:
    assert callable(prepare)
    prepare(tree)
    same = tmp_path / "elsewhere"
    shutil.copytree(tree, same)
    first = tag(tree)
    assert re.fullmatch(f"{re.escape(APP_VERSION)}-{DIGEST}", first)
    assert tag(same) == first
    edit(tree, "README.md")
    assert tag(tree) == first
    edit(tree, SOURCE)
    assert tag(tree) != first


def test_without_git_the_sources_name_it(tree: Path, tmp_path: Path) -> None:
    committed(tree)
    assert re.fullmatch(f"{re.escape(APP_VERSION)}-{DIGEST}", tag(tree, PATH=str(tmp_path)))


def test_a_name_that_is_given_is_taken(tree: Path) -> None:
    assert tag(tree, VERSION="20261117") == "20261117"


@pytest.mark.parametrize("given", ["a:b", "-1", "a b", "a" * 129])
def test_a_name_that_no_tag_can_have_is_refused(tree: Path, given: str) -> None:
    done = images(tree, "names", VERSION=given)
    assert done.returncode == 1
    assert f"VERSION={given} " in done.stderr


def publish(tree: Path, tmp_path: Path, edited: str = "") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What `make images REGISTRY=...` does, and what it has pushed."""
    programs, pushed = tmp_path / "programs", tmp_path / "pushed"
    programs.mkdir(exist_ok=True)
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = images(tree, "publish", PATH=path, PUSHED=str(pushed), EDITED=edited)
    return done, pushed.read_text().split() if pushed.exists() else []


def test_what_is_printed_installs_what_was_pushed(tree: Path, tmp_path: Path) -> None:
    name = f"{APP_VERSION}-{committed(tree)}"
    done, pushed = publish(tree, tmp_path)
    assert done.returncode == 0, done.stderr
    references = json.loads(done.stdout)
    assert tag_of(references) == name
    assert sorted(pushed) == sorted(references.values())
    (command,) = (line for line in done.stderr.splitlines() if line.startswith("helm "))
    words = shlex.split(command)
    assert words[:5] == ["helm", "upgrade", "--install", "embedding-operator", "charts/embedding-operator"]
    # Texts, also where Helm would read a number; an upgrade keeps what was set before.
    assert words[words.index("--set-string") + 1] == f"registry={REGISTRY},tag={name}"
    assert "--reset-then-reuse-values" in words


def test_sources_that_change_during_the_build_are_not_pushed(tree: Path, tmp_path: Path) -> None:
    committed(tree)
    done, pushed = publish(tree, tmp_path, edited=str(tree / SOURCE))
    assert done.returncode == 1
    assert "changed while they were built" in done.stderr
    assert pushed == []
