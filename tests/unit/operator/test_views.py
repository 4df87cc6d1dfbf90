"""Jobs and Deployments as they come, and what is read from them."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import CREATED, FINGERPRINT, OWNER, Raw, a_pod, a_request, a_spec

from embedding_operator.objects.manifests.job import build_job
from embedding_operator.objects.views import view_deployment, view_job
from embedding_operator.resource.labels import ATTEMPT_LABEL, STAGE_LABEL
from embedding_stages.contract import Stage


def job(**status: Any) -> Raw:
    raw = build_job(OWNER, a_spec(), a_request(attempt=3, revision=2))
    raw["metadata"]["creationTimestamp"] = CREATED
    return raw | {"status": status}


@pytest.mark.parametrize(
    ("conditions", "succeeded", "failed", "reason"),
    [
        ([], False, False, ""),
        ([{"type": "SuccessCriteriaMet", "status": "True"}], False, False, ""),
        ([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}], False, False, ""),
        ([{"type": "Complete", "status": "True", "lastTransitionTime": CREATED}], True, False, ""),
        (
            [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": CREATED}],
            False,
            True,
            "DeadlineExceeded",
        ),
        ([{"type": "Failed", "status": "False"}], False, False, ""),
    ],
)
def test_how_a_job_ended(conditions: list[Raw], succeeded: bool, failed: bool, reason: str) -> None:
    view = view_job(job(conditions=conditions), [])
    assert view is not None
    assert (view.succeeded, view.failed, view.failure_reason) == (succeeded, failed, reason)
    assert (view.ended is not None) is (succeeded or failed)
    assert (view.stage, view.fingerprint, view.attempt, view.revision) == (Stage.SDG, FINGERPRINT, 3, 2)


@pytest.mark.parametrize(
    ("suspend", "condition", "suspended", "resuming"),
    [
        (True, "True", True, False),
        (False, "True", False, True),  # its controller has not noticed: its start time is still to come
        (False, "False", False, False),
        (False, "", False, False),
    ],
)
def test_a_job_that_was_just_resumed(suspend: bool, condition: str, suspended: bool, resuming: bool) -> None:
    raw = job(conditions=[{"type": "Suspended", "status": condition}] if condition else [])
    raw["spec"]["suspend"] = suspend
    view = view_job(raw, [])
    assert view is not None
    assert (view.suspended, view.resuming, view.finished) == (suspended, resuming, False)


@pytest.mark.parametrize("change", [{STAGE_LABEL: "distil"}, {STAGE_LABEL: None}, {ATTEMPT_LABEL: "x"}], ids=str)
def test_a_job_whose_labels_were_changed_is_not_ours_to_read(change: Raw) -> None:
    raw = job()
    labels = raw["metadata"]["labels"] | change
    raw["metadata"]["labels"] = {key: value for key, value in labels.items() if value is not None}
    assert view_job(raw, []) is None


def test_the_newest_pod_speaks_for_its_job() -> None:
    old = a_pod(name="old")
    new = a_pod(name="new", created=old.created.replace(hour=13))
    view = view_job(job(), [new, old])
    assert view is not None
    assert view.pod == new
    assert view.pods == (new,)


def test_a_job_of_several_nodes_has_started_when_all_its_pods_have() -> None:
    first, second = a_pod(name="first", index=0, started=True), a_pod(name="second", index=1, started=True)
    drained = a_pod(name="drained", index=1, created=first.created.replace(hour=11), disrupted=True)
    raw = job()
    raw["spec"] |= {"completions": 2, "completionMode": "Indexed"}
    for pods, started, leader in (
        ([second, drained, first], True, first),
        ([first], False, first),
        ([second], False, None),
        ([first, a_pod(name="waits", index=1)], False, first),
        ([], False, None),
    ):
        view = view_job(raw, pods)
        assert view is not None
        assert (view.nodes, view.all_started, view.pod) == (2, started, leader)
        assert view.disrupted is (drained in pods)
        assert drained not in view.pods


def test_a_deployment_is_seen_once_its_controller_has_seen_the_latest_spec() -> None:
    meta: Raw = {"name": "d", "creationTimestamp": CREATED, "generation": 2, "labels": {}}
    assert view_deployment({"metadata": meta}, []) is None
    meta["labels"] = {"embedding-operator.dev/serving": "abc"}
    for seen, observed in ((1, False), (2, True), (None, False)):
        view = view_deployment({"metadata": meta, "status": {"observedGeneration": seen}}, [])
        assert view is not None
        assert view.observed is observed
        assert (view.available, view.updated) == (0, 0)
