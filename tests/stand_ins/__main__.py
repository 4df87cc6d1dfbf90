"""The container of a stand-in: `STAND_IN` names a NIM's generation; with `serve` as its first argument it is vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from stand_ins.front import Front
from stand_ins.started import Refused, start_nim, start_vllm


async def main() -> int:
    arguments = sys.argv[1:]
    try:
        started = (
            start_vllm(arguments, os.environ)
            if arguments[:1] == ["serve"]
            else start_nim(os.environ["STAND_IN"], os.environ)
        )
    except Refused as error:
        print(f"stand-in: {error}", file=sys.stderr, flush=True)
        return 1
    front, stop = Front(started), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await front.start(None, started.port)
        print(f"stand-in: serves {started.folder} as {', '.join(started.names)}", flush=True)
        await stop.wait()
        await asyncio.sleep(5)  # clients are still sent here for a moment
    finally:
        await front.stop()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
