"""Globs of the manifest's `include`: gitignore's rules, by the library pathspec, read from the source's root on.

What differs from a .gitignore, because here a pattern says what is read:

- a pattern without a slash means the root alone, `**/` any folder; a wildcard at the end takes files, never folders;
- `{md,txt}` stands for each of its alternatives; a suffix matches in any case, `.md` also `.MD`, and composed letters
  match decomposed ones, which macOS writes into names;
- `+([!.])`, of the shell's extended globs, is a name without a dot, as text files without a suffix have. Before it
  `**/` stays out of hidden folders: `.git/config` is no document, and may hold a password.

`!` before a pattern leaves out what earlier ones took: the last one that matches decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from embedding_stages.inputs.braces import alternatives

_WITHOUT_DOT = "+([!.])"
_STAND_IN = "\ue000"  # for `_WITHOUT_DOT`, which pathspec does not know
_INSIDE = "\ue001"  # a name that no pattern spells: stands for whatever lies in a folder
_SUFFIX = re.compile(r"\.[A-Za-z0-9]+$")
_WILD = re.compile(rf"[*?\[{_STAND_IN}]")
_MOST_CROSSING = 4  # `**` of one pattern: each multiplies the ways to match a path, and those in names the patterns
_CROSSING = re.compile(r"\*{2,}")
# Of several stars in a name all but the last take as little as they can, and never take more: what the next one could
# have matched it still can, and a pattern of ten stars takes no longer than the name is.
_STAR_BEFORE_STAR = re.compile(rf"\[\^/\]\*((?:(?!\[\^/\]\*)[^/{_STAND_IN}]|\[\^/\](?!\*))+)(?=\[\^/\]\*)")

# A bracket, which by gitignore's rules never matches a slash, and before it what only looks like one.
_BRACKET = re.compile(r"(\\.|\[\^/\])|(\[\^?\]?(?:\\.|[^\]\\])*\])", re.DOTALL)


class Globs:
    """The patterns of one `include`, and which of them matched anything so far."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises ValueError that names a pattern that means nothing."""
        self._patterns = [_Pattern.of(text) for text in patterns]
        self._used: set[str] = set()
        if patterns and not any(pattern.takes for pattern in self._patterns):
            raise ValueError(f"{patterns[0]!a} leaves out, and nothing is taken before it: begin with '**/*.md' or so")

    def __call__(self, path: str) -> bool:
        """Whether a relative path with forward slashes is taken."""
        taken, forms = False, _forms(path)
        for pattern in self._patterns:
            if any(rule.matches(form) for rule in pattern.rules for form in forms):
                taken = pattern.takes
                self._used.add(pattern.text)
        return taken

    def reaches(self, folder: str) -> bool:
        """Whether anything in a folder, given by its relative path, could be taken."""
        reached = False
        for pattern in self._patterns:
            if pattern.takes:
                reached = reached or any(rule.reaches(folder) for rule in pattern.rules)
            elif any(rule.covers(folder) for rule in pattern.rules):
                reached = False
        return reached

    @property
    def unused(self) -> list[str]:
        """Patterns that matched no path, as they stand in the manifest."""
        return [pattern.text for pattern in self._patterns if pattern.text not in self._used]


def matcher(patterns: Sequence[str]) -> Globs:
    """Raises ValueError that names a pattern that means nothing."""
    return Globs(patterns)


@dataclass(frozen=True, slots=True)
class _Pattern:
    text: str
    takes: bool  # or leaves out
    rules: tuple[_Rule, ...]  # any of them

    @classmethod
    def of(cls, text: str) -> _Pattern:
        body = text.removeprefix("!")
        try:
            plain = [form for choice in alternatives(body) for form in _plain(choice)]
            rules = tuple(_Rule.of(form) for form in dict.fromkeys(plain))
        except (ValueError, re.error, GitIgnorePatternError) as error:
            raise ValueError(f"{text!a} is no glob ({error})") from error
        return cls(text, not text.startswith("!"), rules)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One pattern without braces, read from the root."""

    whole: re.Pattern[str]
    folders: tuple[re.Pattern[str], ...]  # of its first 1, 2, ... parts: those before the first `**`
    open_ended: bool  # `**` follows after `folders`
    takes_folders: bool  # matches a folder with all that lies in it
    stays_visible: bool  # does not enter hidden folders after `folders`

    @classmethod
    def of(cls, text: str) -> _Rule:
        parts = text.rstrip("/").split("/")
        first = parts.index("**") if "**" in parts else len(parts) - 1
        return cls(
            whole=_compiled(text),
            folders=tuple(_compiled("/".join(parts[: size + 1])) for size in range(first)),
            open_ended="**" in parts,
            takes_folders=text.endswith("/") or parts[-1] == "**" or not _WILD.search(parts[-1]),
            stays_visible=_STAND_IN in text,
        )

    def matches(self, path: str) -> bool:
        found = self.whole.match(path)
        if found is None or (not self.takes_folders and _is_folder(found)):
            return False
        return not self._hidden(path.split("/")[:-1])

    def covers(self, folder: str) -> bool:
        """Whether all that lies in a folder matches."""
        return self.takes_folders and self.matches(unicodedata.normalize("NFC", f"{folder}/{_INSIDE}"))

    def reaches(self, folder: str) -> bool:
        parts = unicodedata.normalize("NFC", folder).split("/")
        if self._hidden(parts):
            return False
        known = min(len(parts), len(self.folders))
        if len(parts) > known and not self.open_ended:
            return self.covers(folder)
        found = self.folders[known - 1].match("/".join(parts[:known])) if known else None
        return not known or (found is not None and not _is_folder(found))

    def _hidden(self, folders: Sequence[str]) -> bool:
        return self.stays_visible and any(part.startswith(".") for part in folders[len(self.folders) :])


def _forms(path: str) -> tuple[str, ...]:
    """The path, composed (NFC), and the same with its suffix in small letters where that differs."""
    path = unicodedata.normalize("NFC", path)
    small = _SUFFIX.sub(lambda found: found[0].lower(), path)
    return (path,) if small == path else (path, small)


def _plain(pattern: str) -> Iterator[str]:
    """Patterns that together mean the same, in what pathspec knows."""
    text = pattern.removeprefix("./").lstrip("/").replace(_WITHOUT_DOT, _STAND_IN)
    if not text.strip("/ "):
        raise ValueError("it names nothing")
    if len(_CROSSING.findall(text)) > _MOST_CROSSING:
        raise ValueError(f"more than {_MOST_CROSSING} times '**'")
    if any(part.count(_STAND_IN) > 1 for part in text.split("/")):
        raise ValueError(f"{_WITHOUT_DOT} twice in one name")
    for form in _forms(text):
        yield from _with_whole_stars(form.split("/"))


def _with_whole_stars(parts: list[str]) -> Iterator[str]:
    """`a**b` also crosses folders, as it always did here; in gitignore's rules only a whole part `**` does."""
    for index, part in enumerate(parts):
        if "**" in part and part != "**":
            left, right = re.split(r"\*{2,}", part, maxsplit=1)
            crossing = [f"{left}*", "**", f"*{right}"] if left else ["**", f"*{right}"]
            yield from _with_whole_stars([*parts[:index], *crossing, *parts[index + 1 :]])
            if left:
                yield from _with_whole_stars([*parts[:index], f"{left}*{right}", *parts[index + 1 :]])
            return
    yield "/".join(parts)


def _compiled(text: str) -> re.Pattern[str]:
    expression, _ = GitIgnoreSpecPattern.pattern_to_regex(f"/{text}")
    if expression is None:
        raise ValueError("a bracket is not closed, or its range runs backwards; write \\[ for the character itself")
    expression = _STAR_BEFORE_STAR.sub(r"(?>[^/]*?\1)", expression)
    expression = _BRACKET.sub(lambda found: found[1] or f"(?!/){found[2]}", expression)
    return re.compile(expression.replace(_STAND_IN, "[^/.]+"), re.DOTALL)


def _is_folder(found: re.Match[str]) -> bool:
    """Whether a folder of the path matched, not the path itself."""
    return found.groupdict().get("ps_d") is not None
