"""A stage that finds no room: which place is full, and what can be done."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from unit.stages.stage_runs import end_of

from embedding_stages.contract import Stage, StageRequest, StageResult
from embedding_stages.runner import StageContext, run

FULL: dict[str, Exception] = {
    "a full volume": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"),
    "a quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "x"),
    "safetensors on a full volume": SafetensorError(
        'Error while serializing: I/O error: Os { code: 28, message: "No space left on device" }'
    ),
    "Rust with a quota": SafetensorError("I/O error: Disk quota exceeded (os error 122)"),
    "numpy on a full volume": OSError("4096 requested and 128 written"),
    "numpy before it writes": OSError("Not enough free space to write 4096 bytes"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_workspace_says_what_can_be_done(tmp_path: Path, name: str) -> None:
    def fails(_context: StageContext) -> StageResult:
        raise FULL[name]

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, "DiskFull", "spec.storage.size")
    assert "raise it if the storage class lets a claim grow" in result["message"]
    assert "None" not in result["message"]


NODE, WORKSPACE = "spec.stages.sdg.resources.requests.ephemeral-storage", "spec.storage.size"


MEMORY = "spec.stages.sdg.resources.limits.memory"


NO_ROOM = os.strerror(errno.ENOSPC)


PLACES: list[tuple[Any, tuple[int, str, str], str]] = [
    # what fails below tmp_path, (exit code, reason, field), what its message names
    (lambda at: OSError(errno.ENOSPC, NO_ROOM, str(at / "workspace/x")), (10, "DiskFull", WORKSPACE), "workspace/x"),
    (lambda at: OSError(errno.ENOSPC, NO_ROOM, str(at / "tmp/x")), (20, "DiskFull", NODE), "tmp/x"),
    (lambda at: OSError(errno.ENOSPC, NO_ROOM, b"/tmp/x"), (20, "DiskFull", NODE), "/tmp/x"),
    (lambda _: OSError(errno.ENOSPC, NO_ROOM, "/dev/shm/x"), (10, "SharedMemoryFull", MEMORY), "/dev/shm/x"),
    (
        lambda _: RuntimeError("unable to write to file </torch_123_4>: No space left on device (28)"),
        (10, "SharedMemoryFull", MEMORY),
        "/dev/shm/torch_123_4:",
    ),
    (
        lambda _: RuntimeError("Error: shared memory segment /dev/shm/nccl-Ab1: No space left on device (28)"),
        (10, "SharedMemoryFull", MEMORY),
        "/dev/shm/nccl-Ab1:",
    ),
    (  # as shutil copies
        lambda at: OSError(errno.ENOSPC, NO_ROOM, "/sources/corpus/x", None, str(at / "workspace/y")),
        (10, "DiskFull", WORKSPACE),
        "workspace/y",
    ),
    (lambda _: OSError(errno.ENOSPC, NO_ROOM, 7), (10, "DiskFull", WORKSPACE), "the workspace is full:"),
]


@pytest.mark.parametrize(("error", "expected", "named"), PLACES)
def test_a_full_place_is_the_one_that_was_written_to(
    tmp_path: Path, error: Any, expected: tuple[int, str, str], named: str
) -> None:
    def fails(_context: StageContext) -> StageResult:
        raise error(tmp_path)

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"], result["field"]) == expected
    assert named in result["message"]


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        ((), (10, "DiskFull", WORKSPACE)),
        (("workspace",), (10, "DiskFull", WORKSPACE)),
        (("workspace", "tmp"), (10, "DiskFull", WORKSPACE)),
        (("tmp",), (20, "DiskFull", NODE)),
        (("/dev/shm",), (10, "SharedMemoryFull", MEMORY)),
    ],
)
def test_where_an_error_names_no_file_it_is_looked_which_place_is_full(
    tmp_path: Path, full: tuple[str, ...], expected: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {str(tmp_path / name) if name != "/dev/shm" else name for name in full}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def fails(context: StageContext) -> StageResult:
        context.free = lambda folder: 0 if str(folder) in places else 1 << 30
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"], result["field"]) == expected


def test_a_disk_so_full_that_python_finds_no_temporary_folder_is_told_as_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for one by writing to each, once in a process."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/full"])

    def fails(context: StageContext) -> StageResult:
        context.free = lambda folder: 0 if str(folder) == "/tmp" else 1 << 30
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"], result["field"]) == (20, "DiskFull", NODE)


@pytest.mark.parametrize(
    ("writable", "expected"), [(True, (20, "DiskFull", NODE)), (False, (20, "InputOutputError", ""))]
)
def test_a_stage_that_gets_no_temporary_folder(
    writable: bool, expected: tuple[int, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python says alike that none has room, and that it may write to none."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/full"])
    monkeypatch.setattr(os, "access", lambda *_: writable)

    def fails(_context: StageContext) -> StageResult:
        raise AssertionError(tempfile.mkdtemp())

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"], result["field"]) == expected
    assert "/tmp" in result["message"] or not writable


def test_a_node_without_room_for_the_result_is_worth_another_attempt(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    request = StageRequest(stage=Stage.SDG, fingerprint="f", attempt=1, revision=1, image="i", settings={}, inputs={})
    env = {"EFT_REQUEST": request.to_json(), "EFT_WORKSPACE": str(tmp_path), "EFT_TERMINATION_LOG": "/dev/full"}
    assert run(Stage.SDG, lambda context: context.result(), env) == 20
    assert "the result could not be written to /dev/full: No space left on device" in capfd.readouterr().err
