"""What the machine does not give for a moment is no fault of what lies on the volume: nothing is removed for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from unit.stages.test_finetune_training import made, trainer_of
from unit.stages.test_inputs_corpus import TEXT, corpus
from unit.stages.test_runner import end_of

from embedding_stages import full_disk
from embedding_stages.artefacts import describe, seal
from embedding_stages.contract import Artefact, ExitCode, Stage, StageRequest, StageResult
from embedding_stages.encoder import backbone, load
from embedding_stages.encoder.packed import check
from embedding_stages.errors import BadInput, Transient, is_absent
from embedding_stages.finetune import launch, resume
from embedding_stages.finetune.world import lost_peers
from embedding_stages.inputs.corpus import write_documents
from embedding_stages.inputs.labelled import LabelledSet
from embedding_stages.runner import StageContext
from embedding_stages.sdg.ledger import Ledger
from embedding_stages.sdg.openai_client import ChatClient

BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def not_given(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, path: Path) -> Iterator[None]:
    """`owner.name` finds the volume broken at the path, as long as this lasts."""
    real = getattr(owner, name)

    def call(at: Any, *arguments: Any, **named: Any) -> Any:
        if Path(at) == path:
            raise BROKEN
        return real(at, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, call)
        yield


@pytest.mark.parametrize(
    ("error", "absent"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), True),
        (NotADirectoryError(errno.ENOTDIR, "x"), True),
        (FileNotFoundError("a library's words for whatever it met"), False),
        (BROKEN, False),
        (PermissionError(errno.EACCES, "x"), False),
    ],
    ids=repr,
)
def test_what_is_not_there(error: OSError, absent: bool) -> None:
    assert is_absent(error) is absent


def test_a_folder_that_cannot_be_listed_does_not_seem_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("x")
    for look in (describe, seal):
        with not_given(monkeypatch, os, "scandir", tmp_path / "qrels"), pytest.raises(OSError, match="error"):
            look(tmp_path)


def test_a_stage_that_cannot_read_its_manifest_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = []

    def work(context: StageContext) -> StageResult:
        times.append(1)
        context.folder(Artefact.PAIRS).joinpath("pairs.jsonl").write_text(f"{len(times)}")
        return context.result()

    assert end_of(tmp_path, work)["exitCode"] == 0
    manifest = tmp_path / "workspace" / "sdg" / "f" / "manifest.json"
    with not_given(monkeypatch, Path, "read_text", manifest):
        ended = end_of(tmp_path, work)
    assert (ended["exitCode"], ended["reason"]) == (ExitCode.TRANSIENT, "InputOutputError")
    assert end_of(tmp_path, work)["exitCode"] == 0
    assert len(times) == 1, "the work of the first attempt was found"


def test_another_users_file_that_has_its_mode_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    seal(tmp_path)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "chmod", refused)
    monkeypatch.setattr(os, "chmod", refused)
    seal(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_resume_point_that_is_not_given_ends_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trainer = trainer_of(made(tmp_path / "workspace") / "bert")
    resume.save(tmp_path / "resume", trainer, resume.Progressed(3, {"seed": 1}, 4, [0.5, 0.4, 0.3]))
    owner, call = (Path, "read_bytes") if name == "state.json" else (resume, "read_header")
    with (
        not_given(monkeypatch, owner, call, tmp_path / "resume" / "step-00000003" / name),
        pytest.raises(OSError, match="error"),
    ):
        resume.load(tmp_path / "resume", trainer, {"seed": 1})
    assert resume.load(tmp_path / "resume", trainer, {"seed": 1}) is not None


def test_shared_memory_without_room_is_no_lost_worker() -> None:
    """In NCCL's words, and of its type."""
    said = "NCCL error: Error while creating shared memory segment /dev/shm/nccl-x: No space left on device"
    with pytest.raises(RuntimeError) as caught, lost_peers():
        raise dist.DistBackendError(said)
    told = full_disk.told_as(caught.value, Stage.FINETUNE, Path("/workspace"))
    assert (told.exit_code, told.reason) == (ExitCode.BAD_INPUT, "SharedMemoryFull")


def test_a_launcher_that_can_start_no_process_is_tried_again() -> None:
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=1, revision=1, image="i", settings={}, inputs={}
    )
    error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    code, result = launch._failed_itself(request, error, Path("/nowhere"))
    assert (code, result.reason) == (ExitCode.TRANSIENT, "InputOutputError")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("No such file or directory: model.safetensors"),  # safetensors without a file descriptor
        RuntimeError("unable to open file <model.safetensors> in read-only mode: Input/output error (5)"),
        RuntimeError("unable to mmap 4096 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    ],
    ids=repr,
)
def test_weights_that_cannot_be_opened_are_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = made(tmp_path) / "bert"

    class Fails:
        def load(self, *_: Any) -> None:
            raise error

    monkeypatch.setattr(backbone, "_quiet", lambda: None)
    with pytest.raises(OSError, match="file") as caught:
        backbone._load_module(folder, Fails(), {}, torch.float32)  # type: ignore[arg-type]
    assert not isinstance(caught.value, BadInput)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (BROKEN, False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (FileNotFoundError(errno.ENOENT, "gcc"), True),
        (RuntimeError("PTX was compiled with another compiler"), True),
    ],
    ids=repr,
)
def test_kernels_that_cannot_be_built_for_the_moment_do_not_make_the_run_a_slower_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, passes: bool
) -> None:
    from embedding_stages.encoder.description import description_of

    folder = made(tmp_path) / "bert"
    description = description_of(folder)
    kind = description.family.packed_model()

    def errors(*_: Any) -> Iterator[float]:
        raise error
        yield 0.0

    monkeypatch.setattr(kind, "shape_of", lambda *_: None)  # so small a model has no packs
    monkeypatch.setattr(kind, "kernel_errors", errors)
    obstacle: Callable[[], str | None] = lambda: load._obstacle(  # noqa: E731
        folder, description, torch.device("cpu"), torch.float32
    )
    if passes:
        assert "the kernels cannot be built" in str(obstacle())
    else:
        with pytest.raises(type(error)):
            obstacle()


def test_a_check_that_finds_no_number_is_not_passed() -> None:
    nothing, one = torch.tensor([float("nan")]), torch.ones(1)
    assert not check.works([max(check._error(one, one), check._error(nothing, one))])


def test_documents_that_are_removed_while_they_are_read_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.txt", "b.txt"):
        (source / name).write_text(f"{TEXT} {name}")
    from embedding_stages.inputs import corpus as module

    real = module._list

    def removed(*arguments: Any) -> Any:
        found = real(*arguments)
        (source / "b.txt").unlink()
        return found

    monkeypatch.setattr(module, "_list", removed)
    with pytest.raises(Transient) as caught:
        write_documents(corpus(source), tmp_path / "out")
    assert caught.value.reason == "SourceChanged"
    assert "b.txt" in caught.value.message


def test_a_labelled_set_that_is_removed_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    labelled = LabelledSet(tmp_path / "set", "spec.evaluation.labelled")
    with pytest.raises(BadInput, match="is missing"):
        labelled.write(tmp_path / "out")
    (tmp_path / "set").rmdir()
    with pytest.raises(Transient) as caught:
        labelled.write(tmp_path / "out")
    assert caught.value.reason == "SourceChanged"


def test_a_bundle_that_cannot_be_read_for_the_moment_is_not_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_stages.sdg import openai_client

    def refused(**_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(openai_client, "make_opener", refused)
    with closing(Ledger(tmp_path / "ledger")) as ledger, pytest.raises(OSError, match="open files") as caught:
        ChatClient("http://127.0.0.1:9/v1", "m", None, ledger, authorities=tmp_path / "ca.crt")
    assert not isinstance(caught.value, BadInput)
