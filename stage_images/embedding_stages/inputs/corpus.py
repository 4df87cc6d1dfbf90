"""From a folder of untrusted files to documents.jsonl (see formats/documents.py), one line a document, by path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from embedding_stages import git_lfs
from embedding_stages.contract.settings import DEFAULT_INCLUDE
from embedding_stages.errors import BadInput, Transient, printable
from embedding_stages.formats import characters, documents
from embedding_stages.formats.documents import Document
from embedding_stages.inputs import safe_files
from embedding_stages.inputs.counts import LONGEST_NAME, Counts
from embedding_stages.inputs.globs import Globs, matcher
from embedding_stages.inputs.safe_files import Depth, FoundFile, Listing, NotRegularError

INCLUDE_FIELD = "spec.corpus.include"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may read at most. Names are those of the stage's settings."""

    maxFiles: int = 100_000  # noqa: N815 - entries of the folder, counted whether read or not
    maxFileBytes: int = 10 << 20  # noqa: N815
    maxTotalBytes: int = 2 << 30  # noqa: N815
    maxDepth: int = 32  # noqa: N815 - folders below the root

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Limits:
        return cls(**{field.name: int(raw.get(field.name, field.default)) for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where documents lie and which to take."""

    mount: Path
    kind: str  # pvc, configMap or image
    path: str
    include: tuple[str, ...]
    min_text_length: int  # characters
    limits: Limits

    @property
    def field(self) -> str:
        """The manifest's field that says where the documents are."""
        last = "name" if self.kind == "configMap" else "path"
        return f"spec.corpus.source.{self.kind}.{last}"


def document_id(path: str) -> str:
    """16 hex digits that depend on the path alone: an edited document keeps its id."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def write_documents(corpus: Corpus, target: Path) -> Counts:
    """Read the corpus and write `target`. Memory holds one document and the digests of the others.

    Raises BadInput `CorpusPathMissing`, `CorpusEmpty`, `CorpusUnreadable`, `CorpusForbidden`, `CorpusTooLarge`,
    `CorpusTooDeep` or `GlobInvalid`, and Transient `SourceChanged`.
    """
    what = f"the documents, or leave this one out of {INCLUDE_FIELD} ('!name/' leaves a folder out)"
    with safe_files.permitted(what, reason="CorpusForbidden", field=corpus.field):
        return _write_documents(corpus, _root(corpus), target)


def _write_documents(corpus: Corpus, root: Path, target: Path) -> Counts:
    included = _matcher(corpus.include)
    listing = _list(corpus, root, included)
    counts = Counts()
    for name in listing.skipped:
        counts.skip("skippedFiles", name, "a link or no regular file")
    for name in listing.not_entered:
        counts.skip("skippedFiles", f"{name}/", "no pattern of include reaches this folder")
    chosen: list[tuple[str, FoundFile]] = []
    for file in listing.files:
        name = safe_files.key_of(file.path) if corpus.kind == "configMap" else file.path
        # Without a suffix a name says nothing: a program or an archive of that size is left out, not an error.
        blob = "." not in name.rpartition("/")[2] and file.size > corpus.limits.maxFileBytes
        if not included(name):
            counts.skip("skippedFiles", name, "no pattern of include matches")
        elif blob:
            counts.skip("skippedFiles", name, "larger than maxFileBytes, and without a suffix")
        else:
            chosen.append((name, file))
    if not root.is_dir():  # as where git-sync has moved on to another commit
        raise Transient("SourceChanged", "the folder of the documents was removed while it was listed")
    _check_sizes(corpus, [file for _, file in chosen])
    counts.documents = documents.write_documents(target, _usable(corpus, root, chosen, counts))
    if not counts.documents:
        raise _nothing_usable(corpus, listing, len(chosen), counts)
    if counts.skippedPointers:
        counts.warnings.append(f"{_pointers(counts)}; run `git lfs pull` in the source's clone")
    counts.warnings += _unused(corpus, included)
    return counts


def _pointers(counts: Counts) -> str:
    return f"Git LFS pointers lie in place of {counts.skippedPointers} documents and were skipped"


def _unused(corpus: Corpus, included: Globs) -> list[str]:
    """The manifest's own patterns that matched nothing, in its words. Of the default ones most match nothing."""
    if corpus.include == DEFAULT_INCLUDE:
        return []
    return [
        f"pattern {printable(pattern)} of {INCLUDE_FIELD} matches nothing; correct it, or leave it out"
        for pattern in included.unused
    ]


def _matcher(include: tuple[str, ...]) -> Globs:
    try:
        return matcher(include)
    except ValueError as error:
        raise BadInput("GlobInvalid", f"{error}; correct the pattern", field=INCLUDE_FIELD) from error


def _root(corpus: Corpus) -> Path:
    if not corpus.mount.is_dir():
        raise BadInput("CorpusPathMissing", "the source of the documents is not mounted", field=corpus.field)
    # An image's folder and a ConfigMap are mounted themselves; of a volume a folder may be named.
    path = corpus.path if corpus.kind == "pvc" else ""
    return safe_files.sub_folder(corpus.mount, path, reason="CorpusPathMissing", field=corpus.field)


def _list(corpus: Corpus, root: Path, included: Globs) -> Listing:
    if corpus.kind == "configMap":
        return safe_files.list_config_map(root)

    def count(entries: int) -> None:
        if entries > corpus.limits.maxFiles:
            raise _too_large(corpus, f"more than maxFiles={corpus.limits.maxFiles} files")

    depth = Depth(corpus.limits.maxDepth, corpus.field)
    return safe_files.list_folder(root, depth=depth, visit=count, enters=included.reaches)


def _check_sizes(corpus: Corpus, files: list[FoundFile]) -> None:
    limits = corpus.limits
    for file in files:
        if file.size > limits.maxFileBytes:
            raise _too_large(
                corpus,
                f"{printable(file.path)} has {file.size} bytes; maxFileBytes is {limits.maxFileBytes}",
            )
    total = sum(file.size for file in files)
    if total > limits.maxTotalBytes:
        raise _too_large(corpus, f"{total} bytes in all, more than maxTotalBytes={limits.maxTotalBytes}")


def _usable(corpus: Corpus, root: Path, chosen: list[tuple[str, FoundFile]], counts: Counts) -> Iterator[Document]:
    """The documents, read one at a time; counts their bytes and what is skipped."""
    seen: dict[bytes, str] = {}
    real_root = root.resolve()
    for name, file in chosen:
        try:
            with safe_files.open_file(real_root, file.path) as source:
                content = source.read(corpus.limits.maxFileBytes + 1)
        except FileNotFoundError as error:  # it was there when the folder was listed
            raise Transient("SourceChanged", f"{printable(name)} was removed while the documents were read") from error
        except NotRegularError:
            counts.skip("skippedFiles", name, "a link or no regular file")
            continue
        if len(content) > corpus.limits.maxFileBytes:
            raise _too_large(corpus, f"{printable(name)} grew beyond maxFileBytes while it was read")
        text = _usable_text(name, content, corpus.min_text_length, seen, counts)
        if text is not None:
            counts.documentBytes += len(content)
            yield Document(id=document_id(name), path=name, text=text)


def _usable_text(name: str, content: bytes, min_length: int, seen: dict[bytes, str], counts: Counts) -> str | None:
    """The text, or None when it is skipped; counts why. `seen`: the paths by the digests of their texts."""
    if git_lfs.is_pointer(content):
        counts.skip("skippedPointers", name, "a Git LFS pointer")
        return None
    try:
        text = characters.clean(characters.decode(content)).strip()
    except characters.NotTextError as error:
        counts.skip("skippedBinary", name, str(error))
        return None
    if len(text) < max(1, min_length):
        counts.skip("skippedShort", name, f"{len(text)} characters")
        return None
    digest = hashlib.sha256(" ".join(text.split()).encode()).digest()[:16]
    if digest in seen:
        counts.skip("skippedDuplicates", name, f"the text of {printable(seen[digest], LONGEST_NAME, end=True)}")
        return None
    seen[digest] = name
    return text


def _nothing_usable(corpus: Corpus, listing: Listing, chosen: int, counts: Counts) -> BadInput:
    if not listing.files and not listing.not_entered:
        skipped = f" ({len(listing.skipped)} links or special files were skipped)" if listing.skipped else ""
        return BadInput("CorpusEmpty", f"there are no files{skipped}; add documents", field=corpus.field)
    if not chosen:
        return BadInput(
            "CorpusEmpty",
            f"none of {len(listing.files)} files matches {', '.join(map(printable, corpus.include[:8]))}"
            f"{_not_entered(listing)}; add a pattern, such as '**/*.md' for all folders; only text is read, so "
            "convert PDF, Word or HTML first",
            field=INCLUDE_FIELD,
        )
    if counts.skippedPointers:
        said = f"none of {chosen} files is usable: {_pointers(counts)}; run `git lfs pull` in the source's clone"
        return BadInput("CorpusEmpty", said, field=corpus.field)
    if counts.skippedBinary == chosen:
        return BadInput(
            "CorpusUnreadable",
            f"none of {chosen} files is text ({counts.named('skippedBinary')}); convert them to plain text or Markdown "
            "in UTF-8",
            field=corpus.field,
        )
    no_text = f", {counts.skippedBinary} not text ({counts.named('skippedBinary')})" if counts.skippedBinary else ""
    return BadInput(
        "CorpusEmpty",
        f"none of {chosen} files is usable: {counts.skippedShort} shorter than {corpus.min_text_length} characters"
        f"{no_text}; add longer documents or lower spec.corpus.minTextLength",
        field=corpus.field,
    )


def _not_entered(listing: Listing) -> str:
    if not listing.not_entered:
        return ""
    named = ", ".join(map(printable, listing.not_entered[:3]))
    return f", and none reaches into {len(listing.not_entered)} folders ({named})"


def _too_large(corpus: Corpus, what: str) -> BadInput:
    return BadInput("CorpusTooLarge", f"the documents exceed a limit: {what}; leave some out", field=corpus.field)
