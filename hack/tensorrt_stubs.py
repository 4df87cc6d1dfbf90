"""Fetch TensorRT's type stubs, mend them so that a type checker can read them, and print their folder.

The package has no marker py.typed, so mypy would pass it over; it names a parameter `in`, which Python cannot, and
puts parameters without a default behind those with one. Run by the Python of .venv, which has uv.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "tensorrt-stubs.txt"


def main() -> None:
    """The folder lies in the project's cache, one for each lock and each version of this file."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedding-operator"
    made_of = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    target = cache / f"tensorrt-stubs-{made_of}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _fetch(Path(scratch, "stubs"))
            shutil.move(Path(scratch, "stubs"), target)
    print(target)


def _fetch(folder: Path) -> None:
    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "--requirement", str(LOCK)]
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", *options], check=True)
    for path in folder.rglob("*.pyi"):
        path.write_text(mended(path.read_text()))


def mended(text: str) -> str:
    """The text with a name in the place of `in`, and `= ...` where a parameter follows one that has a default."""
    text = re.sub(r"\bin: ", "in_: ", text)
    return re.sub(r"^( *def \w+\()(.*)(\) -> .*)$", _defaults, text, flags=re.MULTILINE)


def _defaults(found: re.Match[str]) -> str:
    parts, has_default = re.split(r", (?=\w+: )", found[2]), False
    for number, part in enumerate(parts):
        has_default = has_default or " = " in part
        if has_default and " = " not in part and ": " in part:
            parts[number] = f"{part} = ..."
    return f"{found[1]}{', '.join(parts)}{found[3]}"


if __name__ == "__main__":
    main()
