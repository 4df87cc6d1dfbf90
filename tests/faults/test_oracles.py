"""Each oracle is shown able to fail: a golden run's record, bent by one fault of the operator, is found out."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest
from apiserver.api import Api
from faults.lab import Lab, Scenario, edited
from faults.oracles import Golden, troubles
from faults.plans import Request
from faults.record import Entry, Record

from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import SERVING_LABEL

_OUR_ERROR = '{"severity": "ERROR", "logger": "embedding_operator.x", "message": "m"}'
Bend = Callable[[Record], object]


@pytest.fixture(scope="module")
def golden_run(api: Api, account: str) -> Record:
    async def played() -> Record:
        async with Lab(api, account) as lab:
            (record,) = await lab.play([Scenario(name="golden", script=edited)])
            assert lab.world.trouble == []
            return record

    return asyncio.run(played())


def _entries(record: Record, kind: str, name: str = "") -> list[int]:
    return [
        number for number, entry in enumerate(record.history) if entry.key[0] == kind and entry.key[1].startswith(name)
    ]


def _clients(record: Record) -> int:
    return next(number for number in _entries(record, "Service") if record.history[number].key[1] == "docs")


def _edit(record: Record, number: int, change: Callable[[Any], object]) -> None:
    entry = record.history[number]
    raw = copy.deepcopy(entry.raw)
    change(raw)
    record.history[number] = Entry(entry.version, entry.change, raw)


def _object(record: Record, kind: str, name: str = "") -> Any:
    return next(raw for raw in record.end if raw["kind"] == kind and raw["metadata"]["name"].startswith(name))


def _renamed(raw: Any) -> Any:
    return {**raw, "metadata": {**raw["metadata"], "name": "x"}}


def _second_pod(record: Record) -> None:
    number = _entries(record, "Pod", "docs-sdg-")[-2]
    entry = record.history[number]
    raw = copy.deepcopy(entry.raw)
    raw["metadata"] |= {"uid": "another", "name": "docs-sdg-another"}
    record.history.insert(number + 1, Entry(entry.version, "ADDED", raw))


def _ready_at_once(record: Record) -> None:
    number = next(n for n in _entries(record, KIND) if record.history[n].raw.get("status", {}).get("conditions"))

    def change(raw: Any) -> None:
        raw["status"]["phase"] = "Ready"
        for item in raw["status"]["conditions"]:
            item["status"] = "True"

    _edit(record, number, change)


def _led_to_the_unverified(record: Record) -> None:
    """The first server is made, and its address is the clients' before verify has run."""
    made = _entries(record, "Deployment")[0]
    serving = record.history[made].raw["metadata"]["labels"][SERVING_LABEL]
    clients = record.history[_entries(record, "Service", "docs")[-1]].raw
    raw = copy.deepcopy(clients)
    raw["metadata"]["name"] = "docs"
    raw["spec"]["selector"] = {SERVING_LABEL: serving}
    record.history.insert(made + 1, Entry(record.history[made].version, "ADDED", raw))


def _server_goes_first(record: Record) -> None:
    clients = _clients(record)
    serving = record.history[clients].raw["spec"]["selector"][SERVING_LABEL]
    server = next(
        record.history[n]
        for n in _entries(record, "Deployment")
        if record.history[n].raw["metadata"]["labels"][SERVING_LABEL] == serving
    )
    record.history.insert(clients + 1, Entry(record.history[clients].version, "DELETED", server.raw))


def _clients_service_goes(record: Record) -> None:
    clients = _clients(record)
    entry = record.history[clients]
    record.history.insert(clients + 1, Entry(entry.version, "DELETED", entry.raw))


BENT: dict[str, tuple[Bend, str]] = {
    "it does not get there": (lambda r: setattr(r, "error", "not seen: Ready"), "not seen: Ready"),
    "a fault that never came": (lambda r: r.unmet.append("create jobs sdg"), "no request met the rule"),
    "a stage runs twice": (_second_pod, "sdg ran twice"),
    "Ready too early": (_ready_at_once, "the status was not true"),
    "clients led to what was not verified": (_led_to_the_unverified, "which was not verified"),
    "a server deleted under its clients": (_server_goes_first, "there is no such server"),
    "the clients' Service deleted": (_clients_service_goes, "the clients' Service was deleted"),
    "an object more": (
        lambda r: r.end.append(_renamed(_object(r, "Service"))),
        "the end differs",
    ),
    "an object less": (lambda r: r.end.remove(_object(r, "ConfigMap")), "the end differs"),
    "another image": (
        lambda r: _object(r, "Deployment")["spec"]["template"]["spec"]["containers"][0].update(image="x"),
        "the end differs",
    ),
    "another condition": (lambda r: _object(r, KIND)["status"]["conditions"][0].update(reason="x"), "the end differs"),
    "another artefact": (lambda r: _object(r, KIND)["status"].update(record="{}"), "the end differs"),
    "an object without its owner": (
        lambda r: _object(r, "PersistentVolumeClaim")["metadata"].update(ownerReferences=[]),
        "has no owner that is there",
    ),
    "an object of another owner": (
        lambda r: _object(r, "Job")["metadata"]["ownerReferences"][0].update(uid="another"),
        "has no owner that is there",
    ),
    "something is left": (lambda r: r.leaked.append("Job/docs-sdg-1"), "is left after the resource was deleted"),
    "the same applied again and again": (
        lambda r: r.writes.extend([Request("patch", "deployments", "n", "d")] * 3), "writes of objects"
    ),
    "the status written again and again": (
        lambda r: r.writes.extend([Request("update", "embeddingfinetunes/status", "n", "d")] * 20),
        "writes of status and Events",
    ),
    "a traceback": (lambda r: setattr(r, "said", 'Traceback (most recent call last):\n'), "the log says"),
    "a traceback in JSON": (lambda r: setattr(r, "said", '{"exception": "KeyError"}'), "the log says"),
    "an error": (lambda r: setattr(r, "said", _OUR_ERROR), "the log says"),
}  # fmt: skip


def test_nothing_is_wrong_with_a_golden_run(golden_run: Record) -> None:
    assert troubles(golden_run, Golden.of([golden_run])) == []


@pytest.mark.parametrize("how", BENT)
def test_a_record_that_is_bent_is_found_out(golden_run: Record, how: str) -> None:
    bend, words = BENT[how]
    bent = copy.deepcopy(golden_run)
    bend(bent)
    assert [line for line in troubles(bent, Golden.of([golden_run])) if words in line]
