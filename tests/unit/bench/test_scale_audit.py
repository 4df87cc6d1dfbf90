"""Lines of kube-apiserver's audit log, and the latencies between them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.scale.audit import AVAILABLE, JOB_ENDED, POD_ENDED, Log, Request, counts, of, parse, transitions
from bench.scale.load import still_waiting

OPERATOR, SIMULATOR = "system:serviceaccount:x:operator", "bench-simulator"
BEGIN = 1795939120.0


def line(**changes: Any) -> str:
    return json.dumps(
        {
            "stage": "ResponseComplete",
            "verb": "create",
            "requestURI": "/apis/batch/v1/namespaces/a/jobs",
            "user": {"username": OPERATOR},
            "userAgent": "embedding-operator",
            "objectRef": {"resource": "jobs", "namespace": "a", "name": "j-1"},
            "responseStatus": {"code": 201},
            "requestReceivedTimestamp": "2026-11-29T07:58:40.250000Z",
            "stageTimestamp": "2026-11-29T07:58:40.500000Z",
            **changes,
        }
    )


def test_a_line_is_read() -> None:
    found = parse(line())
    assert found == Request(
        user=OPERATOR, verb="create", resource="jobs", namespace="a", name="j-1", code=201, start=BEGIN + 0.25,
        end=BEGIN + 0.5, manager="", agent="embedding-operator",
    )  # fmt: skip
    assert found.is_write


@pytest.mark.parametrize(
    ("verb", "stage", "kept"),
    [
        ("watch", "ResponseStarted", True),
        ("watch", "ResponseComplete", False),  # counted when it began
        ("list", "ResponseComplete", True),
        ("get", "ResponseStarted", False),  # a long answer has two lines
    ],
)
def test_each_request_counts_once(verb: str, stage: str, kept: bool) -> None:
    assert (parse(line(verb=verb, stage=stage)) is not None) is kept


def test_a_dry_run_is_neither_a_write_nor_a_read() -> None:
    found = parse(line(requestURI="/apis/batch/v1/namespaces/a/jobs?dryRun=All&fieldManager=m"))
    assert found is not None
    assert (found.is_dry, found.is_write, found.is_read, found.manager) == (True, False, False, "m")


def test_a_subresource_belongs_to_the_name_of_the_resource() -> None:
    found = parse(line(objectRef={"resource": "jobs", "subresource": "status", "namespace": "a", "name": "j"}))
    assert found is not None
    assert found.resource == "jobs/status"


def test_what_is_no_object_is_told_by_its_path() -> None:
    found = parse(line(verb="get", objectRef=None, requestURI="/apis?timeout=32s"))
    assert found is not None
    assert found.resource == "/apis"


def test_a_log_is_read_on_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = Log(path)
    assert log.read() == []
    path.write_text(line() + "\n" + line()[:40])
    assert len(log.read()) == 1
    with path.open("a") as out:
        out.write(line()[40:] + "\n")
    assert len(log.read()) == 2
    log.forget()
    assert log.read() == []


def request(verb: str, resource: str, name: str, at: float, **changes: Any) -> Request:
    made = Request(
        user=OPERATOR, verb=verb, resource=resource, namespace="a", name=name, code=200, start=at, end=at + 0.01,
        manager="", agent="",
    )  # fmt: skip
    return replace(made, **changes)


def ended(manager: str, resource: str, name: str, at: float) -> Request:
    return request("patch", f"{resource}/status", name, at, user=SIMULATOR, manager=manager)


CHAINS = {("a", name): "one" for name in ("j-1", "j-1-0", "j-2", "d", "j-3")} | {
    ("a", "k-1"): "two",
    ("a", "k-2"): "two",
}


def test_from_an_end_to_what_is_made_next_in_the_same_chain() -> None:
    told = [
        request("create", "jobs", "j-1", 1.0),
        ended(POD_ENDED, "pods", "j-1-0", 4.0),
        request("create", "jobs", "k-1", 4.5),  # of another chain
        ended(JOB_ENDED, "jobs", "j-1", 5.0),
        request("create", "jobs", "j-2", 5.11),
        ended(JOB_ENDED, "jobs", "j-2", 7.0),
        request("patch", "deployments", "d", 7.06),
        request("patch", "deployments", "d", 7.5),  # applied again: not what followed the end
        ended(AVAILABLE, "deployments", "d", 8.0),
        request("create", "jobs", "j-3", 8.21),
        ended(JOB_ENDED, "jobs", "j-3", 9.0),  # the last one: nothing follows
    ]
    found = {
        kind: [round(step.seconds, 3) for step in steps] for kind, steps in transitions(told, OPERATOR, CHAINS).items()
    }
    assert found == {
        "pod to job": [1.1],
        "job to job": [0.1],
        "job to deployment": [0.05],
        "deployment to job": [0.2],
    }


@pytest.mark.parametrize(
    "of_no_account",
    [
        request("create", "jobs", "j-2", 5.05, is_dry=True),
        request("create", "jobs", "j-2", 5.05, code=409),
        request("create", "jobs", "j-2", 5.05, user=SIMULATOR),
        request("create", "events", "j-2", 5.05),
        request("create", "jobs", "unknown", 5.05),
    ],
)
def test_only_what_was_made_follows_an_end(of_no_account: Request) -> None:
    told = [ended(JOB_ENDED, "jobs", "j-1", 5.0), of_no_account, request("create", "jobs", "j-2", 5.51)]
    (step,) = transitions(told, OPERATOR, CHAINS)["job to job"]
    assert (step.seconds, step.ended) == (pytest.approx(0.5), pytest.approx(5.01))


def test_a_follower_may_come_before_the_answer_to_the_end() -> None:
    told = [ended(JOB_ENDED, "jobs", "j-1", 5.0), request("create", "jobs", "j-2", 5.005)]
    (step,) = transitions(told, OPERATOR, CHAINS)["job to job"]
    assert step.seconds == pytest.approx(-0.005)


def test_leases_are_nobodys_requests() -> None:
    told = [
        request("update", "leases", "leader", 1.0),
        request("get", "jobs", "j", 2.0),
        request("get", "jobs", "j", 9.0),
    ]
    assert counts(of(told, OPERATOR, 0.0, 5.0)) == {("get", "jobs"): 1}


def told(what: str, uid: str, at: float, stage: str = "sdg") -> dict[str, Any]:
    return {"what": what, "uid": uid, "t": at, "chain": "one", "stage": stage}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([told("run", "1", 1.0)], []),
        ([told("run", "1", 1.0), told("ended", "1", 5.0)], [4.0]),
        ([told("run", "1", 1.0), told("ended", "1", 5.0), told("run", "2", 6.0, "prep")], []),
        ([told("run", "1", 1.0), told("ended", "1", 3.0)], []),  # ended before
        ([told("run", "1", 1.0), told("ended", "1", 8.5)], []),  # and after
        ([told("run", "1", 1.0, "export"), told("ended", "1", 5.0)], []),  # a Deployment follows
        ([told("run", "1", 1.0, "verify"), told("ended", "1", 5.0)], []),  # nothing follows
    ],
)
def test_who_still_waits_counts_with_the_time_so_far(events: list[dict[str, Any]], found: list[float]) -> None:
    assert still_waiting(events, begin=4.0, end=8.0, now=9.0) == found
