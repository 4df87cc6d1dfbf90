"""One optimizer step on several GPUs of one machine, beside the same step on each of them alone.

python3 bench/gpus.py --gpus 2 --lengths A,C --steps 8

Every GPU first does whole steps alone, one after the other, for cards of a kind differ by a few per cent; then all
share each step as the stage's DDP does. `exchanged after` holds the gradients back until the backward pass is through,
`not exchanged` leaves every GPU with its own: what is between them is what the exchange costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # started as a script: this folder is a package, and must not hide libraries' modules
    sys.path[0] = str(ROOT)
sys.path.insert(1, str(ROOT / "stage_images"))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from bench import measure  # noqa: E402
from bench.contestants import ours  # noqa: E402
from bench.contestants.interface import TrainJob  # noqa: E402
from bench.models import DEFAULT, SHAPES  # noqa: E402
from bench.runner import open_workshop  # noqa: E402
from bench.workload import PASSAGE_LENGTHS, step_lengths  # noqa: E402
from embedding_stages.finetune.packed_trainer import PackedTrainer  # noqa: E402
from embedding_stages.finetune.world import World  # noqa: E402

TOGETHER: Final = ("together", "exchanged after", "not exchanged")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--lengths", default="A", help=f"length models, of {', '.join(PASSAGE_LENGTHS)}")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each way")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--examples", type=int, default=128, help="queries an optimizer step, 5 passages each")
    parser.add_argument("--model", choices=SHAPES, default=DEFAULT, help="tiny: a dry run on a CPU")
    parser.add_argument("--ways", default=f"alone,{','.join(TOGETHER)}")
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench-work"))
    options = parser.parse_args()
    if "RANK" in os.environ:
        _rank(options)
        return 0
    open_workshop(options.work, wheels=None).checkpoint(options.model)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = os.environ | {
        "WORLD_SIZE": str(options.gpus),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'stage_images'}",
    }
    ranks = [
        subprocess.Popen([sys.executable, "-m", "bench.gpus", *sys.argv[1:]], cwd=ROOT, env=env | _who(rank))
        for rank in range(options.gpus)
    ]
    return max(abs(rank.wait()) for rank in ranks)


def _who(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _rank(options: argparse.Namespace) -> None:
    world = World.of(os.environ)
    world.join()
    checkpoint = open_workshop(options.work, wheels=None).checkpoint(options.model)  # written by the parent
    for lengths in options.lengths.split(","):
        job = TrainJob(
            checkpoint=checkpoint, lengths=lengths, steps=options.steps, warmup=options.warmup,
            examples=options.examples, micro_batch=0, seed=1234, shape=SHAPES[options.model],
            device=str(world.device), options=(),
        )  # fmt: skip
        rows: dict[str, dict[str, Any]] = {}
        for rank in range(world.size if "alone" in options.ways.split(",") else 0):
            found = _timed(job, World.alone(), "") if rank == world.rank else {"ms": 0.0, "losses": []}
            rows[f"GPU {rank} alone"] = {"ms": world.sum_number(found["ms"]), "losses": found["losses"]}
        for way in TOGETHER:
            if way in options.ways.split(","):
                rows[way] = _timed(job, world, way)
        if world.leads:
            _print(job, rows, world.size)
    world.leave(0)


def _timed(job: TrainJob, world: World, way: str) -> dict[str, Any]:
    """Median of the timed steps, ms, and all losses."""

    def prepared(trainer: PackedTrainer) -> None:
        if way == "exchanged after":
            trainer._summing = nullcontext  # type: ignore[method-assign,assignment]
        if way == "not exchanged":
            trainer._exchange.advance = lambda _ranges: None  # type: ignore[method-assign]

    trained = ours.train_steps(job, world=world, prepared=prepared)
    torch.cuda.empty_cache()
    return {"ms": statistics.median(trained.step_ms[job.warmup :]), "losses": trained.losses}


def _print(job: TrainJob, rows: dict[str, dict[str, Any]], gpus: int) -> None:
    alone = [row["ms"] for name, row in rows.items() if name.endswith("alone")] or [float("nan")]
    base = statistics.mean(alone)
    tokens = statistics.mean(sum(step_lengths(step)) for step in job.batches()[job.warmup :])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"\n{gpus} x {device}, lengths {job.lengths}, {tokens:,.0f} valid tokens a step\n")
    print("| | step, ms | valid tokens/s | times one | largest distance of a loss |\n|---|---:|---:|---:|---:|")
    first = next(iter(rows.values()))["losses"]
    for name, row in rows.items():
        far = max((abs(a - b) for a, b in zip(row["losses"], first, strict=False)), default=0.0)
        print(f"| {name} | {row['ms']:.1f} | {1000 * tokens / row['ms']:,.0f} | {base / row['ms']:.3f} | {far:.1e} |")
    print("VERSIONS " + json.dumps(measure.versions()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
