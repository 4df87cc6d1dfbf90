"""One optimizer step of contrastive fine-tuning, ours beside its peers, on one GPU.

python3 bench/finetune_step.py --lengths A,C --contestants ours,automodel,sentence-transformers
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

if not __package__:  # started as a script: this folder is a package, and must not hide libraries' modules
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.contest import Entry, add_options, entries, run_all, show, workshop
from bench.report import training_table
from bench.runner import ROOT, Contestant


def _automodel(micro_batch: int, *options: str) -> Contestant:
    return Contestant(
        module="bench.contestants.automodel",
        arguments=("--micro-batch", str(micro_batch), *options),
        wheels=("automodel", "common"),
    )


def _sentence_transformers(micro_batch: int, *options: str, stand_in: bool) -> Contestant:
    return Contestant(
        module="bench.contestants.sentence_transformers",
        arguments=("--micro-batch", str(micro_batch), *options),
        wheels=("common",),
        stand_in=stand_in,
    )


CONTESTANTS: Final[dict[str, Contestant]] = {
    "ours": Contestant(module="bench.contestants.ours", paths=(ROOT / "stage_images",)),
    "automodel": _automodel(4),  # the recipe's
    "automodel-collated": _automodel(4, "--option", "collated"),
    "automodel-mb16": _automodel(16),  # tuned for a large card
    "sentence-transformers": _sentence_transformers(32, stand_in=True),
    "sentence-transformers-mb128": _sentence_transformers(128, stand_in=True),
    "sentence-transformers-compiled": _sentence_transformers(128, "--option", "compiled", stand_in=True),
    "sentence-transformers-padded": _sentence_transformers(16, "--option", "padded", stand_in=False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, lengths="A", contestants="ours,automodel,sentence-transformers", known=CONTESTANTS)
    parser.add_argument("--steps", type=int, default=4, help="timed optimizer steps")
    parser.add_argument("--warmup", type=int, default=2, help="optimizer steps before them")
    parser.add_argument("--examples", type=int, default=128, help="queries an optimizer step, 5 passages each")
    arguments = parser.parse_args()
    wanted = entries(parser, arguments, CONTESTANTS)

    def command_line(_: Entry) -> list[str]:
        sizes = {"--steps": arguments.steps, "--warmup": arguments.warmup, "--examples": arguments.examples}
        return ["train", *(word for option, value in sizes.items() for word in (option, str(value)))]

    with workshop(arguments) as place:
        rows = run_all(arguments, wanted, CONTESTANTS, place, command_line)
    return show(training_table(rows), rows)


if __name__ == "__main__":
    raise SystemExit(main())
