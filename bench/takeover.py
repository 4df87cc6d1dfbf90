"""How long until another replica works, when the one that leads is killed or asked to end.

    PYTHONPATH=operator:stage_images:tests .venv/bin/python bench/takeover.py

Two real operators with the chart's seconds on a real API server. A stage ends in the moment of the signal; the
standby's first write that is no renewal of the Lease is its first action, by the API server's audit log.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import time
from datetime import datetime

from apiserver.api import EFT, Api, make_namespace, resource, until
from apiserver.controllers import Controllers
from apiserver.pair import started, two_accounts, writes
from apiserver.plane import running
from apiserver.process import Operator

from embedding_stages.contract import Stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--signals", nargs="+", default=["SIGKILL", "SIGTERM"])
    wanted = parser.parse_args()
    with running() as api:
        accounts = two_accounts(api)
        for number in (signal.Signals[name] for name in wanted.signals):
            took = [once(api, accounts, number) for _ in range(wanted.times)]
            middle = statistics.median(took)
            print(
                f"{number.name}: {len(took)} times, {min(took):.1f} to {max(took):.1f} s, median {middle:.1f} s",
                flush=True,
            )


def once(api: Api, accounts: tuple[str, str], number: signal.Signals) -> float:
    """Seconds from the signal to the standby's first action."""
    namespace = make_namespace(api)
    with started(api, accounts) as (first, second):
        played = Controllers(api, namespace, held={Stage.PREP})
        api.make(EFT.format(namespace), resource(namespace))
        until("a Job of prep", lambda: Stage.PREP in played.stages(), [played.step])
        time.sleep(random.random() * 2)  # anywhere between two renewals
        known = len(writes(api, second))
        first.send(number)
        sent = time.time()
        if number is signal.SIGKILL:
            first.kill()
        played.held = {Stage.EVAL}
        until("a first action", lambda: len(writes(api, second)) > known, [played.step])
        api.send("DELETE", EFT.format(namespace))
        return _time(second, api, known) - sent


def _time(operator: Operator, api: Api, number: int) -> float:
    return datetime.fromisoformat(writes(api, operator)[number]["requestReceivedTimestamp"]).timestamp()


if __name__ == "__main__":
    main()
