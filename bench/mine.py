"""Exact search for hard negatives: ours beside a block of scores with torch.topk, and faiss where it can use the GPU.

python3 bench/mine.py --passages 1000000 --queries 100000 --dimension 2048 --most 48 --check

Random unit vectors, on the device before the clock starts. Printed: seconds of the device for all queries, the share
of the time that the products alone would take at the rate of a large half-precision product, and whether the numbers
are those of a float32 search.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from bench import measure  # noqa: E402
from embedding_stages.encoder.nearest import _Part, _plain_products  # noqa: E402
from embedding_stages.prep.search import Index, Numbers, Settled, _faiss  # noqa: E402
from embedding_stages.vectors import Vectors  # noqa: E402

Found = tuple[torch.Tensor, torch.Tensor]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHUNK = 16384  # passages a block, as sentence-transformers' hard-negative mining takes them


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--most", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="compare a sample with a float32 search")
    options = parser.parse_args()
    passages, queries = (_unit(count, options.dimension) for count in (options.passages, options.queries))
    gemm = measure.gemm_tflops(DEVICE)
    started = time.perf_counter()
    part = _Part.of(passages)
    measure.synchronize(DEVICE)
    print(f"half-precision twins: {time.perf_counter() - started:.2f} s", flush=True)
    contestants: dict[str, Callable[[torch.Tensor], Found]] = {
        "ours": lambda some: part.search(some, options.most),
        "blocks with topk": lambda some: _blocks(part, some, options.most),
    }
    if _faiss_is_there():
        index = Index(passages.cpu().numpy(), "faiss")
        contestants["faiss"] = lambda some: _tensors(index.search(some.cpu().numpy(), options.most))
        if isinstance(settled := index._searcher, Settled):  # what of it is faiss' own: products that may be rounded
            alone = settled._candidates
            contestants["faiss alone"] = lambda some: _tensors(alone.search(some.cpu().numpy(), options.most))
    floor = 2 * options.passages * options.queries * options.dimension / (gemm * 1e12) if gemm else 0.0
    print("| search | s | products alone, s | same numbers as float32 |\n|---|---:|---:|---|")
    rows = []
    with _plain_products():
        for name, search in contestants.items():
            seconds = _time(lambda search=search: search(queries), options.repeats if name == "ours" else 1)  # type: ignore[misc]
            same = _check(part, queries, search) if options.check else None
            rows.append({"name": name, "seconds": round(seconds, 3), "floor": round(floor, 3), "same": same})
            print(f"| {name} | {seconds:.3f} | {floor:.3f} | {'' if same is None else same} |", flush=True)
    settings = {key: value for key, value in vars(options).items() if key != "check"}
    print("RESULT " + json.dumps({"rows": rows, "gemm": round(gemm, 1), **settings, "versions": measure.versions()}))


def _unit(count: int, dimension: int) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(count)
    found = torch.randn(count, dimension, device=DEVICE, generator=generator)
    return torch.nn.functional.normalize(found, dim=1)


def _blocks(part: _Part, queries: torch.Tensor, most: int) -> Found:
    """A block of half-precision scores, its best, merged with those so far: not exact."""
    scores = torch.full((len(queries), 0), 0.0, device=DEVICE)
    numbers = torch.zeros((len(queries), 0), dtype=torch.int64, device=DEVICE)
    half = queries.half()
    for start in range(0, len(part.half), CHUNK):
        for begin in range(0, len(half), CHUNK):
            block = half[begin : begin + CHUNK] @ part.half[start : start + CHUNK].t()
            best = block.float().topk(min(most, block.shape[1]), dim=1)
            if begin == 0:
                found, places = [], []
            found.append(best.values)
            places.append(best.indices + start)
        scores, numbers = torch.cat([scores, torch.cat(found)], 1), torch.cat([numbers, torch.cat(places)], 1)
        best = scores.topk(min(most, scores.shape[1]), dim=1)
        scores, numbers = best.values, numbers.gather(1, best.indices)
    return scores.cpu(), numbers.cpu()


def _faiss_is_there() -> bool:
    """Whether this machine's faiss searches where torch does: on the GPU, or on the CPU."""
    return DEVICE == "cpu" or bool(getattr(_faiss(), "StandardGpuResources", None) and _faiss().get_num_gpus())


def _tensors(found: tuple[Vectors, Numbers]) -> Found:
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _check(part: _Part, queries: torch.Tensor, search: Callable[[torch.Tensor], Found]) -> str:
    """Of 1,000 queries: how many have exactly the passages of a float32 search (ties to 1e-6 allowed)."""
    sample = queries[: min(1000, len(queries))]
    _, numbers = search(sample)
    right = 0
    for begin in range(0, len(sample), 100):
        exact = sample[begin : begin + 100] @ part.exact.t()
        picked = exact.gather(1, numbers[begin : begin + 100].to(exact.device)).sort(dim=1, descending=True).values
        best = exact.topk(picked.shape[1], dim=1).values
        right += int(((picked - best).abs().amax(dim=1) < 1e-6).sum())
    return f"{right} of {len(sample)}"


def _time(call: Callable[[], object], repeats: int) -> float:
    """Median seconds, after one call that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        clock = measure.StepClock(DEVICE)
        clock.start()
        call()
        clock.mark()
        taken.append(clock.durations_ms()[0] / 1000)
    return sorted(taken[1:])[len(taken[1:]) // 2]


if __name__ == "__main__":
    main()
