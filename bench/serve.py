"""The embedding endpoint under load, beside the same encoder embedding in bulk in its own process, on one GPU.

python3 bench/serve.py --lengths A --seconds 15

The server is the process that the image `serve-torch` starts. Clients run in processes of their own, send requests
one after the other each, and read every answer whole. Printed for each load: valid tokens a second, their share of
the bulk rate, and the time from sending a request to its last byte.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # started as a script: this folder is a package, and must not hide libraries' modules
    sys.path[0] = str(ROOT)
sys.path.insert(1, str(ROOT / "stage_images"))

from bench.models import DEFAULT, SHAPES  # noqa: E402
from bench.workload import PASSAGE_LENGTHS, read_corpus, write_corpus  # noqa: E402

MODEL: Final = "bench"
PROCESSES: Final = 4  # of clients
BULK_PASSAGES: Final = 20_000
COMPARED: Final = 256
STARTING_S: Final = 300


@dataclass(frozen=True, slots=True)
class Load:
    """So many clients, each with so many texts a request."""

    clients: int
    texts: int
    encoding: str = "base64"


LOADS: Final = (
    Load(1, 1), Load(16, 1), Load(128, 1), Load(1, 32), Load(16, 32), Load(32, 128), Load(16, 32, "float"),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="A", choices=PASSAGE_LENGTHS)
    parser.add_argument("--model", default=DEFAULT, choices=SHAPES, help="tiny: a dry run on a CPU")
    parser.add_argument("--seconds", type=float, default=15, help="for one load, after two that are not counted")
    parser.add_argument("--passages", type=int, default=BULK_PASSAGES, help="embedded in bulk, and sent")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--output", type=Path, help="write all results here as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, corpus = Path(scratch, "models"), Path(scratch, "corpus.jsonl")
        _in_a_process("bench.checkpoint", str(folder), "--model", options.model)
        write_corpus(corpus, options.lengths, passages=options.passages, seed=options.seed, shape=SHAPES[options.model])
        _describe(folder / "ours")
        bulk = json.loads(_in_a_process("bench.serve", "bulk", str(folder / "ours"), str(corpus)).splitlines()[-1])
        with _server(folder / "ours") as (url, starting):
            rows = [_measure(url, load, corpus, options.seconds) for load in LOADS]
            cosine = _compare(url, corpus, np.asarray(bulk.pop("vectors"), dtype=np.float64))
    print(f"\n{bulk['device']}: bulk {bulk['tokens_s']:,.0f} tokens/s; the server was ready after {starting:.0f} s")
    print(f"lowest cosine between served and bulk vectors: {cosine:.6f}\n")
    print("| clients | texts a request | numbers as | tokens/s | of bulk | p50, ms | p99, ms |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for row in rows:
        share = row["tokens_s"] / bulk["tokens_s"]
        print(
            f"| {row['clients']} | {row['texts']} | {row['encoding']} | {row['tokens_s']:,.0f} | {share:.0%} "
            f"| {row['p50_ms']:.1f} | {row['p99_ms']:.1f} |"
        )
    if options.output is not None:
        options.output.write_text(json.dumps({"bulk": bulk, "cosine": cosine, "rows": rows}, indent=1) + "\n")
    return 0


def _describe(folder: Path) -> None:
    """The description that finetune writes; the workload's texts hold their prefixes."""
    from embedding_stages.encoder.description import describe_model

    describe_model(folder, prefixes={"query": "", "passage": ""}, max_tokens=512).save(folder)


def _in_a_process(module: str, *arguments: str) -> str:
    """So that this process never holds memory of the GPU."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=_environment(), check=True, stdout=subprocess.PIPE, text=True).stdout


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'stage_images'}:{os.environ.get('PYTHONPATH', '')}", **more}


def _bulk(folder: Path, corpus: Path) -> None:
    """Print, as JSON, how fast the encoder alone is, and some of its vectors."""
    import torch

    from embedding_stages.encoder.load import load_encoder

    encoder = load_encoder(folder)
    texts, sizes = read_corpus(corpus), _sizes(corpus)
    encoder.embed(texts[:512], role="passage")
    began = time.perf_counter()
    vectors = encoder.embed(texts, role="passage")
    tokens_s = sum(sizes) / (time.perf_counter() - began)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(json.dumps({"tokens_s": tokens_s, "device": device, "vectors": vectors[:COMPARED].tolist()}))


def _sizes(corpus: Path) -> list[int]:
    with corpus.open(encoding="utf-8") as file:
        return [int(json.loads(line)["tokens"]) for line in file]


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, float]]:
    """(URL, seconds until it was ready)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = _environment(
        NIM_CUSTOM_MODEL=str(folder), NIM_SERVED_MODEL_NAME=MODEL, NIM_HTTP_API_PORT=str(port),
        EFT_HOST="127.0.0.1", EFT_DRAIN_SECONDS="0", EFT_TERMINATION_LOG=os.devnull,
    )  # fmt: skip
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "embedding_stages.serve"], env=env) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            while not _ready(url):
                if server.poll() is not None or time.monotonic() - began > STARTING_S:
                    raise RuntimeError("the server did not become ready; its log is above")
                time.sleep(0.2)
            yield url, time.monotonic() - began
        finally:
            server.terminate()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _measure(url: str, load: Load, corpus: Path, seconds: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    processes = min(PROCESSES, load.clients)
    with context.Pool(processes) as pool:
        shares = [load.clients // processes] * processes
        parts = pool.starmap(_clients, [(url, load, corpus, count, seconds, at) for at, count in enumerate(shares)])
    took = np.array([value for part in parts for value in part[0]] or [np.nan]) * 1000  # NaN: none was done in time
    row = {**asdict(load), "tokens_s": sum(part[1] for part in parts) / seconds, "requests": len(took)}
    row |= {"p50_ms": float(np.percentile(took, 50)), "p99_ms": float(np.percentile(took, 99))}
    print(json.dumps(row), flush=True)
    return row


def _clients(url: str, load: Load, corpus: Path, count: int, seconds: float, seed: int) -> tuple[list[float], int]:
    """(seconds of each request, tokens embedded) of `count` clients in this process, in the time that counts."""
    texts, sizes = read_corpus(corpus), _sizes(corpus)
    generator = np.random.default_rng(seed)
    bodies = []
    for _ in range(64):
        chosen = generator.integers(len(texts), size=load.texts)
        bodies.append((_body([texts[at] for at in chosen], load.encoding), sum(sizes[at] for at in chosen)))
    return asyncio.run(_ask(f"{url}/v1/embeddings", bodies, count, seconds))


async def _ask(url: str, bodies: list[tuple[bytes, int]], count: int, seconds: float) -> tuple[list[float], int]:
    import aiohttp

    begin = time.monotonic() + 2
    end = begin + seconds
    took: list[float] = []
    tokens = 0

    async def client(number: int) -> None:
        nonlocal tokens
        at = number * 7
        while (sent := time.monotonic()) < end:
            body, size = bodies[at % len(bodies)]
            at += 1
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                answer.raise_for_status()
                await answer.read()
            done = time.monotonic()
            if begin <= done < end:
                took.append(done - sent)
                tokens += size

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(number) for number in range(count)))
    return took, tokens


def _body(texts: list[str], encoding: str) -> bytes:
    body = {"model": MODEL, "input": texts, "input_type": "passage", "encoding_format": encoding}
    return json.dumps(body).encode()


def _compare(url: str, corpus: Path, expected: np.ndarray[Any, Any]) -> float:
    body = _body(read_corpus(corpus)[: len(expected)], "base64")
    request = urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        data = json.load(answer)["data"]
    found = np.stack([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data])
    return float((found * expected).sum(axis=1).min())


if __name__ == "__main__":
    if sys.argv[1:2] == ["bulk"]:
        _bulk(Path(sys.argv[2]), Path(sys.argv[3]))
        sys.exit()
    sys.exit(main())
