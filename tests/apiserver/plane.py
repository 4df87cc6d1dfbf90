"""A control plane of one's own: a real etcd and kube-apiserver, without root and without a node; the CRD in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apiserver.api import ROOT, Api, until
from kubernetes import client, config

CRD = ROOT / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml"


def _tools() -> Path:
    """The folder with kubectl and helm; built when it is not there yet."""
    for command in ("bin", "build", "bin"):
        done = subprocess.run(
            [sys.executable, "hack/localkube", command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        if command == "bin" and done.returncode == 0:
            return Path(done.stdout.strip())
    raise AssertionError("hack/localkube build failed")


@contextmanager
def running() -> Iterator[Api]:
    """It and its folder are gone afterwards."""
    tools = _tools()
    folder = Path(tempfile.mkdtemp(prefix="eft-api-"))
    plane = subprocess.Popen(
        [sys.executable, "hack/localkube", "control-plane", "--dir", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert plane.stdout is not None
        line = plane.stdout.readline()
        assert line.startswith("ready"), f"the control plane did not start: {line!r}, see {folder}"
        env = {**os.environ, "KUBECONFIG": str(folder / "kubeconfig"), "PATH": f"{tools}:{os.environ['PATH']}"}
        settings = client.Configuration()
        config.load_kube_config(env["KUBECONFIG"], client_configuration=settings)
        with client.ApiClient(settings) as http:
            api = Api(env, folder, http)
            api.kubectl("apply", "-f", str(CRD))
            # `kubectl wait` fails while there is no condition at all.
            until("the CRD to be served", lambda: api.attempt("get", "eft", "-A").returncode == 0)
            yield api
    finally:
        plane.terminate()
        plane.wait(timeout=30)
        if plane.stdout is not None:
            plane.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)
