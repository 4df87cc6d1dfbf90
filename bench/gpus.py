"""One optimizer step on several GPUs of one machine, beside the same step on each of them alone.

python3 bench/gpus.py --gpus 2 --lengths A,C --steps 8
python3 bench/gpus.py --gpus 2 --lora 16 --steps 3 --warmup 2 --ways "together,padded shards"

Every GPU first does whole steps alone, one after the other, for cards of a kind differ by a few per cent; then all
share each step as the stage's DDP does. `exchanged after` holds the gradients back until the backward pass is through,
`not exchanged` leaves every GPU with its own: what is between them is what the exchange costs. `padded shards` is the
way of models that do not fit, the library's modules over padded batches in FSDP's shards: with `--lora`, what the stage
did until adapters were trained over packs with either word of `parallelism`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
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
from bench.contestants.interface import Trained, TrainJob  # noqa: E402
from bench.contestants.master_adamw import LEARNING_RATE, WEIGHT_DECAY  # noqa: E402
from bench.models import DEFAULT, SHAPES  # noqa: E402
from bench.runner import open_workshop  # noqa: E402
from bench.workload import PASSAGE_LENGTHS, PASSAGES, step_lengths  # noqa: E402
from embedding_stages.contract.settings import Finetune, Lora  # noqa: E402
from embedding_stages.encoder.model import PaddedEncoder  # noqa: E402
from embedding_stages.finetune.lora import add_adapters  # noqa: E402
from embedding_stages.finetune.packed_trainer import PackedTrainer  # noqa: E402
from embedding_stages.finetune.trainer import Trainer  # noqa: E402
from embedding_stages.finetune.world import World  # noqa: E402

TOGETHER: Final = ("together", "exchanged after", "not exchanged")
SHARDS: Final = "padded shards"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--lengths", default="A", help=f"length models, of {', '.join(PASSAGE_LENGTHS)}")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each way")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--examples", type=int, default=128, help="queries an optimizer step, 5 passages each")
    parser.add_argument("--model", choices=SHAPES, default=DEFAULT, help="tiny: a dry run on a CPU")
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters of all linear layers; 0: all weights")
    parser.add_argument("--micro-batch", type=int, default=Finetune().microBatchSize, help="of padded shards, examples")
    parser.add_argument("--ways", default=f"alone,{','.join(TOGETHER)}", help=f"of these and {SHARDS}")
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
            examples=options.examples, micro_batch=options.micro_batch, seed=1234, shape=SHAPES[options.model],
            device=str(world.device), options=(f"lora={options.lora}",),
        )  # fmt: skip
        rows: dict[str, dict[str, Any]] = {}
        for rank in range(world.size if "alone" in options.ways.split(",") else 0):
            found = _timed(job, World.alone(), "") if rank == world.rank else {"ms": 0.0, "losses": [], "gb": 0.0}
            told = {key: world.sum_number(found[key]) for key in ("ms", "gb")}
            rows[f"GPU {rank} alone"] = {**told, "losses": found["losses"]}
        for way in TOGETHER:
            if way in options.ways.split(","):
                rows[way] = _timed(job, world, way)
        if SHARDS in options.ways.split(","):
            rows[SHARDS] = _measured(job, lambda job=job: _padded(job, world, ours.lora_of(options.lora)))
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

    return _measured(job, lambda: ours.train_steps(job, world=world, prepared=prepared))


def _measured(job: TrainJob, train: Callable[[], Trained]) -> dict[str, Any]:
    trained = train()
    peak = measure.peak_gb(job.device)
    gc.collect()  # shards hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"ms": statistics.median(trained.step_ms[job.warmup :]), "losses": trained.losses, "gb": peak}


def _padded(job: TrainJob, world: World, lora: Lora | None) -> Trained:
    """As the stage trains with shards."""
    folder = job.checkpoint / ours.FLAVOUR
    ours.describe(folder)
    encoder = PaddedEncoder.load(folder, device=job.device, dtype=torch.float32)
    trainer = Trainer(
        encoder,
        temperature=ours.TEMPERATURE,
        weight_decay=WEIGHT_DECAY,
        micro_batch=job.micro_batch,
        texts_per_example=1 + PASSAGES,
        adapters=add_adapters(encoder, lora, seed=1) if lora else None,
        bfloat16=job.device.startswith("cuda"),
        world=replace(world, parallelism="FSDP"),
    )
    rows, steps = ours.texts_and_steps(job)
    clock = measure.StepClock(job.device)
    clock.start()
    losses = []
    for examples in steps:
        losses.append(trainer.step(examples, rows, LEARNING_RATE).loss)
        clock.mark()
    return Trained(step_ms=clock.durations_ms(), losses=losses)


def _print(job: TrainJob, rows: dict[str, dict[str, Any]], gpus: int) -> None:
    first = next(iter(rows.values()))
    base = statistics.mean([row["ms"] for name, row in rows.items() if name.endswith("alone")] or [first["ms"]])
    tokens = statistics.mean(sum(step_lengths(step)) for step in job.batches()[job.warmup :])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"\n{gpus} x {device}, lengths {job.lengths}, {tokens:,.0f} valid tokens a step\n")
    print("| | step, ms | valid tokens/s | times the first | largest distance of a loss | most memory, GB |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, row in rows.items():
        far = max((abs(a - b) for a, b in zip(row["losses"], first["losses"], strict=False)), default=0.0)
        speed = f"{1000 * tokens / row['ms']:,.0f} | {base / row['ms']:.3f}"
        print(f"| {name} | {row['ms']:.1f} | {speed} | {far:.1e} | {row['gb']:.1f} |")
    print("VERSIONS " + json.dumps(measure.versions()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
