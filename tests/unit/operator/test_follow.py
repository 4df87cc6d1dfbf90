"""How far a server has come, from what its Deployment and its pods say."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from unit.operator.builders import NOON, a_pod, a_spec, a_stage, an_ended_pod

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.rollout import STARTING, follow
from embedding_operator.objects.manifests.serving import CHECK_CONTAINER
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import DeploymentView
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage


def a_server(*pods: PodView, **changes: Any) -> DeploymentView:
    """A Deployment of one replica that is wholly rolled out and available."""
    facts: dict[str, Any] = {
        "total": 1,
        "available": 1,
        "updated": 1,
        "observed": True,
        "replica_failure": "",
    } | changes
    facts = {"raw": {}} | facts
    return DeploymentView(name="d", serving="s", created=NOON, deleting=False, pods=pods, **facts)


def followed(
    server: DeploymentView, *, applied: bool = False, state: Any = "Running", replicas: int | None = 1
) -> tuple[str, str, str]:
    draft = Draft(status=Status())
    entry = a_stage(Stage.DEPLOY, state=state, finished_at="2026-01-01T00:00:00Z" if state == "Succeeded" else "")
    spec = a_spec(stages={"deploy": {"replicas": replicas} if replicas else {}})
    follow(draft, spec, entry, server, Observed(now=NOON, generation=1), applied=applied)
    found = draft.status.stage(Stage.DEPLOY)
    return found.state, found.reason, found.message


@pytest.mark.parametrize(
    ("server", "applied", "state", "wanted"),
    [
        ({}, False, "Running", ("Succeeded", "Available")),
        ({}, True, "Running", ("Running", "Applied")),
        ({}, True, "Succeeded", ("Running", "RollingOut")),
        ({"observed": False}, False, "Succeeded", ("Running", "RollingOut")),
        ({"updated": 0}, False, "Succeeded", ("Running", "RollingOut")),
        ({"total": 2}, False, "Succeeded", ("Running", "RollingOut")),
        ({"total": 2}, False, "Running", ("Running", "PodPending")),
        ({"available": 0}, False, "Succeeded", ("Failed", "Unavailable")),
        ({"available": 0}, True, "Succeeded", ("Failed", "Unavailable")),
        ({"replica_failure": "exceeded quota: q", "available": 0}, False, "Running", ("Running", "WaitingForQuota")),
        ({"replica_failure": "is forbidden", "available": 0}, False, "Running", ("Waiting", "PodCreationFailed")),
    ],
    ids=str,
)
def test_available_means_every_pod_of_the_latest_template(
    server: dict[str, Any], applied: bool, state: str, wanted: tuple[str, str]
) -> None:
    assert followed(a_server(**server), applied=applied, state=state)[:2] == wanted


@pytest.mark.parametrize(
    ("server", "applied", "state", "wanted"),
    [
        ({"observed": False, "raw": {"spec": {"replicas": 3}}}, False, "Succeeded", ("Succeeded", "Available")),
        ({"observed": False}, False, "Succeeded", ("Running", "RollingOut")),
        ({"observed": False}, False, "Running", ("Running", "PodPending")),
        ({"observed": False}, True, "Succeeded", ("Running", "RollingOut")),
        ({"total": 5, "updated": 5}, False, "Succeeded", ("Succeeded", "Available")),
        ({"total": 6, "updated": 5}, False, "Succeeded", ("Running", "RollingOut")),
        ({"available": 0}, False, "Succeeded", ("Failed", "Unavailable")),
    ],
    ids=str,
)
def test_replicas_that_somebody_else_decides_about_start_and_end_while_it_serves(
    server: dict[str, Any], applied: bool, state: str, wanted: tuple[str, str]
) -> None:
    assert followed(a_server(**server), applied=applied, state=state, replicas=None)[:2] == wanted


def said(reason: str) -> str:
    return json.dumps({"reason": reason, "message": "it is so"})


@pytest.mark.parametrize(
    ("exit_code", "message", "reason"),
    [
        (10, said("ArtefactMismatch"), "ArtefactMismatch"),
        (10, said("ArtefactMissing"), "ArtefactMissing"),
        (10, said("ArtefactUnsafe"), "ArtefactUnsafe"),
        (10, said("ArtefactUnreadable"), "CheckFailed"),
        (10, "ArtefactMismatch", "CheckFailed"),
        (10, "[]", "CheckFailed"),
        (10, "", "CheckFailed"),
        (1, said("ArtefactMismatch"), "CheckFailed"),
        (137, "", "CheckFailed"),
        (2, "usage: python3 -m embedding_stages.serve.check", "CheckFailed"),
    ],
)
def test_an_artefact_was_changed_when_its_check_says_so(exit_code: int, message: str, reason: str) -> None:
    pod = an_ended_pod(exit_code, message, failed_init=CHECK_CONTAINER)
    assert followed(a_server(pod, available=0))[:2] == ("Failed", reason)


@pytest.mark.parametrize(
    ("pods", "after_s", "wanted"),
    [
        ((), 4, "as it was"),
        ((a_pod(),), 4, "as it was"),
        ((a_pod(started=True),), 4, "as it was"),
        ((a_pod(),), 5, "pod pod-1 is starting"),
        ((a_pod(waiting_reason="ErrImagePull"),), 4, "cannot be pulled"),
        ((), 5, "the pod has not been created yet"),
    ],
)
def test_a_server_that_starts_in_a_moment_is_told_of_once(pods: tuple[PodView, ...], after_s: int, wanted: str) -> None:
    draft, server = Draft(status=Status()), a_server(*pods, available=0)
    entry = a_stage(Stage.DEPLOY, state="Running", reason=STARTING, message="as it was")
    observed = Observed(now=NOON + timedelta(seconds=after_s), generation=1)
    follow(draft, a_spec(stages={"deploy": {"replicas": 1}}), entry, server, observed, applied=False)
    assert wanted in draft.status.stage(Stage.DEPLOY).message
    assert draft.requeue_s, "it is looked at again"


def test_the_newest_pod_speaks() -> None:
    older = a_pod(name="older", started=True)
    newest = a_pod(name="newest", created=NOON.replace(hour=13), waiting_reason="ErrImagePull")
    assert followed(a_server(older, newest, available=0))[:2] == ("Waiting", "ImagePullFailed")
