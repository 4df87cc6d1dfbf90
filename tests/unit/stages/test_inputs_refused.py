"""Documents that cannot be used, through the entry point of the stage: the field, what was found, and the cure."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.stages.nobody import as_nobody
from unit.stages.test_inputs_corpus import TEXT
from unit.stages.test_inputs_stage import inputs, make_sources

FIELD = "spec.corpus.source.pvc.path"
PDF = b"%PDF-1.7\n\x00\x01\x02"


def files(**contents: bytes) -> Callable[[Path], None]:
    """Writes them into the volume; `_` stands for the dot of a name."""

    def write(volume: Path) -> None:
        for name, content in contents.items():
            path = volume / "docs" / name.replace("_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    return write


def closed(volume: Path) -> None:
    files(accident_md=TEXT.encode())(volume)
    (volume / "docs" / "accident.md").chmod(0o600)


# row -> what lies in the volume, its path in the manifest, include, reason, field, what is said
REFUSED: dict[str, tuple[Callable[[Path], None], str, list[str], str, str, tuple[str, ...]]] = {
    "a folder that is not there": (
        files(a_md=TEXT.encode()),
        "dosc",
        ["**/*.md"],
        "CorpusPathMissing",
        FIELD,
        ("'dosc' does not exist", "correct the path"),
    ),
    "files of another user": (
        closed,
        "docs",
        ["**/*.md"],
        "CorpusForbidden",
        FIELD,
        ("accident.md", "read the documents"),
    ),
    "no file of these names": (
        files(a_md=TEXT.encode()),
        "docs",
        ["*.pdf"],
        "CorpusEmpty",
        "spec.corpus.include",
        ("none of 1 files matches '*.pdf'", "only text is read, so convert PDF"),
    ),
    "a folder of PDFs": (
        files(a_pdf=PDF),
        "docs",
        ["**/*.txt", "**/*.md"],
        "CorpusEmpty",
        "spec.corpus.include",
        ("none of 1 files matches", "only text is read, so convert PDF"),
    ),
    "PDFs that are asked for": (
        files(a_pdf=PDF),
        "docs",
        ["*.pdf"],
        "CorpusUnreadable",
        FIELD,
        ("none of 1 files is text", "convert them to plain text or Markdown in UTF-8"),
    ),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """That another user than root reaches too."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("row", REFUSED)
def test_documents_that_cannot_be_used_are_refused_by_field_and_with_a_cure(folder: Path, row: str) -> None:
    make, path, include, reason, field, told = REFUSED[row]
    make_sources(folder / "sources")
    volume = folder / "sources" / "corpus"
    shutil.rmtree(volume)
    volume.mkdir()
    make(volume)
    corpus = {"kind": "pvc", "path": path, "include": include, "minTextLength": 50, "limits": {}}
    with as_nobody():
        code, result = inputs(folder, corpus=corpus)
    assert (code, result.reason) == (10, reason), result.message
    assert result.field == field
    for text in told:
        assert text in result.message
