"""The real operator: installed by its chart, run as its container would be, with the ServiceAccount's own token."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from bench.scale.api import LOOPBACK
from bench.scale.plane import Plane
from bench.scale.process import ROOT, Program, free_port

HOME: Final = "embedding-operator"  # its namespace, and the release
RESOURCES: Final = "/apis/embedding-operator.dev/v1alpha1/embeddingfinetunes"
_IMAGE: Final = "image:1"
_TOKEN_S: Final = 86400
_PASSES: Final = "embedding_operator_reconcile_total"
_SAMPLE: Final = re.compile(r"^[^#{ ]+(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def user() -> str:
    """What the audit log calls the operator."""
    return f"system:serviceaccount:{HOME}:{HOME}"


class Operator:
    """Starts as often as it is asked to; each replica is one of these."""

    def __init__(self, plane: Plane, env: Mapping[str, str] | None = None, name: str = "operator") -> None:
        self.plane, self.name, self.extra = plane, name, env or {}
        self.metrics_port = self.liveness_port = 0
        self.program = Program(name, [sys.executable, "-m", "embedding_operator"], plane.folder)

    def start(self) -> None:
        self.metrics_port, self.liveness_port = free_port(), free_port()
        self.program.env = {**self._chart_env(), **self._own_env(), **self.extra}
        self.program.start()

    def _chart_env(self) -> dict[str, str]:
        """What the chart's Deployment sets."""
        found = json.loads((self.plane.folder / "operator-env.json").read_text())
        fields = {"metadata.name": f"{self.name}-0", "metadata.namespace": HOME, "spec.nodeName": "simulated-0"}
        env: dict[str, str] = {}
        for item in found:
            path = item.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            if "value" in item or path in fields:
                env[item["name"]] = item["value"] if "value" in item else fields[path]
        return env

    def _own_env(self) -> dict[str, str]:
        images = ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE", "SERVE_TORCH")
        here = Path(__file__).resolve().parent
        return {
            "KUBECONFIG": str(self.plane.folder / "operator.kubeconfig"),
            # `names` plays the cluster's DNS for the one name that the operator asks for: a model server's Service.
            "PYTHONPATH": f"{here / 'names'}:{ROOT / 'operator'}:{ROOT / 'stage_images'}",
            "BENCH_MODEL_SERVER": f"{LOOPBACK}:{self.plane.endpoint_port}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "METRICS_PORT": str(self.metrics_port),
            "LIVENESS_PORT": str(self.liveness_port),
            **{f"IMAGE_{name}": _IMAGE for name in images},
        }

    def passes(self) -> float:
        """Passes since its start, by its own metrics; 0 while it tells none."""
        return self._metric(_PASSES)

    def resync_interval_s(self) -> float:
        """How often it looks for what the watches missed, as its last look has set it."""
        return self._metric("embedding_operator_resync_interval_seconds")

    def wait_resync(self, most_s: float = 7200) -> None:
        """Until the next resync has ended."""
        name, end = "embedding_operator_last_resync_timestamp_seconds", time.monotonic() + most_s
        last = self._metric(name)
        while self._metric(name) == last and time.monotonic() < end:
            time.sleep(1)

    def _metric(self, name: str) -> float:
        """The sum of its samples; 0 while it tells none. The others, of thousands of resources, are not asked for: to
        write them down twice a second took a fifth of the operator's time.
        """
        told = _SAMPLE.findall(_read(self.metrics_port, f"/metrics?name[]={name}"))
        return sum(float(text) for text in told)

    def is_healthy(self) -> bool:
        return _read(self.liveness_port, "/healthz") != ""


def _read(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=20) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def install(plane: Plane) -> None:
    """The CRD, and everything of the chart but the Deployment, whose environment is kept for `Operator`."""
    plane.apply((ROOT / "crds/embeddingfinetunes.embedding-operator.dev.yaml").read_text())
    plane.api.must("POST", "/api/v1/namespaces", {"metadata": {"name": HOME}})
    chart = ROOT / "charts/embedding-operator"
    command = [
        *(str(plane.binaries.helm), "template", HOME, str(chart), "--namespace", HOME),
        *("--kube-version", "1.34.4", "--set", "crds.install=false"),
    ]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    objects = [item for item in yaml.safe_load_all(rendered) if item]
    (deployment,) = (item for item in objects if item["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (plane.folder / "operator-env.json").write_text(json.dumps(container.get("env", [])))
    plane.apply("---\n".join(json.dumps(item) + "\n" for item in objects if item["kind"] != "Deployment"))
    plane.served(RESOURCES)
    body: Mapping[str, Any] = {"spec": {"expirationSeconds": _TOKEN_S}}
    made = plane.api.must("POST", f"/api/v1/namespaces/{HOME}/serviceaccounts/{HOME}/token", body)
    plane.kubeconfig("operator", token=made["status"]["token"])
