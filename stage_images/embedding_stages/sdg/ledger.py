"""Every answer of a language model that was paid for, on disk before anybody uses it, and what all of them cost.

One file that is only appended to. What a killed process has written is there for the next attempt, which gets the same
answer to the same question without asking. A line that was cut off by the kill is no line.

A kill costs an answer again only where it comes after the endpoint has sent it and before its line is written. A
`Keeper` keeps that short: the line is the next thing that the thread does which reads the last byte, and one `write`
outlives the process. The fsync, for the end of a node, takes longer; it follows when the request has left its place to
another.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from embedding_stages.contract import canonical_json
from embedding_stages.http_client import Answer
from embedding_stages.sdg.answers import Usage

FILE: Final = "answers.jsonl"
WRITER: Final = "writer"
JUDGE: Final = "judge"
EMBEDDER: Final = "embedder"
ROLES: Final = (WRITER, JUDGE, EMBEDDER)
_KEY_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class Recorded:
    """One answer: the text of its body, and whether an earlier attempt paid for it."""

    text: str
    is_old: bool = False


class BudgetSpentError(Exception):
    """All tokens are used that may be: nothing more is asked."""


class Ledger:
    """Thread-safe. `take` and `keep` are an Entry's. Raises OSError where the file cannot be written: an answer that is
    not kept must not be used.

    The same request may be asked more than once, as an answer of no use is. The first time in a process it gets the
    first answer that is kept, the second time the second one.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        """`most`: tokens that may be spent, of all attempts together."""
        self._most = most
        self._lock = threading.Lock()
        self._found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # key -> (begin, length) of lines
        self._taken: defaultdict[str, int] = defaultdict(int)
        self._spent = {role: Usage() for role in ROLES}
        self._paid = Usage()  # in this process
        self._file = path.open("a+b")
        end = 0
        for begin, line, said in _whole_lines(path):
            end = begin + len(line)
            if said is not None:
                self._count(said, begin, len(line))
        self._file.truncate(end)

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(self, role: str, request: Mapping[str, Any]) -> Entry:
        """The answers to a request."""
        return Entry(self, role, _key(role, request))

    def take(self, key: str) -> Recorded | None:
        with self._lock:
            number = self._taken[key]
            if number >= len(self._found[key]):
                return None
            self._taken[key] += 1
            begin, length = self._found[key][number]
            raw = json.loads(os.pread(self._file.fileno(), length, begin))
        return Recorded(str(raw["text"]), is_old=True)

    def keep(self, role: str, key: str, text: str, usage: Usage) -> None:
        said = {"key": key, "role": role, "usage": usage.to_json(), "text": text}
        line = json.dumps(said).encode() + b"\n"
        with self._lock:
            begin = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            self._count(said, begin, len(line))
            self._paid.add(usage)
            self._taken[key] += 1

    def sync(self) -> None:
        """What is written outlives the process by then; now it outlives the node, too."""
        os.fsync(self._file.fileno())

    def spent(self, *roles: str) -> Usage:
        """Of all attempts together; of all roles where none is named."""
        total = Usage()
        with self._lock:
            for role in roles or ROLES:
                total.add(self._spent[role])
        return total

    def paid(self) -> int:
        """Tokens of the answers that this process has paid for."""
        with self._lock:
            return self._paid.tokens

    def check_budget(self) -> None:
        """Before a request is sent. Raises BudgetSpentError."""
        if self._most is not None and self.spent().tokens >= self._most:
            raise BudgetSpentError

    def _count(self, said: Mapping[str, Any], begin: int, length: int) -> None:
        self._found[said["key"]].append((begin, length))
        self._spent[said["role"]].add(Usage(**said["usage"]))


@dataclass(frozen=True, slots=True)
class Entry:
    """The answers to one request. What there is to compute is computed before the request is sent."""

    ledger: Ledger
    role: str
    key: str

    def take(self) -> Recorded | None:
        """The next answer that an earlier attempt has paid for."""
        return self.ledger.take(self.key)

    def keep(self, text: str, usage: Usage) -> None:
        """Write an answer down. It may be used after a `sync`."""
        self.ledger.keep(self.role, self.key, text, usage)


@dataclass(slots=True)
class Keeper:
    """Writes down what was just read, on the thread that read it: what a kill finds in between is asked for again.

    `cost` is of an answer that is of use, None of any other. A fault is told by `settle`: raised where it occurs it
    would look like one of the connection, and the request would be sent, and paid for, again.
    """

    entry: Entry
    cost: Callable[[Answer], Usage | None]
    fault: OSError | None = None

    def __call__(self, answer: Answer) -> None:
        usage = self.cost(answer)
        if usage is None:
            return
        try:
            self.entry.keep(answer.lasting, usage)
        except OSError as error:
            self.fault = error

    def settle(self) -> None:
        """Before the answer is used. Raises OSError: what is not kept must not be used."""
        if self.fault is not None:
            raise self.fault
        self.entry.ledger.sync()


def _key(role: str, request: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{role} {canonical_json(request)}".encode("utf-8", "backslashreplace")).hexdigest()[
        :_KEY_CHARACTERS
    ]


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """(where it begins, the line, what it says) of all lines that were ended; None of a damaged one among them."""
    place = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            yield place, line, _said(line)
            place += len(line)


def _said(line: bytes) -> dict[str, Any] | None:
    try:
        raw = json.loads(line)
        Usage(**raw["usage"])
        return raw if raw["role"] in ROLES and {"key", "text"} <= raw.keys() else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
