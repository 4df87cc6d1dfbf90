"""A whole finetune Job through the stage's own entry point: from files on disk to a published checkpoint.

python3 bench/job.py --examples 15000 --lengths A [--memory-gb 40] [--set checkpointEverySteps=50]
python3 bench/job.py --examples 2560 --epochs 1 --interrupt 11
python3 bench/job.py --examples 3840 --epochs 1 --gpus 1,2 [--parallelism FSDP]

Prints where the time went, by the stage's log lines. `--memory-gb` leaves the stage that much of the card: a process
beside it holds the rest. `--interrupt STEP` runs the Job, then again with a SIGTERM after that step (one that is
logged: 1, 11, 21, ...) and a second attempt, and compares losses and the checkpoint's digest. `--gpus 1,2` runs the
Job on one GPU, then on two, and compares their rates and losses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

import numpy as np  # noqa: E402

from bench import runner  # noqa: E402
from bench.models import DEFAULT, SHAPES, Shape  # noqa: E402
from bench.workload import PASSAGE_LENGTHS, PASSAGES, QUERY_LENGTHS, as_text  # noqa: E402
from embedding_stages import contract  # noqa: E402
from embedding_stages.artefacts import digest_of_folder  # noqa: E402
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest  # noqa: E402
from embedding_stages.encoder.description import describe_model  # noqa: E402

Marks = list[tuple[float, dict[str, Any]]]

_BALLAST = """
import sys, torch
total = torch.cuda.mem_get_info()[1]
kept = torch.empty(int(total - float(sys.argv[1]) * 1e9), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


def main() -> None:
    options = _options()
    shape = SHAPES[options.model]
    workshop = runner.open_workshop(options.work, wheels=None)
    workspace = options.work / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    model = _model(workshop.checkpoint(options.model) / "ours", workspace)
    training = _training_set(workspace, options, shape)
    request = _request(options, {Artefact.BASE_MODEL: model, Artefact.TRAINING_SET: training}, workspace)
    ballast = _hold_the_rest(options.memory_gb) if options.memory_gb else None
    runs: dict[int, Marks] = {}
    try:
        for gpus in options.gpus:
            _clear(workspace)
            layout = {contract.ENV_PROCESSES: str(gpus), contract.ENV_PARALLELISM: options.parallelism}
            runs[gpus], code = _run(request, workspace, layout if gpus > 1 else {})
            _report(runs[gpus], code, workspace / "log")
    finally:
        if ballast is not None:
            ballast.communicate()
    if len(runs) > 1:
        _compare_layouts(runs)
    if options.interrupt:
        _compare_interrupted(request, workspace, options.interrupt, runs[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=15_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lengths", choices=PASSAGE_LENGTHS, default="A")
    parser.add_argument("--model", choices=SHAPES, default=DEFAULT)
    parser.add_argument("--memory-gb", type=float, default=0.0)
    parser.add_argument("--gpus", type=_numbers, default=[1], metavar="N,...", help="one run for each number")
    parser.add_argument("--parallelism", choices=contract.PARALLELISMS, default="DDP", help="on more than one GPU")
    parser.add_argument("--interrupt", type=int, default=0, metavar="STEP")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="a setting of the stage")
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench-work"))
    options = parser.parse_args()
    if options.interrupt and options.gpus != [1]:
        parser.error("--interrupt compares attempts on one GPU")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _model(source: Path, workspace: Path) -> Path:
    """The base model as the inputs stage leaves it."""
    folder = workspace / "inputs"
    shutil.copytree(source, folder, copy_function=os.link)
    describe_model(folder, prefixes={"query": "w77 ", "passage": "w78 "}, max_tokens=512).save(folder)
    return folder


def _training_set(workspace: Path, options: argparse.Namespace, shape: Shape) -> Path:
    """No passage is used twice: the most work that so many examples can be. The prefix is a token of each text."""
    folder = workspace / "prep"
    folder.mkdir()
    generator = np.random.default_rng(7)
    queries = QUERY_LENGTHS.draw(generator, options.examples)
    lengths = PASSAGE_LENGTHS[options.lengths].draw(generator, options.examples * PASSAGES)

    def text(size: int) -> str:
        return as_text(generator.integers(100, shape.vocabulary, max(1, size - 1)))

    with (folder / "passages.jsonl").open("w") as stream:
        for number, size in enumerate(lengths):
            stream.write(json.dumps({"id": f"p{number}", "text": text(int(size))}) + "\n")
    with (folder / "train.jsonl").open("w") as stream:
        for number, size in enumerate(queries):
            positive, *negatives = (f"p{number * PASSAGES + place}" for place in range(PASSAGES))
            stream.write(json.dumps({"query": text(int(size)), "positive": positive, "negatives": negatives}) + "\n")
    print(f"{int(queries.sum() + lengths.sum()):,} tokens an epoch", flush=True)
    return folder


def _request(options: argparse.Namespace, inputs: dict[Artefact, Path], workspace: Path) -> StageRequest:
    settings: dict[str, Any] = {"epochs": options.epochs}
    settings |= {name: float(value) for name, _, value in (item.partition("=") for item in options.set)}
    return StageRequest(
        stage=Stage.FINETUNE,
        fingerprint="f" * 64,
        attempt=1,
        revision=1,
        image="bench",
        settings=settings,
        inputs={
            name: ArtefactRef(path=path.relative_to(workspace).as_posix(), digest=digest_of_folder(path))
            for name, path in inputs.items()
        },
    )


def _hold_the_rest(gigabytes: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _BALLAST, str(gigabytes)]
    ballast = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert ballast.stdout is not None
    if ballast.stdout.readline().strip() != "held":
        raise RuntimeError("the rest of the card's memory could not be held")
    return ballast


def _compare_interrupted(request: StageRequest, workspace: Path, step: int, whole: Marks) -> None:
    """The same Job in two attempts: its losses at the steps that are logged, and its checkpoint."""
    digest = _digest(workspace / "log")
    _clear(workspace)
    first, stopped = _run(request, workspace, {}, stop_after=step)
    second, code = _run(request, workspace, {})
    print(f"\nexit codes {stopped} (interrupted) and {code}\n| step | whole | in two attempts |\n|---|---:|---:|")
    curve, pieces = _losses(whole), _losses(first) | _losses(second)
    for number, loss in curve.items():
        print(f"| {number} | {loss} | {pieces.get(number)} |")
    print(f"checkpoint {digest}\n       and {_digest(workspace / 'log')}")


def _compare_layouts(runs: dict[int, Marks]) -> None:
    """Rates from the eleventh step on, when the kernels are compiled, against the first layout's; and the losses."""
    curves = {gpus: _losses(marks) for gpus, marks in runs.items()}
    first = next(iter(runs))
    print("\n| GPUs | ms a step | times the first | largest distance of a loss | mean |\n|---:|---:|---:|---:|---:|")
    pace = {gpus: _seconds_a_step(marks) for gpus, marks in runs.items()}
    for gpus, curve in curves.items():
        apart = np.array([abs(curve[step] - curves[first][step]) for step in curve])
        ratio = pace[first] / pace[gpus]
        print(f"| {gpus} | {1000 * pace[gpus]:.1f} | {ratio:.3f} | {apart.max():.1e} | {apart.mean():.1e} |")
    print(f"losses at steps {', '.join(map(str, curves[first]))}:")
    for gpus, curve in curves.items():
        print(f"{gpus}: {' '.join(map(str, curve.values()))}")


def _seconds_a_step(marks: Marks) -> float:
    """The mean over the steps after the eleventh; resume points included."""
    times = [(line["step"], elapsed) for elapsed, line in marks if line.get("message") == "step" and line["step"] > 10]
    if len(times) < 2:
        sys.exit("too few steps to tell a rate: give more --examples")
    (first, begun), (last, ended) = times[0], times[-1]
    return (ended - begun) / (last - first)


def _clear(workspace: Path) -> None:
    """Remove what a run has left."""
    for folder in workspace.iterdir():
        if folder.name not in ("inputs", "prep"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def _losses(marks: Marks) -> dict[int, float]:
    return {line["step"]: line["loss"] for _, line in marks if line.get("message") == "step"}


def _digest(log: Path) -> str:
    return str(json.loads(log.read_text())["artefacts"][Artefact.CHECKPOINT]["digest"])


def _run(request: StageRequest, workspace: Path, layout: dict[str, str], *, stop_after: int = 0) -> tuple[Marks, int]:
    """(seconds since the start, log line) of every line that is JSON, and the exit code."""
    env = {
        **os.environ,
        **layout,
        contract.ENV_REQUEST: request.to_json(),
        contract.ENV_WORKSPACE: str(workspace),
        contract.ENV_TERMINATION_LOG: str(workspace / "log"),
        "PYTHONPATH": str(ROOT / "stage_images"),
        "PYTHONUNBUFFERED": "1",
    }
    marks = []
    started = time.monotonic()
    command = [sys.executable, "-P", "-m", "embedding_stages.finetune"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            elapsed = time.monotonic() - started
            try:
                found = json.loads(line)
            except ValueError:
                print(line, end="", flush=True)
                continue
            marks.append((elapsed, found))
            if stop_after and found.get("step") == stop_after:
                process.send_signal(signal.SIGTERM)
            if "progress" not in found:
                print(f"{elapsed:8.1f} s  {line.strip()[:200]}", flush=True)
    marks.append((time.monotonic() - started, {"message": "ended"}))
    return marks, process.returncode


def _report(marks: Marks, code: int, log: Path) -> None:
    result = log.read_text()[:800] if log.exists() else "no result"
    print(f"\nexit code {code}; {result}\n\n| until | s | since |\n|---|---:|---:|")
    before = 0.0
    last_step = [elapsed for elapsed, line in marks if line.get("message") == "step"][-1:]
    for elapsed, line in marks:
        message = str(line.get("message", ""))
        if message in ("", "step", "warning") and elapsed not in last_step:
            continue
        print(f"| {message} | {elapsed:.1f} | {elapsed - before:.1f} |")
        before = elapsed


if __name__ == "__main__":
    main()
