"""Data Designer in a process of its own.

Python lets one thread of a process compute at a time. Beside Data Designer, which computes a lot, a thread that has an
answer to read waits for its turn before each piece of it, and a kill meanwhile makes that answer paid for twice. So the
stage asks, reads and writes down in its own process, and Data Designer is in another one, which knows no key and no
ledger: it gets rows, sends its requests to the gateway, and gives the rows back. It ends with the stage, however that
ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import embedding_stages
from embedding_stages.contract import INTERRUPTED
from embedding_stages.errors import StageError, Transient
from embedding_stages.sdg import designer_columns as columns
from embedding_stages.sdg.designer_columns import Address
from embedding_stages.sdg.designer_rows import Steps
from embedding_stages.sdg.written import Written

_MEMORY: Final = "spec.stages.sdg.resources.limits.memory"
_ENDS_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made, and where its requests go."""

    seeds: Sequence[Mapping[str, Any]]  # of the rows; see `designer_columns.run`
    steps: Steps
    routes: Mapping[str, Address]
    folder: Path
    at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What ended Data Designer."""

    error: Exception
    trace: str
    no_row_is_left: bool  # which is what its error means where all rows were given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What is left of each bundle, and the rows that were not given up, by their ids."""

    written: Mapping[str, Written]
    finished: frozenset[str] = frozenset()
    fault: Fault | None = None


class DesignerError(Exception):
    """A bug, or a fault of Data Designer: `NAME OF ITS ERROR: what it says`. The cause is where it happened."""


class _TraceThere(Exception):
    """Prints as the other process's traceback."""


class Designer:
    """The process, which is started with the first order. One order at a time."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def make(self, order: Order) -> Made:
        """Blocks until all is done. Raises StageError `OOMKilled`, Transient `Interrupted`, DesignerError."""
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        try:
            pickle.dump(order, process.stdin)
            process.stdin.flush()
            made: Made = pickle.load(process.stdout)  # noqa: S301 - our own process
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise ended(process.wait()) from None
        return made

    def close(self) -> None:
        """It reads to the end of its orders, and ends."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            # Not as a module that is run: classes of such a one have another name there than here.
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=columns.environment(self._home, os.environ) | _found_by(os.environ),
        )
        return self._process


@contextlib.contextmanager
def opened(home: Path) -> Iterator[Designer]:
    designer = Designer(home)
    try:
        yield designer
    finally:
        designer.close()


def raised(fault: Fault) -> Exception:
    """The error to raise for a fault, with the other process's traceback as its cause."""
    error: Exception = fault.error
    error.__cause__ = _TraceThere(f"\n{fault.trace}")
    return error


def _found_by(env: Mapping[str, str]) -> dict[str, str]:
    """What makes the process import the same program."""
    here = str(Path(embedding_stages.__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (here, env.get("PYTHONPATH"))))}


def ended(code: int) -> Exception:
    """Of a process that ended without an answer. It takes no SIGTERM but while it starts, from who ends the pod."""
    if code == -signal.SIGTERM:
        return Transient(INTERRUPTED, "the pod was asked to stop; the next attempt resumes here")
    if code == -signal.SIGKILL:
        message = (
            "Data Designer's process was killed, as the kernel does where a container runs out of memory: raise it"
        )
        return StageError("OOMKilled", message, field=_MEMORY)
    return DesignerError(f"its process ended with exit code {code}; see the log")


def main() -> None:
    """Orders on standard input, answers on what was standard output: libraries print to standard error meanwhile."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the stage ends it, by the end of its orders
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, orders), daemon=True).start()
    with _ending_the_process():
        while True:
            pickle.dump(_made(orders.get()), answers)
            answers.flush()


def _read(stream: BinaryIO, orders: queue.SimpleQueue[Order]) -> None:
    """Where the stage ends, in the midst of an order too, this ends at once, whatever is under way."""
    with _ending_the_process():
        while True:
            orders.put(pickle.load(stream))  # noqa: S301 - of the stage's own process


@contextlib.contextmanager
def _ending_the_process() -> Iterator[None]:
    """Whatever ends the block, and on whichever thread: else the other thread, or one of the library's, would wait for
    ever, and the stage with it.
    """
    try:
        yield
    except EOFError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _made(order: Order) -> Made:
    try:
        done = columns.run(order.seeds, _functions(order.steps), order.routes, order.folder, at_once=order.at_once)
        return Made(finished=order.steps.finish(done), written=order.steps.written)
    except Exception as error:
        return Made(written=order.steps.written, fault=fault_of(error))


def _functions(steps: Steps) -> columns.Steps:
    return columns.Steps(found=steps.found, drafts=steps.drafts, distinct=steps.distinct, graded=steps.graded)


def fault_of(error: Exception) -> Fault:
    """The library's own classes stay here: the stage would have to import it."""
    is_known = isinstance(error, OSError) and type(error).__module__ == "builtins"
    told = error if is_known else DesignerError(f"{type(error).__name__}: {error}")
    return Fault(error=told, trace=traceback.format_exc(), no_row_is_left=columns.is_of_no_row(error))
