"""The chart: what it renders, what its ServiceAccount may do, and the operator running as it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from apiserver.api import ROOT, Api, resource

CHART = ROOT / "charts" / "embedding-operator"
HOME = "embedding-operator"


def _render(api: Api, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["helm", "template", HOME, str(CHART), "--namespace", HOME, "--kube-version", "1.34.4", *arguments]
    done = subprocess.run(command, env=dict(api.env), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def _objects(api: Api, *arguments: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(_render(api, *arguments).stdout) if item]


@pytest.fixture(scope="module")
def installed(api: Api) -> str:
    """The chart's objects in the API server; the namespace they are in."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    for item in _objects(api):
        if item["kind"] != "CustomResourceDefinition":
            item["metadata"].setdefault("namespace", HOME)
            if item["kind"].startswith("Cluster"):
                del item["metadata"]["namespace"]
            api.apply(item)
    return f"system:serviceaccount:{HOME}:{HOME}"


def test_the_charts_crd_is_the_projects(api: Api) -> None:
    rendered = next(item for item in _objects(api) if item["kind"] == "CustomResourceDefinition")
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == yaml.safe_load((ROOT / "crds" / f"{rendered['metadata']['name']}.yaml").read_text())


def test_a_misspelt_value_is_refused(api: Api) -> None:
    done = _render(api, "--set", "stageImage.sdg=x", check=False)
    assert done.returncode != 0
    assert "stageImage" in done.stderr


def test_images_take_the_registry_or_a_full_reference(api: Api) -> None:
    arguments = ("--set", "registry=r.example/team", "--set", "stageImages.prep=other/prep@sha256:0")
    deployment = next(item for item in _objects(api, *arguments) if item["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    env = {item["name"]: item["value"] for item in container["env"]}
    assert container["image"] == "r.example/team/embedding-operator/operator:0.1.0"
    assert env["IMAGE_SDG"] == "r.example/team/embedding-operator/sdg:0.1.0"
    assert env["IMAGE_PREP"] == "other/prep@sha256:0"


def test_chosen_namespaces_get_roles_and_the_cluster_gets_nothing(api: Api) -> None:
    objects = _objects(api, "--set", "watchNamespaces={a,b}")
    assert not [item for item in objects if item["kind"].startswith("ClusterRole")]
    assert sorted(item["metadata"]["namespace"] for item in objects if item["kind"] == "Role") == ["a", "b"]


def test_the_operators_pod_is_admitted_by_the_restricted_standard(api: Api, namespace: str) -> None:
    deployment = next(item for item in _objects(api) if item["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    template["spec"]["serviceAccountName"] = "default"
    meta = {**template["metadata"], "name": "operator", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
    api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


ALLOWED = [
    ("get list watch", "embeddingfinetunes.embedding-operator.dev"),
    ("update", "embeddingfinetunes.embedding-operator.dev/status"),
    ("get list watch create patch delete", "jobs.batch"),
    ("get list watch create patch delete", "deployments.apps"),
    ("get list create patch delete", "services"),
    ("get create patch", "persistentvolumeclaims"),
    ("list watch", "pods"),
    ("get", "pods/log"),
    ("list create", "events"),
]
DENIED = [
    ("get list watch create", "secrets"),
    ("get list", "configmaps"),
    ("get list watch", "nodes"),
    ("create delete patch", "pods"),
    ("create get", "pods/exec"),
    ("create update patch delete", "embeddingfinetunes.embedding-operator.dev"),
    ("list delete", "persistentvolumeclaims"),
    ("get list", "customresourcedefinitions.apiextensions.k8s.io"),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("impersonate", "users"),
]


RIGHTS = [(*row, "yes") for row in ALLOWED] + [(*row, "no") for row in DENIED]


@pytest.mark.parametrize(("verbs", "kind", "answer"), RIGHTS)
def test_the_service_account_may_do_its_work_and_nothing_else(
    api: Api, installed: str, verbs: str, kind: str, answer: str
) -> None:
    name, _, subresource = kind.partition("/")
    for verb in verbs.split():
        question = ["auth", "can-i", verb, name, "--as", installed, "-n", "default"]
        question += [f"--subresource={subresource}"] if subresource else []
        found = api.attempt(*question).stdout.strip()
        assert found == answer, f"{verb} {kind}"


def test_no_rule_has_a_wildcard(api: Api) -> None:
    roles = [item for item in _objects(api) if item["kind"] in ("Role", "ClusterRole")]
    assert roles
    assert "*" not in json.dumps([role["rules"] for role in roles])


def _until(what: str, look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not seen: {what}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(api: Api, installed: str) -> Iterator[Callable[[], tuple[subprocess.Popen[str], int]]]:
    """Starts the operator as the chart's ServiceAccount, as often as it is called."""
    token = api.kubectl("create", "token", HOME, "-n", HOME).strip()
    raw = json.loads(api.kubectl("config", "view", "--raw", "-o", "json"))
    raw["users"] = [{"name": "operator", "user": {"token": token}}]
    raw["contexts"][0]["context"]["user"] = "operator"
    path = api.folder / "operator.kubeconfig"
    path.write_text(json.dumps(raw))
    running: list[subprocess.Popen[str]] = []

    def run() -> tuple[subprocess.Popen[str], int]:
        port = _free_port()
        env = {
            **os.environ,
            "KUBECONFIG": str(path),
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'stage_images'}",
            "METRICS_PORT": str(_free_port()),
            "LIVENESS_PORT": str(port),
            **{f"IMAGE_{name}": "image:1" for name in ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE")},
        }
        log = (api.folder / f"operator-{len(running)}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "embedding_operator"], env=env, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        log.close()
        running.append(process)
        return process, port

    yield run
    for process in running:
        process.kill()
        process.wait()


def _finish(api: Api, namespace: str, job: dict[str, Any]) -> None:
    """Play the kubelet and the Job controller: the Job's pod ended well, with the artefacts of `inputs`."""
    name = job["metadata"]["name"]
    digest = "sha256:" + "0" * 64
    artefacts = {key: {"path": f"inputs/{key}", "digest": digest} for key in ("corpus", "baseModel")}
    result = {
        "schema": 1,
        "stage": "inputs",
        "fingerprint": job["metadata"]["annotations"]["embedding-operator.dev/fingerprint"],
        "reason": "Completed",
        "message": "5 documents",
        "field": "",
        "artefacts": artefacts,
        "metrics": {},
        "counts": {"documents": 5},
        "details": {},
    }
    template = job["spec"]["template"]
    labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
    meta = {"name": f"{name}-x", "namespace": namespace, "labels": labels}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
    ended = {"exitCode": 0, "reason": "Completed", "message": json.dumps(result)}
    main = {"name": "stage", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    status = {"phase": "Succeeded", "containerStatuses": [{**main, "state": {"terminated": ended}}]}
    _patch(api, "pod", f"{name}-x", namespace, status)
    now = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    complete = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}
    _patch(api, "job", name, namespace, {**complete, "uncountedTerminatedPods": {}})


def _patch(api: Api, kind: str, name: str, namespace: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    api.kubectl("patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def test_the_operator_works_as_its_service_account_and_survives_a_kill(
    api: Api, namespace: str, start: Callable[[], tuple[subprocess.Popen[str], int]]
) -> None:
    def jobs() -> list[dict[str, Any]]:
        return list(json.loads(api.kubectl("get", "jobs", "-n", namespace, "-o", "json"))["items"])

    api.apply(resource(namespace))
    process, port = start()
    job = _until("the inputs Job", jobs)[0]
    assert re.fullmatch(r"docs-inputs-[0-9a-f]{8}-1", job["metadata"]["name"])
    api.get("pvc", "docs-workspace", namespace)
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=15).status == 200
    _until("a status", lambda: api.get("eft", "docs", namespace)["status"].get("phase") == "Running")
    process.send_signal(signal.SIGKILL)
    process.wait()

    _finish(api, namespace, job)
    start()
    _until("the sdg Job", lambda: len(jobs()) == 2)
    stages = [item["metadata"]["labels"]["embedding-operator.dev/stage"] for item in jobs()]
    assert sorted(stages) == ["inputs", "sdg"]
    log = "".join(path.read_text() for path in api.folder.glob("operator-*.log"))
    assert "Forbidden" not in log
    assert "Traceback" not in log
