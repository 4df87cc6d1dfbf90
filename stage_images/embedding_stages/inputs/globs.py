"""Globs of the manifest's `include`: `*` and `?` stay inside a name, `**/` stands for any folders, also none.

`+([!.])`, of the shell's extended globs, is a name without a dot, as text files without a suffix have. Before it `**/`
stays out of hidden folders: `.git/config` is no document, and may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_WITHOUT_DOT = "+([!.])"
_TOKEN = re.compile(r"\+\(\[!\.\]\)|\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", re.DOTALL)


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a relative path with forward slashes matches one of the patterns; case counts.

    Raises ValueError that names a pattern that means nothing.
    """
    expressions = [_compiled(pattern) for pattern in patterns]
    return lambda path: any(expression.fullmatch(path) for expression in expressions)


def _compiled(pattern: str) -> re.Pattern[str]:
    tokens = _TOKEN.findall(pattern.removeprefix("./"))
    folder = "(?:[^/.][^/]*/)*" if _WITHOUT_DOT in tokens else "(?:[^/]+/)*"
    try:
        return re.compile("".join(folder if token == "**/" else _piece(token) for token in tokens))
    except re.error as error:
        raise ValueError(f"{pattern!a} is no glob ({error})") from error


def _piece(token: str) -> str:
    if token == _WITHOUT_DOT:
        return "[^/.]+"
    if token == "**":
        return ".*"
    if token == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    if len(token) > 1:  # [abc], [!abc]
        inside = re.escape(token[1:-1]).replace(r"\-", "-").replace(r"\!", "!")
        return f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return re.escape(token)
