"""What the two commands share: their options, and the loop over length models and contestants."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.models import DEFAULT, SHAPES
from bench.report import Row, failures, write_json
from bench.runner import Contestant, Workshop, open_workshop, run
from bench.workload import PASSAGE_LENGTHS


@dataclass(frozen=True, slots=True)
class Entry:
    """One run: a contestant with a model on a length model."""

    name: str
    model: str
    lengths: str


def add_options(
    parser: argparse.ArgumentParser, *, lengths: str, contestants: str, known: Mapping[str, object]
) -> None:
    """The options of both commands."""
    parser.add_argument("--lengths", default=lengths, help=f"length models, of {', '.join(PASSAGE_LENGTHS)}")
    parser.add_argument(
        "--contestants",
        default=contestants,
        help=f"in the order they run, of {', '.join(known)}; NAME@A runs NAME for length model A alone",
    )
    parser.add_argument(
        "--model", default=DEFAULT, help=f"of {', '.join(SHAPES)}; tiny ones are for a dry run on a CPU"
    )
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--time-limit", type=float, default=120, help="seconds for one contestant and length model")
    parser.add_argument(
        "--total-limit", type=float, default=0, help="seconds for everything; what is left then is skipped"
    )
    parser.add_argument("--wheels", type=Path, help="folders of wheels, `common` and one a contestant, to install")
    parser.add_argument("--work", type=Path, help="keep checkpoint and installed wheels here for the next command")
    parser.add_argument("--output", type=Path, help="write all results here as JSON")


def entries(parser: argparse.ArgumentParser, arguments: argparse.Namespace, known: Mapping[str, object]) -> list[Entry]:
    """What to run; ends the program on a name that does not exist, before anything is written or timed."""
    wanted = []
    models = arguments.model.split(",")
    if unknown := set(models) - set(SHAPES):
        parser.error(f"{', '.join(sorted(unknown))}: models are {', '.join(SHAPES)}")
    for lengths in arguments.lengths.split(","):
        for item in arguments.contestants.split(","):
            name, _, only = item.partition("@")
            if name not in known or lengths not in PASSAGE_LENGTHS or (only and only not in PASSAGE_LENGTHS):
                parser.error(f"{item} on {lengths}: contestants are {', '.join(known)}, lengths A to D")
            if only in ("", lengths):
                wanted.extend(Entry(name, model, lengths) for model in models)
    return sorted(wanted, key=lambda entry: models.index(entry.model))  # a checkpoint's files stay warm


@contextmanager
def workshop(arguments: argparse.Namespace) -> Iterator[Workshop]:
    """The folders of this run, gone afterwards unless --work names a place."""
    if arguments.work is not None:
        yield open_workshop(arguments.work.resolve(), wheels=arguments.wheels)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield open_workshop(Path(folder), wheels=arguments.wheels)


def run_all(
    arguments: argparse.Namespace,
    wanted: list[Entry],
    contestants: Mapping[str, Contestant],
    place: Workshop,
    command_line: Callable[[Entry], list[str]],
    after: Callable[[Entry, Row], None] = lambda _entry, _row: None,
) -> list[Row]:
    """Every entry, one after the other; `after` may add to a good row."""
    rows: list[Row] = []
    started = time.monotonic()
    for entry in wanted:
        left = arguments.total_limit - (time.monotonic() - started) if arguments.total_limit else float("inf")
        if left < arguments.time_limit / 4:  # too little to get anywhere
            rows.append(
                {"model": entry.model, "name": entry.name, "lengths": entry.lengths, "failed": "not run: out of time"}
            )
            continue
        common = ["--lengths", entry.lengths, "--seed", str(arguments.seed)]
        row = run(
            contestants[entry.name],
            [*command_line(entry), *common],
            name=entry.name,
            model=entry.model,
            workshop=place,
            time_limit=min(left, arguments.time_limit),
        )
        row = {"model": entry.model, "lengths": entry.lengths, **row}
        if "failed" not in row:
            after(entry, row)
        rows.append(row)
        state = row.get("failed", "done")
        print(
            f"{entry.model}, {entry.name} on {entry.lengths}: {state}, {row['wall_s']} s", file=sys.stderr, flush=True
        )
        write_json(arguments.output, rows)
    write_json(arguments.output, rows)
    return rows


def show(table: str, rows: list[Row]) -> int:
    """Print the table and what failed; the exit status."""
    print(table)
    trouble = failures(rows)
    if trouble:
        print(f"\n{trouble}")
    return 1 if any("failed" in row for row in rows) else 0
