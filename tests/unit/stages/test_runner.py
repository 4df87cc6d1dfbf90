"""The frame around every stage: secrets, failures and what is left in the workspace."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from embedding_stages.artefacts import Described, Workspace
from embedding_stages.contract import Artefact, Stage, StageRequest, StageResult, parse_progress
from embedding_stages.runner import StageContext, run

Work = Callable[[StageContext], StageResult]


def end_of(tmp_path: Path, work: Work, *, stage: Stage = Stage.SDG, fingerprint: str = "f") -> dict[str, Any]:
    """Result of a stage that does `work`, and its `exitCode`."""
    request = StageRequest(
        stage=stage, fingerprint=fingerprint, attempt=1, revision=1, image="i", settings={}, inputs={}
    )
    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path / "workspace"),
        "EFT_SECRETS": str(tmp_path / "secrets"),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(stage, work, env)
    return {**json.loads((tmp_path / "log").read_text()), "exitCode": code}


def with_secret(context: StageContext) -> StageResult:
    return context.result(message=repr(context.secret("openai", field="spec.the.field")))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"sk-abc", "Completed"),
        (b"\n sk-abc \r\n", "Completed"),
        (b"", "SecretInvalid"),
        (b"  \n", "SecretInvalid"),
        (b"sk-abc\nsk-def", "SecretInvalid"),
        (b"sk-abc sk-def", "SecretInvalid"),
        (b"sk-abc\x00", "SecretInvalid"),
        (b"sk-abc\xff", "SecretInvalid"),
        ("sk-abc\u2013".encode(), "SecretInvalid"),
    ],
)
def test_a_secret_is_one_word_of_printable_ascii(
    tmp_path: Path, value: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secrets" / "openai").mkdir(parents=True)
    (tmp_path / "secrets" / "openai" / "token").write_bytes(value)
    result = end_of(tmp_path, with_secret)
    assert result["reason"] == reason
    if reason == "Completed":
        assert result["message"] == "'sk-abc'"
        return
    assert (result["exitCode"], result["field"]) == (10, "spec.the.field")
    output = capfd.readouterr()
    assert "sk-" not in output.out + output.err + result["message"]


def test_a_secret_that_the_manifest_does_not_name_is_none(tmp_path: Path) -> None:
    assert end_of(tmp_path, with_secret)["message"] == "None"


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


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (OSError(errno.EACCES, "denied", "/workspace/x"), 10, "PermissionDenied"),
        (OSError(errno.EIO, "broken", "/workspace/x"), 20, "InputOutputError"),
        (SafetensorError("Error while deserializing header"), 1, "StageCrashed"),
    ],
)
def test_other_faults_stay_what_they_are(tmp_path: Path, error: Exception, code: int, reason: str) -> None:
    def fails(_context: StageContext) -> StageResult:
        raise error

    result = end_of(tmp_path, fails)
    assert (result["exitCode"], result["reason"]) == (code, reason)


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


def context_at(times: list[float]) -> StageContext:
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=2, revision=1, image="i", settings={}, inputs={}
    )
    left = iter(times)
    nowhere = Path("/nowhere")
    return StageContext(
        request=request, workspace=Workspace(nowhere), sources=nowhere, secrets=nowhere, clock=lambda: next(left)
    )


@pytest.mark.parametrize(
    ("steps", "eta"),
    [
        ([(50, 1), (60, 2), (70, 3)], 70),  # of ten; loading took 50 s and will not come again
        ([(50, 1)], None),
        ([(60, 7), (70, 8)], 20),
        ([(60, 7)], None),
        ([(60, 10)], 0),
        ([(50, 0), (60, 1)], 90),
        ([(50, 1), (51, 2), (60, 3)], 35),  # the second is not written, and counts
        ([(1, 5), *((3 + 2 * n, 6) for n in range(30)), (70, 7), (80, 8)], 77),  # slower and slower
        ([(0, 1), (2, 6), *((12 + 10 * n, 7) for n in range(31))], 930),  # long ago five came of a cache
    ],
    ids=[
        "from the start",
        "the first",
        "resumed",
        "resumed, the first",
        "the last",
        "from none",
        "often",
        "at the pace of all that is remembered",
        "what came of a cache is forgotten",
    ],
)
def test_the_time_to_go_is_told_by_the_steps_of_this_attempt(
    steps: list[tuple[float, int]], eta: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    context = context_at([time for time, _ in steps])
    for _, step in steps:
        context.progress(step, 10)
    said = parse_progress(capsys.readouterr().out)
    assert said is not None
    assert (said.step, said.eta_seconds) == (steps[-1][1], eta)


def test_half_a_character_ends_neither_a_log_nor_a_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(context: StageContext) -> StageResult:
        context.log("told", result="a \ud83d")
        raise ValueError("b \ud83d")

    result = end_of(tmp_path, work)
    assert (result["reason"], result["message"]) == ("StageCrashed", "ValueError: b \\ud83d")
    assert json.loads(capfd.readouterr().out.splitlines()[0])["result"] == "a \ud83d"


@pytest.mark.parametrize(
    ("told", "loss", "rate", "unit"),
    [
        ({}, None, 2.0, "steps"),
        ({"loss": 0.512345678}, 0.51235, 2.0, "steps"),
        ({"loss": 0.5, "tokens_per_second": 81_234.56}, 0.5, 81_235, "tokens"),
        ({"loss": float("nan"), "tokens_per_second": float("inf")}, None, None, "tokens"),
    ],
)
def test_progress_tells_loss_and_pace(
    told: dict[str, float], loss: float | None, rate: float | None, unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    context = context_at([0, 3])
    for step in (1, 7):
        context.progress(step, 10, **told)
    said = parse_progress(capsys.readouterr().out)
    assert said is not None
    assert (said.loss, said.rate, said.unit) == (loss, rate, unit)


def test_an_older_stages_progress_is_read_as_before() -> None:
    said = parse_progress('{"progress":{"percent":50,"step":1,"totalSteps":2}}')
    assert said is not None
    assert (said.percent, said.loss, said.rate, said.unit, said.llm_tokens) == (50, None, None, "", 0)


def test_tokens_are_told_with_progress_between_steps_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = [0]

    def work(context: StageContext) -> StageResult:
        context.llm_tokens = lambda: used[0]
        context.tell_tokens()  # nothing new
        used[0] = 10
        context.tell_tokens()
        used[0] = 20
        context.progress(1, 1)
        used[0] = 30
        raise OSError(errno.EIO, "broken")

    assert end_of(tmp_path, work)["llmTokens"] == 30
    lines = [line for line in capsys.readouterr().out.splitlines() if '"progress"' in line]
    assert [(said.llm_tokens, said.percent) for line in lines if (said := parse_progress(line))] == [(10, 0), (20, 100)]


def test_what_an_earlier_attempt_paid_is_not_paid_again_by_who_finds_its_work(tmp_path: Path) -> None:
    def work(context: StageContext) -> StageResult:
        context.llm_tokens = lambda: 30
        (context.folder(Artefact.PAIRS) / "pairs.jsonl").write_text("{}")
        return context.result()

    assert end_of(tmp_path, work)["llmTokens"] == 30
    assert "llmTokens" not in end_of(tmp_path, work)
