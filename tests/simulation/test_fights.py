"""What others change back for ever of what serves: undone a few times, then said, by name; what is no such change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.fights import MOST_AN_HOUR, NOT_CORRECTED, Raw, an_hour, applies, of, owned, policy, select_canary
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready
from simulation.test_active import WHILE

from embedding_operator.resource.labels import SERVING_LABEL

NEXT = f"{NAME}-next"


def other_port(raw: Raw) -> None:
    raw["spec"]["ports"][0]["targetPort"] = 15001
    owned(raw, **{"f:ports": {'k:{"port":8000,"protocol":"TCP"}': {"f:targetPort": {}}}})


def is_clients(raw: Raw) -> bool:
    return bool(raw["metadata"]["name"] == NAME)


def is_measured(raw: Raw) -> bool:
    return raw["metadata"]["name"] not in (NAME, NEXT) and SERVING_LABEL in raw["metadata"]["labels"]


def is_next(raw: Raw) -> bool:
    return bool(raw["metadata"]["name"] == NEXT)


@dataclass(frozen=True, kw_only=True)
class Fight:
    """A policy, the condition that tells of it, and what it says."""

    change: Callable[[Raw], None]
    condition: str
    says: str


FIGHTS = {
    "clients are led elsewhere": Fight(
        change=of(is_clients, select_canary),
        condition="Deployed",
        says=f"Service {NAME} does not stay as it was applied: spec.selector is changed by mesh; exempt the Service",
    ),
    "clients are sent to another port": Fight(
        change=of(is_clients, other_port), condition="Deployed", says="spec.ports[8000].targetPort is changed by mesh"
    ),
    "what is measured leads elsewhere": Fight(
        change=of(is_measured, select_canary), condition="Deployed", says="spec.selector is changed by mesh"
    ),
    "what is measured has another port": Fight(
        change=of(is_measured, other_port), condition="Deployed", says="spec.ports[8000].targetPort is changed by mesh"
    ),
}


@pytest.mark.parametrize("name", FIGHTS)
def test_a_service_that_is_changed_back_for_ever_is_restored_a_few_times_and_said(name: str) -> None:
    fight, scene = FIGHTS[name], a_scene().run(is_ready).settle(3)
    before, told = applies(scene, "Service"), len(scene.events())
    policy(scene, "Service", fight.change)
    scene.run(lambda scene: scene.condition(fight.condition) == NOT_CORRECTED, turns=30)
    assert applies(scene, "Service") - before <= 5
    assert fight.says in scene.message(fight.condition)
    assert scene.condition("Ready") == NOT_CORRECTED
    tried = applies(scene, "Service")
    an_hour(scene)
    assert 1 <= applies(scene, "Service") - tried <= MOST_AN_HOUR
    assert scene.condition(fight.condition) == NOT_CORRECTED
    told_of = scene.events()[told:]
    assert (told_of.count("DriftCorrected"), told_of.count("DriftNotCorrected")) == (1, 1)
    scene.cluster.policies.clear()
    scene.run(is_ready, turns=400)


def test_what_is_put_right_within_a_pass_was_always_so_to_everybody_else() -> None:
    scene = a_scene().run(is_ready).settle(3)
    since = {item.type: item.last_transition_time for item in scene.status.conditions}
    told = len(scene.events())
    scene.cluster.change("Service", NAMESPACE, NAME, select_canary)
    scene.settle(3)
    assert scene.events()[told:] == ["DriftCorrected"]
    assert {item.type: item.last_transition_time for item in scene.status.conditions} == since


def test_nobody_is_sent_to_where_clients_are_led_elsewhere() -> None:
    scene = a_scene().run(is_ready).settle(3)
    policy(scene, "Service", of(is_clients, select_canary))
    scene.run(lambda scene: scene.condition("Ready") == NOT_CORRECTED, turns=30)
    assert scene.status.served.url == ""
    assert scene.status.phase == "Degraded"
    assert scene.condition("Stalled") == "True DriftNotCorrected"
    assert "another server than revision 1's" in scene.message("Ready")
    assert "ActiveUnavailable" not in scene.events()
    scene.edit({**a_spec(), "tolerance": {"atOne": "not a number"}})
    scene.turn()
    assert scene.condition("Deployed") == NOT_CORRECTED
    assert scene.status.served.url == ""
    scene.cluster.policies.clear()
    scene.edit(a_spec())
    scene.run(is_ready, turns=400)
    assert scene.status.served.url


def test_clients_are_never_moved_to_a_first_revision_through_a_service_that_leads_elsewhere() -> None:
    scene = a_scene()
    scene.cluster.policies["Service"] = of(is_clients, select_canary)
    scene.run(lambda scene: scene.condition("Verified") == NOT_CORRECTED)
    assert applies(scene, "Service") <= 1 + 1 + 5  # what is measured, the clients' one, and its restorations
    assert (scene.status.served.active_revision, scene.status.served.url) == (0, "")
    scene.cluster.policies.clear()
    scene.run(is_ready, turns=400)


def test_clients_that_somebody_keeps_from_being_moved_stay_and_it_is_said() -> None:
    scene = a_scene().run(is_ready).settle(3)
    wanted = scene.cluster.object("Service", NAME)["spec"]["selector"]

    def keep(raw: Raw) -> None:
        raw["spec"]["selector"] = dict(wanted)

    policy(scene, "Service", of(is_clients, keep))
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.condition("Verified") == NOT_CORRECTED)
    assert "clients cannot be moved to it" in scene.message("Verified")
    assert scene.status.served.url, "the active revision still answers them"
    assert scene.status.served.active_revision == 1
    before, told = applies(scene, "Service"), len(scene.events())
    an_hour(scene)
    assert 1 <= applies(scene, "Service") - before <= MOST_AN_HOUR
    assert len(scene.events()) == told
    scene.cluster.policies.clear()
    scene.run(is_ready, turns=400)
    assert scene.status.served.active_revision == 2


def test_a_selector_that_neither_revision_has_is_fought_over_by_neither() -> None:
    scene = a_scene().run(is_ready).settle(3)
    policy(scene, "Service", of(is_clients, select_canary))
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.condition("Verified") == NOT_CORRECTED)
    assert scene.condition("Deployed") == NOT_CORRECTED
    an_hour(scene)
    before = applies(scene, "Service")
    an_hour(scene)
    assert 1 <= applies(scene, "Service") - before <= 2 * MOST_AN_HOUR
    scene.cluster.policies.clear()
    scene.run(is_ready, turns=400)
    assert scene.status.served.active_revision == 2


@pytest.mark.parametrize("situation", ["nothing else", "another revision waits for quota"])
def test_a_controller_that_takes_turns_with_the_operator_is_noticed(situation: str) -> None:
    """Between its changes the Service is as it was asked for."""
    scene = a_scene().run(is_ready).settle(3) if situation == "nothing else" else WHILE[situation]()
    before, start = applies(scene, "Service"), scene.clock.now
    for _ in range(40):
        scene.cluster.change("Service", NAMESPACE, NAME, select_canary)
        scene.settle(2)
    assert applies(scene, "Service") - before <= MOST_AN_HOUR * (1 + (scene.clock.now - start) // timedelta(hours=1))
    assert scene.condition("Ready") == NOT_CORRECTED


def test_a_candidate_is_not_offered_where_its_service_leads_elsewhere() -> None:
    deploy = {"strategy": "Shadow"}
    scene = a_scene(stages={"deploy": deploy}).run(is_ready)
    policy(scene, "Service", of(is_next, select_canary))
    scene.edit(a_spec(stages={"deploy": deploy, "finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.condition("Verified") == NOT_CORRECTED)
    assert "verified, but not offered" in scene.message("Verified")
    assert scene.status.served.next_url == ""
    before = applies(scene, "Service")
    an_hour(scene)
    assert 1 <= applies(scene, "Service") - before <= MOST_AN_HOUR
    scene.cluster.policies.clear()
    scene.run(lambda scene: bool(scene.status.served.next_url), turns=400)


def replicas(number: int) -> Raw:
    return a_spec(stages={"deploy": {"replicas": number}})


def test_an_edit_and_back_is_no_drift_and_waits_for_nothing() -> None:
    scene = Scene(replicas(1)).run(is_ready).settle(3)
    policy(scene, "Deployment", lambda raw: raw["spec"]["template"]["spec"]["containers"][0].update(image="other"))
    scene.run(lambda scene: scene.condition("Deployed") == NOT_CORRECTED, turns=30).settle(20)
    scene.cluster.policies.clear()
    scene.run(is_ready, turns=400).settle(2)
    told = len(scene.events())
    for number in (2, 1):
        scene.edit(replicas(number))
        scene.turn()
        (server,) = scene.cluster.find("Deployment")
        assert server["spec"]["replicas"] == number
        scene.run(is_ready).settle(2)
    assert not [reason for reason in scene.events()[told:] if reason.startswith("Drift")]


def test_edits_to_and_fro_within_seconds_are_nobody_elses_changes() -> None:
    scene = Scene(replicas(1)).run(is_ready).settle(3)
    for number in (2, 3, 2, 3):
        scene.edit(replicas(number))
        scene.turn()
    scene.run(is_ready).settle(5)
    assert "DriftCorrected" not in scene.events()
    assert scene.status.restored == {}


def test_a_move_that_an_edit_overtook_is_undone_and_was_nobody_elses() -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    overtaken = []

    def dies_once(call: Call, when: str) -> None:
        if (call.verb, call.kind, call.name, when) == ("apply", "Service", NAME, "after") and not overtaken:
            overtaken.append(call)
            scene.edit(a_spec(stages={"finetune": {"epochs": 6}}))
            raise Crash

    scene.cluster.hook = dies_once
    scene.run(lambda scene: bool(overtaken))
    served = scene.cluster.object("Service", NAME)["spec"]["selector"]
    scene.turn()
    assert scene.cluster.object("Service", NAME)["spec"]["selector"] != served
    scene.run(is_ready)
    assert "DriftCorrected" not in scene.events()


def test_a_port_that_others_put_before_ours_is_never_taken_for_it() -> None:
    scene = a_scene().run(is_ready).settle(3)
    theirs = {"name": "mesh", "port": 9000, "targetPort": "mesh", "protocol": "TCP"}
    scene.cluster.change("Service", NAMESPACE, NAME, lambda raw: raw["spec"]["ports"].insert(0, theirs))
    (server,) = scene.cluster.find("Deployment")
    scene.cluster.remove("Deployment", NAMESPACE, server["metadata"]["name"])
    before = applies(scene, "Service")
    scene.settle(2)
    scene.run(is_ready)
    assert applies(scene, "Service") == before
    assert "DriftCorrected" not in scene.events()
