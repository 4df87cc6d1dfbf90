"""An OpenAI-compatible endpoint on 127.0.0.1, and the sdg stage that asks it."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest
from embedding_stages.runner import run
from embedding_stages.sdg import openai_client
from embedding_stages.sdg.stage import work

KEY = "sk-very-secret"
FIELD = "spec.stages.sdg.provider.openAI"
TEXT = "The turbine hall is cooled by sea water. Pumps start when the inlet reaches forty degrees."
Reply = tuple[int, Any, dict[str, str]]


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Answers each request with what `reply` says; remembers the bodies, keys and paths."""

    url: str
    reply: Callable[[dict[str, Any], int], Reply]
    bodies: list[dict[str, Any]]
    keys: list[str | None]
    paths: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        self.keys.append(self.headers.get("Authorization"))
        self.paths.append(self.path)
        status, content, headers = type(self).reply(body, len(self.bodies))
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def pair(question: str, quote: str, kind: str = "contextual") -> dict[str, Any]:
    evidence = [{"passage": 0, "quote": quote}]
    return {"type": kind, "question": question, "answer": "An answer.", "evidence": evidence}


def chat(content: Any) -> Reply:
    text = content if isinstance(content, str) else json.dumps(content)
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}, {}


def is_judge(body: dict[str, Any]) -> bool:
    return "grade" in body["messages"][0]["content"]


def good(body: dict[str, Any], _: int) -> Reply:
    """One grounded question, one that quotes what is not there; the judge gives 9. Anything else is answered, too."""
    if len(body["messages"]) == 1:
        return chat({"ok": True})
    if is_judge(body):
        return chat({"scores": [{"index": 0, "score": 9}]})
    name = body["messages"][1]["content"].split("unit ")[1].split(".")[0]
    pairs = [
        pair(f"What cools the hall of unit {name}?", "is cooled by  SEA water", "structural"),
        pair("What is the meaning of life?", "forty-two, of course, as always"),
    ]
    return chat("<think>hm {</think>```json\n" + json.dumps({"pairs": pairs}) + "\n```")


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # with 5, some of eight clients wait a second for the kernel to ask again

    def handle_error(self, *_: Any) -> None:
        """A client that does not trust the server hangs up."""


@contextmanager
def serving(patch: pytest.MonkeyPatch, tls: ssl.SSLContext | None = None) -> Iterator[type[Endpoint]]:
    """An endpoint that writes `good` questions until its `reply` is set."""
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setattr(openai_client, "_LONGEST_WAIT_S", 0.01)

    class Serving(Endpoint):
        reply = staticmethod(good)
        bodies: list[dict[str, Any]] = []  # noqa: RUF012 - one class a test
        keys: list[str | None] = []  # noqa: RUF012
        paths: list[str] = []  # noqa: RUF012

    with _Server(("127.0.0.1", 0), Serving) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        Serving.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Serving
        server.shutdown()


def sdg(
    tmp_path: Path,
    url: str,
    *,
    documents: int = 1,
    attempt: int = 1,
    key: str | None = KEY,
    endpoint: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Exit code, result and pairs of the stage."""
    folder = tmp_path / "inputs" / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": f"d{n}", "path": f"{n}.txt", "text": f"This is unit {n}. {TEXT}"}) for n in range(documents)
    ]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    if key:
        (tmp_path / "secrets" / "openai").mkdir(parents=True, exist_ok=True)
        (tmp_path / "secrets" / "openai" / "token").write_text(key + "\n")
    told = {"baseURL": url, "model": "m", **(endpoint or {})}
    settings = {"provider": "openAI", "openAI": told, "pairsPerDocument": 2, "sentencesPerChunk": 5,
                "minTextLength": 50, "seed": 42, **changes}  # fmt: skip
    corpus = ArtefactRef(path="inputs/corpus", digest=digest_of_folder(folder))
    request = StageRequest(stage=Stage.SDG, fingerprint="f", attempt=attempt, revision=1, image="i",
                           settings=settings, inputs={Artefact.CORPUS: corpus})  # fmt: skip
    env = {"EFT_REQUEST": request.to_json(), "EFT_WORKSPACE": str(tmp_path), "EFT_SECRETS": str(tmp_path / "secrets"),
           "EFT_AUTHORITIES": str(tmp_path / "authorities"), "EFT_TERMINATION_LOG": str(tmp_path / "log")}  # fmt: skip
    code = run(Stage.SDG, work, env)
    result = json.loads((tmp_path / "log").read_text())
    pairs = tmp_path / "sdg" / "f" / "pairs" / "pairs.jsonl"
    return code, result, [json.loads(line) for line in pairs.read_text().splitlines()] if pairs.exists() else []
