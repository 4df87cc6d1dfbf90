"""Kinds of scenarios: people edit, delete and make again."""

from __future__ import annotations

from typing import Any

from apiserver.api import at
from faults.lab import NAME, Actor, Scenario, Script, edited, first
from faults.of_requests import Goldens
from faults.plans import Raw

from embedding_stages.contract import Stage

JOB_STAGES = tuple(stage for stage in Stage if stage is not Stage.DEPLOY)
EPOCHS = at("stages.finetune.epochs", 5)


async def up_to(actor: Actor, stage: Stage, patch: Raw | None = None) -> None:
    """Made, and gone on until a pod of the stage runs; it goes on running."""
    actor.place.held = {stage}
    await actor.create(patch)
    await running(actor, stage)


async def running(actor: Actor, stage: Stage) -> None:
    def is_running() -> bool:
        pods = [raw for raw in actor.place.find("Pod") if f"-{stage}-" in raw["metadata"]["name"]]
        return any((raw.get("status") or {}).get("phase") == "Running" for raw in pods)

    await actor.until(f"a pod of {stage}", is_running)


async def end(actor: Actor) -> None:
    actor.place.release()
    await actor.ready()
    await actor.rest()


# Deleted, and made again under the same name.


def remade(stage: Stage, policy: str) -> Script:
    async def script(actor: Actor) -> None:
        await up_to(actor, stage)
        old = (actor.seen() or {})["metadata"]["uid"]
        await actor.delete("EmbeddingFineTune", NAME, policy)
        await actor.until("its end", lambda: (actor.seen() or {"metadata": {"uid": ""}})["metadata"]["uid"] != old)
        await actor.create()
        await end(actor)

    return script


def deleted_and_remade(goldens: Goldens) -> list[Scenario]:
    whole = len(goldens["first"].sequence)
    return [
        Scenario(name=f"remade at {stage}, {policy}", script=remade(stage, policy), golden="first", cost=whole + 10)
        for stage in JOB_STAGES
        for policy in ("Background", "Foreground")
    ]


# Fields of the spec.

FIELDS: tuple[tuple[str, Any], ...] = (
    ("corpus.version", "2"),
    ("corpus.include", ["*.md"]),
    ("evaluation.kValues", [1, 10]),
    ("tolerance.atOne", "0.5"),
    ("stages.sdg.seed", 7),
    ("stages.sdg.pairsPerDocument", 9),
    ("stages.prep.hardNegatives", 6),
    ("stages.prep.seed", 7),
    ("stages.finetune.epochs", 5),
    ("stages.finetune.learningRate", "0.00002"),
    ("stages.finetune.nodeSelector", {"gpu": "big"}),
    ("stages.finetune.timeoutSeconds", 7000),
    ("stages.eval.batchSize", 64),
    ("stages.export.precision", "fp16"),
    ("stages.deploy.replicas", 2),
    ("stages.deploy.resources", {"limits": {"memory": "9Gi"}}),
    ("stages.deploy.nodeSelector", {"zone": "a"}),
    ("stages.verify.timeoutSeconds", 7000),
    ("retryToken", "monday"),
    ("imagePullSecrets", [{"name": "pull"}]),
)


def fresh(field: str, value: Any) -> Script:
    """What a resource that always was so comes to."""

    async def script(actor: Actor) -> None:
        await actor.create(at(field, value))
        await end(actor)

    return script


def changed(stage: Stage, field: str, value: Any) -> Script:
    async def script(actor: Actor) -> None:
        await up_to(actor, stage)
        await actor.edit(at(field, value))
        await end(actor)

    return script


def reverted(stage: Stage, field: str, value: Any) -> Script:
    """Changed while a stage runs, and back before it ends."""

    async def script(actor: Actor) -> None:
        await up_to(actor, stage)
        await actor.edit(at(field, value))
        await actor.quiet()
        await actor.edit(at(field, None))
        await end(actor)

    return script


def rolled_back(field: str, value: Any) -> Script:
    """From Ready half of the way to something else, and back."""

    async def script(actor: Actor) -> None:
        await actor.create()
        await actor.ready()
        actor.place.held = {Stage.EVAL}
        await actor.edit(at(field, value))
        await actor.quiet()
        await actor.edit(at(field, None))
        await end(actor)

    return script


def goldens_of_fields() -> dict[str, Script]:
    return {field: fresh(field, value) for field, value in FIELDS}


def fields_changed(goldens: Goldens) -> list[Scenario]:
    return [
        Scenario(
            name=f"{field} while {stage} runs", script=changed(stage, field, value), golden=field, cost=60, end="asked"
        )
        for number, (field, value) in enumerate(FIELDS)
        for stage in (JOB_STAGES[number % len(JOB_STAGES)], JOB_STAGES[(number + 3) % len(JOB_STAGES)])
    ]


def fields_reverted(goldens: Goldens) -> list[Scenario]:
    return [
        Scenario(name=f"{field} and back", script=reverted(stage, field, value), golden="first", cost=60, end="asked")
        for number, (field, value) in enumerate(FIELDS)
        for stage in (JOB_STAGES[(number + 1) % len(JOB_STAGES)],)
    ]


def fields_rolled_back(goldens: Goldens) -> list[Scenario]:
    """All but the number of replicas: a manifest without one leaves the Deployment's to whoever scales it."""
    return [
        Scenario(name=f"{field} rolled back", script=rolled_back(field, value), golden="first", cost=60, end="asked")
        for field, value in FIELDS
        if field != "stages.deploy.replicas"
    ]


BASE: dict[str, Script] = {"first": first, "edited": edited}
