"""Documents that are skipped: each is counted, and the first ones are told by name and reason."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from unit.stages.test_inputs_corpus import ALL, POINTER, TEXT, corpus, documents, folder_with

from embedding_stages.errors import printable
from embedding_stages.inputs.corpus import Limits, write_documents


def _link_out(folder: Path) -> None:
    (folder / "passwords.txt").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(TEXT + " secret")
    (folder / "inside").symlink_to(outside)


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s.txt")
    finally:
        os.chdir(here)


SKIPPED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to a file elsewhere": (_link_out, "skippedFiles"),
    "a link to a folder elsewhere": (_linked_folder, "skippedFiles"),
    "a pipe, which would hang a reader": (_fifo, "skippedFiles"),
    "a socket": (_socket, "skippedFiles"),
    "a name that is not UTF-8": (lambda f: Path(os.fsdecode(bytes(f) + b"/\xff.txt")).write_text(TEXT), "skippedFiles"),
    "a file that include leaves out": (lambda f: (f / "a.csv").write_text(TEXT), "skippedFiles"),
    "random bytes": (lambda f: (f / "b.txt").write_bytes(bytes(range(256)) * 4), "skippedBinary"),
    "a NUL in text": (lambda f: (f / "b.txt").write_text(TEXT + "\0"), "skippedBinary"),
    "Latin-1": (lambda f: (f / "b.txt").write_bytes((TEXT + "ä").encode("latin-1")), "skippedBinary"),
    "mostly control characters": (lambda f: (f / "b.txt").write_text("\x01\x02" * 100 + TEXT), "skippedBinary"),
    "mostly what was once not decoded": (lambda f: (f / "b.txt").write_text("\ufffd" * 10 + TEXT), "skippedBinary"),
    "UTF-16 without a mark": (lambda f: (f / "b.txt").write_bytes(TEXT.encode("utf-16-le")), "skippedBinary"),
    "UTF-16 that is cut off": (lambda f: (f / "b.txt").write_bytes(TEXT.encode("utf-16")[:-1]), "skippedBinary"),
    "a folder that no pattern reaches": (lambda f: folder_with(f / "x", "a.csv"), "skippedFiles"),
    "a Git LFS pointer": (lambda f: (f / "b.txt").write_text(POINTER), "skippedPointers"),
    "an empty file": (lambda f: (f / "e.txt").write_text(""), "skippedShort"),
    "a short file": (lambda f: (f / "e.txt").write_text("too short"), "skippedShort"),
    "the text of another file": (lambda f: (f / "twin.txt").write_text(TEXT + "\n\n"), "skippedDuplicates"),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_what_cannot_be_used_is_skipped_and_counted(tmp_path: Path, name: str) -> None:
    prepare, count = SKIPPED[name]
    source = tmp_path / "source"
    source.mkdir()
    (source / "good.txt").write_text(TEXT)
    prepare(source)
    include = ("*.txt", "*.md") if name.startswith("a folder that") else ALL
    found = write_documents(corpus(source, include=include), tmp_path / "out").to_json()
    assert found[count] == 1
    assert found["documents"] == 1
    assert [item["path"] for item in documents(tmp_path / "out")] == ["good.txt"]


def test_the_lost_and_found_folder_of_a_volume_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "source" / "lost+found").mkdir(parents=True)
    (tmp_path / "source" / "lost+found" / "a.txt").write_text(TEXT)
    (tmp_path / "source" / "good.txt").write_text(TEXT + " good")
    counts = write_documents(corpus(tmp_path / "source"), tmp_path / "out")
    assert (counts.documents, counts.skippedFiles) == (1, 1)


def test_what_is_skipped_is_named_with_its_reason(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good.txt").write_text(TEXT)
    (source / "twin.txt").write_text(TEXT)
    (source / "latin.txt").write_bytes(b"\xe4" * 90)
    (source / "a.csv").write_text(TEXT)
    (source / "l.txt").symlink_to("/etc/passwd")
    for number in range(7):
        (source / f"short{number}.txt").write_text("short")
    assert write_documents(corpus(source), tmp_path / "out").told() == {
        "skippedFiles": ["'l.txt': a link or no regular file", "'a.csv': no pattern of include matches"],
        "skippedBinary": ["'latin.txt': is not UTF-8 at byte 0"],
        "skippedShort": [f"'short{number}.txt': 5 characters" for number in range(5)],
        "skippedDuplicates": ["'twin.txt': the text of 'good.txt'"],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docs/保証.md", "'docs/保証.md'"),
        ("a\nb\u202e\udcff", r"'a\nb\u202e\udcff'"),
        ("x" * 20 + "end.md", "…'xxxend.md'"),
    ],
)
def test_a_name_is_told_in_quotes_on_one_line(text: str, expected: str) -> None:
    assert printable(text, 9 if text.startswith("x") else 80, end=True) == expected


def test_names_of_skipped_files_fit_a_termination_message(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good.txt").write_text(TEXT)
    for number in range(9):
        (source / f"{number}{'ក' * 70}\n.txt").write_text("short")
        (source / f"{number}{'x' * 200}.csv").write_text("short")
    told = write_documents(corpus(source), tmp_path / "out").told()
    assert len(json.dumps(told, ensure_ascii=False).encode()) < 700
    assert all(told.values())


def test_a_large_file_without_a_suffix_is_left_out(tmp_path: Path) -> None:
    """It is read only because it might be text; a program beside the documents must not end the run."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text(TEXT)
    (source / "README").write_text(TEXT + "!")
    (source / "program").write_text(TEXT * 9)
    limits = Limits(maxFileBytes=2 * len(TEXT))
    chosen = replace(corpus(source), include=("**/*.txt", "**/+([!.])"), limits=limits)
    counts = write_documents(chosen, tmp_path / "out")
    assert (counts.documents, counts.skippedFiles) == (2, 1)
