"""Globs of the manifest's `include`: `*` and `?` stay inside a name, `**/` stands for any folders, also none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", re.DOTALL)


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a relative path with forward slashes matches one of the patterns; case counts."""
    expressions = [re.compile(_expression(pattern)) for pattern in patterns]
    return lambda path: any(expression.fullmatch(path) for expression in expressions)


def _expression(pattern: str) -> str:
    return "".join(_piece(token) for token in _TOKEN.findall(pattern.removeprefix("./")))


def _piece(token: str) -> str:
    if token == "**/":
        return "(?:[^/]+/)*"
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
