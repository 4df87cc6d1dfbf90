"""How a stage says that it failed: the exception's class decides the exit code.

StageError                 (a bug unless one of these)
+-- BadInput               10  names the manifest's field and the cure
+-- Transient              20  worth trying again
+-- OutOfMemory            30  worth trying again with a smaller micro-batch
+-- Stopped                40  a budget or a gate
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from embedding_stages.contract import ExitCode
from embedding_stages.contract.declare import SettingInvalid, Table

_T = TypeVar("_T", bound=Table)


class StageError(Exception):
    """A failure with a CamelCase reason, a message for people and, where there is one, the manifest's field."""

    exit_code: int = 1

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


class BadInput(StageError):
    """What the user gave cannot work; `message` says what is wrong and how to cure it."""

    exit_code = ExitCode.BAD_INPUT


class Transient(StageError):
    """Something outside failed in a way that often passes."""

    exit_code = ExitCode.TRANSIENT


class OutOfMemory(StageError):
    """The accelerator's memory was not enough even for the smallest micro-batch tried."""

    exit_code = ExitCode.OUT_OF_MEMORY


class Stopped(StageError):
    """A gate or budget ended the stage on purpose."""

    exit_code = ExitCode.STOPPED


def settings_of(table: type[_T], raw: Mapping[str, Any]) -> _T:
    """The settings of a stage's request, checked. Raises BadInput `SettingInvalid` that names the field."""
    try:
        return table.of(raw)
    except SettingInvalid as error:
        raise BadInput("SettingInvalid", error.message, field=error.field) from error


def is_absent(error: OSError) -> bool:
    """Whether the file is not there; other errors are the machine's, which may give the file a moment later.

    Libraries that map files say FileNotFoundError of whatever they met, without a number.
    """
    return isinstance(error, (FileNotFoundError, NotADirectoryError)) and error.errno is not None


def own_groups() -> str:
    """The groups of this process, in words: which they are is the cluster's choice, as on OpenShift."""
    groups = sorted({os.getegid(), *os.getgroups()})
    return f"group{'s' if len(groups) > 1 else ''} {' or '.join(map(str, groups))}"


def printable(text: str, length: int = 120, *, end: bool = False) -> str:
    """Text that nobody vouches for, such as a file's name, for a message: its first `length` characters, or its last.

    In quotes and on one line. What has no picture is spelled out: line breaks, direction marks, halves of pairs.
    """
    if len(text) <= length:
        return repr(text)
    return f"…{text[-length:]!r}" if end else repr(text[:length])
