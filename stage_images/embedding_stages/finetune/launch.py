"""Several workers on a node: starts them, ends with the exit code of the one that matters, passes on its result.

torchrun's agent runs in this process, for its own command would turn every failure into exit code 1. It is imported
late: the number of threads must be settled before torch is loaded.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final

from embedding_stages import contract, full_disk
from embedding_stages.contract import INTERRUPTED, PEER_LOST, ExitCode, Stage, StageRequest, StageResult
from embedding_stages.errors import StageError, Transient

WORKER_LOGS: Final = "EFT_WORKER_LOGS"  # set for workers: the folder of their termination logs, one a local rank
_LOOPBACK: Final = "127.0.0.1"
# Pods of a Job start apart: a node may have to be added and the image pulled there. After that a missing pod will
# not come by itself, and those that wait hold accelerators.
_MEETING_S: Final = 900
_SAVING_S: Final = 110  # after SIGTERM; just below the Job's grace period
_FOLLOWED: Final = (PEER_LOST, INTERRUPTED)  # reasons that another worker's end, or the agent's SIGTERM, gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many workers there are, and where this node is among them."""

    nodes: int
    node_rank: int
    processes: int  # on each node
    coordinator: str  # host:port, with several nodes

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Plan:
        """From the stage's environment. Raises ValueError."""
        numbers = {
            name: int(env.get(name) or default)
            for name, default in ((contract.ENV_NODES, 1), (contract.ENV_PROCESSES, 1), (contract.ENV_NODE_RANK, 0))
        }
        plan = cls(
            nodes=numbers[contract.ENV_NODES],
            node_rank=numbers[contract.ENV_NODE_RANK] if numbers[contract.ENV_NODES] > 1 else 0,
            processes=numbers[contract.ENV_PROCESSES],
            coordinator=env.get(contract.ENV_COORDINATOR, ""),
        )
        if plan.nodes < 1 or plan.processes < 1 or not 0 <= plan.node_rank < plan.nodes:
            raise ValueError(f"{numbers} is no layout of workers")
        if plan.nodes > 1 and ":" not in plan.coordinator:
            raise ValueError(f"{contract.ENV_COORDINATOR} is {plan.coordinator!r}, expected host:port")
        return plan

    @property
    def several(self) -> bool:
        """Whether there is more than one worker."""
        return self.nodes * self.processes > 1


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker of this node failed."""

    local_rank: int
    code: int  # negative: the signal that ended it
    time: int  # seconds since the epoch, as far as the agent knows
    result: StageResult | None


class _AskedToStop(BaseException):
    """SIGTERM before the agent has its own handler. No Exception: libraries swallow those when they are imported."""


def launch(plan: Plan, env: Mapping[str, str]) -> int:
    """Run this node's workers to their end and return the node's exit code.

    Leaves as termination message the result of the worker that failed first, or rank 0's; nothing on a node without
    rank 0 when all went well.
    """
    try:
        request = StageRequest.from_json(env[contract.ENV_REQUEST])
    except (KeyError, ValueError) as error:
        print(f"{contract.ENV_REQUEST} is not a stage request: {error}", file=sys.stderr)
        return 1
    workspace = Path(env.get(contract.ENV_WORKSPACE, contract.WORKSPACE_PATH))
    try:
        with TemporaryDirectory(prefix="finetune-") as name:
            code, result = _outcome(plan, request, Path(name), workspace)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is settled; it takes a moment to tell
    except Exception as error:  # the launcher's own failure must leave a result too
        traceback.print_exc()
        code, result = _failed_itself(request, error, workspace)
    if result is not None:
        path = Path(env.get(contract.ENV_TERMINATION_LOG, contract.TERMINATION_LOG_PATH))
        if not full_disk.told(result.to_json(), path):
            return ExitCode.TRANSIENT
    return code


def _failed_itself(request: StageRequest, error: Exception, workspace: Path) -> tuple[int, StageResult]:
    if full_disk.is_full(error):
        told = full_disk.told_as(error, Stage.FINETUNE, workspace)
        return told.exit_code, _result_of(request, told)
    if isinstance(error, OSError):  # no process or file more, for the moment
        return ExitCode.TRANSIENT, _result_of(request, Transient("InputOutputError", str(error)))
    return 1, _result_of(request, StageError("StageCrashed", f"{type(error).__name__}: {error}"))


def _result_of(request: StageRequest, error: StageError) -> StageResult:
    return StageResult(
        stage=Stage.FINETUNE,
        fingerprint=request.fingerprint,
        reason=error.reason,
        message=error.message,
        field=error.field,
    )


def _outcome(plan: Plan, request: StageRequest, logs: Path, workspace: Path) -> tuple[int, StageResult | None]:
    def failed(reason: str, message: str) -> StageResult:
        return _result_of(request, StageError(reason, message))

    signal.signal(signal.SIGTERM, _stop)
    try:
        from torch.distributed import DistError
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous import RendezvousError
        from torch.distributed.launcher.api import elastic_launch
    except _AskedToStop:
        return ExitCode.TRANSIENT, failed(INTERRUPTED, "the pod was asked to stop before its workers had started")
    try:
        config = _config(plan, f"{request.fingerprint[:16]}-{request.attempt}", logs)
        elastic_launch(config, sys.executable)("-m", __package__)
    except ChildFailedError as error:
        endings = [
            Ending(failure.local_rank, failure.exitcode, failure.timestamp, _told_by(failure, request, logs, workspace))
            for failure in error.failures.values()
        ]
        return judge(endings, failed)
    except (_AskedToStop, SignalException):
        # The workers have ended by now. A run that was done in that moment is done.
        result = _result(logs, 0)
        if plan.node_rank == 0 and result and result.artefacts:
            return ExitCode.DONE, result
        stopped = result if result and result.reason == INTERRUPTED else None
        message = "the pod was asked to stop; the next attempt resumes at its last resume point"
        return ExitCode.TRANSIENT, stopped or failed(INTERRUPTED, message)
    except (DistError, RendezvousError, TimeoutError) as error:
        traceback.print_exc()
        return ExitCode.TRANSIENT, failed(PEER_LOST, f"the nodes did not come together: {error}")
    return ExitCode.DONE, _result(logs, 0) if plan.node_rank == 0 else None


def judge(endings: list[Ending], failed: Any) -> tuple[int, StageResult]:
    """The node's exit code and result: those of the failure that brought the others about. Pure.

    `failed` makes a result of a reason and a message. A worker that gave its own reason comes before one that a signal
    ended without a word, for the agent ends stuck ones so; both come before those that only lost a peer or were
    asked to stop. Among equals the first in time; the agent knows that in whole seconds alone.
    """

    def order(ending: Ending) -> tuple[int, int, int]:
        if ending.result is None:
            return 1, ending.time, ending.local_rank
        return 2 if ending.result.reason in _FOLLOWED else 0, ending.time, ending.local_rank

    first = min(endings, key=order)
    if first.result is not None:
        return first.code, first.result
    if first.code < 0:
        name = signal.Signals(-first.code).name
        message = f"worker {first.local_rank} of this pod was ended by {name}"
        # The kernel, short of memory, or torch, tired of waiting for a peer; anything else is a crash.
        if -first.code in (signal.SIGKILL, signal.SIGABRT, signal.SIGTERM):
            return ExitCode.TRANSIENT, failed("WorkerLost", message)
        return 1, failed("StageCrashed", message)
    message = f"worker {first.local_rank} of this pod ended with exit code {first.code} and no result; see its log"
    return first.code, failed("StageCrashed", message)


def _config(plan: Plan, run_id: str, logs: Path) -> Any:
    """The agent's settings: one node meets itself at a free port, several meet at the coordinator."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    os.environ[WORKER_LOGS] = str(logs)  # inherited by the workers, as all of the environment
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(_SAVING_S)  # older releases always wait 30 s
    meeting: dict[str, Any]
    if plan.nodes == 1:
        meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": f"{_LOOPBACK}:0", "local_addr": _LOOPBACK}
    else:
        meeting = {
            "rdzv_backend": "static",
            "rdzv_endpoint": plan.coordinator,
            "rdzv_configs": {"rank": plan.node_rank, "timeout": _MEETING_S},
        }
    return LaunchConfig(
        min_nodes=plan.nodes,
        max_nodes=plan.nodes,
        nproc_per_node=plan.processes,
        run_id=run_id,
        role="finetune",
        max_restarts=0,  # the operator starts the next attempt, with what this one has learnt
        logs_specs=DefaultLogsSpecs(log_dir=str(logs / "agent")),
        **meeting,
    )


def worker_log(local_rank: int, folder: str) -> Path:
    """The termination log of a worker."""
    return Path(folder) / f"worker-{local_rank}.json"


def _told_by(failure: Any, request: StageRequest, logs: Path, workspace: Path) -> StageResult | None:
    """What a worker that failed says, if anything: one that finds no room to say it ends as transient, see `runner`."""
    said = _result(logs, failure.local_rank)
    if said is None and failure.exitcode == ExitCode.TRANSIENT:
        log = worker_log(failure.local_rank, str(logs))
        no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
        return _result_of(request, full_disk.told_as(no_room, Stage.FINETUNE, workspace))
    return said


def _result(logs: Path, local_rank: int) -> StageResult | None:
    try:
        return StageResult.from_json(worker_log(local_rank, str(logs)).read_text())
    except (OSError, ValueError):
        return None


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _AskedToStop
