"""What clients have left goes, once nobody can still be talking to it. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from embedding_operator.decide.decision import DeleteObject, Draft, Observed
from embedding_operator.decide.handover import next_name
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import serving_label
from embedding_operator.objects.views import parse_time
from embedding_operator.resource.labels import SERVING_LABEL, STAGE_LABEL
from embedding_operator.resource.status import Served


def begin_drain(served: Served, left: str, observed: Observed, drain_s: int) -> Served:
    """Note that clients have left the server of fingerprint `left`, which goes on answering for `drain_s` seconds."""
    if not left or drain_s == 0:
        return served
    until = observed.now + timedelta(seconds=drain_s)
    return replace(served, draining_fingerprint=left, draining_until=f"{until:%Y-%m-%dT%H:%M:%SZ}")


def end_drain(draft: Draft, observed: Observed) -> None:
    """Forget a server that has drained, so that it is removed like every other one that has no part any more."""
    served = draft.status.served
    if not served.draining_fingerprint:
        return
    until = parse_time(served.draining_until)
    left_s = (until - observed.now).total_seconds() if until is not None else 0
    if left_s > 0 and served.draining_fingerprint != served.active_fingerprint:
        draft.look_again_in(left_s)
        return
    drained = serving_label(served.draining_fingerprint)
    draft.status = replace(draft.status, served=replace(served, draining_fingerprint="", draining_until=""))
    if served.draining_fingerprint in (served.active_fingerprint, served.candidate_fingerprint):
        return  # clients came back to it, or will
    for other in observed.deployments:
        if other.serving == drained and not other.deleting:
            draft.actions.append(DeleteObject(kind=other.kind, name=other.name, why="clients have left it"))


def retire(draft: Draft, owner: Owner, observed: Observed, serving: str) -> None:
    """Remove what served before `serving`; it gets no traffic any more."""
    kept = {serving_label(serving), serving_label(draft.status.served.draining_fingerprint)}
    for other in observed.deployments:
        if other.serving not in kept and not other.deleting:
            draft.actions.append(DeleteObject(kind=other.kind, name=other.name, why="a newer revision serves"))
    for name, raw in observed.services.items():
        labels = raw["metadata"].get("labels") or {}
        # Skip the rendezvous Services of multi-node Jobs; see rendezvous.py.
        ours = name in (owner.name, next_name(owner)) or STAGE_LABEL in labels
        if not ours and labels.get(SERVING_LABEL) not in kept:
            draft.actions.append(DeleteObject(kind="Service", name=name, why="a newer revision serves"))
