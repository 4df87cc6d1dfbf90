"""Kinds of scenarios: people, other controllers, and stages that fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from apiserver.api import at
from faults.lab import NAME, Actor, Scenario, Script, edited, first
from faults.of_requests import Goldens
from faults.plans import Raw
from simulation.endings import BAD_INPUT, BUG, OOM_KILLED, OUT_OF_MEMORY, SILENT, STOPPED, TRANSIENT, Ending

from embedding_operator.resource.labels import OWNER_LABEL, SERVING_LABEL
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
    return [
        Scenario(name=f"{field} rolled back", script=rolled_back(field, value), golden="first", cost=60, end="asked")
        for field, value in FIELDS
    ]


# Children that strangers change or delete.


def _server(actor: Actor) -> Raw:
    return next(raw for raw in actor.place.find("Deployment") if "deletionTimestamp" not in raw["metadata"])


def _container(**fields: Any) -> Callable[[Raw], Raw]:
    def patch(raw: Raw) -> Raw:
        (server,) = copy.deepcopy(raw["spec"]["template"]["spec"]["containers"])
        return {"spec": {"template": {"spec": {"containers": [{**server, **fields}]}}}}

    return patch


def _always(patch: Raw) -> Callable[[Raw], Raw]:
    return lambda raw: patch


_EDITS: tuple[tuple[str, str, Callable[[Raw], Raw]], ...] = (
    ("Deployment", "image", _container(image="other:2")),
    ("Deployment", "command", _container(command=["sleep"])),
    ("Deployment", "env", _container(env=[])),
    ("Deployment", "replicas", _always({"spec": {"replicas": 3}})),
    ("Deployment", "labels", _always({"metadata": {"labels": {SERVING_LABEL: "x"}}})),
    ("Deployment", "a label more", _always({"metadata": {"labels": {"team": "search"}}})),
    ("Service", "selector", _always({"spec": {"selector": {SERVING_LABEL: "x"}}})),
    ("Service", "selector's application", _always({"spec": {"selector": {"app": "other"}}})),
    ("Service", "labels", _always({"metadata": {"labels": {"team": "search"}}})),
    ("Service", "type", _always({"spec": {"type": "NodePort"}})),
    ("ConfigMap", "data", _always({"data": None})),
    ("PersistentVolumeClaim", "labels", _always({"metadata": {"labels": {"team": "search"}}})),
)


def drifted(kind: str, change: Callable[[Raw], Raw] | None, when: str) -> Script:
    """Each object of the kind, at Ready or while a second revision trains. `change` None: it is deleted."""

    async def script(actor: Actor) -> None:
        await actor.create()
        await actor.ready()
        await actor.quiet()
        if when == "training":
            actor.place.held = {Stage.FINETUNE}
            await actor.edit(EPOCHS)
            await running(actor, Stage.FINETUNE)
        for raw in [raw for raw in actor.place.find(kind) if OWNER_LABEL in (raw["metadata"].get("labels") or {})]:
            if change is None:
                await actor.delete(kind, raw["metadata"]["name"])
            else:
                await actor.change(kind, raw["metadata"]["name"], change(raw))
        await actor.quiet()
        await end(actor)

    return script


def children_drifted(goldens: Goldens) -> list[Scenario]:
    deleted = [(kind, "deleted", None) for kind in ("Deployment", "Service", "ConfigMap", "Pod")]
    return [
        Scenario(
            name=f"{kind}: {what}, at {when}",
            script=drifted(kind, change, when),
            cost=40,
            strangers=True,
            end="names",
            golden="edited" if when == "training" else "first",
        )
        for kind, what, change in [*_EDITS, *deleted]
        for when in ("Ready", "training")
    ]


def job_lost(stage: Stage, policy: str) -> Script:
    async def script(actor: Actor) -> None:
        await up_to(actor, stage)
        (job,) = actor.jobs(stage)
        await actor.delete("Job", job["metadata"]["name"], policy)
        await actor.until("its end", lambda: job["metadata"]["uid"] in actor.place.gone)
        await end(actor)

    return script


def pod_lost(stage: Stage) -> Script:
    """The Job's controller makes another one."""

    async def script(actor: Actor) -> None:
        await up_to(actor, stage)
        (job,) = actor.jobs(stage)
        pod = next(raw for raw in actor.place.find("Pod") if f"-{stage}-" in raw["metadata"]["name"])
        await actor.delete("Pod", pod["metadata"]["name"])
        await actor.until("its end", lambda: pod["metadata"]["uid"] in actor.place.gone)
        actor.place.begun.discard(job["metadata"]["uid"])
        actor.world.run_again(actor.place, job)
        await end(actor)

    return script


def jobs_lost(goldens: Goldens) -> list[Scenario]:
    rows = [
        Scenario(
            name=f"the Job of {stage} is deleted, {policy}", script=job_lost(stage, policy), golden="first", cost=14
        )
        for stage in JOB_STAGES
        for policy in ("Background", "Foreground")
    ]
    return rows + [
        Scenario(name=f"the pod of {stage} is deleted", script=pod_lost(stage), golden="first", cost=10)
        for stage in JOB_STAGES
    ]


# Objects of others that have our names.


def taken(kind: str, name: str) -> Script:
    async def script(actor: Actor) -> None:
        manifest = foreign(kind, name, actor.place.namespace)
        await actor.make(kind, manifest)
        await actor.until("it", lambda: (kind, name) in actor.place.objects)
        before = actor.place.objects[kind, name]["metadata"]["resourceVersion"]
        await actor.create()
        await actor.until("an end", lambda: actor.is_stalled() or actor.is_ready())
        await actor.quiet()
        now = actor.place.objects[kind, name]["metadata"]
        status = "status" if kind == "Deployment" else ""  # the stand-in's own
        assert status or now["resourceVersion"] == before, "the object of somebody else was changed"
        assert not any(ref["kind"] == "EmbeddingFineTune" for ref in now.get("ownerReferences") or ())
        await actor.delete(kind, name)
        await end(actor)
        await actor.until("no trouble", lambda: actor.condition("Validated").get("reason") == "Valid")
        await actor.quiet()

    return script


def foreign(kind: str, name: str, namespace: str) -> Raw:
    meta = {"name": name, "namespace": namespace}
    match kind:
        case "Service":
            return {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": {"ports": [{"port": 1}]}}
        case "ConfigMap":
            return {"apiVersion": "v1", "kind": kind, "metadata": meta, "data": {"theirs": "x"}}
        case "PersistentVolumeClaim":
            spec: Raw = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
            return {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec}
    labels = {"app": "theirs"}
    pod = {"containers": [{"name": "c", "image": "theirs:1"}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": spec}


def names_taken(goldens: Goldens) -> list[Scenario]:
    """All names that do not depend on a uid; no name of a Job is known before its resource is."""
    names = [
        ("PersistentVolumeClaim", "docs-workspace"),
        ("Service", "docs"),
        ("ConfigMap", "docs-contract"),
        ("ConfigMap", "docs-revision-1"),
        ("Service", goldens["first"].server),
        ("Deployment", goldens["first"].server),
    ]
    return [
        Scenario(name=f"{kind} {name} is somebody else's", script=taken(kind, name), golden="first", cost=30)
        for kind, name in names
    ]


# Stages that fail.

_ENDINGS = {
    "bad input": BAD_INPUT,
    "transient": TRANSIENT,
    "out of memory": OUT_OF_MEMORY,
    "stopped": STOPPED,
    "a bug": BUG,
    "killed for memory": OOM_KILLED,
    "not a word": SILENT,
}


def failing(stage: Stage, ending: Ending, *, second: bool = False) -> Script:
    """Once; where that is final, a retry token asks for another attempt."""

    async def script(actor: Actor) -> None:
        if second:
            await actor.create()
            await actor.ready()
        actor.place.endings[stage] = [ending]
        await (actor.edit(EPOCHS) if second else actor.create())
        await actor.until("an end", lambda: actor.is_ready() or (actor.is_stalled() and not actor.place.endings[stage]))
        if not actor.is_ready():
            await actor.edit({"retryToken": "again"})
        await end(actor)

    return script


def stages_fail(goldens: Goldens) -> list[Scenario]:
    return [
        Scenario(name=f"{stage}: {how}", script=failing(stage, ending), golden="first", cost=24, end="asked")
        for stage in JOB_STAGES
        for how, ending in _ENDINGS.items()
    ]


def stages_fail_later(goldens: Goldens) -> list[Scenario]:
    """In a second revision, while the first one serves."""
    return [
        Scenario(
            name=f"{stage} of the second revision: {how}",
            script=failing(stage, _ENDINGS[how], second=True),
            golden="edited",
            cost=24,
            end="asked",
        )
        for stage in (Stage.FINETUNE, Stage.EVAL, Stage.EXPORT, Stage.VERIFY)
        for how in ("bad input", "transient", "a bug")
    ]


BASE: dict[str, Script] = {"first": first, "edited": edited}
