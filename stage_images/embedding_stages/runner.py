"""The frame around every stage: read the request, do the work, publish, answer.

A stage's `__main__` is `sys.exit(run(Stage.SDG, work, os.environ))`. The work gets a `StageContext` and returns
a `StageResult` without artefacts; whatever it leaves in `context.folder(<artefact>)` is published.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from embedding_stages import contract, full_disk
from embedding_stages.artefacts import Described, Workspace
from embedding_stages.contract import (
    INTERRUPTED,
    Artefact,
    ExitCode,
    Progress,
    Stage,
    StageRequest,
    StageResult,
    encodable,
)
from embedding_stages.errors import BadInput, StageError, Transient, own_groups

Work = Callable[["StageContext"], StageResult]
_PROGRESS_INTERVAL_S = 2.0
_UMASK = 0o002  # what an attempt leaves undone, the next one's user may go on with: see artefacts.FOLDER_MODE
_DIGITS = 5  # of a loss and a pace
_REPORTS = 32  # of progress that are remembered: a minute of short steps


@dataclass(slots=True)
class StageContext:
    """What a stage's work may touch. Time and environment arrive here and nowhere else."""

    request: StageRequest
    workspace: Workspace
    sources: Path
    secrets: Path
    trusted: Path = Path(contract.AUTHORITIES_PATH)
    clock: Callable[[], float] = time.monotonic
    free: Callable[[Path], int] = full_disk.free_bytes
    leads: bool = True  # of several processes that do the work together one logs and publishes
    stopping: threading.Event = field(default_factory=threading.Event)  # set by SIGTERM: save and stop
    llm_tokens: Callable[[], int] = lambda: 0  # that this process has used of a language model; see StageResult
    extra: list[tuple[Artefact, Described]] = field(default_factory=list)
    _told: Progress = field(default_factory=lambda: Progress(percent=0))
    _reports: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_REPORTS))  # (time, step)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.request.settings

    def input(self, name: Artefact, *, checked: bool = False) -> Path:
        """The folder of an input artefact. Its content is checked here unless another process has `checked` it.

        Raises StageError `ArtefactMissing` or `ArtefactDamaged`.
        """
        return self.workspace.open(self.request, name, checked=checked)

    def has_input(self, name: Artefact) -> bool:
        return name in self.request.inputs

    def folder(self, name: Artefact) -> Path:
        """Where to write an output artefact; exists already when an earlier attempt got that far."""
        path = self.workspace.partial(self.request) / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def scratch(self, name: str) -> Path:
        """A folder for resume points: kept between attempts, removed when the stage is published."""
        path = self.workspace.partial(self.request) / f"scratch-{name}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def secret(self, purpose: str, *, field: str) -> str | None:
        """The value of a mounted Secret key, or None when the manifest names none. Never log it.

        Raises BadInput `SecretInvalid` for what no HTTP header can carry: libraries quote it in their own errors.
        """
        path = self.secrets / purpose / contract.SECRET_FILE
        if not path.is_file():
            return None
        value = path.read_bytes().strip()
        if not value or not all(0x20 < byte < 0x7F for byte in value):
            raise BadInput(
                "SecretInvalid",
                "the Secret's value is no key: it must be one line of printable ASCII characters without white space; "
                "put the bare key into the Secret again (kubectl create secret generic NAME --from-literal=KEY=...)",
                field=field,
            )
        return value.decode("ascii")

    def authorities(self, purpose: str) -> Path | None:
        """A PEM file of certificates to trust beside the system's, or None when the manifest names none."""
        path = self.trusted / purpose / contract.AUTHORITIES_FILE
        return path if path.is_file() else None

    def log(self, message: str, **fields: Any) -> None:
        """One JSON line on standard output; nothing where another process leads."""
        if not self.leads:
            return
        line = {"stage": self.request.stage, "attempt": self.request.attempt, "message": message, **fields}
        print(encodable(json.dumps(line, ensure_ascii=False, default=str)), flush=True)

    def progress(
        self, step: int, total_steps: int, *, loss: float | None = None, tokens_per_second: float | None = None
    ) -> None:
        """Report progress; cheap to call every step, written at most every two seconds and at the end.

        The pace is told in tokens where the stage knows them, else in steps.
        """
        now = self.clock()
        last = self._reports[-1][0] if self._reports else float("-inf")
        if not self.leads or (step < total_steps and now - last < _PROGRESS_INTERVAL_S):
            return
        self._reports.append((now, step))
        rate = pace(self._reports) if tokens_per_second is None else tokens_per_second
        self._told = Progress(
            percent=100 * step // max(1, total_steps),
            step=step,
            total_steps=total_steps,
            eta_seconds=eta_seconds(self._reports, total_steps),
            loss=None if loss is None else _rounded(loss),
            rate=None if rate is None else _rounded(rate),
            unit="" if rate is None else "steps" if tokens_per_second is None else "tokens",
            llm_tokens=self.llm_tokens(),
        )
        print(contract.progress_line(self._told), flush=True)

    def tell_tokens(self) -> None:
        """Report the tokens that were used since the last progress: a step may take many."""
        used = self.llm_tokens()
        if self.leads and used != self._told.llm_tokens:
            self._told = replace(self._told, llm_tokens=used)
            print(contract.progress_line(self._told), flush=True)

    def result(self, **fields: Any) -> StageResult:
        """A result of this stage; keyword arguments are `StageResult`'s."""
        return StageResult(stage=self.request.stage, fingerprint=self.request.fingerprint, **fields)

    def stop_if_asked(self) -> None:
        """Raises Transient when SIGTERM arrived; call it where the work can be resumed."""
        if self.stopping.is_set():
            raise Transient(INTERRUPTED, "the pod was asked to stop; the next attempt resumes here")


def eta_seconds(reports: Sequence[tuple[float, int]], total_steps: int) -> int | None:
    """Seconds to go at the pace of `reports`: (time, steps done), oldest first. None before there is a pace.

    The first report may count what earlier attempts did, and its time holds what comes before all steps (a model is
    loaded, kernels are compiled): neither says how long a step takes. Only late reports are asked, because work that
    an earlier attempt left in a cache comes fast at the beginning.
    """
    (began, first), (now, step) = reports[0], reports[-1]
    if step >= total_steps:
        return 0
    return round((now - began) * (total_steps - step) / (step - first)) if step > first else None


def pace(reports: Sequence[tuple[float, int]]) -> float | None:
    """Steps a second; None before there is a pace. `reports` as for `eta_seconds`."""
    (began, first), (now, step) = reports[0], reports[-1]
    return (step - first) / (now - began) if step > first and now > began else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else value


def run(stage: Stage, work: Work, env: Mapping[str, str], *, leads: bool = True) -> int:
    """Run one stage and return its exit code. Never raises: every end is an exit code and a result.

    Where several processes do one stage's work, each runs this with a termination log of its own, and the one that
    `leads` publishes; the others log failures alone.
    """
    os.umask(_UMASK)
    log_path = Path(env.get(contract.ENV_TERMINATION_LOG, contract.TERMINATION_LOG_PATH))
    try:
        request = StageRequest.from_json(env[contract.ENV_REQUEST])
        if request.stage != stage:
            raise ValueError(f"the request is for stage {request.stage}, this image runs {stage}")
    except (KeyError, ValueError) as error:
        print(f"{contract.ENV_REQUEST} is not a stage request: {error}", file=sys.stderr)
        return 1
    context = StageContext(
        request=request,
        workspace=Workspace(Path(env.get(contract.ENV_WORKSPACE, contract.WORKSPACE_PATH))),
        sources=Path(env.get(contract.ENV_SOURCES, contract.SOURCES_PATH)),
        secrets=Path(env.get(contract.ENV_SECRETS, contract.SECRETS_PATH)),
        trusted=Path(env.get(contract.ENV_AUTHORITIES, contract.AUTHORITIES_PATH)),
        leads=leads,
    )
    _stop_on_sigterm(context)
    code, result = _attempt(context, work)
    text = replace(result, llm_tokens=context.llm_tokens()).to_json()
    if not full_disk.told(text, log_path):
        code = ExitCode.TRANSIENT
    context.leads = leads or code != ExitCode.DONE
    context.log("stage ended", exitCode=code, reason=result.reason, result=result.message)
    return code


def _attempt(context: StageContext, work: Work) -> tuple[int, StageResult]:
    try:
        done = context.workspace.finished(context.request)
        if done is not None:
            context.log("an earlier attempt finished this work; its artefacts are intact")
            if context.leads:
                context.workspace.tidy(context.request)
            return ExitCode.DONE, done
        context.workspace.partial(context.request).mkdir(parents=True, exist_ok=True)
        result = work(context)
        if not context.leads:
            return ExitCode.DONE, result
        return ExitCode.DONE, context.workspace.publish(context.request, result, context.extra)
    except StageError as error:
        return _failed(context, error)
    except Exception as error:  # the one place that may catch all: an end without a result tells nobody anything
        traceback.print_exc()
        if full_disk.is_full(error):
            return _failed(
                context, full_disk.told_as(error, context.request.stage, context.workspace.root, context.free)
            )
        if isinstance(error, OSError):
            return _os_error(context, error)
        said = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
        return 1, context.result(reason="StageCrashed", message="; ".join(said))


def _failed(context: StageContext, error: StageError) -> tuple[int, StageResult]:
    return error.exit_code, context.result(reason=error.reason, message=error.message, field=error.field)


def _os_error(context: StageContext, error: OSError) -> tuple[int, StageResult]:
    if error.errno == errno.EACCES:
        message = f"no permission for {error.filename}: the volume must be accessible to {own_groups()}"
        return ExitCode.BAD_INPUT, replace(context.result(), reason="PermissionDenied", message=message)
    return ExitCode.TRANSIENT, context.result(reason="InputOutputError", message=str(error))


def _stop_on_sigterm(context: StageContext) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        context.stopping.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
