"""An OpenAI-compatible endpoint that does what a script says: limits its rate, is slow, talks nonsense, cuts, is down.

Its answers follow from what it is asked, so it needs no model; its nonsense is drawn by a seed. Standard library only:
unit tests, the benchmark and a pod of the end-to-end test run this one file.

    python3 tests/scripted_llm.py --port 8000 --script '{"rate": 10, "latency": [0.2, 5]}'

GET /stats tells what was asked and answered, PUT /freeze holds all answers back, PUT /thaw lets them go.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import math
import random
import re
import select
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parent))

from scripted_answers import answer_of, role_of, vector_of

_HANGS_UP_S = 5.0


@dataclass(kw_only=True)
class Script:
    """What the endpoint does. Shares are of its answers, times are seconds since the first request."""

    rate: float | None = None  # requests a second that it permits
    burst: float = 10.0  # that it permits at once
    latency: tuple[float, float] = (0.0, 0.0)  # seconds
    junk: float = 0.0  # answers without JSON
    cut: float = 0.0  # answers that end at the limit of tokens
    down: list[tuple[float, float]] = field(default_factory=list)  # when it hangs up on everybody
    models: list[str] = field(default_factory=list)  # that exist; all when empty
    json_mode: bool = True
    usage: bool = True  # whether it tells its tokens
    seed: int = 0


class Permits:
    """A bucket that fills at the permitted rate."""

    def __init__(self, script: Script) -> None:
        self.script, self.left, self.at = script, script.burst, 0.0

    def take(self, now: float) -> float:
        """0 when the request is let through, else the seconds after which to come again."""
        if self.script.rate is None:
            return 0.0
        self.left = min(self.script.burst, self.left + (now - self.at) * self.script.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.script.rate
        self.left -= 1
        return 0.0


class State:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.lock = threading.Lock()
        self.permits = Permits(script)
        self.began: float | None = None
        self.refused = 0
        self.let_through: list[float] = []
        self.answered: Counter[str] = Counter()  # by request
        self.read: Counter[str] = Counter()  # those of them that the client's process has read to their end
        self.unsure = 0  # answers of which it is not known yet whether they were read
        self.roles: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.now_at_once = self.most_at_once = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def elapsed(self) -> float:
        with self.lock:
            if self.began is None:
                self.began = time.monotonic()
            return time.monotonic() - self.began

    def freeze(self) -> None:
        """No answer goes after this, until `may_answer` is set."""
        with self.lock:
            self.may_answer.clear()

    def used_share(self, part: float = 0.9) -> float:
        """Of what was permitted, until so large a part of all requests was let through: at the end demand is low."""
        number = int(part * len(self.let_through))
        if self.script.rate is None or not number:
            return 0.0
        seconds = self.let_through[number - 1] - self.let_through[0]
        return number / (self.script.burst + self.script.rate * seconds)

    def stats(self) -> dict[str, Any]:
        with self.lock:
            return {
                "letThrough": len(self.let_through),
                "refused": self.refused,
                "answered": sum(self.answered.values()),
                "answeredTwice": _more_than_once(self.answered),
                "readTwice": _more_than_once(self.read),
                "unsure": self.unsure,
                "usedShare": self.used_share(),
                "mostAtOnce": self.most_at_once,
                "seconds": self.let_through[-1] - self.let_through[0] if self.let_through else 0.0,
                "roles": dict(self.roles),
                "prompt": self.tokens["prompt"],
                "completion": self.tokens["completion"],
            }


def _more_than_once(times_of: Counter[str]) -> int:
    return sum(times - 1 for times in times_of.values() if times)


class Handler(http.server.BaseHTTPRequestHandler):
    state: State
    is_counted = False

    def do_GET(self) -> None:
        self._say(200, self.state.stats())

    def do_PUT(self) -> None:
        (self.state.freeze if self.path == "/freeze" else self.state.may_answer.set)()
        self._say(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state, script, now = self.state, self.state.script, self.state.elapsed()
        if any(begin <= now < end for begin, end in script.down):
            self.close_connection = True
            return
        with state.lock:
            seconds = state.permits.take(now)
            if seconds:
                state.refused += 1
            else:
                state.let_through.append(now)
                state.now_at_once += 1
                state.most_at_once = max(state.most_at_once, state.now_at_once)
        if seconds:
            self._say(429, {"error": {"message": "too many requests"}}, {"Retry-After": str(math.ceil(seconds))})
            return
        self.is_counted = True
        try:
            self._answer(body)
        finally:
            self._is_done()

    def _is_done(self) -> None:
        """Before the client knows: its next request may be here at once."""
        if self.is_counted:
            self.is_counted = False
            with self.state.lock:
                self.state.now_at_once -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        script = self.state.script
        if script.models and body["model"] not in script.models:
            self._say(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return
        if not script.json_mode and "response_format" in body:
            self._say(400, {"error": {"message": "response_format is not supported", "param": "response_format"}})
            return
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        draw = random.Random(f"{script.seed} {key}")
        time.sleep(draw.uniform(*script.latency))
        if self.path.endswith("/embeddings"):
            self._embed(body, key)
            return
        text, end = answer_of(body, draw), "stop"
        chance = draw.random()
        if chance < script.junk:
            text = "I would rather talk about the weather than write JSON."
        elif chance < script.junk + script.cut:
            text, end = text[: len(text) // 2], "length"
        noise = draw.uniform(0.8, 1.2)
        asked = sum(len(message["content"]) for message in body["messages"])
        usage = {"prompt_tokens": asked // 4, "completion_tokens": int(noise * len(text) / 4) + 1}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
        said = {"id": key[:12], "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        if not self._is_paid(key, role_of(body), usage["prompt_tokens"], usage["completion_tokens"]):
            return
        self._say(200, said | ({"usage": usage} if script.usage else {}))
        self._note_whether_it_was_read(key)

    def _embed(self, body: dict[str, Any], key: str) -> None:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [{"object": "embedding", "index": n, "embedding": vector_of(text)} for n, text in enumerate(texts)]
        tokens = sum(map(len, texts)) // 4
        if not self._is_paid(key, "embedder", tokens, 0):
            return
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._say(200, {"object": "list", "model": body["model"], "data": data, "usage": usage})
        self._note_whether_it_was_read(key)

    def _has_hung_up(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def _note_whether_it_was_read(self, key: str) -> None:
        """A kernel resets a connection that is closed, or whose process is killed, with bytes in it that nobody read;
        one whose bytes were all read it closes. A client that is slow to hang up counts as one that has not read.
        """
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_HANGS_UP_S)
            was_read = self.connection.recv(1) == b""
        except OSError:
            was_read = False
        with self.state.lock:
            self.state.unsure -= 1
            self.state.read[key] += was_read

    def _is_paid(self, key: str, role: str, prompt: int, completion: int) -> bool:
        """Count an answer when answers may go. False for a client that is gone: it is not answered and pays nothing."""
        state = self.state
        while True:
            state.may_answer.wait()
            if self._has_hung_up():
                return False
            with state.lock:
                if state.may_answer.is_set():
                    state.answered[key] += 1
                    state.unsure += 1
                    state.roles[role] += 1
                    state.tokens["prompt"] += prompt
                    state.tokens["completion"] += completion
                    return True

    def _say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._is_done()
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> None:
        self.state = State(script)
        super().__init__((host, port), type("Scripted", (Handler,), {"state": self.state}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        """A client that was killed hangs up."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.state.may_answer.set()
        self.shutdown()
        self.server_close()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--script", type=json.loads, default={})
    asked = options.parse_args()
    names = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in asked.script.items()}
    Server(Script(**names), "", asked.port).serve_forever()


if __name__ == "__main__":
    main()
