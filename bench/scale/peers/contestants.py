"""How each contestant is installed and started on a control plane."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.scale import operator_process
from bench.scale.api import LOOPBACK
from bench.scale.kinds import KINDS, Kind
from bench.scale.lab import Lab
from bench.scale.peers.build import ARGO, JOBSET, build, folder_of
from bench.scale.plane import Plane, until
from bench.scale.process import Program, free_port

import pki  # isort: skip - process.py has put hack/localkube on the path

_ARGO_HOME: Final = "argo"


@dataclass(frozen=True)
class Contestant:
    """`start` installs and runs it, and comes back when it works."""

    name: str
    how: str  # defaults, or what was tuned
    kind: Kind
    user: str  # of the audit log
    start: Callable[[Lab], Program]


def contestants(names: list[str]) -> list[Contestant]:
    ours, jobs, flow = KINDS["EmbeddingFineTune"], KINDS["JobSet"], KINDS["Workflow"]
    us = operator_process.user()
    every = {
        "ours": [
            Contestant("embedding-operator", "defaults", ours, us, _ours),
            Contestant("embedding-operator", "CONCURRENCY=32", ours, us, lambda lab: _ours(lab, {"CONCURRENCY": "32"})),
        ],
        "jobset": [
            Contestant("JobSet", "defaults (500 requests/s)", jobs, JOBSET.name, _jobset),
            Contestant(
                "JobSet",
                "2,000 requests/s",
                jobs,
                JOBSET.name,
                lambda lab: _jobset(lab, "--kube-api-qps=2000", "--kube-api-burst=4000"),
            ),
        ],
        "argo": [
            Contestant("Argo Workflows", "defaults (20 requests/s)", flow, ARGO.name, _argo),
            Contestant(
                "Argo Workflows",
                "2,000 requests/s, 128 workers, DEFAULT_REQUEUE_TIME=1s",
                flow,
                ARGO.name,
                lambda lab: _argo(
                    lab, "--qps=2000", "--burst=4000", "--workflow-workers=128", DEFAULT_REQUEUE_TIME="1s"
                ),
            ),
        ],
    }
    return [contestant for name in names for contestant in every[name]]


def _ours(lab: Lab, env: Mapping[str, str] | None = None) -> Program:
    operator_process.install(lab.plane)
    operator = operator_process.Operator(lab.plane, env)
    operator.start()
    until("the operator's health", operator.is_healthy)
    return operator.program


def _jobset(lab: Lab, *flags: str) -> Program:
    plane, module = lab.plane, folder_of(JOBSET)
    program = build(JOBSET)
    parts = module / "config/components"
    plane.apply((parts / "crd/bases/jobset.x-k8s.io_jobsets.yaml").read_text())
    certificates = _serving_certificate(plane)
    webhook, metrics, probe = free_port(), free_port(), free_port()
    conf = {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        # Its own certificates come by way of a Service, which leads nowhere here.
        "internalCertManagement": {"enable": False},
        "webhook": {"port": webhook, "host": LOOPBACK, "certDir": str(certificates)},
        "metrics": {"bindAddress": f"{LOOPBACK}:{metrics}", "certDir": str(certificates)},
        "health": {"healthProbeBindAddress": f"{LOOPBACK}:{probe}"},
    }
    path = plane.folder / "jobset.json"
    path.write_text(json.dumps(conf))
    plane.administrator(JOBSET.name)
    env = {"KUBECONFIG": str(plane.kubeconfig(JOBSET.name))}
    running = Program("jobset", [str(program), f"--config={path}", "--leader-elect=false", *flags], plane.folder, env)
    running.start()
    until("JobSet's health", lambda: operator_process._read(probe, "/readyz") != "")
    plane.apply(_webhooks(plane, parts, webhook))
    plane.served(KINDS["JobSet"].path)
    return running


def _serving_certificate(plane: Plane) -> Path:
    identity = pki.Identity("jobset-webhook", "/CN=jobset-webhook")
    plane.keys.issue(identity)
    folder = plane.folder / "jobset-certificates"
    folder.mkdir()
    (folder / "tls.crt").write_bytes(plane.keys.certificate(identity).read_bytes())
    (folder / "tls.key").write_bytes(plane.keys.key(identity).read_bytes())
    return folder


def _webhooks(plane: Plane, parts: Path, port: int) -> str:
    """The module's own, with its patches, at an address instead of behind a Service."""
    authority = base64.b64encode(plane.keys.authority.read_bytes()).decode()
    found: list[dict[str, Any]] = list(yaml.safe_load_all((parts / "webhook/manifests.yaml").read_text()))
    for manifest in found:
        kind = "mutating" if manifest["kind"].startswith("Mutating") else "validating"
        for patch in yaml.safe_load((parts / f"webhook/patches/{kind}-patch.yaml").read_text()):
            manifest["webhooks"][int(patch["path"].rsplit("/", 1)[1])] = patch["value"]
        for webhook in manifest["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://{LOOPBACK}:{port}{path}", "caBundle": authority}
    return "---\n".join(json.dumps(manifest) + "\n" for manifest in found)


def _argo(lab: Lab, *flags: str, **env: str) -> Program:
    plane, module = lab.plane, folder_of(ARGO)
    program = build(ARGO)
    for path in sorted((module / "manifests/base/crds/minimal").glob("argoproj.io_*.yaml")):
        plane.apply(path.read_text())
    plane.served(KINDS["Workflow"].path)
    plane.api.must("POST", "/api/v1/namespaces", {"metadata": {"name": _ARGO_HOME}})
    settings = {"metricsConfig": "enabled: false\n", "telemetryConfig": "enabled: false\n"}
    body = {"metadata": {"name": "workflow-controller-configmap"}, "data": settings}
    plane.api.must("POST", f"/api/v1/namespaces/{_ARGO_HOME}/configmaps", body)
    plane.administrator(ARGO.name)
    running = Program(
        "argo",
        [str(program), f"--namespace={_ARGO_HOME}", "--executor-image=image:1", *flags],
        plane.folder,
        {"KUBECONFIG": str(plane.kubeconfig(ARGO.name)), "LEADER_ELECTION_DISABLE": "true", **env},
    )
    running.start()
    until("Argo's controller", lambda: running.log.exists() and "Starting" in running.log.read_text())
    return running
