"""The sdg stage against an endpoint that limits, is slow, talks nonsense, cuts answers, dies and comes back.

python3 bench/sdg.py rate     the share of the permitted requests that is used
python3 bench/sdg.py kills    20 kills at any moment: answers that were paid twice
python3 bench/sdg.py preview  what five documents say of the bill, beside the bill
python3 bench/sdg.py providers  openAI and dataDesigner, one after the other, and killed 20 times each

`twice` are answers that the endpoint gave twice, and is paid for twice. Of those, `read` were read to their end by the
process that was killed, which lost them; the others were still on their way to it.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
if not __package__:  # started as a script: this folder is a package, and must not hide libraries' modules
    sys.path[0] = str(ROOT)
sys.path[1:1] = [str(ROOT / "stage_images"), str(ROOT / "tests")]

from scripted_llm import Script, Server  # noqa: E402
from unit.stages import scripted_sdg  # noqa: E402
from unit.stages.scripted_sdg import PRICES, documents, outcome_in, request_of  # noqa: E402

SLOW: Final = (0.2, 5.0)
ODD: Final[dict[str, Any]] = {"junk": 0.05, "cut": 0.05}


def started(env: dict[str, str]) -> subprocess.Popen[bytes]:
    return scripted_sdg.started(env, stdout=subprocess.DEVNULL)


def rate(_: argparse.Namespace) -> None:
    print(f"{'permitted':22}{'documents':>10}{'let through':>12}{'refused':>8}{'seconds':>8}{'used':>7}")
    for name, number, script in (
        ("4 a second", 250, Script(rate=4, burst=4, latency=SLOW, **ODD)),
        ("10 a second", 600, Script(rate=10, burst=10, latency=SLOW, **ODD)),
        ("20 a second, 60 at once", 900, Script(rate=20, burst=60, latency=SLOW, **ODD)),
    ):
        with tempfile.TemporaryDirectory() as folder, Server(script) as server:
            code = started(request_of(Path(folder), server.url, documents(number), concurrency=96)).wait()
            if code:
                raise SystemExit(f"the stage ended with {code}: {outcome_in(Path(folder))[0]['message']}")
            told = server.state.stats()
        print(
            f"{name:22}{number:>10}{told['letThrough']:>12}{told['refused']:>8}{told['seconds']:>8.0f}"
            f"{told['usedShare']:>7.1%}",
            flush=True,
        )


def kills(asked: argparse.Namespace) -> None:
    draw = random.Random(1)
    script = Script(latency=(0.05, 0.5), rate=60, burst=20, down=[(20, 22)], **ODD)
    with tempfile.TemporaryDirectory() as folder, Server(script) as server:
        env = request_of(Path(folder), server.url, documents(600))
        killed = 0
        while killed < asked.times:
            process = started(env)
            time.sleep(draw.uniform(0.8, 2.5))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        code = started(env).wait()
        told = server.state.stats()
        result, pairs = outcome_in(Path(folder))
    counted = result["details"].get("llmTokens", {})
    print(
        f"{killed} kills, exit {code}, {told['answered']} answers, {told['answeredTwice']} of them twice "
        f"({told['readTwice']} read twice); the status counts {counted.get('calls')}; {len(pairs)} questions"
    )


def preview(_: argparse.Namespace) -> None:
    print(f"{'documents':>10}{'forecast':>12}{'bill':>12}{'off by':>8}")
    for seed in range(1, 6):
        texts = documents(200, seed=seed)
        with tempfile.TemporaryDirectory() as folder, Server(Script(seed=seed, **ODD)) as server:
            at = Path(folder)
            started(request_of(at, server.url, texts, preview=5, prices=PRICES)).wait()
            said = re.search(r"a price of ([\d.e-]+) after", outcome_in(at)[0]["message"])
            started(request_of(at, server.url, texts, prices=PRICES)).wait()
            bill = outcome_in(at)[0]["details"]["llmCost"]["total"]
        forecast = float(said[1]) if said else 0.0
        print(f"{len(texts):>10}{forecast:>12.5f}{bill:>12.5f}{forecast / bill - 1:>+8.1%}", flush=True)


def providers(asked: argparse.Namespace) -> None:
    script = Script(latency=(0.2, 2.0), rate=20, burst=20, **ODD)
    texts = documents(asked.documents)
    print(
        f"{'provider':28}{'seconds':>8}{'calls':>7}{'tokens':>9}{'kept':>6}{'kept/1,000':>11}{'kills':>6}"
        f"{'twice':>6}{'read':>5}"
    )
    for name, provider, endpoint in (
        ("openAI", "openAI", {}),
        ("dataDesigner", "dataDesigner", {}),
        ("dataDesigner, embedding", "dataDesigner", {"embedding": {"model": "e"}}),
    ):
        options: dict[str, Any] = {"provider": provider, "endpoint": endpoint, "concurrency": 64}
        with tempfile.TemporaryDirectory() as folder, Server(script) as server:
            at, begun = Path(folder), time.monotonic()
            started(request_of(at, server.url, texts, qualityThreshold=7.0, **options)).wait()
            seconds = time.monotonic() - begun
            told = server.state.stats()
            kept = outcome_in(at)[0]["counts"]["keptPairs"]
        tokens = told["prompt"] + told["completion"]
        killed, twice, read = _twice(script, texts, options, asked.times)
        print(
            f"{name:28}{seconds:>8.1f}{told['answered']:>7}{tokens:>9}{kept:>6}{1000 * kept / tokens:>11.2f}"
            f"{killed:>6}{twice:>6}{read:>5}",
            flush=True,
        )


def _twice(script: Script, texts: dict[str, str], options: dict[str, Any], times: int) -> tuple[int, int, int]:
    """Kills while answers come; answers that were given twice, and those that were read twice.

    Where the stage is done before the last kill it begins anew, in a folder of its own.
    """
    draw, killed, twice, read = random.Random(1), 0, 0, 0
    while killed < times:
        with tempfile.TemporaryDirectory() as folder, Server(script) as server:
            env = request_of(Path(folder), server.url, texts, **options)
            process = started(env)
            while killed < times:
                answers, pause = draw.randint(5, 25), partial(time.sleep, draw.uniform(0, 0.2))
                if not scripted_sdg.killed(process, server, answers, after=pause):
                    break
                killed += 1
                process = started(env)
            process.wait()
            stats = server.state.stats()
        twice, read = twice + stats["answeredTwice"], read + stats["readTwice"]
    return killed, twice, read


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("rate", "kills", "preview", "providers"))
    options.add_argument("--times", type=int, default=20, help="kills, providers")
    options.add_argument("--documents", type=int, default=200, help="providers")
    asked = options.parse_args()
    {"rate": rate, "kills": kills, "preview": preview, "providers": providers}[asked.what](asked)


if __name__ == "__main__":
    main()
