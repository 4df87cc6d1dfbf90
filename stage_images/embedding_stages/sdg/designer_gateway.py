"""Where Data Designer sends its requests: an endpoint of this process, which asks the real ones as the stage does.

Data Designer has retries, limits and checkpoints of its own, which know neither the ledger nor the pace nor the budget,
and it gives up a whole row for one slip of JSON. So it talks to 127.0.0.1, one path a column, and what it gets is
answered once, on disk, and JSON. Keys never reach it.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from embedding_stages.errors import StageError
from embedding_stages.sdg.answers import CUT, OddAnswerError, Tally, Usage
from embedding_stages.sdg.failures import REJECTED
from embedding_stages.sdg.losses import Losses
from embedding_stages.sdg.openai_client import ChatClient

_TRIES: Final = 3  # where answers are of no use
_REFUSED: Final = 422  # Data Designer does not send again what gets this
_MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is behind a path."""

    client: ChatClient
    items: str = ""  # the list that a chat answer has; empty for embeddings
    temperature: float = 0.0
    ends_row: bool = False  # nothing more is asked about a row


@dataclass(slots=True)
class Gateway:
    """Thread-safe. `stop_if_asked` raises when the pod has to end."""

    routes: dict[str, Route]
    seed: int
    stop_if_asked: Callable[[], None]
    losses: Losses
    whose: Callable[[str], tuple[str, str]]  # of a text of a request: the bundle, and the paths of its documents
    failure: Exception | None = None  # the first that ends the stage: nothing is asked any more
    odd: Tally = field(default_factory=Tally)
    rejections: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # documents of rows that got no answer
    ended: int = 0  # rows of which all was asked
    refused: int = 0  # requests, each of which costs its row
    usage: Usage = field(default_factory=Usage)  # of what was asked through it, also where it was paid before
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: http.server.ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"gateway": self}))
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def unexplained(self, lost: int) -> int:
        """How many of so many rows that are missing no refusal explains: what dropped them was no answer."""
        return 0 if self.failure is not None else max(0, lost - self.refused)

    def url_of(self, route: str) -> str:
        """The base address that stands for a route."""
        if self._server is None:
            raise ValueError("the gateway is not open")
        return f"http://127.0.0.1:{self._server.server_address[1]}/{route}"

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of an answer to Data Designer."""
        status, said = self._answer(path, body)
        if status == _REFUSED:
            with self._lock:
                self.refused += 1
        return status, said

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = path.strip("/").split("/")[0]
        try:
            if self.failure is not None:
                raise self.failure
            self.stop_if_asked()
            route = self.routes[name]
            if route.items:
                return self._chat(route, body)
            return self._embed(route, body)
        except StageError as error:
            with self._lock:
                if error.reason == REJECTED and error is not self.failure:
                    self.rejections.append(error.message)
                elif self.failure is None:
                    self.failure = error
            return _REFUSED, {"error": {"message": error.reason}}
        except Exception as error:
            # Without this Data Designer would see a lost connection and ask, and pay, again.
            with self._lock:
                self.failure = self.failure or error
            return _REFUSED, {"error": {"message": type(error).__name__}}

    def _chat(self, route: Route, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What the model wrote as the list that is wanted, fenced as Data Designer asks for it."""
        messages = plain(body["messages"])
        tries = number = 0
        while tries < _TRIES:
            if tries:
                route.client.pause(tries - 1)
            try:
                reply = route.client.ask(
                    messages, wanted=route.items, seed=self.seed + number, temperature=route.temperature
                )
            except OddAnswerError as error:
                with self._lock:
                    self.usage.add(error.usage)
                    self.odd.add(error.kind, error.example)
                if error.is_final:
                    self._lose(error, messages[-1]["content"])
                    break
                tries += not error.is_old
                number += 1
                continue
            with self._lock:
                self.usage.add(reply.usage)
                if reply.is_cut:
                    self.odd.add(CUT, "")
            if route.ends_row:
                self._end_row()
            items = [item if isinstance(item, dict) else {"score": item} for item in reply.items]
            return 200, _completion(body, json.dumps({route.items: items}, ensure_ascii=False), reply.usage)
        return _REFUSED, {"error": {"message": "no answer of use"}}

    def _embed(self, route: Route, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        for tries in range(_TRIES):
            if tries:
                route.client.pause(tries - 1)
            try:
                vectors = route.client.vectors(texts)
            except OddAnswerError as error:
                with self._lock:
                    self.usage.add(error.usage)
                    self.odd.add(error.kind, error.example)
                if error.is_final:
                    self._lose(error, "")
                    break
                continue
            data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(vectors)]
            return 200, {"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 0}}
        return _REFUSED, {"error": {"message": "no answer of use"}}

    def _end_row(self) -> None:
        self.losses.answered()
        with self._lock:
            self.ended += 1

    def _lose(self, error: OddAnswerError, text: str) -> None:
        """Go on without the row. Raises what ends the stage where it has lost too many."""
        name, paths = self.whose(text)
        with self._lock:
            self.missing.append(paths or "unknown")
        try:
            self.losses.take(name, paths, error)
        except StageError as failure:
            with self._lock:
                self.failure = self.failure or failure
            for route in self.routes.values():  # the rows under way would go on with all their tries
                route.client.stopping.set()
            raise


def plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages whose content is a text: many endpoints take no list of parts."""
    return [{"role": str(one["role"]), "content": _text_of(one["content"])} for one in messages]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def _completion(body: dict[str, Any], text: str, usage: Usage) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"```json\n{text}\n```"}
    return {
        "id": "gateway",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.tokens,
        },
    }


class _Handler(http.server.BaseHTTPRequestHandler):
    gateway: Gateway

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= _MOST_BYTES:
            self.send_error(413)
            return
        status, said = self.gateway.answer(self.path, json.loads(self.rfile.read(length)))
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """What is asked is told by the stage's own log."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: Any) -> None:
        """Data Designer hangs up where it has given a row up."""
