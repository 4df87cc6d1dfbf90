"""Content-addressed folders of the workspace: <workspace>/inputs/<artefact>-<first 16 digits of its digest>/.

They outlive runs, so that a spec edit does not copy a model again.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedding_stages.artefacts import Described, digest_of_files, seal
from embedding_stages.contract import Artefact, Stage
from embedding_stages.errors import Transient

_FOLDER = Stage.INPUTS.value


class Store:
    """The content-addressed inputs of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.root = workspace / _FOLDER

    def remove_drafts(self) -> None:
        """What a process that was killed could not remove. Only for the one Job that writes here."""
        for draft in self.root.glob("*.draft"):
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)

    @contextmanager
    def draft(self, artefact: Artefact) -> Iterator[Path]:
        """A new folder to fill; removed when `keep` has not renamed it."""
        folder = self.root / f"{artefact.value}-{uuid.uuid4().hex}.draft"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def find(self, artefact: Artefact, files: Mapping[str, Any]) -> Described | None:
        """The folder with exactly these files ({relative path: {size, sha256}}), when it is there and intact."""
        digest = digest_of_files(files)
        return Described.intact(self._folder(artefact, digest), digest)

    def recall(self, name: str, digest: str) -> Described | None:
        """The folder with this name and content, when it is there and intact."""
        return Described.intact(self.root / Path(name).name, digest)

    def keep(self, artefact: Artefact, draft: Path, *, expected: str | None = None) -> Described:
        """Rename a filled draft to its name by content; an equal folder that is there already stays.

        Raises Transient `SourceChanged` when `expected` is given and the content has another digest.
        """
        filled = Described.read(draft)
        digest = filled.digest
        if expected is not None and digest != expected:
            raise Transient("SourceChanged", f"the {artefact.value} changed while it was copied")
        seal(draft)
        folder = self._folder(artefact, digest)
        if folder.is_dir():
            kept = Described.intact(folder, digest)
            if kept is not None:
                return kept
            shutil.rmtree(folder)  # damaged: replace it
        draft.rename(folder)
        return Described(folder, filled.files)

    def _folder(self, artefact: Artefact, digest: str) -> Path:
        return self.root / f"{artefact.value}-{digest.removeprefix('sha256:')[:16]}"
