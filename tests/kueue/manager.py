"""Kueue itself: its manager is built from its Go module, and its CRDs and webhooks are read from there too."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from apiserver.api import Api, until
from apiserver.process import free_port
from binaries import find_go
from settings import cache_home

MODULE = Path(__file__).parent / "manager"
PACKAGE = "sigs.k8s.io/kueue/cmd/kueue"
# Jobs, and what the Deployment of a server needs.
FRAMEWORKS = ("batch/job", "pod", "deployment")


def build() -> tuple[Path, Path]:
    """The manager, compiled once, and the folder of its module: five minutes on two cores when nothing is cached."""
    go, env = find_go(), {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes() + (MODULE / "go.mod").read_bytes()).hexdigest()[:16]
    target = cache_home().parent / "kueue" / digest / "kueue"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".new")
        command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), PACKAGE]
        subprocess.run(command, cwd=MODULE, env=env, check=True)
        partial.rename(target)
    listed = [go, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue"]
    found = subprocess.run(listed, cwd=MODULE, env=env, check=True, capture_output=True, text=True)
    return target, Path(found.stdout.strip())


@contextmanager
def running(api: Api, tools: Path) -> Iterator[None]:
    """Kueue, and of Kubernetes' controllers those of Jobs, Deployments and garbage, beside the tests' API server."""
    program, module = build()
    components, folder = module / "config" / "components", api.folder / "kueue"
    certificate = _certificate(folder / "metrics" / "certs")
    port, health = free_port(), free_port()
    for path in sorted((components / "crd" / "bases").glob("*.yaml")):
        api.kubectl("apply", "--server-side", "-f", str(path))
    api.kubectl("create", "namespace", "kueue-system")
    crds = [path.name for path in (components / "crd" / "bases").glob("*.yaml")]
    for name in crds:
        plural = name.removesuffix(".yaml").split("_")[1]
        until(f"{plural} to be served", lambda plural=plural: _served(api, plural))
    with ExitStack() as stack:
        stack.enter_context(_process(_controllers(api, tools), api, "controller-manager"))
        stack.enter_context(_process(_manager(program, folder, port, health), api, "kueue"))
        until("Kueue to be ready", lambda: _answers(health))
        for item in yaml.safe_load_all((components / "webhook" / "manifests.yaml").read_text()):
            api.apply(_to_loopback(item, port, certificate))
        yield


def _served(api: Api, plural: str) -> bool:
    return api.attempt("get", f"{plural}.kueue.x-k8s.io", "-A").returncode == 0


def _certificate(folder: Path) -> bytes:
    """A certificate of its own for loopback; Kueue reads that of its metrics from a fixed place in /etc."""
    folder.mkdir(parents=True)
    subject = ("-subj", "/CN=kueue", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes")
    files = ("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(["openssl", "req", "-x509", *key, *subject, *files], check=True, capture_output=True)
    return (folder / "tls.crt").read_bytes()


def _manager(program: Path, folder: Path, port: int, health: int) -> list[str]:
    settings = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "127.0.0.1:0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(folder / "metrics" / "certs")},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": list(FRAMEWORKS)},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    # In a view of /etc of its own, where its folder is. The API server of its own for what is pending is not asked for.
    started = f"{program} --config={path} --feature-gates=VisibilityOnDemand=false"
    laid_over = f"mount -t overlay overlay -o lowerdir={folder.parent / 'etc'}:/etc /etc"
    (folder.parent / "etc").mkdir()
    (folder.parent / "etc" / "kueue").symlink_to(folder)
    return ["unshare", "--mount", "sh", "-c", f"{laid_over} && exec {started}"]


def _controllers(api: Api, tools: Path) -> list[str]:
    names = ("job", "deployment", "replicaset", "garbage-collector")
    return [
        str(tools / "kubenode"),
        "kube-controller-manager",
        f"--kubeconfig={api.env['KUBECONFIG']}",
        f"--controllers={','.join(f'{name}-controller' for name in names)}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={free_port()}",
    ]


@contextmanager
def _process(command: list[str], api: Api, name: str) -> Iterator[None]:
    with (api.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=dict(api.env), stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, f"{name} ended: {(api.folder / f'{name}.log').read_text()[-3000:]}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(port: int) -> bool:
    command = ["curl", "--silent", "--fail", "--max-time", "2", f"http://127.0.0.1:{port}/readyz"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _to_loopback(configuration: dict[str, Any], port: int, certificate: bytes) -> dict[str, Any]:
    """The module's own configuration, with the address where the manager listens here."""
    configuration["metadata"]["name"] = f"kueue-{configuration['metadata']['name']}"
    for webhook in configuration["webhooks"]:
        path = webhook["clientConfig"]["service"]["path"]
        bundle = base64.b64encode(certificate).decode()
        webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
        if re.search(r"pod|deployment|statefulset", webhook["name"]):
            systems = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kueue-system"]}
            webhook["namespaceSelector"] = {"matchExpressions": [systems]}
    return configuration
