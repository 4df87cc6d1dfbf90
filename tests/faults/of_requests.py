"""Kinds of scenarios: something happens to a request. Which requests there are is read off a golden run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator

from faults.lab import Actor, Scenario, edited, first
from faults.oracles import Golden
from faults.plans import Fault, Kill, Lose, Mutate, Raw, Refuse, Rule, Slow, Stale

from embedding_operator.decide.refusals import TRIED_AGAIN

Goldens = dict[str, Golden]
_STATUS = "embeddingfinetunes/status"


def each_write(golden: Golden, after: int = 0) -> Iterator[tuple[str, str, int]]:
    """(name, label as a pattern, its how manieth) of each write of the golden run, from one on."""
    seen = Counter[str]()
    for number, request in enumerate(golden.sequence):
        seen[request.label] += 1
        if number >= after:
            yield f"{request.label} {seen[request.label]}", request.label, seen[request.label]


def at_each_write(
    fault: Fault, words: str, *, cost: int, every: int = 1, second: bool = True
) -> Callable[[Goldens], list[Scenario]]:
    """The fault at each write of the way to Ready, and of the way through an edit to Ready again."""

    def rows(goldens: Goldens) -> list[Scenario]:
        to_ready = goldens["first"].sequence
        ways = [("first", first, 0)] + ([("edited", edited, len(to_ready))] if second else [])
        return [
            Scenario(
                name=f"{words} {name}",
                script=script,
                golden=golden,
                rules=(Rule(match, fault, nth),),
                cost=cost,
                may_miss=match == f"update {_STATUS}" or match.startswith("create events"),
            )
            for golden, script, after in ways
            for name, match, nth in list(each_write(goldens[golden], after))[::every]
        ]

    return rows


async def _until_met(actor: Actor) -> None:
    """To Ready; what is wrong is put right when the operator has said so, or has gone on without."""
    await actor.create()
    await actor.until("the fault", lambda: len(actor.plan.met) >= 3 or actor.is_ready())
    actor.plan.lifted = True
    await actor.ready()
    await actor.until("all is done", lambda: TRIED_AGAIN not in json.dumps(actor.status()))
    await actor.rest()


def rights_withdrawn(goldens: Goldens) -> list[Scenario]:
    """Each verb that a run needs, one at a time, and given back."""
    asked = {(request.verb, request.resource) for request in goldens["first"].reads if request.resource != "leases"}
    rows = []
    for verb, resource in sorted(asked):
        words = f'{resource} is forbidden: User "operator" cannot {verb} resource "{resource}" in API group ""'
        rule = Rule(rf"{verb} {resource}( .*)?", Refuse(403, message=words), times=10**6)
        rows.append(
            Scenario(
                name=f"no {verb} {resource}",
                script=_until_met,
                golden="first",
                rules=(rule,),
                cost=8,
                may_miss="log" in resource,
            )
        )
    return rows


def watches_refused(goldens: Goldens) -> list[Scenario]:
    """From the start, a few times in a row."""
    return [
        Scenario(
            name=f"watch {kind} answered {code}",
            script=first,
            golden="first",
            rules=(Rule(f"watch {kind}", Refuse(code), times=3),),
            cost=4,
        )
        for kind in ("embeddingfinetunes", "jobs", "pods", "deployments", "services")
        for code in (401, 403, 410, 500, 503)
    ]


def stale_reads(goldens: Goldens) -> list[Scenario]:
    """From the nth read of a kind on, a few are answered as the first was."""
    asked = {(request.verb, request.resource) for request in goldens["first"].reads}
    kinds = sorted((verb, resource) for verb, resource in asked if verb in ("get", "list") and "log" not in resource)
    return [
        Scenario(
            name=f"stale {verb} {resource} from {nth} on",
            script=edited,
            golden="edited",
            cost=14,
            may_miss=True,
            rules=(Rule(f"{verb} {resource}", Stale(), nth, times),),
        )
        for verb, resource in kinds
        for nth, times in ((2, 1), (4, 2), (8, 2), (14, 3))
    ]


def two_operators(goldens: Goldens) -> list[Scenario]:
    """Each does what the other one does, also where a reply is lost: 409 and adoption, nothing twice."""
    whole = len(goldens["edited"].sequence)
    rules = {
        "without a fault": (),
        **{
            f"lost reply of create jobs {stage}": (Rule(f"create jobs {stage}", Lose()),)
            for stage in ("inputs", "finetune")
        },
        "lost reply of patch services": (Rule("patch services", Lose(), times=2),),
        "lost reply of each third status": tuple(Rule(f"update {_STATUS}", Lose(), nth) for nth in range(3, 21, 3)),
        "409 to each third status": tuple(Rule(f"update {_STATUS}", Refuse(409), nth) for nth in range(3, 21, 3)),
    }
    return [
        Scenario(name=f"two operators, {name}", script=edited, rules=found, golden="edited", cost=whole)
        for name, found in rules.items()
    ]


# Mutating admission policies. What a policy adds is nobody's mistake: it stays, and the run goes on.


def _pod_of(raw: Raw) -> Raw:
    spec: Raw = raw["spec"]["template"]["spec"] if "template" in raw["spec"] else raw["spec"]
    return spec


def _tolerates(raw: Raw) -> None:
    _pod_of(raw).setdefault("tolerations", []).append({"key": "team", "operator": "Exists"})


def _selects(raw: Raw) -> None:
    _pod_of(raw).setdefault("nodeSelector", {})["zone"] = "a"


def _labels(raw: Raw) -> None:
    raw["metadata"].setdefault("labels", {})["policy"] = "was-here"


def _annotates(raw: Raw) -> None:
    raw["metadata"].setdefault("annotations", {})["policy"] = "was-here"


def _prioritizes(raw: Raw) -> None:
    _pod_of(raw)["terminationGracePeriodSeconds"] = 44


_POLICIES: tuple[tuple[str, str, Callable[[Raw], object]], ...] = (
    ("create jobs .*", "a toleration", _tolerates),
    ("create jobs .*", "a node selector", _selects),
    ("create jobs .*", "a label", _labels),
    ("create jobs .*", "an annotation", _annotates),
    ("create jobs .*", "another grace period", _prioritizes),
    ("create pods", "a toleration", _tolerates),
    ("patch deployments", "a toleration", _tolerates),
    ("patch deployments", "a label", _labels),
    ("patch deployments", "an annotation", _annotates),
    ("patch services", "a label", _labels),
    ("patch services", "an annotation", _annotates),
    ("patch persistentvolumeclaims", "a label", _labels),
    ("patch persistentvolumeclaims", "an annotation", _annotates),
    ("patch configmaps", "a label", _labels),
    ("patch configmaps", "an annotation", _annotates),
)


def policies(goldens: Goldens) -> list[Scenario]:
    return [
        Scenario(
            name=f"a policy adds {what} on {match.removesuffix(' .*')}",
            script=edited,
            golden="edited",
            rules=(Rule(match, Mutate(change), times=10**6),),
            cost=4,
            end="names",
            may_miss="pods" in match,
        )
        for match, what, change in _POLICIES
    ]


BEFORE, AFTER, LOST = Kill("before"), Kill("after"), Lose()
REFUSED = {code: Refuse(code, retry_after=1 if code in (429, 503) else 0) for code in (409, 429, 500, 503)}
SLOW = Slow(2.0)
