"""What must hold after every status write, whatever happens."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from simulation.fake_cluster import NAMESPACE, FakeCluster
from simulation.server_rules import schema_errors

from embedding_operator.resource.conditions import DEPENDENTS
from embedding_operator.resource.folding import written_out
from embedding_operator.resource.labels import OWNER_UID_LABEL, SERVING_LABEL, STAGE_LABEL
from embedding_stages.contract import Stage

Raw = dict[str, Any]
_CRD = Path(__file__).parents[2] / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml"
_STATUS_BYTES = 32 << 10
# Degraded while a later revision runs: what clients reach does not answer as it did.
_GOES_ON = {"Pending", "Running", "Verifying", "Ready", "Suspended", "Degraded"}


@cache
def crd_schema() -> Raw:
    """The resource's schema."""
    crd: Raw = yaml.safe_load(_CRD.read_text())
    schema: Raw = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def status_errors(status: Raw) -> list[str]:
    """Where the API server would refuse or prune a status."""
    return schema_errors(status, crd_schema()["properties"]["status"], "status")


def spec_errors(spec: Raw) -> list[str]:
    return schema_errors(spec, crd_schema()["properties"]["spec"], "spec")


def check_status(cluster: FakeCluster, resource: Raw) -> None:
    """Assert every invariant; to be called with the resource as it was just written."""
    status, meta = resource["status"], resource["metadata"]
    _check_text(json.dumps(status))
    assert status["observedGeneration"] == meta["generation"]
    conditions = {item["type"]: item for item in status["conditions"]}
    ready = conditions["Ready"]["status"] == "True"
    assert (status["phase"] == "Ready") == ready
    looked_at = conditions["Ready"]["status"] == "False"
    assert status["phase"] in ({"Blocked", "Degraded", "Suspended"} if looked_at else _GOES_ON), status["phase"]
    assert not (ready and {"Reconciling", "Stalled"} & conditions.keys())
    assert not {"Reconciling", "Stalled"} <= conditions.keys()
    assert all(conditions[kind]["status"] == "True" for kind in ("Reconciling", "Stalled") if kind in conditions)
    if ready:
        _check_ready(cluster, meta, status, conditions)
    _check_jobs(cluster, meta["uid"])


@cache
def _check_text(status: str) -> None:
    assert status_errors(json.loads(status)) == []
    assert len(status.encode()) < _STATUS_BYTES


def _check_ready(cluster: FakeCluster, meta: Raw, written: Raw, conditions: dict[str, Raw]) -> None:
    status = written_out(written)
    states = {item["name"]: item["state"] for item in status["stages"]}
    assert set(states) == set(Stage)
    assert set(states.values()) <= {"Succeeded", "Reused", "Skipped"}, states
    looks, scalings = (
        status.get("schedule", {}).get("revisions", 0),
        status["resolved"].get("scaling", {}).get("edits", 0),
    )
    assert status["revision"] == meta["generation"] + looks - scalings
    for kind in DEPENDENTS:
        assert conditions[kind]["status"] == "True"
        assert conditions[kind]["observedGeneration"] == meta["generation"]
    assert status["verification"]["withinTolerance"] is True
    # Clients reach the very artefact that was exported and verified.
    service = cluster.objects["Service", NAMESPACE, meta["name"]]
    serving = service["spec"]["selector"][SERVING_LABEL]
    assert status["served"]["activeFingerprint"].startswith(serving)
    server = next(raw for raw in cluster.find("Deployment") if raw["metadata"]["labels"].get(SERVING_LABEL) == serving)
    digest = server["spec"]["template"]["spec"]["initContainers"][0]["command"][-1]
    assert digest == status["served"]["artefactDigest"] == status["verification"]["artefactDigest"]


def _check_rendezvous_services(cluster: FakeCluster, uid: str) -> None:
    """Pods of several nodes never look for a Service that is not there."""
    for job in cluster.find("Job"):
        ours = job["metadata"].get("labels", {}).get(OWNER_UID_LABEL) == uid and job["spec"]["completions"] > 1
        if ours and "deletionTimestamp" not in job["metadata"] and not job.get("status", {}).get("conditions"):
            service = cluster.objects["Service", NAMESPACE, job["spec"]["template"]["spec"]["subdomain"]]
            assert service["spec"]["clusterIP"] == "None"
            assert SERVING_LABEL not in service["metadata"]["labels"]


def _check_jobs(cluster: FakeCluster, uid: str) -> None:
    unfinished = [
        raw["metadata"]["labels"][STAGE_LABEL]
        for raw in cluster.find("Job")
        if raw["metadata"].get("labels", {}).get(OWNER_UID_LABEL) == uid
        and "deletionTimestamp" not in raw["metadata"]
        and not raw.get("status", {}).get("conditions")
        and not raw["spec"].get("suspend")
    ]
    _check_rendezvous_services(cluster, uid)
    # A new revision looks at its inputs while a stage of the older one, perhaps still wanted, goes on.
    assert len(unfinished) == len(set(unfinished)), unfinished
    assert len([stage for stage in unfinished if stage != Stage.INPUTS]) <= 1, unfinished
