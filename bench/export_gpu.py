"""Exported graphs under ONNX Runtime on a GPU: how long each number format computes, and how close its vectors stay.

python3 bench/export_gpu.py [--model minilm-l6,bert-base] [--checkpoint FOLDER] [--formats fp32,fp16,int8+fp16,fp8+fp16]
    [--batches 64x128,1x16] [--calibrate 32] [--seconds 1.0]

The stage's own code writes each graph, of random weights in a published shape or of a real checkpoint; the quantized
ones are calibrated on the CPU with random texts. A batch is BATCHxTOKENS random ids without padding, and inputs and
outputs stay on the card. `ms` is the median of the runs; `CPU` counts the nodes that ONNX Runtime left to the CPU;
`cosine` is the lowest to the checkpoint's vectors, computed by torch in float32. The row `torch fp16` is the same
batch through the checkpoint's own module, padded and not compiled. Needs onnxruntime-gpu; without a GPU it runs on the
CPU, which shows that the program works and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch  # before onnxruntime, which then finds the CUDA libraries that torch has loaded

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

import onnxruntime  # noqa: E402

from bench import measure  # noqa: E402
from bench.checkpoint import write_checkpoint  # noqa: E402
from bench.export_precision import candidate_of  # noqa: E402
from bench.models import SHAPES  # noqa: E402
from embedding_stages.encoder.description import describe_model  # noqa: E402
from embedding_stages.encoder.model import PaddedEncoder  # noqa: E402
from embedding_stages.export.calibration import feeds  # noqa: E402
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, EMBEDDINGS, INPUT_IDS  # noqa: E402
from embedding_stages.export.written import MODEL, write_candidate  # noqa: E402

DEVICE: Final = "cuda" if torch.cuda.is_available() else "cpu"
_CUDA: Final = "CUDAExecutionProvider"
_FIRST_ID: Final = 1000  # of the ids that are drawn: behind a vocabulary's special ones
_TITLES: Final = ("model", "format", "MB", "batch", "ms", "texts/s", "beside fp32", "CPU", "cosine")


@dataclass(frozen=True)
class Batch:
    ids: np.ndarray[Any, Any]  # int64 (texts, tokens)
    expected: np.ndarray[Any, Any]  # float32 (texts, dimensions), of length 1

    @property
    def name(self) -> str:
        return "x".join(map(str, self.ids.shape))


def main() -> None:
    """Print a Markdown table, and the versions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm-l6", help=f"of {', '.join(SHAPES)}; separated by commas")
    parser.add_argument("--checkpoint", type=Path, help="a real model's folder, in place of --model")
    parser.add_argument("--formats", default="fp32,fp16,int8+fp16,fp8+fp16")
    parser.add_argument("--batches", default="64x128,1x16")
    parser.add_argument("--calibrate", type=int, default=32, help="texts of 32 words")
    parser.add_argument("--seconds", type=float, default=1.0, help="for how long each batch is repeated")
    options = parser.parse_args()
    if DEVICE == "cuda" and _CUDA not in onnxruntime.get_available_providers():
        sys.exit(f"onnxruntime {onnxruntime.__version__} has no {_CUDA}: install onnxruntime-gpu")
    print(f"| {' | '.join(_TITLES)} |\n{'|---' * len(_TITLES)}|", flush=True)
    for name in [options.checkpoint.name] if options.checkpoint else options.model.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.checkpoint or _random(name, Path(scratch, "model"))
            for cells in rows(folder, Path(scratch), options):
                print(f"| {' | '.join((name, *cells))} |", flush=True)
    print(json.dumps(measure.versions() | {"onnxruntime": onnxruntime.__version__}))


def _random(name: str, folder: Path) -> Path:
    write_checkpoint(folder, SHAPES[name])
    return folder / "ours"


def rows(checkpoint: Path, scratch: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """One for each format and batch, and for torch."""
    describe_model(checkpoint, prefixes={"query": "", "passage": ""}, max_tokens=512).save(checkpoint)
    encoder = PaddedEncoder.load(checkpoint, device="cpu", dtype=torch.float32)
    sizes = [tuple(map(int, text.split("x"))) for text in options.batches.split(",")]
    batches = [_batch(checkpoint, texts, tokens) for texts, tokens in sizes]
    vector_size = encoder.description.vector_size
    calibration = list(feeds(_texts(options.calibrate), encoder.tokenizer, encoder.description))
    fastest: dict[str, float] = {}  # of fp32, by the batch

    def row(name: str, megabytes: str, batch: Batch, seconds: float, left: str, cosine: float) -> tuple[str, ...]:
        beside = fastest.setdefault(batch.name, seconds) / seconds
        timed = (f"{1000 * seconds:.2f}", f"{len(batch.ids) / seconds:,.0f}", f"{beside:.2f}x")
        return (name, megabytes, batch.name, *timed, left, f"{cosine:.4f}")

    for text in options.formats.split(","):
        candidate, _ = candidate_of(text)
        place = scratch / "out"
        try:
            write_candidate(candidate, encoder, checkpoint, place, scratch / "graph", lambda: calibration)
            session, left = _session(place / MODEL), str(_left_to_the_cpu(place / MODEL, batches[0], vector_size))
        except Exception as error:  # another format may do, and why this one does not is what was asked
            yield (
                str(candidate),
                "",
                "",
                "",
                "",
                "",
                "",
                f"{type(error).__name__}: {str(error)[:200]}".replace("|", "/"),
            )
            continue
        size = sum(path.stat().st_size for path in place.iterdir() if path.name.startswith(MODEL)) / 1e6
        for batch in batches:
            run = _bound(session, batch, vector_size)
            cosine = float((run() * batch.expected).sum(axis=1).min())
            yield row(str(candidate), f"{size:.0f}", batch, _time(run, options.seconds), left, cosine)
        del session
    module = PaddedEncoder.load(checkpoint, device=DEVICE, dtype=torch.float16 if DEVICE == "cuda" else torch.float32)
    for batch in batches:
        found = _by_torch(module, batch)
        cosine = float((found() * batch.expected).sum(axis=1).min())
        yield row("torch fp16", "", batch, _time(found, options.seconds), "", cosine)


def _texts(count: int) -> list[str]:
    chosen = np.random.default_rng(0).integers(_FIRST_ID, 2000, size=(count, 32))
    return [" ".join(f"w{number}" for number in row) for row in chosen]


def _batch(checkpoint: Path, texts: int, tokens: int) -> Batch:
    exact = PaddedEncoder.load(checkpoint, device=DEVICE, dtype=torch.float32)
    ids = np.random.default_rng(tokens).integers(_FIRST_ID, exact.module.config.vocab_size, size=(texts, tokens))
    found = _by_torch(exact, Batch(ids.astype(np.int64), np.zeros(0)))()
    del exact
    return Batch(ids.astype(np.int64), found)


def _by_torch(encoder: PaddedEncoder, batch: Batch) -> Callable[[], np.ndarray[Any, Any]]:
    lists = batch.ids.tolist()

    def run() -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            return encoder.vectors(lists).float().cpu().numpy()

    return run


def _session(model: Path, profile: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    providers = [_CUDA, "CPUExecutionProvider"] if DEVICE == "cuda" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    if DEVICE == "cuda" and session.get_providers()[0] != _CUDA:
        raise RuntimeError(f"{_CUDA} did not start: {session.get_providers()}")
    return session


def _left_to_the_cpu(model: Path, batch: Batch, size: int) -> int:
    """Nodes of one run that another provider than CUDA's computed, by ONNX Runtime's own profile."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(model, str(Path(folder, "profile")))
        session.run([EMBEDDINGS], _feed(batch, size))
        told = json.loads(Path(session.end_profiling()).read_text())
    ran = {
        event["args"]["node_index"]: event["args"]["provider"] for event in told if "provider" in event.get("args", {})
    }
    return sum(provider != _CUDA for provider in ran.values())


def _feed(batch: Batch, size: int) -> dict[str, Any]:
    sizes = np.full(len(batch.ids), size, dtype=np.int64)
    return {INPUT_IDS: batch.ids, ATTENTION_MASK: np.ones_like(batch.ids), DIMENSIONS: sizes}


def _bound(session: onnxruntime.InferenceSession, batch: Batch, size: int) -> Callable[[], np.ndarray[Any, Any]]:
    """Run on inputs that lie on the device; the vectors are copied back, as every server must."""
    binding = session.io_binding()
    for name, values in _feed(batch, size).items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(values, DEVICE, 0))
    binding.bind_output(EMBEDDINGS, DEVICE, 0)

    def run() -> np.ndarray[Any, Any]:
        session.run_with_iobinding(binding)
        found: np.ndarray[Any, Any] = binding.copy_outputs_to_cpu()[0]
        return found.astype(np.float32)

    return run


def _time(run: Callable[[], object], seconds: float) -> float:
    """Median seconds of a run, after five that are not counted."""
    for _ in range(5):
        run()
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 5:
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


if __name__ == "__main__":
    main()
