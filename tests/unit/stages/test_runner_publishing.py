"""A stage that is killed while it publishes, or is late: nothing that was paid for is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stages.stage_runs import end_of

from embedding_stages.artefacts import Described
from embedding_stages.contract import Artefact, Stage, StageResult
from embedding_stages.runner import StageContext


class Killed(BaseException):
    """By SIGKILL: nothing more is done."""


@pytest.mark.parametrize("step", ["seal", "_sync_folder", "shutil.rmtree"])
@pytest.mark.parametrize("damaged", [False, True], ids=["the first time", "over a damaged folder"])
def test_a_kill_while_publishing_costs_nothing_that_was_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, *, damaged: bool
) -> None:
    paid = 0

    def work(context: StageContext) -> StageResult:
        nonlocal paid
        ledger = context.scratch("llm") / "answers.jsonl"
        if not ledger.exists():
            paid += 1
            ledger.write_text("answer\n")
        (context.folder(Artefact.PAIRS) / "pairs.jsonl").write_text("{}\n")
        return context.result()

    def kill(*_: object, **__: object) -> None:
        raise Killed

    final = tmp_path / "workspace" / "sdg" / "f"
    if damaged:
        (final / Artefact.PAIRS).mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(f"embedding_stages.artefacts.{step}", kill)
        with pytest.raises(Killed):
            end_of(tmp_path, work)
    assert end_of(tmp_path, work)["exitCode"] == 0
    assert paid == 1
    assert sorted(path.name for path in final.iterdir()) == ["manifest.json", "pairs"]
    assert [path.name for path in final.parent.iterdir()] == ["f"]


def test_a_late_pod_leaves_what_its_successor_published(tmp_path: Path) -> None:
    """One on a lost node that still writes to the volume, while another has done its work."""
    published: dict[str, Any] = {}

    def next_one(context: StageContext) -> StageResult:
        (context.folder(Artefact.CHECKPOINT) / "weights").write_text("of the next one")
        return context.result()

    def late_one(context: StageContext) -> StageResult:
        checkpoint = context.folder(Artefact.CHECKPOINT)
        published.update(end_of(tmp_path, next_one, stage=Stage.FINETUNE))
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "weights").write_text("of the late one")
        return context.result()

    late = end_of(tmp_path, late_one, stage=Stage.FINETUNE)
    ref = published["artefacts"]["checkpoint"]
    assert late["artefacts"]["checkpoint"] == ref
    assert Described.intact(tmp_path / "workspace" / ref["path"], ref["digest"]) is not None
    assert [path.name for path in (tmp_path / "workspace" / "finetune").iterdir()] == ["f"]


def test_a_late_pod_leaves_what_a_later_revision_has_begun(tmp_path: Path) -> None:
    begun = tmp_path / "workspace" / "sdg" / "new.partial" / "scratch-llm"

    def late_one(context: StageContext) -> StageResult:
        (context.folder(Artefact.PAIRS) / "pairs.jsonl").write_text("{}\n")
        begun.mkdir(parents=True)
        (begun / "answers.jsonl").write_text("paid for\n")
        return context.result()

    end_of(tmp_path, late_one, fingerprint="old")
    assert (begun / "answers.jsonl").read_text() == "paid for\n"


def an_hour_ago(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))


def test_a_published_stage_leaves_no_beginnings_of_its_own(tmp_path: Path) -> None:
    def interrupted(context: StageContext) -> StageResult:
        (context.scratch("llm") / "d.json").write_text("{}")
        raise OSError(errno.EIO, "broken")

    def finished(context: StageContext) -> StageResult:
        (context.folder(Artefact.PAIRS) / "pairs.jsonl").write_text("{}")
        return context.result()

    root = tmp_path / "workspace"
    end_of(tmp_path, interrupted, fingerprint="old")
    end_of(tmp_path, interrupted, fingerprint="new")
    an_hour_ago(root)
    end_of(tmp_path, interrupted, stage=Stage.PREP, fingerprint="other")
    end_of(tmp_path, finished, fingerprint="before")
    assert sorted(path.name for path in (root / "sdg").iterdir()) == ["before"]
    assert [path.name for path in (root / "prep").iterdir()] == ["other.partial"], "another stage may resume"
    end_of(tmp_path, finished, fingerprint="new")
    assert sorted(path.name for path in (root / "sdg").iterdir()) == ["before", "new"], "results stay, to be reused"


@pytest.mark.parametrize("damage", [lambda f: f.symlink_to("/etc/hostname"), lambda f: f.write_text("more")])
def test_damage_to_what_an_earlier_attempt_published_is_mended(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    def finished(context: StageContext) -> StageResult:
        (context.folder(Artefact.PAIRS) / "pairs.jsonl").write_text("{}\n")
        return context.result()

    end_of(tmp_path, finished)
    damaged = tmp_path / "workspace" / "sdg" / "f" / Artefact.PAIRS / "other"
    damage(damaged)
    assert end_of(tmp_path, finished)["exitCode"] == 0
    assert not os.path.lexists(damaged)
