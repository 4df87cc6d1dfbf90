"""Which files `include` takes, which folders it reaches, and which patterns mean nothing."""

from __future__ import annotations

import pytest

from embedding_stages.contract.settings import DEFAULT_INCLUDE
from embedding_stages.inputs.globs import Globs, matcher

TAKEN: list[tuple[str, str, bool]] = [
    # what patterns meant before gitignore's rules came, they mean still
    ("**/*.md", "a.md", True),
    ("**/*.md", "x/y/a.md", True),
    ("**/*.md", ".x/a.md", True),
    ("**/*.md", "x.md/a.png", False),
    ("**/*.md", "x.md/a.md", True),
    ("*.md", "a.md", True),
    ("*.md", "x/a.md", False),
    ("./a.md", "a.md", True),
    ("docs/**", "docs/x/a.txt", True),
    ("docs/**", "docs", False),
    ("docs/*", "docs/x/a.txt", False),
    ("docs/?.txt", "docs/ab.txt", False),
    ("docs/**/a.txt", "docs/a.txt", True),
    ("docs/**/a.txt", "docs/x/y/a.txt", True),
    ("**.md", "a.md", True),
    ("**.md", "x/a.md", True),
    ("docs**", "docs-1/x", True),
    ("docs**", "docs.txt", True),
    ("**", "x/a", True),
    ("*", "x/a", False),
    ("[ab].txt", "a.txt", True),
    ("[!ab].txt", "a.txt", False),
    ("a+(b).txt", "a+(b).txt", True),
    ("a b.txt", "a b.txt", True),
    ("#a.txt", "#a.txt", True),
    ("**/+([!.])", "README", True),
    ("**/+([!.])", "x/y/NOTES", True),
    ("**/+([!.])", "x/a.bin", False),
    ("**/+([!.])", ".git/config", False),
    ("**/+([!.])", "x/.git/config", False),
    ("**/+([!.])", ".netrc", False),
    # a suffix in any case, folders and names as they are written
    ("**/*.md", "x/a.MD", True),
    ("**/*.TXT", "x/a.txt", True),
    ("Docs/*.md", "docs/a.md", False),
    ("NOTES", "notes", False),
    ("Ü*/*.md", "U\u0308bersicht/a.md", True),
    ("U\u0308*/*.md", "Übersicht/a.md", True),
    # braces
    ("*.{md,txt}", "a.txt", True),
    ("*.{md,txt}", "a.TXT", True),
    ("*.{md,txt}", "a.rst", False),
    ("**/*.{rst,adoc}", "x/a.adoc", True),
    ("{docs,notes/{a,b}}/*.md", "notes/b/x.md", True),
    ("a{,-1}.md", "a.md", True),
    (r"a\{b,c\}.md", "a{b,c}.md", True),
    # slashes before and behind, and a folder by its name
    ("/docs/*.md", "docs/a.md", True),
    ("docs/", "docs/x/a.txt", True),
    ("docs/", "docs", False),
    ("docs", "docs/x/a.txt", True),
    (r"\!a.md", "!a.md", True),
    ("docs[!x]a.md", "docs/a.md", False),
    ("docs[+-9]a.md", "docs/a.md", False),
    ("*[!a]*b", "xa/b", False),
    ("*a*[!b]?*.md", "abca.md", True),
    ("*a" * 60 + "b", "a" * 250, False),
    ("*a" * 60 + "*", "a" * 250, True),
    ("**/a" * 4 + "/*c", "a/" * 33 + "b", False),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), TAKEN)
def test_a_glob_matches_whole_paths(pattern: str, path: str, expected: bool) -> None:
    assert matcher([pattern])(path) is expected


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["**/*.md", "!drafts/**"], "drafts/x/a.md", False),
        (["**/*.md", "!drafts/"], "drafts/x/a.md", False),
        (["**/*.md", "!drafts/"], "docs/drafts/a.md", True),
        (["**/*.md", "!**/drafts/"], "docs/drafts/a.md", False),
        (["**/*.md", "!drafts/", "drafts/good.md"], "drafts/good.md", True),
        (["**/*.md", "!**/CHANGELOG.md"], "x/CHANGELOG.MD", False),
        (["a.md", "!a.md"], "a.md", False),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], path: str, expected: bool) -> None:
    assert matcher(patterns)(path) is expected


@pytest.mark.parametrize(
    ("patterns", "folder", "expected"),
    [
        (["*.md"], ".Trash-1000", False),
        (["docs/*.md"], "docs", True),
        (["docs/*.md"], "docs/x", False),
        (["docs/*/a.md"], "docs/x", True),
        (["docs/*/a.md"], "docs/x/y", False),
        (["docs/**/a.md"], "docs/x/y", True),
        (["docs/**/a.md"], "notes", False),
        (["docs"], "docs/x", True),
        (["Übersicht/*.md"], "U\u0308bersicht", True),
        (["docs/"], "notes", False),
        (["{docs,notes}/*.md"], "notes", True),
        (["**/*.md"], ".hidden", True),
        (["**/+([!.])"], ".git", False),
        (["**/+([!.])"], "x/.git", False),
        (["**/+([!.])"], "x/y", True),
        (DEFAULT_INCLUDE, "x/y", True),
        (["**/*.md", "!.*/"], ".Trash-1000", False),
        (["**/*.md", "!drafts/"], "drafts/x", False),
        (["**/*.md", "!drafts/*.md"], "drafts", True),
        (["**/*.md", "!drafts/", "drafts/good.md"], "drafts", True),
    ],
)
def test_folders_are_entered_where_a_pattern_reaches(patterns: list[str], folder: str, expected: bool) -> None:
    assert matcher(patterns).reaches(folder) is expected


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("[z-a].txt", "'[z-a].txt' is no glob"),
        ("[ab.txt", "a bracket is not closed"),
        ("*.{md,txt", "'*.{md,txt' is no glob (a brace has no partner)"),
        ("*.md}", "no partner"),
        ("*.{md}", "alternatives with commas"),
        ("{1..9}.md", "alternatives with commas"),
        ("{a,b}" * 7, "more than 64 patterns"),
        ("/", "names nothing"),
        ("!", "names nothing"),
        (" ", "names nothing"),
        ("!drafts/", "nothing is taken before it"),
        ("a**" * 85, "more than 4 times '**'"),
        ("+([!.])+([!.])", "+([!.]) twice in one name"),
    ],
)
def test_a_pattern_that_means_nothing_is_named(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        matcher([pattern])
    assert said in str(caught.value)


def test_patterns_that_matched_nothing_are_told_as_they_are_written() -> None:
    globs: Globs = matcher(["**/*.md", "**/*.{rst,adoc}", "*.TXT", "!drafts/"])
    for path in ("a.md", "b.adoc", "docs/c.txt"):
        globs(path)
    assert globs.unused == ["*.TXT", "!drafts/"]
