"""Pods as they come, and what is read from them."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import CREATED, Raw

from embedding_operator.objects.pods import PodView, view_pod
from embedding_operator.resource.labels import GPUS_ANNOTATION, INDEX_ANNOTATION
from embedding_operator.resource.times import parse_time


def pod(**status: Any) -> PodView:
    return view_pod({"metadata": {"name": "p", "uid": "u", "creationTimestamp": CREATED}, "status": status})


def container(name: str = "stage", last: Raw | None = None, **state: Any) -> Raw:
    return {"name": name, "state": state, "lastState": {"terminated": last} if last else {}}


def ended(exit_code: int, **more: Any) -> Raw:
    return {"exitCode": exit_code, "reason": "Error", **more}


COPY = "copy-corpus"
BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}


@pytest.mark.parametrize(
    ("status", "started", "exit_code", "failed_init", "waiting"),
    [
        ({}, False, None, "", ""),
        ({"containerStatuses": [container(waiting={"reason": "ErrImagePull"})]}, False, None, "", "ErrImagePull"),
        ({"containerStatuses": [container(running={})]}, True, None, "", ""),
        ({"containerStatuses": [container(terminated=ended(0))]}, True, 0, "", ""),
        ({"containerStatuses": [container(terminated=ended(10))]}, True, 10, "", ""),
        ({"containerStatuses": [container(waiting=BACK_OFF, last=ended(1))]}, True, 1, "", "CrashLoopBackOff"),
        (
            {
                "initContainerStatuses": [
                    container("tools", terminated=ended(0)),
                    container(COPY, terminated=ended(1)),
                ],
                "containerStatuses": [container(waiting={"reason": "PodInitializing"})],
            },
            False,
            1,
            COPY,
            "PodInitializing",
        ),
        (
            {
                "initContainerStatuses": [container(COPY, waiting=BACK_OFF, last=ended(10))],
                "containerStatuses": [container(waiting={"reason": "PodInitializing"})],
            },
            False,
            10,
            COPY,
            "CrashLoopBackOff",
        ),
        (
            {
                "initContainerStatuses": [container(COPY, terminated=ended(0), last=ended(10))],
                "containerStatuses": [container(running={})],
            },
            True,
            None,
            "",
            "",
        ),
    ],
    ids=["new", "pull", "runs", "done", "failed", "crashes", "init failed", "init crashes", "init recovered"],
)
def test_what_a_pod_has_done(status: Raw, started: bool, exit_code: Any, failed_init: str, waiting: str) -> None:
    view = pod(**status)
    assert (view.started, view.exit_code, view.failed_init, view.waiting_reason) == (
        started,
        exit_code,
        failed_init,
        waiting,
    )


PROXY = container("istio-proxy", running={"startedAt": CREATED})
BEGINNING = container(waiting={"reason": "PodInitializing"})


@pytest.mark.parametrize("name", ["stage", "server"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_pod_is_read_from_our_container_wherever_it_stands(name: str, order: int) -> None:
    ours = container(name, terminated=ended(10, message="why")) | {"imageID": "sha256:ours"}
    theirs = container("istio-proxy", terminated=ended(143, message="bye")) | {"imageID": "sha256:theirs"}
    view = pod(containerStatuses=[ours, theirs][::order])
    assert (view.exit_code, view.termination_message, view.image_id) == (10, "why", "sha256:ours")
    waits = pod(containerStatuses=[PROXY, container(name, waiting={"reason": "ErrImagePull"})][::order])
    assert (waits.started, waits.waiting_reason) == (False, "ErrImagePull")


def test_a_sidecar_that_was_asked_to_end_is_no_init_container_that_failed() -> None:
    view = pod(
        initContainerStatuses=[container("istio-proxy", terminated=ended(143))],
        containerStatuses=[container(terminated=ended(0, message="result"))],
    )
    assert (view.exit_code, view.failed_init, view.termination_message, view.blocked_by) == (0, "", "result", "")


@pytest.mark.parametrize(
    ("inits", "mains", "blocked_by"),
    [
        ([], [BEGINNING], ""),
        ([container("vault", waiting={"reason": "PodInitializing"})], [BEGINNING], ""),
        (
            [container("vault", waiting={"reason": "ErrImagePull", "message": "not found"})],
            [BEGINNING],
            "container vault waits: ErrImagePull: not found",
        ),
        (
            [container("vault", terminated=ended(1, message="no token"))],
            [BEGINNING],
            "container vault ended with exit code 1: no token",
        ),
        (
            [container("vault", waiting=BACK_OFF, last=ended(1, message="no token"))],
            [BEGINNING],
            "container vault ended with exit code 1: no token",
        ),
        ([container("vault", running={})], [BEGINNING], "container vault is not done yet"),
        ([container("istio-proxy", running={}) | {"started": True}], [BEGINNING], ""),
        (
            [container("istio-proxy", running={}) | {"started": False}],
            [BEGINNING],
            "container istio-proxy is not done yet",
        ),
        ([container(COPY, running={}), container("vault", waiting={"reason": "ErrImagePull"})], [BEGINNING], ""),
        ([container("vault", terminated=ended(0)), container(COPY, terminated=ended(1))], [BEGINNING], ""),
        (
            [],
            [container("istio-proxy", waiting=BACK_OFF, last=ended(2)), container("server", running={})],
            "container istio-proxy ended with exit code 2",
        ),
        ([], [PROXY, container("server", running={})], ""),
    ],
)
def test_what_else_keeps_a_pod_from_starting(inits: list[Raw], mains: list[Raw], blocked_by: str) -> None:
    raw = {
        "metadata": {"name": "p", "creationTimestamp": CREATED},
        "spec": {"initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}, {"name": "vault"}]},
        "status": {"initContainerStatuses": inits, "containerStatuses": mains},
    }
    assert view_pod(raw).blocked_by == blocked_by


def test_what_runs_beside_our_container() -> None:
    ended_proxy = container("other", terminated=ended(0))
    view = pod(containerStatuses=[PROXY, ended_proxy, container(terminated=ended(0))])
    assert view.sidecars == ("istio-proxy",)


def test_why_the_scheduler_has_no_place() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "no room"}
    assert pod(conditions=[condition]).unschedulable == "no room"
    assert pod(conditions=[condition | {"status": "True"}]).unschedulable == ""


@pytest.mark.parametrize(
    ("status", "evicted"),
    [
        ({}, ""),
        ({"reason": "Evicted", "message": "too much"}, "too much"),
        ({"reason": "NodeLost", "message": "x"}, ""),
    ],
)
def test_why_the_kubelet_put_a_pod_out(status: Raw, evicted: str) -> None:
    assert pod(**status).evicted == evicted


def test_what_a_pod_of_several_is_called_and_how_it_went() -> None:
    meta = {"name": "p", "creationTimestamp": CREATED, "annotations": {INDEX_ANNOTATION: "3"}}
    status = {
        "containerStatuses": [container(terminated=ended(143, finishedAt="2026-01-01T12:30:00Z"))],
        "conditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    view = view_pod({"metadata": meta, "status": status})
    assert (view.index, view.disrupted, view.ended) == (3, True, view.created.replace(minute=30))


def target(reason: str) -> Raw:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason}


UNKNOWN = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}


@pytest.mark.parametrize(
    ("main", "began", "ends"),
    [
        (container(waiting={"reason": "ContainerCreating"}), None, None),
        (container(running={"startedAt": CREATED}), CREATED, None),
        (container(terminated={**ended(0), "startedAt": CREATED, "finishedAt": CREATED}), CREATED, CREATED),
        (container(terminated=UNKNOWN), None, None),
    ],
    ids=["waits", "runs", "ended", "evicted, and the kubelet knows no time"],
)
def test_when_a_container_ran_is_told_by_itself(main: Raw, began: str | None, ends: str | None) -> None:
    view = pod(containerStatuses=[main])
    assert (view.began, view.ended) == (parse_time(began), parse_time(ends))


READY, FALSE = {"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}
CONTAINERS: Raw = {"type": "ContainersReady", "status": "True"}
SILENT = (FALSE, CONTAINERS)  # as the node controller leaves it
ANSWERS = (READY, CONTAINERS)
ENDED = (FALSE | {"reason": "PodFailed"}, CONTAINERS | {"status": "False", "reason": "PodFailed"})  # as a kubelet does


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        ({}, False),
        ({"reason": "NodeLost"}, True),
        ({"reason": "Evicted"}, False),
        ({"conditions": [target("DeletionByTaintManager"), *SILENT]}, True),
        ({"conditions": [target("DeletionByTaintManager")]}, False),  # a taint for maintenance: no word of its name
        ({"conditions": [target("DeletionByTaintManager"), *ANSWERS]}, False),
        ({"conditions": [target("DeletionByTaintManager"), *ENDED]}, False),
        ({"conditions": [target("DeletionByPodGC")]}, True),
        ({"conditions": [target("EvictionByEvictionAPI")]}, False),
        ({"conditions": [target("PreemptionByScheduler")]}, False),
        ({"conditions": [target("DeletionByPodGC") | {"status": "False"}]}, False),
    ],
)
def test_a_pod_whose_node_is_lost_is_told_from_one_that_is_drained(status: Raw, lost: bool) -> None:
    view = pod(**status)
    assert view.node_lost is lost
    assert view.tainted is (not lost and "DeletionByTaintManager" in str(status))


@pytest.mark.parametrize(("notes", "gpus"), [({}, 0), ({GPUS_ANNOTATION: "4"}, 4), ({GPUS_ANNOTATION: "many"}, 0)])
def test_a_pod_says_how_many_gpus_it_has(notes: dict[str, str], gpus: int) -> None:
    raw = {"metadata": {"name": "p", "creationTimestamp": CREATED, "annotations": notes}}
    assert view_pod(raw).gpus == gpus


@pytest.mark.parametrize(
    ("ready", "containers", "silent"),
    [
        ({"status": "True"}, {"status": "True"}, False),
        ({"status": "False"}, {"status": "True"}, True),
        ({"status": "False", "reason": "ReadinessGatesNotReady"}, {"status": "True"}, False),
        ({"status": "False", "reason": "ContainersNotReady"}, {"status": "False"}, False),
        ({"status": "False"}, {}, False),
        ({}, {}, False),
    ],
)
def test_a_node_that_does_not_answer_is_told_by_its_pods(ready: Raw, containers: Raw, silent: bool) -> None:
    conditions = [{"type": "Ready", **ready}, {"type": "ContainersReady", **containers}]
    assert pod(conditions=conditions).node_silent is silent
