"""Documents: what is read, what is skipped and counted, what is refused."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.stages.nobody import as_nobody

from embedding_stages.contract.settings import DEFAULT_INCLUDE
from embedding_stages.errors import BadInput
from embedding_stages.inputs.corpus import Corpus, Limits, document_id, write_documents

TEXT = "A document that is long enough to be used, because it has more than fifty characters."


ALL = ("**/*.txt", "**/*.md")


def corpus(mount: Path, *, kind: str = "pvc", path: str = "", include: tuple[str, ...] = ALL, **limits: int) -> Corpus:
    return Corpus(
        mount=mount,
        kind=kind,
        path=path,
        include=include,
        min_text_length=50,
        limits=Limits.of(limits),
    )


def documents(target: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_documents_are_sorted_and_named_by_their_path(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "z.txt").write_text(TEXT + " z")
    (source / "sub" / "a.md").write_text(TEXT + " a")
    counts = write_documents(corpus(source), tmp_path / "out")
    assert [(item["path"], item["id"]) for item in documents(tmp_path / "out")] == [
        ("sub/a.md", document_id("sub/a.md")),
        ("z.txt", document_id("z.txt")),
    ]
    assert (counts.documents, counts.documentBytes) == (2, 2 * len(TEXT) + 4)


def folder_with(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).write_text(TEXT + folder.name)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user than root reaches too; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_documents_that_may_not_be_read_are_named(open_folder: Path) -> None:
    (open_folder / "source").mkdir()
    (open_folder / "source" / "a.txt").write_text(TEXT)
    (open_folder / "source" / "a.txt").chmod(0)
    with as_nobody(), pytest.raises(BadInput) as caught:
        write_documents(corpus(open_folder / "source"), open_folder / "out")
    assert caught.value.reason == "CorpusForbidden"


def test_a_folder_that_no_pattern_reaches_need_not_be_readable(open_folder: Path) -> None:
    source = open_folder / "source"
    source.mkdir()
    (source / "a.md").write_text(TEXT)
    folder_with(source / ".Trash-1000", "README.md")
    (source / ".Trash-1000").chmod(0)
    with as_nobody(), pytest.raises(BadInput) as caught:
        write_documents(corpus(source), open_folder / "out")
    assert "spec.corpus.include ('!name/' leaves a folder out)" in caught.value.message
    with as_nobody():
        write_documents(corpus(source, include=("**/*.md", "!.*/")), open_folder / "out")
        counts = write_documents(corpus(source, include=("*.md",)), open_folder / "out")
    assert (counts.documents, counts.skippedFiles) == (1, 1)
    assert counts.told() == {"skippedFiles": ["'.Trash-1000/': no pattern of include reaches this folder"]}


def test_the_link_that_git_sync_swaps_is_followed_inside_the_volume(tmp_path: Path) -> None:
    checkout = tmp_path / "source" / ".worktrees" / "0a1b"
    (checkout / "docs").mkdir(parents=True)
    (checkout / "docs" / "a.md").write_text(TEXT)
    (tmp_path / "source" / "current").symlink_to("./.worktrees/0a1b")
    for path in ("current", "current/docs"):
        write_documents(corpus(tmp_path / "source", path=path), tmp_path / "out")
        assert len(documents(tmp_path / "out")) == 1
    write_documents(corpus(tmp_path / "source", path="current"), tmp_path / "out")
    assert documents(tmp_path / "out")[0]["path"] == "docs/a.md", "named by its place, not by the commit"


@pytest.mark.parametrize(
    ("include", "warned"),
    [
        (("**/*.md", "**/*.{rst,adoc}"), ["pattern '**/*.{rst,adoc}' of spec.corpus.include matches nothing"]),
        (("**/*.md",), []),
        (DEFAULT_INCLUDE, []),
    ],
)
def test_a_pattern_that_matched_nothing_is_told(tmp_path: Path, include: tuple[str, ...], warned: list[str]) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.md").write_text(TEXT)
    counts = write_documents(corpus(tmp_path / "source", include=include), tmp_path / "out")
    assert [warning.partition(";")[0] for warning in counts.warnings] == warned


def test_pointers_among_documents_are_told(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.md").write_text(TEXT)
    (tmp_path / "source" / "b.md").write_text(POINTER)
    (tmp_path / "source" / "c.md").write_text(f"A pointer of Git LFS looks like this, line by line:\n{POINTER}")
    counts = write_documents(corpus(tmp_path / "source"), tmp_path / "out")
    assert (counts.documents, counts.skippedPointers) == (2, 1)
    assert "git lfs pull" in counts.warnings[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"])
def test_a_document_is_read_as_its_byte_order_mark_says_and_cleaned(tmp_path: Path, encoding: str) -> None:
    """In Khmer every sixth character is a zero-width space between two words."""
    khmer = "ខ្ញុំ\u200bសរសេរ\u200bឯកសារ\u200b" * 5
    text = ("\ufeff" if encoding.endswith("be") else "") + TEXT + f"\u202e\x1b e\u0301\r\n{khmer}end\U000e0041"
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_bytes(text.encode(encoding))
    write_documents(corpus(source), tmp_path / "out")
    assert documents(tmp_path / "out")[0]["text"] == f"{TEXT} é\n{khmer}end"


def test_a_glob_that_means_nothing_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text(TEXT)
    with pytest.raises(BadInput) as caught:
        write_documents(replace(corpus(tmp_path / "source"), include=("[z-a].txt",)), tmp_path / "out")
    assert (caught.value.reason, caught.value.field) == ("GlobInvalid", "spec.corpus.include")
    assert "'[z-a].txt' is no glob" in caught.value.message


REFUSED: dict[str, tuple[Callable[[Path], object], dict[str, object], str, str, str]] = {
    "no files at all": (lambda _: None, {}, "CorpusEmpty", "spec.corpus.source.pvc.path", "no files"),
    "no file matches": (lambda f: (f / "a.pdf").write_text(TEXT), {}, "CorpusEmpty", "spec.corpus.include", "1 files"),
    "all files are too short": (
        lambda f: (f / "a.txt").write_text(" "), {}, "CorpusEmpty", "spec.corpus.source.pvc.path", "1 shorter than 50",
    ),
    "all files are binary": (
        lambda f: (f / "a.txt").write_bytes(b"\xff"), {}, "CorpusUnreadable", "spec.corpus.source.pvc.path",
        "'a.txt': is not UTF-8 at byte 0",
    ),
    "none is usable, and one is no text": (
        lambda f: [(f / "a.txt").write_text("short"), (f / "b.txt").write_bytes(b"\xff")], {}, "CorpusEmpty",
        "spec.corpus.source.pvc.path", "1 not text ('b.txt': is not UTF-8",
    ),
    "the folder does not exist": (
        lambda _: None, {"path": "nowhere"}, "CorpusPathMissing", "spec.corpus.source.pvc.path", "'nowhere'",
    ),
    "all files are Git LFS pointers": (
        lambda f: (f / "a.txt").write_text(POINTER), {}, "CorpusEmpty", "spec.corpus.source.pvc.path", "git lfs pull",
    ),
    "no pattern reaches the only folder": (
        lambda f: folder_with(f / "x", "a.md"), {"include": ("*.md",)}, "CorpusEmpty", "spec.corpus.include", "('x')",
    ),
    "the path leaves the volume": (
        lambda _: None, {"path": "../x"}, "CorpusPathMissing", "spec.corpus.source.pvc.path", "stay inside",
    ),
    "the path is a link": (
        lambda f: (f / "etc").symlink_to("/etc"), {"path": "etc"}, "CorpusPathMissing",
        "spec.corpus.source.pvc.path", "link",
    ),
    "the path is a link in a circle": (
        lambda f: (f / "a").symlink_to("a"), {"path": "a"}, "CorpusPathMissing", "spec.corpus.source.pvc.path",
        "circle",
    ),
    "the path is a link to nowhere": (
        lambda f: (f / "a").symlink_to("b"), {"path": "a"}, "CorpusPathMissing", "spec.corpus.source.pvc.path",
        "does not exist",
    ),
    "the path leaves by a link on the way": (
        lambda f: (f / "a").symlink_to(".."), {"path": "a/x"}, "CorpusPathMissing", "spec.corpus.source.pvc.path",
        "leaves the source",
    ),
    "a file is too large": (
        lambda f: (f / "a.txt").write_text(TEXT), {"maxFileBytes": 10}, "CorpusTooLarge",
        "spec.corpus.source.pvc.path", "maxFileBytes",
    ),
    "files are too large in all": (
        lambda f: [(f / f"{n}.txt").write_text(TEXT) for n in range(3)], {"maxTotalBytes": 200}, "CorpusTooLarge",
        "spec.corpus.source.pvc.path", "maxTotalBytes",
    ),
    "there are too many files": (
        lambda f: [(f / f"{n}.bin").write_text("") for n in range(5)], {"maxFiles": 4}, "CorpusTooLarge",
        "spec.corpus.source.pvc.path", "maxFiles",
    ),
    "folders are nested too deep": (
        lambda f: (f / "a" / "b" / "c").mkdir(parents=True), {"maxDepth": 2}, "CorpusTooDeep",
        "spec.corpus.source.pvc.path", "maxDepth",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_useless_corpus_is_refused_with_its_field(tmp_path: Path, name: str) -> None:
    prepare, changes, reason, field, said = REFUSED[name]
    source = tmp_path / "source"
    source.mkdir()
    prepare(source)
    with pytest.raises(BadInput) as caught:
        write_documents(corpus(source, **changes), tmp_path / "out")  # type: ignore[arg-type]
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert said in caught.value.message


def config_map(folder: Path, data: dict[str, bytes]) -> None:
    """As the kubelet mounts one: keys are links through ..data to a folder that it swaps."""
    real = folder / "..2025_01_01"
    real.mkdir(parents=True)
    (folder / "..data").symlink_to(real.name)
    for key, value in data.items():
        (real / key).write_bytes(value)
        (folder / key).symlink_to(f"..data/{key}")


def test_the_keys_of_a_config_map_are_documents(tmp_path: Path) -> None:
    config_map(tmp_path / "map", {"b.txt": TEXT.encode(), "a.md": (TEXT + " more").encode(), "c.bin": b"\0"})
    counts = write_documents(corpus(tmp_path / "map", kind="configMap"), tmp_path / "out")
    assert [item["path"] for item in documents(tmp_path / "out")] == ["a.md", "b.txt"]
    assert counts.skippedFiles == 1


def test_a_config_map_link_that_leaves_the_mount_is_skipped(tmp_path: Path) -> None:
    config_map(tmp_path / "map", {"a.txt": TEXT.encode()})
    (tmp_path / "map" / "evil.txt").symlink_to("/etc/passwd")
    counts = write_documents(corpus(tmp_path / "map", kind="configMap"), tmp_path / "out")
    assert (counts.documents, counts.skippedFiles) == (1, 1)


def test_an_unreadable_config_map_names_it(tmp_path: Path) -> None:
    config_map(tmp_path / "map", {"a.txt": os.urandom(4096), "b.txt": os.urandom(4096)})
    with pytest.raises(BadInput) as caught:
        write_documents(corpus(tmp_path / "map", kind="configMap"), tmp_path / "out")
    assert (caught.value.reason, caught.value.field) == ("CorpusUnreadable", "spec.corpus.source.configMap.name")
