"""The operator's client against a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver.api import EFT, Api, at, resource
from apiserver.chart import install
from apiserver.manifests import FINGERPRINT, job, kept_objects, made, service
from kubernetes import client

from embedding_operator.cluster import client as cluster_module
from embedding_operator.cluster.client import KubeCluster, child_selector
from embedding_operator.cluster.errors import (
    Conflict,
    Forbidden,
    ForeignObject,
    NotTried,
    NotYetGone,
    Rejected,
    Unavailable,
)
from embedding_operator.objects.image_pods import view_image_pod
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.image_check import build_image_check
from embedding_operator.objects.manifests.serving import build_service
from embedding_operator.objects.pods import time_of
from embedding_operator.objects.views import view_job
from embedding_operator.resource.labels import OWNER_UID_LABEL, SUSPENDED_ANNOTATION
from embedding_stages.contract import Stage

NOBODY = "00000000-0000-0000-0000-000000000000"
KINDS = ("EmbeddingFineTune", "Job", "Pod", "Deployment", "Service", "PersistentVolumeClaim", "Event")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_is_none_and_an_empty_list(namespace: str, cluster: KubeCluster, kind: str) -> None:
    assert cluster.get(kind, namespace, "nothing") is None
    # A namespace comes with nothing but, perhaps, Events.
    assert kind == "Event" or cluster.list(kind, namespace) == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 500])
def test_lists_are_complete_however_they_are_paged(
    api: Api, namespace: str, cluster: KubeCluster, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_CHUNK", chunk)
    owner, spec = made(api, namespace)
    names = {cluster.create_job(job(owner, spec, attempt=n))["metadata"]["name"] for n in range(1, 4)}
    made(api, namespace, name="other")
    listed = cluster.list("Job", namespace, labels=child_selector("docs"))
    assert ({raw["metadata"]["name"] for raw in listed}, {raw["kind"] for raw in listed}) == (names, {"Job"})
    assert cluster.list("Job", namespace, labels=child_selector("other")) == []
    assert len(cluster.list("Job", namespace, labels=child_selector())) == 3
    assert len(cluster.list("Job", None, labels=f"{OWNER_UID_LABEL}={owner.uid}")) == 3
    assert {raw["metadata"]["name"] for raw in cluster.list("EmbeddingFineTune", namespace)} == {"docs", "other"}


def test_a_job_is_made_once_and_adopted_after_a_lost_reply(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = made(api, namespace)
    manifest = job(owner, spec)
    first, second = cluster.create_job(manifest), cluster.create_job(manifest)
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    view = view_job(first, [])
    assert view is not None
    assert (view.stage, view.attempt, view.fingerprint) == (Stage.SDG, 1, FINGERPRINT)
    sent = first["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"]
    assert "$$(HOME)" in sent, "the kubelet turns $$( back into $("


def test_a_pod_that_tries_images_is_made_once_and_a_refusal_is_no_more_than_that(
    api: Api, namespace: str, cluster: KubeCluster
) -> None:
    owner, spec = made(api, namespace)
    manifest = build_image_check(owner, spec, 1, ["r/a:1"], list(Stage), longest_s=60)
    live = cluster.create_pod(manifest, within_s=5)
    assert live is not None
    view = view_image_pod(live)
    assert view is not None
    assert (view.images, view.came, view.over) == (("r/a:1",), frozenset(), False)
    assert cluster.create_pod(manifest, within_s=5) is None
    cluster.delete("Pod", namespace, view.name)
    bad = {**manifest, "spec": {**manifest["spec"], "containers": []}}
    with pytest.raises(NotTried, match="containers"):
        cluster.create_pod(bad, within_s=5)


def test_foreign_objects_are_never_touched(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = made(api, namespace)
    cluster.create_job(_owned_by(job(owner, spec), "other"))
    with pytest.raises(ForeignObject, match="belongs to somebody else"):
        cluster.create_job(job(owner, spec))
    for desired in kept_objects(owner, spec):
        cluster.apply(_owned_by(desired, "other"))
        with pytest.raises(ForeignObject):
            cluster.apply(desired)


def test_what_a_predecessor_of_the_same_name_left_is_waited_for(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = made(api, namespace)
    for desired in kept_objects(owner, spec):
        cluster.apply(_owned_by(desired, "docs"))
        with pytest.raises(NotYetGone, match="was deleted"):
            cluster.apply(desired)
    assert cluster.create_job(job(owner, spec))
    assert cluster.create_job(job(Owner(namespace=namespace, name="docs", uid=NOBODY), spec))


def _owned_by(desired: dict[str, Any], name: str) -> dict[str, Any]:
    """The same object, of a resource that is not there."""
    meta = desired["metadata"]
    reference = {**meta["ownerReferences"][0], "name": name, "uid": NOBODY}
    return {**desired, "metadata": {**meta, "ownerReferences": [reference]}}


def test_an_object_without_owners_is_foreign(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, _ = made(api, namespace)
    desired = service(owner)
    plain = {**desired, "metadata": {"name": "docs", "namespace": namespace}}
    api.make(f"/api/v1/namespaces/{namespace}/services", plain)
    with pytest.raises(ForeignObject):
        cluster.apply(desired)


def test_the_traffic_moves_in_one_write(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, _ = made(api, namespace)
    before = cluster.apply(service(owner))
    after = cluster.apply(build_service(owner, "docs", "f" * 64))
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]
    assert "f" * 16 in after["spec"]["selector"].values()
    assert FINGERPRINT[:16] not in after["spec"]["selector"].values()


def test_a_status_write_after_somebody_elses_is_a_conflict(api: Api, namespace: str, cluster: KubeCluster) -> None:
    made(api, namespace)
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    written = cluster.write_status(read, {"observedGeneration": 1, "phase": "Running"})
    assert written["status"]["phase"] == "Running"
    with pytest.raises(Conflict):
        cluster.write_status(read, {"observedGeneration": 1, "phase": "Failed"})


def test_a_status_that_the_crd_does_not_know_is_refused_and_not_cut(
    api: Api, namespace: str, cluster: KubeCluster
) -> None:
    made(api, namespace)
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    with pytest.raises(Rejected, match="ofALaterRelease"):
        cluster.write_status(read, {"observedGeneration": 1, "ofALaterRelease": "x"})


def test_a_status_write_after_an_edit_is_a_conflict(api: Api, namespace: str, cluster: KubeCluster) -> None:
    made(api, namespace)
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    api.apply(resource(namespace, {"suspend": True}))
    with pytest.raises(Conflict):
        cluster.write_status(read, {"observedGeneration": 1})


def test_a_status_write_for_a_predecessor_of_the_same_name_is_a_conflict(
    api: Api, namespace: str, cluster: KubeCluster
) -> None:
    made(api, namespace)
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    api.send("DELETE", f"{EFT.format(namespace)}/docs")
    made(api, namespace)
    with pytest.raises(Conflict):
        cluster.write_status(read, {"observedGeneration": 1})


def test_an_impossible_job_is_rejected_with_the_servers_reason(api: Api, namespace: str, cluster: KubeCluster) -> None:
    impossible = {"requests": {"memory": "4Gi"}, "limits": {"memory": "1Gi"}}
    owner, spec = made(api, namespace, at("stages.prep.resources", impossible))
    with pytest.raises(Rejected, match="must be less than or equal to memory limit"):
        cluster.create_job(job(owner, spec, Stage.PREP))


def test_a_full_quota_is_waited_for(api: Api, namespace: str, cluster: KubeCluster) -> None:
    limits = {"count/jobs.batch": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": limits}}
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    counted = api.make(path, quota)
    # The controller that counts is not running here.
    status, _ = api.send("PUT", f"{path}/q/status", {**counted, "status": {"hard": limits, "used": limits}})
    assert status == 200
    owner, spec = made(api, namespace)
    with pytest.raises(Unavailable, match="exceeded quota") as raised:
        cluster.create_job(job(owner, spec))
    assert raised.value.retry_after_s > 0


def test_a_missing_right_is_named(api: Api, namespace: str) -> None:
    account = install(api, namespace="client").rsplit(":", 1)[1]
    token = api.kubectl("create", "token", account, "-n", "client").strip()
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert = api.http.configuration.host, api.http.configuration.ssl_ca_cert
    settings.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(settings) as connection:
        limited = KubeCluster(connection)
        assert limited.list("EmbeddingFineTune") is not None
        with pytest.raises(Forbidden, match="cannot delete resource"):
            limited.delete("PersistentVolumeClaim", namespace, "docs-workspace")


def test_nobody_answers(cluster: KubeCluster) -> None:
    settings = client.Configuration(host="http://127.0.0.1:1")
    settings.retries = 0
    with client.ApiClient(settings) as connection, pytest.raises(Unavailable):
        KubeCluster(connection).get("Job", "n", "x")


def test_a_job_is_suspended_and_resumed(api: Api, namespace: str, cluster: KubeCluster) -> None:
    answer = cluster.create_job(job(*made(api, namespace)))
    name = answer["metadata"]["name"]
    for suspend in (True, False):
        read = answer["metadata"]["resourceVersion"]
        found = cluster.suspend_job(namespace, name, suspend=suspend, revision=7, version=read)
        assert found is not None
        assert found["spec"]["suspend"] is suspend
        assert (SUSPENDED_ANNOTATION in found["metadata"].get("annotations", {})) is suspend
        with pytest.raises(Conflict):
            cluster.suspend_job(namespace, name, suspend=not suspend, revision=7, version=read)
        answer = found
    assert cluster.suspend_job(namespace, "gone", suspend=True, revision=7, version="1") is None


def test_a_note_is_taken_off_and_nothing_else(api: Api, namespace: str, cluster: KubeCluster) -> None:
    meta = cluster.create_job(job(*made(api, namespace)))["metadata"]
    cluster.suspend_job(namespace, meta["name"], suspend=True, revision=7, version=meta["resourceVersion"])
    for resumed_in in (7, None):
        found = cluster.forget_suspension("Job", namespace, meta["name"], resumed_in=resumed_in)
        assert found is not None
        assert found["spec"]["suspend"] is True
        view = view_job(found, [])
        assert view is not None
        assert (view.suspended_by, view.resumed_in) == (None, resumed_in)
    assert cluster.forget_suspension("Job", namespace, "gone", resumed_in=None) is None


def test_a_job_is_gone_when_its_pods_are(api: Api, namespace: str, cluster: KubeCluster) -> None:
    name = cluster.create_job(job(*made(api, namespace)))["metadata"]["name"]
    for _ in range(2):
        cluster.delete("Job", namespace, name)
    left = cluster.get("Job", namespace, name)
    assert left is not None, "garbage collection, which is not running here, removes it after its pods"
    assert left["metadata"]["finalizers"] == ["foregroundDeletion"]
    cluster.delete("Job", namespace, "gone")


def test_time_is_the_servers(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, spec = made(api, namespace)
    created = time_of(cluster.create_job(job(owner, spec))["metadata"])
    assert abs((cluster.now() - created).total_seconds()) <= 3


def test_events_are_posted_and_found_by_what_they_are_about(api: Api, namespace: str, cluster: KubeCluster) -> None:
    owner, _ = made(api, namespace)
    read = cluster.get("EmbeddingFineTune", namespace, "docs")
    assert read is not None
    cluster.post_event(read, "Normal", "Completed", "sdg: done", "2026-01-01T00:00:00Z")
    cluster.post_event(read, "Warning", "StageFailed", "m" * 1000, "2026-01-01T00:00:00Z")
    warnings = cluster.list("Event", namespace, fields=f"involvedObject.uid={owner.uid},type=Warning")
    assert [event["reason"] for event in warnings] == ["StageFailed"]
    shown = api.kubectl("describe", "eft", "docs", "-n", namespace)
    assert "sdg: done" in shown


def test_there_is_no_log_before_a_pod_runs(api: Api, namespace: str, cluster: KubeCluster) -> None:
    assert cluster.log_tail(namespace, "no-such-pod", lines=5) == ""
