"""A model hub on 127.0.0.1, and the inputs stage that takes its model from there."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from unit.stages.test_inputs_model import COMMIT, DOCUMENT, make_model

from embedding_stages.contract import Stage, StageRequest
from embedding_stages.inputs.stage import work
from embedding_stages.runner import run


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the model hub as one public, one gated and no other model need."""

    folder: Path
    requests: list[str]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        if "gated" in self.path and self.headers.get("Authorization") != "Bearer good":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if "broken" in self.path:
            return self._send(500, b"{}", {})
        if "team/tiny" not in self.path and "gated" not in self.path:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "/revision/" in self.path:
            if COMMIT not in self.path:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = sorted(path for path in self.folder.rglob("*") if path.is_file())
            names = [{"rfilename": path.relative_to(self.folder).as_posix()} for path in files]
            body = {"id": "team/tiny", "modelId": "team/tiny", "sha": COMMIT, "siblings": names, "tags": []}
            return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        content = (self.folder / self.path.split("?")[0].rpartition(f"{COMMIT}/")[2]).read_bytes()
        return self._send(200, content if with_body else b"", {"X-Repo-Commit": COMMIT, "ETag": '"e"'}, len(content))

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that does not trust the server hangs up."""


@contextmanager
def serving_hub(tmp_path: Path, patch: pytest.MonkeyPatch, tls: ssl.SSLContext | None = None) -> Iterator[type[Hub]]:
    """A hub with one model, which HF_ENDPOINT names."""
    pytest.importorskip("huggingface_hub")

    class Serving(Hub):
        folder = make_model(tmp_path / "hub")
        requests: list[str] = []  # noqa: RUF012 - one class a test

    (Serving.folder / "modeling.py").write_text("raise SystemExit")
    (Serving.folder / "pytorch_model.bin").write_text("pickle")
    with _Server(("127.0.0.1", 0), Serving) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        patch.setenv("HF_ENDPOINT", f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield Serving
        server.shutdown()


def inputs(tmp_path: Path, name: str = "team/tiny", revision: str = COMMIT, fingerprint: str = "f") -> dict[str, Any]:
    """Run the stage with a hub model and one document; its result and exit code."""
    corpus = tmp_path / "sources" / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "a.txt").write_text(DOCUMENT)
    settings = {
        "corpus": {"kind": "pvc", "path": "", "include": ["*.txt"], "minTextLength": 50, "limits": {}},
        "baseModel": {"name": name, "kind": "huggingFace", "path": "", "revision": revision, "prefixes": None,
                      "maxTokens": None},
        "labelledSet": None,
    }  # fmt: skip
    request = StageRequest(
        stage=Stage.INPUTS, fingerprint=fingerprint, attempt=1, revision=1, image="i", settings=settings, inputs={}
    )
    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path / "workspace"),
        "EFT_SOURCES": str(tmp_path / "sources"),
        "EFT_SECRETS": str(tmp_path / "secrets"),
        "EFT_AUTHORITIES": str(tmp_path / "authorities"),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(Stage.INPUTS, work, env)
    return {**json.loads((tmp_path / "log").read_text()), "exitCode": code}
