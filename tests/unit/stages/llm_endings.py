"""Requests to a language model that end without an answer, and the small one that tells whose fault that is."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any

import pytest

from embedding_stages.http_client import Answer, HttpClient

Ends = Callable[[], Answer]


def status(number: int, text: str) -> Ends:
    return lambda: Answer(status=number, body=text.encode())


def raising(error: Exception) -> Ends:
    def end() -> Answer:
        raise error

    return end


ENDS: dict[str, tuple[Ends, str, str]] = {
    "a server error": (status(500, "Internal server error"), "missingAnswers", "HTTP 500 Internal"),
    "a time-out": (raising(TimeoutError("timed out")), "missingAnswers", "no answer within 300 s"),
    "a lost connection": (raising(http.client.RemoteDisconnected("bye")), "missingAnswers", "RemoteDisconnected"),
    "half an answer": (raising(http.client.IncompleteRead(b"{", 9)), "missingAnswers", "IncompleteRead"),
    "a firewall": (status(403, "<html>Blocked</html>"), "missingAnswers", "HTTP 403"),
    "an error of status 403": (status(200, '{"error": {"code": 403}}'), "missingAnswers", "a firewall"),
}


class Ending:
    """Takes the place of `HttpClient.send`: what is asked ends so where it `holds`, and goes its way otherwise."""

    def __init__(self, patch: pytest.MonkeyPatch, end: Ends, holds: Callable[[str], bool]) -> None:
        self.asked: list[str] = []
        self.end = end
        send = HttpClient.send

        def instead(client: HttpClient, method: str, path: str, body: Any, **more: Any) -> Answer:
            self.asked.append(json.dumps(body))
            return self.end() if holds(self.asked[-1]) else send(client, method, path, body, **more)

        patch.setattr(HttpClient, "send", instead)


def is_small(body: str) -> bool:
    """Whether it asks for nothing but an answer."""
    return len(json.loads(body).get("messages", [0, 0])) == 1


def prompt_of_all(message: str) -> int:
    return int(message.split("All documents would take about ")[1].split()[0])
