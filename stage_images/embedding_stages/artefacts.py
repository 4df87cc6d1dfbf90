"""Artefacts on disk: written to a partial folder, described by manifest.json, then renamed in one step.

<workspace>/<stage>/<fingerprint>.partial/    while the stage works; a later attempt continues here; one that was left
                                              an hour ago is removed when other work of the stage is published
<workspace>/<stage>/<fingerprint>/            complete, with manifest.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.contract import (
    MANIFEST_FILE,
    SCHEMA,
    Artefact,
    ArtefactRef,
    StageRequest,
    StageResult,
    fingerprint_of,
)
from embedding_stages.errors import StageError

_CHUNK_BYTES = 1 << 20
# Of what is left in the workspace. The group may write, so that a pod with another user of that group can remove it:
# OpenShift gives each namespace users of its own, and may give it others later.
FOLDER_MODE = 0o775
FILE_MODE = 0o664


def list_files(folder: Path) -> list[Path]:
    """Regular files below `folder`, sorted by relative path. Links are refused: they could lead outside.

    Raises StageError `ArtefactUnsafe` for a link or a special file, and OSError for a folder that cannot be listed: its
    files would seem to be gone.
    """
    found: list[Path] = []
    for root, dirs, names in _walk(folder):
        dirs.sort()
        for name in [*dirs, *names]:
            path = Path(root, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StageError("ArtefactUnsafe", f"{path} is a link or a special file, not a regular file")
        found.extend(Path(root, name) for name in names)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, which by itself passes over a folder that it cannot list."""

    def cannot_be_listed(error: OSError) -> None:
        raise error

    return os.walk(folder, onerror=cannot_be_listed)


_ARTEFACTS: Final = frozenset(artefact.value for artefact in Artefact)
_ABANDONED_S: Final = 3600.0  # a stage that works writes more often


def seal(folder: Path) -> None:
    """Modes for whoever reads or removes it, who may be another user of the same group (see FOLDER_MODE); on disk.

    Another user's file has its mode already, and only its owner may change that.
    """
    for root, _, names in _walk(folder):
        _allow(Path(root), FOLDER_MODE)
        for name in names:
            path = Path(root, name)
            _allow(path, FILE_MODE)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _allow(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def sha256_file(path: Path) -> str:
    """64 hex digits of the file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """{relative path: {size in bytes, sha256}} of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in list_files(folder)
        if path.name != MANIFEST_FILE
    }


def digest_of_files(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest of an artefact from the description of its files."""
    return "sha256:" + fingerprint_of(files)


def digest_of_folder(folder: Path) -> str:
    """The digest of an artefact as it lies on disk now (reads every byte)."""
    return digest_of_files(describe(folder))


@dataclass(frozen=True, slots=True)
class Described:
    """A folder whose files have been read and hashed in this run, so that nobody need read them again."""

    folder: Path
    files: Mapping[str, Mapping[str, Any]]  # as `describe` gives them

    @classmethod
    def read(cls, folder: Path) -> Described:
        """Reads every byte below `folder`."""
        return cls(folder, describe(folder))

    @classmethod
    def intact(cls, folder: Path, digest: str) -> Described | None:
        """The folder, when it is there and holds what `digest` says and nothing else; a link in it is damage."""
        try:
            found = cls.read(folder) if folder.is_dir() else None
        except StageError:
            return None
        return found if found is not None and found.digest == digest else None

    @property
    def digest(self) -> str:
        return digest_of_files(self.files)


class Workspace:
    """The volume that a resource's stages share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def final(self, request: StageRequest) -> Path:
        return self.root / request.stage / request.fingerprint

    def partial(self, request: StageRequest) -> Path:
        return self.root / request.stage / f"{request.fingerprint}.partial"

    def finished(self, request: StageRequest) -> StageResult | None:
        """The result of an earlier attempt that ended after its rename but before it could answer.

        Raises OSError where the volume does not give it: `publish` removes what was not found here.
        """
        manifest = self.final(request) / MANIFEST_FILE
        try:
            raw = json.loads(manifest.read_text())
            result = StageResult.from_json(json.dumps(raw["result"]))
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        for ref in result.artefacts.values():
            if Described.intact(self.root / ref.path, ref.digest) is None:
                return None
        return result

    def publish(
        self, request: StageRequest, result: StageResult, extra: Iterable[tuple[Artefact, Described]] = ()
    ) -> StageResult:
        """Turn the partial folder into the final one and return the result with its artefacts filled in.

        Each sub-folder of the partial folder named like an `Artefact` becomes that artefact. What else lies there
        (caches, resume points) goes last: whoever is killed before has lost nothing. `extra` names artefacts that
        already lie elsewhere in the workspace (content-addressed inputs); they are not read again.

        Where another pod has published this work meanwhile, that is the result: a lost node may still write.
        """
        partial, final = self.partial(request), self.final(request)
        refs: dict[Artefact, ArtefactRef] = {}
        files: dict[str, Any] = {}
        for child in sorted(partial.iterdir()):
            if child.name not in _ARTEFACTS:
                continue
            described = describe(child)
            seal(child)
            path = (final / child.name).relative_to(self.root).as_posix()
            refs[Artefact(child.name)] = ArtefactRef(path=path, digest=digest_of_files(described))
            files[child.name] = described
        for artefact, kept in extra:
            refs[artefact] = ArtefactRef(path=kept.folder.relative_to(self.root).as_posix(), digest=kept.digest)
            files[artefact] = dict(kept.files)
        complete = StageResult(
            stage=result.stage,
            fingerprint=result.fingerprint,
            reason=result.reason,
            message=result.message,
            artefacts=refs,
            metrics=result.metrics,
            counts=result.counts,
            details=result.details,
        )
        self._write_manifest(partial, request, complete, files)
        _allow(partial, FOLDER_MODE)
        if final.exists():
            if (earlier := self.finished(request)) is not None:
                shutil.rmtree(partial, ignore_errors=True)
                self.tidy(request)
                return earlier
            shutil.rmtree(final)  # incomplete, or damaged
        partial.rename(final)
        _sync_folder(final.parent)
        self.tidy(request)
        return complete

    def tidy(self, request: StageRequest) -> None:
        """Remove what only the way to the published folder needed, and beginnings of other work. What cannot be removed
        stays: the work is done.
        """
        final = self.final(request)
        with suppress(OSError):
            for child in final.iterdir():
                if child.name not in (*_ARTEFACTS, MANIFEST_FILE):
                    shutil.rmtree(child, ignore_errors=True) if child.is_dir() else child.unlink(missing_ok=True)
            self._remove_abandoned(final)

    def open(self, request: StageRequest, name: Artefact, *, checked: bool = False) -> Path:
        """The folder of an input; its content is read and compared, unless another process has `checked` it.

        Raises StageError `ArtefactMissing` or `ArtefactDamaged`, which say which stage to run again.
        """
        ref = request.inputs.get(name)
        if ref is None:
            raise StageError("ArtefactMissing", f"stage {request.stage} was started without its input {name}")
        folder = self.root / ref.path
        if not folder.is_dir():
            raise StageError("ArtefactMissing", f"input {name} is gone from the workspace: {ref.path}")
        if checked:
            return folder
        actual = digest_of_folder(folder)
        if actual != ref.digest:
            raise StageError(
                "ArtefactDamaged",
                f"input {name} at {ref.path} has digest {actual}, expected {ref.digest}: "
                "something changed the workspace after the stage that wrote it",
            )
        return folder

    def _remove_abandoned(self, final: Path) -> None:
        """What other settings began and did not end. The workspace is one resource's alone, and the operator starts a
        stage's Job when its others are gone; but this one may be the late pod of a lost node, so what has changed of
        late stays. What is left now goes after a later attempt. Times are those of the volume.
        """
        now = (final / MANIFEST_FILE).stat().st_mtime
        for folder in final.parent.glob("*.partial"):
            with suppress(OSError):  # somebody works there
                if now - _last_change(folder) >= _ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def _write_manifest(
        self, partial: Path, request: StageRequest, result: StageResult, files: Mapping[str, Any]
    ) -> None:
        manifest = {
            "schema": SCHEMA,
            "stage": request.stage,
            "fingerprint": request.fingerprint,
            "image": request.image,
            "settings": dict(request.settings),
            "inputs": {name: ref.to_json() for name, ref in request.inputs.items()},
            "files": dict(files),
            "result": json.loads(result.to_json()),
        }
        path = partial / MANIFEST_FILE
        with path.open("w") as stream:
            json.dump(manifest, stream, indent=1, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        _allow(path, FILE_MODE)


def _last_change(folder: Path) -> float:
    """Of anything in it, Unix time."""
    return max(Path(root, name).lstat().st_mtime for root, _, names in _walk(folder) for name in (".", *names))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
