"""Write pydoc's plain text of the standard library's modules, one file a module.

The same Python always writes the same bytes: modules in order of name, memory addresses removed,
sizes bounded at a paragraph's end, and no values of variables or paths, which belong to the machine.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pydoc
import re
import sys
import warnings
from pathlib import Path

MAX_BYTES = 7_500
MIN_BYTES = 800
LEAST_FILES = 150
LEAST_BYTES = 1_000_000
# Importing these opens a window, a browser or a joke, or needs a library that may be absent.
SKIPPED = {"antigravity", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sys", "test", "this"}
SKIPPED |= {"tkinter", "turtle", "turtledemo"}
PACKAGES: tuple[str, ...] = (
    "asyncio",
    "collections",
    "concurrent",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
)
PACKAGES += ("multiprocessing", "os", "sqlite3", "unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zoneinfo")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
MACHINE_SECTIONS = {"DATA", "FILE", "MODULE REFERENCE"}


class PlainText(pydoc.TextDoc):
    """Without the overstrikes that make a terminal's bold letters."""

    def bold(self, text: str) -> str:
        return text


def module_names() -> list[str]:
    names = {name for name in sys.stdlib_module_names if not name.startswith("_") and name not in SKIPPED}
    for package in PACKAGES:
        folder = Path(os.__file__).parent / package.replace(".", "/")
        for path in folder.glob("*.py") if folder.is_dir() else ():
            if not path.stem.startswith("_"):
                names.add(f"{package}.{path.stem}")
    return sorted(names)


def page(name: str) -> str | None:
    """The manual page of one module; None when this Python cannot import it."""
    silence = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
            text = PlainText().document(module)
    except (Exception, SystemExit):
        return None
    return ADDRESS.sub("", without_machine(text))


def without_machine(text: str) -> str:
    """Drop the sections that tell of this machine, and spaces at line ends."""
    kept: list[str] = []
    dropping = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            dropping = line in MACHINE_SECTIONS
        if not dropping:
            kept.append(line.rstrip())
    return "\n".join(kept).strip() + "\n"


def bounded(text: str) -> str:
    if len(text.encode()) <= MAX_BYTES:
        return text
    cut = text.encode()[:MAX_BYTES].decode("utf-8", "ignore")
    end = cut.rfind("\n\n")
    return cut[: end if end > 0 else len(cut)] + "\n"


def main() -> int:
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    files = size = 0
    for name in module_names():
        text = page(name)
        content = bounded(text or "").encode()
        if len(content) < MIN_BYTES:
            continue
        (target / f"{name}.txt").write_bytes(content)
        files += 1
        size += len(content)
    print(f"{files} documents, {size} bytes")
    return 0 if files >= LEAST_FILES and size >= LEAST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
