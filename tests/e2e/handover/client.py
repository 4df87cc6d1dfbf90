"""Asks questions of a live index without a pause, and counts the answers. Runs in a pod: standard library and psycopg.

Each thread believes that the index in use is that of one vector space. It embeds a question through the clients'
Service, naming that space, and looks the vector up in that space's table. A 409 names the space that the server has:
the thread takes that space's table and asks again. On SIGTERM the counts are printed as one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

HEADER = "X-Vector-Space"
THREADS = 3
PAUSE_S = 0.1
REFUSALS = 20  # in a row: while the Service moves, one connection may reach the old server and the next one the new
KEPT = 20  # of each kind of fault, to be read
SAME = 5e-5  # largest difference of a number between two answers of one model
QUESTIONS = (
    "How do I read a CSV file?",
    "Which function removes a whole folder?",
    "How is the median computed?",
    "What keeps a queue in the order of its smallest element?",
)
Database = psycopg.Connection[Any]


@dataclass
class Counts:
    """What all threads saw."""

    answers: int = 0
    by_space: dict[str, int] = field(default_factory=dict)  # of the table that was searched
    followed: int = 0  # 409 that an answer came after
    switches: list[dict[str, Any]] = field(default_factory=list)  # how complete an index was when clients came to it
    failures: int = 0
    failed: list[str] = field(default_factory=list)
    crossings: int = 0  # answers of another space than the table's
    crossed: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)  # the same question in the same space, another vector
    empty: int = 0  # searches that found no passage


class Client:
    """Threads that ask, and what they saw."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._first: dict[tuple[str, str], list[float]] = {}  # (question, space) -> the first vector

    def live(self, space: str, number: int) -> None:
        """Ask until the end; whatever goes wrong is a client without an answer."""
        with psycopg.connect(os.environ["DSN"], autocommit=True) as db:
            while not self.ended.wait(PAUSE_S):
                number += 1
                try:
                    space = self._question(db, QUESTIONS[number % len(QUESTIONS)], space)
                except Exception as error:
                    with self._lock:
                        self.counts.failures += 1
                        _keep(self.counts.failed, f"{type(error).__name__}: {error}")

    def snapshot(self) -> dict[str, Any]:
        """The counts, and how far one question's vectors in two spaces lie apart at least: what is to tell servers
        apart has to be seen to."""
        with self._lock:
            pairs = [
                (one, other)
                for (text, space), one in self._first.items()
                for (other_text, other_space), other in self._first.items()
                if text == other_text and space < other_space
            ]
            apart = min((_difference(*pair) for pair in pairs), default=0.0)
            return asdict(self.counts) | {"apart": apart, "same": SAME}

    def _question(self, db: Database, text: str, space: str) -> str:
        """Ask one question until it is answered; the vector space that is believed in afterwards."""
        refused = 0
        while True:
            status, named, body = ask(text, space)
            if status != 409 or named in ("", space) or refused == REFUSALS:
                break
            refused += 1
            self._switched(db, space, named)
            space = named
        if status != 200:
            raise RuntimeError(f"{status} after {refused} times 409: {str(body)[:300]}")
        vector = body["data"][0]["embedding"]
        found = nearest(db, space, vector)
        with self._lock:
            self.counts.followed += refused
            self._record(text, space, named, vector, found)
        return space

    def _record(self, text: str, searched: str, named: str, vector: list[float], found: list[str]) -> None:
        counts = self.counts
        counts.answers += 1
        counts.by_space[searched] = counts.by_space.get(searched, 0) + 1
        counts.empty += not found
        if named != searched:
            counts.crossings += 1
            _keep(counts.crossed, f"searched {searched}, answered by {named or 'a server that names no space'}")
        # Whether the header tells the truth: a server of another model answers with another vector.
        change = _difference(self._first.setdefault((text, searched), vector), vector)
        if change > SAME:
            _keep(counts.unsteady, f"{text!r} in {searched} changed by {change:.4f}")

    def _switched(self, db: Database, old: str, new: str) -> None:
        rows, passages = (_count(db, table) for table in (f"vectors_{new}", "passages"))
        with self._lock:
            self.counts.switches.append({"from": old, "to": new, "rows": rows, "passages": passages})


def ask(text: str, space: str) -> tuple[int, str, dict[str, Any]]:
    """Status, vector space that the server names, and body of one request over a connection of its own."""
    body = {"model": os.environ["MODEL"], "input": text, "input_type": "query"}
    headers = {"Content-Type": "application/json", HEADER: space}
    request = urllib.request.Request(os.environ["URL"], json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers.get(HEADER, ""), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get(HEADER, ""), {"error": error.read().decode("utf-8", "replace")}


def nearest(db: Database, space: str, vector: list[float]) -> list[str]:
    """The three nearest passages, by an exact search in the table of one vector space."""
    query = f"SELECT id FROM vectors_{space} ORDER BY embedding <=> %s::vector LIMIT 3"
    return [row[0] for row in db.execute(query, [str(vector)])]


def _count(db: Database, table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def _difference(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _keep(kept: list[str], line: str) -> None:
    if len(kept) < KEPT:
        kept.append(line)


def main() -> None:
    client = Client()
    signal.signal(signal.SIGTERM, lambda *_: client.ended.set())
    threads = [threading.Thread(target=client.live, args=(sys.argv[1], number)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while not client.ended.wait(2):
        print(json.dumps(client.snapshot()), flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(client.snapshot()), flush=True)


if __name__ == "__main__":
    main()
