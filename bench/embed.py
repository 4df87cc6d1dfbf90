"""Embedding a corpus, from text on disk to vectors on disk, ours beside its peers, on one GPU.

python3 bench/embed.py --lengths A --passages 20000 --contestants ours,sentence-transformers-128
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

if not __package__:  # started as a script: this folder is a package, and must not hide libraries' modules
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.contest import Entry, add_options, entries, run_all, show, workshop
from bench.models import SHAPES
from bench.report import Row, embedding_table
from bench.runner import ROOT, Contestant, Workshop
from bench.workload import write_corpus

COMPARED: Final = 512  # passages whose vectors are held against the first contestant's


def _sentence_transformers(batch_size: int, *extra: str, stand_in: bool = True) -> Contestant:
    return Contestant(
        module="bench.contestants.sentence_transformers",
        arguments=("--batch-size", str(batch_size), *extra),
        wheels=("common",),
        stand_in=stand_in,
    )


def _automodel(batch_size: int) -> Contestant:
    return Contestant(
        module="bench.contestants.automodel",
        arguments=("--batch-size", str(batch_size)),
        wheels=("automodel", "common"),
    )


def _ours(*extra: str) -> Contestant:
    return Contestant(module="bench.contestants.ours", arguments=extra, paths=(ROOT / "stage_images",))


CONTESTANTS: Final[dict[str, Contestant]] = {
    "ours": _ours(),
    "ours-float32": _ours("--option", "float32"),  # named first: how far the others are from full precision
    "sentence-transformers-64": _sentence_transformers(64),
    "sentence-transformers-128": _sentence_transformers(128),
    "sentence-transformers-512": _sentence_transformers(512),
    "sentence-transformers-padded": _sentence_transformers(64, "--option", "padded", stand_in=False),
    "automodel-16": _automodel(16),
    "automodel-128": _automodel(128),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = "ours,sentence-transformers-64,sentence-transformers-128"
    add_options(parser, lengths="A", contestants=names, known=CONTESTANTS)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--warmup-passages", type=int, default=512, help="embedded before the clock starts")
    arguments = parser.parse_args()
    wanted = entries(parser, arguments, CONTESTANTS)
    with workshop(arguments) as place:
        corpora = _write_corpora(arguments, place)
        reference: dict[tuple[str, str], np.ndarray[Any, Any]] = {}

        def command_line(entry: Entry) -> list[str]:
            paths = ["--corpus", str(corpora[entry.model, entry.lengths]), "--vectors", str(_vectors(place, entry))]
            return ["embed", *paths, "--warmup-passages", str(arguments.warmup_passages)]

        def compare(entry: Entry, row: Row) -> None:
            row["cosine"] = _compare(
                _vectors(place, entry), arguments.passages, reference, (entry.model, entry.lengths)
            )

        rows = run_all(arguments, wanted, CONTESTANTS, place, command_line, compare)
    return show(embedding_table(rows), rows)


def _write_corpora(arguments: argparse.Namespace, place: Workshop) -> dict[tuple[str, str], Path]:
    """Of each model and length model: token ids are of the model's own vocabulary."""
    corpora = {}
    for model in arguments.model.split(","):
        for lengths in arguments.lengths.split(","):
            path = corpora[model, lengths] = place.folder / f"passages-{model}-{lengths}.jsonl"
            shape = SHAPES[model]
            write_corpus(path, lengths, passages=arguments.passages, seed=arguments.seed, shape=shape)
    return corpora


def _vectors(place: Workshop, entry: Entry) -> Path:
    return place.folder / f"vectors-{entry.model}-{entry.name}-{entry.lengths}.npy"


def _compare(
    path: Path, passages: int, reference: dict[tuple[str, str], np.ndarray[Any, Any]], key: tuple[str, str]
) -> float:
    """The lowest cosine between this contestant's vectors and the first one's: all must have done the same work.

    Raises ValueError if there is not one vector a passage. The file is removed: a run needs no disk afterwards.
    """
    stored = np.load(path, mmap_mode="r")
    if len(stored) != passages:
        raise ValueError(f"{path.name} holds {len(stored)} vectors, expected {passages}")
    # From both ends: a contestant that sorts by length and forgets to sort back would pass on a few rows in front.
    half = min(COMPARED, passages) // 2
    sample = np.concatenate([stored[:half], stored[passages - half :]]).astype(np.float64)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    path.unlink()
    return float((sample * reference.setdefault(key, sample)).sum(axis=1).min())


if __name__ == "__main__":
    raise SystemExit(main())
