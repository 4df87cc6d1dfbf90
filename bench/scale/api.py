"""Plain HTTP to the bench's own API server, as its administrator."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
Raw = dict[str, Any]


class Refused(Exception):
    """The API server said no."""


@dataclass(frozen=True)
class Identity:
    """A client certificate and the authority that both sides trust."""

    certificate: Path
    key: Path
    authority: Path

    def context(self) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.authority))
        made.load_cert_chain(self.certificate, self.key)
        return made


@dataclass(frozen=True)
class Api:
    port: int
    identity: Identity

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    def send(
        self, method: str, path: str, body: object = None, kind: str = "application/json", timeout: float = 30
    ) -> tuple[int, Any]:
        """Status and body; status 0 where nobody answers."""
        connection = http.client.HTTPSConnection(LOOPBACK, self.port, timeout=timeout, context=self.identity.context())
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": kind, "Accept": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, {"message": str(error)}
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, {"message": text}

    def must(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Raw:
        status, answer = self.send(method, path, body, kind)
        if not 200 <= status < 300:
            raise Refused(f"{method} {path}: {status} {answer.get('message')}")
        return dict(answer)

    def items(self, path: str) -> list[Raw]:
        """All of a list, page by page: one answer with ten thousand would hold the API server up."""
        found: list[Raw] = []
        link = "&" if "?" in path else "?"
        more = ""
        while True:
            page = self.must("GET", f"{path}{link}limit=500{more}")
            found += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return found
            more = f"&continue={token}"
