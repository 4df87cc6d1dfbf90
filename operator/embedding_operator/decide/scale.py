"""Scaling by the CRD's scale subresource. Pure.

`kubectl scale` and an autoscaler of the resource write `spec.stages.deploy.replicas`, and read how many pods the server
has, and by which labels they are found. What they write moves the generation and makes no revision: it must not give a
run its limits anew, or a failed stage another attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import selector_of, serving_label
from embedding_operator.resource.frozen import hash_of, mapping
from embedding_operator.resource.status import SCALING, Status


def without_scaling(status: Status, raw_spec: Mapping[str, Any], generation: int) -> Status:
    """The status as it is to be read: a generation that only scales belongs to the revision of the one before."""
    known = mapping(status.resolved.get(SCALING))
    before = known.get("generation")
    if before == generation or status.observed_generation not in (before, generation):
        return status
    now = scaling_of(raw_spec, generation)
    # There and back, of which nothing was heard: whoever says a number scales by it.
    if now["asked"] != known.get("asked") or (now["replicas"] is None and known.get("replicas") is None):
        return status
    edits = status.scalings + status.revision_of(generation) - status.revision
    return replace(status, resolved={**status.resolved, SCALING: {**now, "edits": edits}})


def scaling_of(raw_spec: Mapping[str, Any], generation: int) -> dict[str, Any]:
    """What tells whether a later edit only scales."""
    stages = mapping(raw_spec.get("stages"))
    deploy = dict(mapping(stages.get("deploy")))
    replicas = deploy.pop("replicas", None)
    others = {name: said for name, said in stages.items() if name != "deploy"}
    asked = hash_of({**raw_spec, "stages": others | ({"deploy": deploy} if deploy else {})})
    return {"generation": generation, "asked": asked, "replicas": replicas}


def note_scale(draft: Draft, owner: Owner, observed: Observed) -> None:
    """Of the server that clients are sent to; of the candidate while there is none.

    While neither is there, such as between two with strategy Recreate, the last number stays: the next begins with it.
    """
    served = draft.status.served
    scaled = served.active_fingerprint or served.candidate_fingerprint
    if not scaled:
        return
    there = [item.total for item in observed.deployments if item.serving == serving_label(scaled)]
    pods = sum(there) if there or served.replicas is None else served.replicas
    selector = ",".join(f"{key}={value}" for key, value in selector_of(owner, scaled).items())
    draft.status = replace(draft.status, served=replace(served, replicas=pods, selector=selector))
