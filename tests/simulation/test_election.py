"""Elections under faults: never two that may write, and always one in the end."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from simulation.election import LEASE, TERMS, Replica, World

from embedding_operator.cluster.election import Terms
from embedding_operator.cluster.errors import Conflict


def a_world(*names: str, seed: int = 1, trouble: float = 0.0) -> tuple[World, list[Replica]]:
    world = World(Random(seed), trouble=trouble)
    return world, [Replica(world, name) for name in names]


@pytest.mark.parametrize("seed", range(200))
def test_never_two_at_a_time_and_one_in_the_end(seed: int) -> None:
    """Replies lost and late, replicas stopped anywhere, killed and started, the API server away, the Lease released."""
    random = Random(seed)
    world, replicas = a_world("a", "b", "c", seed=seed, trouble=0.2)
    for number in range(12):
        world.run(random.uniform(1, 40))
        match random.randrange(5):
            case 0:
                random.choice(replicas).due += random.uniform(0, 60)  # stopped
            case 1:
                killed = random.choice(replicas)
                killed.tenure.end()
                world.replicas.remove(killed)
                replicas[replicas.index(killed)] = Replica(world, f"{killed.name}{number}")
            case 2:
                world.away_until = world.now + random.uniform(0, 60)
            case 3:
                chosen = random.choice(replicas)
                chosen.elector.release()
            case _:
                world.trouble = random.choice((0.0, 0.2, 0.6))
    world.trouble, world.away_until = 0.0, 0.0
    world.run(TERMS.lease_s + 3 * TERMS.retry_s + 60)
    (leader,) = [replica.name for replica in world.replicas if replica.tenure.holds()]
    assert world.lease is not None
    assert world.lease["spec"]["holderIdentity"] == leader


def test_without_faults_nobody_takes_turns() -> None:
    world, _ = a_world("a", "b", "c")
    world.run(3600)
    assert len(world.terms_of) == 1


def test_who_leads_is_found_out_within_the_promise() -> None:
    """Whenever the leader dies, whatever the clocks show."""
    waits = []
    for seed in range(100):
        world, (first, second) = a_world("a", "b", seed=seed)
        world.run(30 + world.random.random() * 4)
        dead, heir = (first, second) if first.tenure.holds() else (second, first)
        world.replicas.remove(dead)
        dead.tenure.end()
        died = world.now
        while not heir.tenure.holds():
            world.run(0.25)
        waits.append(world.now - died)
    assert max(waits) < TERMS.lease_s + TERMS.retry_s * 1.2 + 0.5
    assert min(waits) > TERMS.lease_s - TERMS.retry_s - 0.5


def test_a_release_is_heard_of_at_the_next_look() -> None:
    world, replicas = a_world("a", "b")
    world.run(30)
    leader = next(replica for replica in replicas if replica.tenure.holds())
    world.replicas.remove(leader)
    leader.elector.release()
    assert not leader.tenure.holds()
    world.run(TERMS.retry_s * 1.2 + 0.1)
    assert [replica.name for replica in world.replicas if replica.tenure.holds()] != []


def test_a_leader_that_wakes_up_late_rests_before_it_looks() -> None:
    world, replicas = a_world("a", "b")
    world.run(30)
    leader = next(replica for replica in replicas if replica.tenure.holds())
    leader.due += 60
    world.run(40)
    assert len(world.terms_of) == 2
    assert not leader.tenure.holds(), "without being told"
    assert leader.rests == 0
    world.run(40)
    assert leader.rests == 1
    assert not leader.elector.leads


def test_when_the_api_server_comes_back_the_same_one_may_lead_on() -> None:
    """Nobody took the Lease meanwhile. Its passes ended, and what waited is looked at anew."""
    world, (only,) = a_world("a")
    world.run(30)
    world.away_until = world.now + 120
    world.run(60)
    assert not only.tenure.holds()
    assert only.rests == 1
    world.run(70)
    assert only.tenure.holds()
    assert world.lease is not None
    assert world.lease["spec"]["leaseTransitions"] == 0


def test_a_lease_that_somebody_removes_is_made_again_by_who_leads() -> None:
    world, replicas = a_world("a", "b")
    world.run(30)
    leader = next(replica for replica in replicas if replica.tenure.holds())
    world.lease = None
    world.run(60)
    assert world.terms_of == [leader.name]


def test_terms_of_another_release_are_respected() -> None:
    """Its holder's Lease lasts for longer than ours."""
    world = World(Random(5))
    first = Replica(world, "a", Terms(lease_s=60, renew_s=40, retry_s=10))
    world.run(5)
    Replica(world, "b")
    world.run(30)
    assert first.tenure.holds()
    first.due += 1000
    world.run(200)
    assert world.terms_of == ["a", "b"]


def test_a_leader_whose_lease_somebody_labels_leads_on() -> None:
    world, (only,) = a_world("a")
    world.run(30)
    assert world.lease is not None
    world.write({**world.lease, "metadata": {**world.lease["metadata"], "labels": {"team": "x"}}})
    world.run(30)
    assert (only.tenure.holds(), only.rests) == (True, 0)
    assert world.lease["metadata"]["labels"] == {"team": "x"}


def test_a_leader_that_somebody_deposes_stops_at_its_next_renewal() -> None:
    world, (only,) = a_world("a")
    world.run(30)
    assert world.lease is not None
    world.write({**world.lease, "spec": {**world.lease["spec"], "holderIdentity": "somebody"}})
    world.run(TERMS.retry_s + 0.5)
    assert (only.tenure.holds(), only.rests) == (False, 1)


@pytest.mark.parametrize("led_s", [0, 30])
def test_a_conflict_that_stays_is_asked_about_at_the_usual_pace_and_told(
    led_s: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A webhook may answer 409 each time."""
    world, (only,) = a_world("a")
    world.run(led_s)
    write, asked = only.write_lease, list[float]()

    def refused(*_: Any, **__: Any) -> dict[str, Any]:
        asked.append(world.now)
        raise Conflict("update", *LEASE, "denied")

    monkeypatch.setattr(only, "write_lease", refused)
    world.run(60)
    assert len(asked) <= 60 / TERMS.retry_s + 3, "and three times at once: somebody may have been faster"
    assert caplog.text.count("cannot update Lease home/operator: denied") == 1
    assert not only.tenure.holds()
    monkeypatch.setattr(only, "write_lease", write)
    world.run(TERMS.retry_s * 1.2 + 0.1)
    assert only.tenure.holds()
