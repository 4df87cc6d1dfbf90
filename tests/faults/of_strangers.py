"""Kinds of scenarios: strangers change, delete or forestall our objects."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from faults.lab import Actor, Scenario, Script
from faults.of_people import EPOCHS, JOB_STAGES, end, running, up_to
from faults.of_requests import Goldens
from faults.plans import Raw

from embedding_operator.resource.labels import OWNER_LABEL, SERVING_LABEL
from embedding_stages.contract import Stage

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
        ours = [raw for raw in actor.place.find(kind) if OWNER_LABEL in (raw["metadata"].get("labels") or {})]
        # Pods at work are lost in a table of their own.
        for raw in [raw for raw in ours if (raw.get("status") or {}).get("phase") != "Running"]:
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
