"""Braces of the shell, which gitignore's rules lack: `*.{md,txt}` is `*.md` and `*.txt`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MOST: Final = 64  # alternatives of one pattern: braces multiply


def alternatives(pattern: str) -> list[str]:
    """The pattern without braces, once for each of its alternatives. `\\{` is the character itself.

    Raises ValueError that says what is wrong with the braces.
    """
    group = _first_group(pattern)
    if group is None:
        return [pattern]
    start, cuts, end = group
    if len(cuts) < 2:
        raise ValueError("braces hold alternatives with commas between them; write \\{ for the character itself")
    found: list[str] = []
    rest = alternatives(pattern[end + 1 :])
    for begin, stop in zip(cuts, [*cuts[1:], end], strict=True):
        for choice in alternatives(pattern[begin + 1 : stop]):
            found.extend(pattern[:start] + choice + tail for tail in rest)
            if len(found) > MOST:
                raise ValueError(f"its braces stand for more than {MOST} patterns")
    return found


def _first_group(pattern: str) -> tuple[int, list[int], int] | None:
    """Where the first braces begin, what each alternative stands behind, and where the braces end."""
    depth, start, cuts = 0, 0, list[int]()
    for place, sign in _signs(pattern):
        if sign == "{":
            depth += 1
            if depth == 1:
                start, cuts = place, [place]
        elif sign == "," and depth == 1:
            cuts.append(place)
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return start, cuts, place
            if depth < 0:
                break
    if depth:
        raise ValueError("a brace has no partner")
    return None


def _signs(pattern: str) -> Iterator[tuple[int, str]]:
    """Characters that are not escaped, with their places."""
    escaped = False
    for place, sign in enumerate(pattern):
        if not escaped and sign != "\\":
            yield place, sign
        escaped = sign == "\\" and not escaped
