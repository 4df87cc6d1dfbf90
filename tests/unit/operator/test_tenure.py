"""Nothing is written once it is not sure any more that this process leads: asked of the real client, over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from embedding_operator.cluster.client import Cluster, KubeCluster
from embedding_operator.cluster.errors import NotLeader
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.settings import Settings

META = {"name": "x", "namespace": "n", "ownerReferences": [{"uid": "u", "name": "r", "kind": "EmbeddingFineTune"}]}
WHOLE: dict[str, Any] = {"kind": "Service", "metadata": META, "spec": {}}
JOB = {**WHOLE, "kind": "Job"}
LEASE = {"metadata": {"namespace": "n", "name": "lease", "resourceVersion": "1"}, "spec": {}}
READS = {"now", "get", "list", "each", "versions", "log_tail"}
WRITES: dict[str, Callable[[KubeCluster], object]] = {
    "create_job": lambda it: it.create_job(JOB),
    "create_pod": lambda it: it.create_pod({**WHOLE, "kind": "Pod"}, within_s=5),
    "apply": lambda it: it.apply(WHOLE),
    "try_out": lambda it: it.try_out(JOB, within_s=5),
    "activate_workload": lambda it: it.activate_workload("n", "x", active=False, revision=1, version="1"),
    "delete": lambda it: it.delete("Service", "n", "x"),
    "forget_suspension": lambda it: it.forget_suspension("Job", "n", "x", resumed_in=None),
    "suspend_job": lambda it: it.suspend_job("n", "x", suspend=True, revision=1, version="1"),
    "write_status": lambda it: it.write_status(WHOLE, {}),
    "write_status (dry run)": lambda it: it.write_status(WHOLE, {}, dry_run=True),
    "post_event": lambda it: it.post_event(WHOLE, "Normal", "Said", "words", "2026-01-01T00:00:00Z"),
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenure(clock: Clock) -> Tenure:
    return Tenure(clock=clock)


@pytest.fixture
def heard() -> list[str]:
    """Methods of what the API server was sent."""
    return []


@pytest.fixture
def cluster(tenure: Tenure, heard: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeCluster]:
    """The operator's client, and an API server that takes everything."""

    class Willing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard.append(self.command)
            body = json.dumps(WHOLE).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Willing, f"do_{method}", Willing.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Willing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        there = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
        users = [{"name": "nobody", "user": {}}]
        path = tmp_path / "kubeconfig"
        path.write_text(
            yaml.safe_dump({"current-context": "here", "clusters": [there], "contexts": [context], "users": users})
        )
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        monkeypatch.setattr(client.Configuration, "_default", None)
        found = KubeCluster.connect(connections=1, tenure=tenure)
        yield found
        found.close()
        server.shutdown()
        thread.join()


def test_every_method_is_one_that_reads_or_one_that_is_tried_here() -> None:
    tried = {name.partition(" (")[0] for name in WRITES}
    assert {name for name in vars(Cluster) if not name.startswith("_")} == READS | tried


@pytest.mark.parametrize("method", WRITES)
def test_a_write_is_sent_while_the_tenure_lasts_and_not_afterwards(
    cluster: KubeCluster, tenure: Tenure, clock: Clock, heard: list[str], method: str
) -> None:
    tenure.extend(10)
    clock.now = 9.9
    WRITES[method](cluster)
    assert {*heard} - {"GET"}, "it writes"
    heard.clear()
    clock.now = 10
    with pytest.raises(NotLeader, match="nothing is written"):
        WRITES[method](cluster)
    assert {*heard} <= {"GET"}


def test_who_does_not_lead_reads_and_takes_part_in_the_election(cluster: KubeCluster, heard: list[str]) -> None:
    cluster.get("Job", "n", "x")
    cluster.list("Job", "n")
    cluster.log_tail("n", "pod", lines=1)
    cluster.read_lease("n", "lease", within_s=5)
    cluster.write_lease(LEASE, within_s=5)
    cluster.write_lease({"metadata": {"namespace": "n", "name": "lease"}}, within_s=5)
    assert heard == ["GET", "GET", "GET", "GET", "PUT", "POST"]


def test_before_the_first_election_nobody_leads() -> None:
    assert not Tenure().holds()
    assert Tenure.without_end().holds()


def test_a_tenure_that_was_ended_can_be_given_again(tenure: Tenure, clock: Clock) -> None:
    tenure.extend(10)
    tenure.end()
    assert not tenure.holds()
    clock.now = 20
    tenure.extend(30)
    assert tenure.left_s() == 10


ENV = {
    **{
        f"IMAGE_{name}": "image:1" for name in ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE", "SERVE_TORCH")
    },
    "LEADER_ELECTION": "true",
    "POD_NAMESPACE": "home",
}
BAD: dict[str, tuple[dict[str, str], str]] = {
    "no namespace": ({"POD_NAMESPACE": ""}, "POD_NAMESPACE"),
    "a deadline as long as the Lease": ({"RENEW_DEADLINE_S": "15"}, "LEASE_DURATION_S=15"),
    "a Lease that is shorter": ({"LEASE_DURATION_S": "9"}, "RENEW_DEADLINE_S=10"),
    "one try before the deadline": ({"RETRY_PERIOD_S": "6"}, "RETRY_PERIOD_S=6"),
    "no number": ({"LEASE_DURATION_S": "soon"}, "LEASE_DURATION_S"),
    "no switch": ({"LEADER_ELECTION": "yes"}, "LEADER_ELECTION"),
}


@pytest.mark.parametrize("row", BAD)
def test_a_wrong_setting_is_named(row: str) -> None:
    change, named = BAD[row]
    with pytest.raises(ValueError, match=named):
        Settings.from_env({**ENV, **change})


def test_settings_of_the_election() -> None:
    found = Settings.from_env({**ENV, "LEASE_NAME": "mine", "LEASE_DURATION_S": "30", "POD_NAME": "pod-1"})
    assert found.lease == ("home", "mine")
    assert found.election is not None
    assert (found.election.lease_s, found.election.renew_s, found.election.retry_s) == (30, 10, 2)
    assert found.pod_name == "pod-1"
    assert Settings.from_env({key: ENV[key] for key in ENV if key.startswith("IMAGE_")}).election is None
