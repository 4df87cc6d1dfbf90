"""The operator at work as the chart's ServiceAccount: no node, a played kubelet, everything else real."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from apiserver.api import EFT, Api, at, make_namespace, resource, until
from apiserver.chart import install
from apiserver.controllers import Controllers
from apiserver.process import Operator

from embedding_stages.contract import Stage

JOB_STAGES = [stage for stage in Stage if stage is not Stage.DEPLOY]
# Signs of a missing right, a bug, or a field that the schema lacks.
TROUBLE = ("orbidden", "Traceback", "unknown field", "ERROR", '"severity": "error"')


@pytest.fixture(scope="module")
def account(api: Api) -> str:
    return install(api, namespace="operator-home")


@pytest.fixture
def operator(api: Api, account: str) -> Iterator[Operator]:
    found = Operator(api, account)
    yield found
    found.kill()


def _status(api: Api, namespace: str) -> dict[str, Any]:
    status, answer = api.send("GET", f"{EFT.format(namespace)}/docs")
    assert status == 200, answer
    return dict(answer["status"])


def _edit(api: Api, namespace: str, patch: dict[str, Any]) -> int:
    """The new generation."""
    body = {"spec": patch}
    status, answer = api.send("PATCH", f"{EFT.format(namespace)}/docs", body, "application/merge-patch+json")
    assert status == 200, answer
    return int(answer["metadata"]["generation"])


def _ready(api: Api, namespace: str, generation: int) -> bool:
    found = _status(api, namespace)
    return found["observedGeneration"] == generation and found.get("phase") == "Ready"


def _resynced_since(operator: Operator, last: float) -> bool:
    return operator.resyncs() > last


def _jobs(played: Controllers, at_least: int) -> bool:
    return len(played.find("Job")) >= at_least


def _without_trouble(operator: Operator) -> None:
    lines = operator.said().splitlines()
    for number, line in enumerate(lines):
        assert not any(sign in line for sign in TROUBLE), "\n".join(lines[max(0, number - 3) : number + 40])


def test_it_is_killed_at_every_step_and_still_comes_to_ready_with_one_job_a_stage(
    api: Api, namespace: str, operator: Operator
) -> None:
    played = Controllers(api, namespace)
    api.make(EFT.format(namespace), resource(namespace))
    for number, stage in enumerate(JOB_STAGES, 1):
        played.held = {stage}
        operator.start()
        until(f"a Job of {stage}", partial(_jobs, played, number), [played.step])
        operator.kill()
        played.held = set()
        played.step()
    operator.start()
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])
    assert played.stages() == JOB_STAGES
    assert played.ran == [(stage, 1, 1) for stage in JOB_STAGES]
    assert until("the probe", operator.alive)
    shown = api.kubectl("get", "eft", "docs", "-n", namespace).splitlines()[1].split()
    assert shown[1:-1] == ["Ready", "done", "0.60000", "+20.0%n=100", "True"]
    events = api.kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}").split()
    # An Event follows its status write, and one that a kill comes between is lost: these are of the last life too.
    assert {"Completed", "Activated", "Ready"} <= set(events)
    _without_trouble(operator)


def test_training_on_two_nodes(api: Api, namespace: str, operator: Operator) -> None:
    """Killed in between: one Job, one Service that its pods find each other by, and none of it afterwards."""
    played = Controllers(api, namespace, held={Stage.FINETUNE})
    storage = {"accessModes": ["ReadWriteMany"]}
    patch = {"stages": {"finetune": {"nodes": 2, "gpusPerNode": 0}}, "storage": storage}
    api.make(EFT.format(namespace), resource(namespace, patch))
    operator.start()
    until("a Job of finetune", lambda: Stage.FINETUNE in played.stages(), [played.step])
    operator.kill()
    (job,) = (raw for raw in played.find("Job") if raw["spec"].get("completionMode") == "Indexed")
    (service,) = played.find("Service")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"] == job["metadata"]["name"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    operator.start()
    played.held = set()
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])
    assert played.ran == [(stage, 1, 1) for stage in JOB_STAGES]
    names = [
        raw["metadata"]["name"] for raw in played.find("Pod") if job["metadata"]["name"] in raw["metadata"]["name"]
    ]
    assert len(names) == 2
    until("no Service but the servers'", lambda: len(played.find("Service")) == 2, [played.step])
    assert service["metadata"]["name"] not in [raw["metadata"]["name"] for raw in played.find("Service")]
    _without_trouble(operator)


def test_it_rests_when_there_is_nothing_to_do(api: Api, namespace: str, operator: Operator) -> None:
    operator.resync_s = 5
    played = Controllers(api, namespace)
    api.make(EFT.format(namespace), resource(namespace))
    operator.start()
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])

    def resynced(times: int) -> None:
        for _ in range(times):
            until("a resync", partial(_resynced_since, operator, operator.resyncs()))

    def made() -> tuple[float, str]:
        version = api.send("GET", f"{EFT.format(namespace)}/docs")[1]["metadata"]["resourceVersion"]
        return operator.count("embedding_operator_actions"), version

    resynced(2)  # what was still to be said has been said
    before, passes = made(), operator.count("embedding_operator_reconcile")
    resynced(2)
    assert before[0] > 0
    assert made() == before, "it writes the same again and again"
    assert operator.count("embedding_operator_reconcile") <= passes + 2, "it looks where nothing has changed"
    assert operator.end() == 0
    _without_trouble(operator)


def test_an_edit_runs_what_it_touches_and_moves_the_traffic(api: Api, namespace: str, operator: Operator) -> None:
    played = Controllers(api, namespace)
    api.make(EFT.format(namespace), resource(namespace))
    operator.start()
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])
    old = played.find("Deployment")[0]["metadata"]["name"]

    generation = _edit(api, namespace, at("stages.finetune.epochs", 1))
    until("Ready again", lambda: _ready(api, namespace, generation), [played.step])
    again = [stage for stage, _, revision in played.ran if revision == generation]
    assert again == [Stage.FINETUNE, Stage.EVAL, Stage.EXPORT, Stage.VERIFY]
    until("one server", lambda: len(played.find("Deployment")) == 1, [played.step])
    new = played.find("Deployment")[0]
    assert new["metadata"]["name"] != old
    (service,) = (item for item in played.find("Service") if item["metadata"]["name"] == "docs")
    labels = new["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    until("the old address is gone", lambda: len(played.find("Service")) == 2, [played.step])
    _without_trouble(operator)


def test_somebody_changes_what_is_served_and_it_is_put_back(api: Api, namespace: str, operator: Operator) -> None:
    played = Controllers(api, namespace)
    api.make(EFT.format(namespace), resource(namespace))
    operator.start()
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])
    name = played.find("Deployment")[0]["metadata"]["name"]
    api.kubectl("set", "image", f"deployment/{name}", "-n", namespace, "server=other:2")
    api.kubectl("set", "env", f"deployment/{name}", "-n", namespace, "NIM_SERVED_MODEL_NAME=other")

    def restored() -> bool:
        (server,) = played.find("Deployment")[0]["spec"]["template"]["spec"]["containers"]
        return server["image"] == "image:1" and "other" not in [item.get("value") for item in server["env"]]

    until("our image and our variables", restored, [played.step])
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])
    _without_trouble(operator)


@pytest.mark.parametrize("how", ["removed", "bent"])
def test_somebody_takes_the_clients_away_and_they_are_led_back(
    api: Api, namespace: str, operator: Operator, how: str
) -> None:
    played = Controllers(api, namespace)
    api.make(EFT.format(namespace), resource(namespace))
    operator.start()
    until("Ready", lambda: _ready(api, namespace, 1), [played.step])

    def selector() -> dict[str, str]:
        return next(
            (dict(s["spec"]["selector"]) for s in played.find("Service") if s["metadata"]["name"] == "docs"), {}
        )

    wanted = selector()
    if how == "removed":
        api.kubectl("delete", "service", "docs", "-n", namespace)
    else:
        api.kubectl("patch", "service", "docs", "-n", namespace, "-p", '{"spec": {"selector": {"app": "other"}}}')
    until("the clients' Service", lambda: selector() == wanted, [played.step])
    _without_trouble(operator)


def test_suspending_stops_the_job_and_resuming_goes_on(api: Api, namespace: str, operator: Operator) -> None:
    played = Controllers(api, namespace, held={Stage.INPUTS})
    api.make(EFT.format(namespace), resource(namespace))
    operator.start()
    until("a Job", lambda: played.find("Job"))
    _edit(api, namespace, {"suspend": True})
    until("a suspended Job", lambda: played.find("Job")[0]["spec"].get("suspend"))
    until("the phase", lambda: _status(api, namespace).get("phase") == "Suspended")
    _edit(api, namespace, {"suspend": False})
    played.held = set()
    until("the next stage", lambda: Stage.SDG in played.stages(), [played.step])
    _without_trouble(operator)


def test_a_manifest_that_the_schema_let_through_is_explained(api: Api, namespace: str, operator: Operator) -> None:
    impossible = {"requests": {"memory": "4Gi"}, "limits": {"memory": "1Gi"}}
    api.make(EFT.format(namespace), resource(namespace, at("stages.inputs.resources", impossible)))
    operator.start()
    found = until("a condition", lambda: _status(api, namespace).get("conditions"))
    stalled = next(item for item in found if item["type"] == "Stalled")
    assert "must be less than or equal to memory limit" in stalled["message"]


def test_with_chosen_namespaces_it_needs_no_right_on_the_cluster(api: Api, namespace: str) -> None:
    outside = make_namespace(api)
    values = ("--set", f"watchNamespaces={{{namespace}}}", "--set", "fullnameOverride=narrow")
    operator = Operator(api, install(api, *values, namespace="operator-narrow"), namespaces=namespace)
    played = Controllers(api, namespace)
    try:
        for name in (outside, namespace):
            api.make(EFT.format(name), resource(name))
        operator.start()
        until("Ready", lambda: _ready(api, namespace, 1), [played.step])
        assert Controllers(api, outside).find("Job") == []
        assert _status(api, outside) == {"observedGeneration": -1}
        _without_trouble(operator)
    finally:
        operator.kill()
        api.send("DELETE", EFT.format(outside))
