"""What clients have left goes, once nobody can still be talking to it. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from embedding_operator.decide.decision import Action, Apply, DeleteObject, Draft, Observed, delete_server
from embedding_operator.decide.handover import next_name
from embedding_operator.decide.refusals import RETRY_S, as_it_is_refused, refusal_wait
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import selected, serving_label, serving_name
from embedding_operator.resource.labels import SERVING_LABEL, STAGE_LABEL
from embedding_operator.resource.status import Served
from embedding_operator.resource.times import is_ahead, noted_time, stamp


def begin_drain(served: Served, left: str, observed: Observed, drain_s: int) -> Served:
    """Note that clients have left the server of fingerprint `left`, which goes on answering for `drain_s` seconds."""
    if not left:
        return served
    if drain_s == 0:
        return replace(served, draining_fingerprint="", draining_until="")
    until = observed.now + timedelta(seconds=drain_s)
    return replace(served, draining_fingerprint=left, draining_until=stamp(until))


def end_drain(draft: Draft, observed: Observed, drain_s: int | None) -> str:
    """Forget a server that has drained; its fingerprint, empty where none has.

    `drain_s`: for how long one drains, where that is known; the clock may have been ahead when it began.
    """
    served = draft.status.served
    if not served.draining_fingerprint:
        return ""
    until = noted_time(served.draining_until)
    if until is not None and drain_s is not None:
        longest = observed.now + timedelta(seconds=drain_s)
        if is_ahead(until, longest):
            until = longest
            draft.status = replace(draft.status, served=replace(served, draining_until=stamp(until)))
    left_s = (until - observed.now).total_seconds() if until is not None else 0
    if left_s > 0 and served.draining_fingerprint != served.active_fingerprint:
        draft.look_again_in(left_s)
        return ""
    draft.status = replace(draft.status, served=replace(served, draining_fingerprint="", draining_until=""))
    return served.draining_fingerprint


def remove_drained(draft: Draft, owner: Owner, observed: Observed, drained: str, before: Served) -> None:
    """Remove the server of fingerprint `drained`, unless clients came back to it, or will: that is decided by now.
    `before` is what was on record.
    """
    served = draft.status.served
    if drained and drained not in (served.active_fingerprint, served.candidate_fingerprint):
        label = serving_label(drained)
        for other in observed.deployments:
            if other.serving == label and not other.deleting:
                draft.actions.append(delete_server(other, "clients have left it"))
    left = _left_in_this_pass(draft, owner, observed)
    stays = [item for item in draft.actions if isinstance(item, DeleteObject) and (item.kind, item.name) in left]
    if not stays:
        return
    draft.actions = [item for item in draft.actions if item not in stays]
    refused = refusal_wait(as_it_is_refused(observed, "Service", owner.namespace, owner.name)) is not None
    draft.look_again_in(RETRY_S["refused"] if refused else 1.0)
    if drained and not served.draining_fingerprint:  # so that the next pass knows of it
        known = replace(served, draining_fingerprint=drained, draining_until=before.draining_until)
        draft.status = replace(draft.status, served=known)


def _left_in_this_pass(draft: Draft, owner: Owner, observed: Observed) -> set[tuple[str, str]]:
    """(kind, name) of the server that clients are led away from. It goes in a later pass: that write may be refused, or
    be lost.
    """
    if not any(leads_clients(action, owner) for action in draft.actions):
        return set()
    label = selected(observed.services.get(owner.name))
    return {(other.kind, other.name) for other in observed.deployments if label and other.serving == label}


def leads_clients(action: Action, owner: Owner) -> bool:
    """Whether it applies the Service that clients talk to."""
    if not isinstance(action, Apply):
        return False
    return (action.manifest["kind"], action.manifest["metadata"]["name"]) == ("Service", owner.name)


def retire(draft: Draft, owner: Owner, observed: Observed, serving: str) -> None:
    """Remove what served before `serving`; it gets no traffic any more."""
    kept = {serving_label(serving), serving_label(draft.status.served.draining_fingerprint)}
    for other in observed.deployments:
        if other.serving not in kept and not other.deleting:
            draft.actions.append(delete_server(other, "a newer revision serves"))
    for name, raw in observed.services.items():
        labels = raw["metadata"].get("labels") or {}
        # Skip the rendezvous Services of multi-node Jobs; see rendezvous.py.
        spared = name in (owner.name, next_name(owner)) or STAGE_LABEL in labels
        serving_of = labels.get(SERVING_LABEL, "")
        ours = owner.owns(raw) or name == serving_name(owner.name, serving_of)
        if ours and not spared and serving_of not in kept:
            draft.actions.append(DeleteObject(kind="Service", name=name, why="a newer revision serves"))
