"""A registry on this machine that answers as real ones do of an image that they do not have."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any, Self


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v2":
            self._say(200, {})
        else:
            self._say(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class EmptyRegistry(http.server.ThreadingHTTPServer):
    """On loopback, where containerd asks without TLS."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    def image(self, name: str) -> str:
        return f"localhost:{self.server_address[1]}/{name}:1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
