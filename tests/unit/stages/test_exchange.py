"""Half-precision gradients of three ranks, summed range by range. The ranks run this file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from unit.stages.ranks import run_ranks

from embedding_stages.finetune.exchange import Exchange
from embedding_stages.finetune.world import World

RANKS = 3
NUMBERS = [1.0, 2048.0, 3.0, 4.0, 5.0, 6.0, 7.0]  # no multiple of three: the rest is summed apart


def _rank(folder: Path) -> None:
    """One of the ranges is summed early, on rank 0 alone."""
    world = World.of(os.environ)
    world.join()
    numbers = torch.tensor(NUMBERS, dtype=torch.float16) * (world.rank + 1)
    exchange = Exchange(world, numbers, [(5, 7), (0, 5)])
    exchange.begin()
    if world.leads:
        exchange.advance(1)
    exchange.finish()
    (folder / f"rank-{world.rank}.json").write_text(json.dumps(numbers.tolist()))
    world.barrier()
    os._exit(0)


def test_every_rank_gets_the_sums(tmp_path: Path) -> None:
    run_ranks(__file__, str(tmp_path), size=RANKS, exit_codes=[0] * RANKS)
    for rank in range(RANKS):
        assert json.loads((tmp_path / f"rank-{rank}.json").read_text()) == [6 * number for number in NUMBERS]


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
