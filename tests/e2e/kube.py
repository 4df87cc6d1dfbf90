"""kubectl, and waiting for what a person would wait for."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from embedding_operator.resource.folding import written_out

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "eft-e2e"
OPERATOR_NAMESPACE = "embedding-operator"


class Kube:
    """One cluster, reached by kubectl."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        self.direct: bool | None = None

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout_s: int = 180) -> str:
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any] | None:
        text = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "", namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        text = self.run("get", kind, "-n", namespace, "-o", "json", *(["-l", selector] if selector else []))
        return list(json.loads(text)["items"])

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        body = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        # Server-side: a ConfigMap of documents is too large for the annotation that client-side apply keeps.
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(body))

    def patch(self, name: str, spec: Mapping[str, Any]) -> None:
        """Merge-patch the spec of a resource."""
        self.run("patch", "eft", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec}))

    def status(self, name: str) -> dict[str, Any]:
        """With what stands in its record written out."""
        return written_out((self.get("eft", name) or {}).get("status") or {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def stage(self, name: str, stage: str) -> dict[str, Any]:
        return next((s for s in self.status(name).get("stages", ()) if s["name"] == stage), {})

    def until(self, what: str, look: Callable[[], T | None], timeout_s: float, every_s: float = 0.5) -> T:
        """Look until there is something; fail with `what` when there is not in time."""
        end = time.monotonic() + timeout_s
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"not seen within {timeout_s:.0f} s: {what}")
            time.sleep(every_s)

    def until_ready(self, name: str, generation: int, timeout_s: float = 600) -> dict[str, Any]:
        """The status once Ready is True for this generation; fails at once when it can no longer become True."""

        def look() -> dict[str, Any] | None:
            status = self.status(name)
            conditions = {c["type"]: c for c in status.get("conditions", ())}
            if status.get("observedGeneration") != generation:
                return None
            stalled = conditions.get("Stalled", {})
            if stalled.get("status") == "True":
                raise AssertionError(f"{name} is stalled: {stalled}; {status.get('lastFailure')}")
            return status if conditions.get("Ready", {}).get("status") == "True" else None

        try:
            return self.until(f"{name} Ready at generation {generation}", look, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.status(name), indent=1)}") from error

    def until_condition(
        self, name: str, kind: str, status: str, reason: str = "", timeout_s: float = 30
    ) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.condition(name, kind)
            return found if found.get("status") == status and reason in ("", found.get("reason")) else None

        try:
            return self.until(f"{name}: {kind}={status} {reason}", look, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; conditions: {self.status(name).get('conditions')}") from error

    def post(self, service: str, path: str, body: Mapping[str, Any], port: int = 8000) -> dict[str, Any]:
        """Ask a Service as a client would: at its address where the node is this machine, else through the API
        server, as in kind, whose node is a container. An OSError when there is no answer."""
        text = json.dumps(body)
        if self.direct is None:
            self.direct = self._reaches(service, port)
        if not self.direct:
            url = f"/api/v1/namespaces/{NAMESPACE}/services/{service}:{port}/proxy{path}"
            try:
                return dict(json.loads(self.run("create", "--raw", url, "-f", "-", stdin=text)))
            except AssertionError as error:
                raise OSError(str(error)) from error
        request = urllib.request.Request(
            f"http://{self._address(service)}:{port}{path}",
            data=text.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    def _address(self, service: str) -> str:
        found = self.get("service", service)
        assert found is not None, f"there is no service {service}"
        return str(found["spec"]["clusterIP"])

    def _reaches(self, service: str, port: int) -> bool:
        try:
            socket.create_connection((self._address(service), port), timeout=3).close()
        except OSError:
            return False
        return True

    def generation(self, name: str) -> int:
        return int((self.get("eft", name) or {})["metadata"]["generation"])

    def jobs_of(self, name: str) -> dict[str, list[str]]:
        """stage -> names of all its Jobs."""
        found: dict[str, list[str]] = {}
        for job in self.list("jobs", f"embedding-operator.dev/owner={name}"):
            found.setdefault(job["metadata"]["labels"]["embedding-operator.dev/stage"], []).append(
                job["metadata"]["name"]
            )
        return found
