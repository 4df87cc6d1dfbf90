"""Two operators at once: one leads, the other takes over, and what was stopped in between writes nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from apiserver.api import EFT, Api, resource, until
from apiserver.chart import install
from apiserver.controllers import Controllers
from apiserver.pair import LEASE, started, two_accounts, writes
from apiserver.process import Operator

from embedding_stages.contract import Stage

JOB_STAGES = [stage for stage in Stage if stage is not Stage.DEPLOY]


@pytest.fixture(scope="module")
def accounts(api: Api) -> tuple[str, str]:
    return two_accounts(api)


@pytest.fixture
def pair(api: Api, accounts: tuple[str, str]) -> Iterator[tuple[Operator, Operator]]:
    """The first leads, the second is a standby."""
    with started(api, accounts) as operators:
        yield operators


def _phase(api: Api, namespace: str) -> Any:
    return (api.send("GET", f"{EFT.format(namespace)}/docs")[1].get("status") or {}).get("phase")


def _rests(api: Api, operator: Operator) -> bool:
    """What it has sent before it is stopped is not to be taken for something sent later."""
    before = writes(api, operator)
    time.sleep(1)
    return writes(api, operator) == before


def _ends_right(api: Api, namespace: str, played: Controllers) -> None:
    until("Ready", lambda: _phase(api, namespace) == "Ready", [played.step])
    assert played.stages() == JOB_STAGES
    assert played.ran == [(stage, 1, 1) for stage in JOB_STAGES]


def _without_trouble(*operators: Operator) -> None:
    for operator in operators:
        assert "Traceback" not in operator.said(), operator.said()


def test_the_standby_is_well_and_writes_nothing(api: Api, namespace: str, pair: tuple[Operator, Operator]) -> None:
    first, second = pair
    played = Controllers(api, namespace)
    before = writes(api, second)
    api.make(EFT.format(namespace), resource(namespace))
    _ends_right(api, namespace, played)
    assert writes(api, second) == before
    assert second.alive()
    assert first.ready()
    assert second.ready()
    assert "embedding_operator_leader 1.0" in first.metrics()
    told = second.metrics()
    assert "embedding_operator_leader 0.0" in told
    assert namespace in first.metrics()
    assert namespace not in told, "alerts on a resource would count it twice"
    _without_trouble(first, second)


def test_the_leader_is_killed_and_the_standby_goes_on(
    api: Api, namespace: str, pair: tuple[Operator, Operator]
) -> None:
    first, second = pair
    played = Controllers(api, namespace, held={Stage.PREP})
    api.make(EFT.format(namespace), resource(namespace))
    until("a Job of prep", lambda: Stage.PREP in played.stages(), [played.step])
    before = writes(api, second)
    first.kill()
    played.held = set()
    _ends_right(api, namespace, played)
    assert len(writes(api, second)) > len(before)
    assert second.leads()
    _without_trouble(first, second)


def test_a_leader_that_is_stopped_for_longer_than_its_lease_writes_nothing_when_it_wakes(
    api: Api, namespace: str, pair: tuple[Operator, Operator]
) -> None:
    first, second = pair
    played = Controllers(api, namespace, held={Stage.PREP, Stage.EVAL})
    api.make(EFT.format(namespace), resource(namespace))
    until("a Job of prep", lambda: Stage.PREP in played.stages(), [played.step])
    until("the leader to rest", lambda: _rests(api, first))
    first.send(signal.SIGSTOP)
    played.held = {Stage.EVAL}
    until("the standby's work", lambda: Stage.EVAL in played.stages(), [played.step])
    before = writes(api, first)
    first.send(signal.SIGCONT)
    until("the old leader's word", lambda: "leads no more" in first.said())
    # It hears of all of this, and leads no more.
    played.held = set()
    _ends_right(api, namespace, played)
    assert writes(api, first) == before
    assert not first.leads()
    # It is the standby now, and takes over in its turn.
    assert second.end() == 0
    until("the first leads again", first.leads)
    _without_trouble(first, second)


def test_a_leader_that_is_asked_to_end_hands_over(api: Api, namespace: str, pair: tuple[Operator, Operator]) -> None:
    first, second = pair
    played = Controllers(api, namespace, held={Stage.PREP})
    api.make(EFT.format(namespace), resource(namespace))
    until("a Job of prep", lambda: Stage.PREP in played.stages(), [played.step])
    assert first.end() == 0
    assert "released Lease" in first.said()
    # Free at once: nothing has to run out.
    until("the standby leads", second.leads)
    transitions = api.send("GET", LEASE)[1]["spec"]["leaseTransitions"]
    assert transitions == 1
    played.held = set()
    _ends_right(api, namespace, played)
    _without_trouble(first, second)


def test_two_that_know_nothing_of_each_other_do_no_harm(api: Api, namespace: str, accounts: tuple[str, str]) -> None:
    played = Controllers(api, namespace)
    operators = [Operator(api, account) for account in accounts]
    try:
        for operator in operators:
            operator.start()
        for operator in operators:
            until("the probe", operator.alive)
        api.make(EFT.format(namespace), resource(namespace))
        _ends_right(api, namespace, played)
        assert all(writes(api, operator) for operator in operators)
        _without_trouble(*operators)
    finally:
        for operator in operators:
            operator.kill()


def test_who_may_not_touch_the_lease_says_so_and_how_to_cure_it(api: Api, namespace: str) -> None:
    # A name of its own, so that nobody else's rights are put anew.
    poor = partial(install, api, "--set", "fullnameOverride=poor", namespace="operator-poor")
    account = poor("--set", "leaderElection.enabled=false", "--set", "replicas=1")
    operator = Operator(api, account, lease="operator-poor", lease_name="poor")
    try:
        operator.start()
        until("the trouble", lambda: "forbidden" in operator.said())
        assert "may get, create and update leases.coordination.k8s.io in namespace operator-poor" in operator.said()
        until("the probe", operator.alive)
        assert not operator.leads()
        # Cured while it runs.
        poor()
        until("a leader", operator.leads)
        _without_trouble(operator)
    finally:
        operator.kill()


def test_the_api_server_is_away_for_longer_than_the_lease_and_no_process_ends(
    api: Api, namespace: str, pair: tuple[Operator, Operator]
) -> None:
    first, second = pair
    played = Controllers(api, namespace, held={Stage.PREP})
    api.make(EFT.format(namespace), resource(namespace))
    until("a Job of prep", lambda: Stage.PREP in played.stages(), [played.step])
    server = json.loads((api.folder / "run" / "kube-apiserver.json").read_text())["pid"]
    os.kill(server, signal.SIGSTOP)
    try:
        until("nobody leads", lambda: "leads no more" in first.said())
        assert not first.leads()
        assert not second.leads()
    finally:
        os.kill(server, signal.SIGCONT)
    until("a leader", lambda: first.leads() or second.leads())
    played.held = set()
    _ends_right(api, namespace, played)
    assert first.alive()
    assert second.alive()
    assert not (first.leads() and second.leads())
    _without_trouble(first, second)
