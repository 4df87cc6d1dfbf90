"""Traffic: the clients' Service selects the active revision, and moves to another one once that is verified. Pure.

The manifest of the active revision may be gone while the operator works on a newer one. So this module cannot restore a
lost Deployment of the active revision; it reports the loss. It can always restore the Service, which needs no manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from embedding_operator.decide.compared import evaluated_on, still_evaluated_on
from embedding_operator.decide.decision import Apply, Draft, Observed
from embedding_operator.decide.drift import DRIFT_NOT_CORRECTED, drift_of
from embedding_operator.decide.handover import (
    ACTIVE,
    MOVING,
    Traffic,
    note_candidate,
    port_of,
    trained_side,
    vector_space,
    waits_for,
)
from embedding_operator.decide.lost import answers, cause_of_loss
from embedding_operator.decide.refusals import as_it_is_refused, refusal_wait
from embedding_operator.decide.retire import begin_drain, retire
from embedding_operator.decide.serving import serving_model
from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import (
    build_service,
    clients_url,
    selected,
    service_url,
    serving_label,
)
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import FrozenSet, Served
from embedding_stages.contract import Artefact, Stage
from embedding_stages.contract import settings as tables

ACTIVE_UNAVAILABLE: Final = "ActiveUnavailable"
Raw = Mapping[str, Any]


def keep_active(draft: Draft, owner: Owner, observed: Observed, before: Served, *, reported: bool) -> Apply | None:
    """Keep the clients' Service on the active revision. There is no URL to speak of without an available server, nor
    where somebody leads clients elsewhere, for as long as that lasts.

    `before` is what was on record. `reported`: the deploy stage reports this server already in this pass, so no second
    Event is posted. What is applied is returned: it is applied whatever else is refused.
    """
    served = draft.status.served
    if not served.active_fingerprint:
        return None
    observed = as_it_is_refused(observed, "Service", owner.namespace, owner.name)
    live = observed.services.get(owner.name)
    desired = build_service(
        owner, owner.name, served.active_fingerprint, port_of(observed, served.active_fingerprint, live)
    )
    drift = drift_of(
        draft,
        _as_labelled(live, desired),
        desired,
        observed,
        new=_was_moved(live, before, draft.status.revision_of(observed.generation)),
    )
    why = "clients talk to the active revision"
    applied = Apply(manifest=desired, why=why, for_clients=True) if drift.apply else None
    if applied is not None:
        draft.actions.insert(0, applied)
    astray = served.astray if live is not None and drift.stale else ""
    if drift.wait is not None:
        astray = drift.wait.message
    there = answers(observed.deployments, serving_label(served.active_fingerprint))
    url = clients_url(owner) if there and not astray else ""
    if served.url and not there and not reported:
        draft.event("Warning", ACTIVE_UNAVAILABLE, _unavailable(served, observed))
    draft.status = replace(draft.status, served=replace(served, url=url, astray=astray))
    return applied if refusal_wait(observed) is None else None


def _as_labelled(live: Raw | None, desired: Raw) -> Raw | None:
    """What clients reach is in the spec. Labels are those of the candidate where somebody has undone its activation."""
    if live is None:
        return None
    return {**live, "metadata": {**live["metadata"], "labels": desired["metadata"]["labels"]}}


def _was_moved(live: Raw | None, before: Served, revision: int) -> bool:
    """Whether the operator itself has pointed it at the candidate of an earlier revision, of which it had no time to
    make a record: an edit came in between.
    """
    if live is None or not before.candidate_fingerprint or before.candidate_revision == revision:
        return False
    return selected(live) == serving_label(before.candidate_fingerprint)


def loss(served: Served, observed: Observed) -> tuple[str, str]:
    """(reason, message): why clients do not reach what serves."""
    if served.is_gap:
        return ACTIVE_UNAVAILABLE, gap_message(served)
    if not served.astray:
        return ACTIVE_UNAVAILABLE, _unavailable(served, observed)
    led = f"clients may be led to another server than revision {served.active_revision}'s, of another vector space"
    return DRIFT_NOT_CORRECTED, f"{led}: {served.astray}"


def gap_message(served: Served) -> str:
    """After strategy Recreate has made room for what does not come."""
    revision = served.active_revision
    return (
        f"clients reach nothing: strategy Recreate has removed the server of revision {revision}; take the edit back, "
        f"or set spec.stages.deploy.pinRevision: {revision}"
    )


def tell_gap(draft: Draft) -> None:
    """Told once, when nothing comes to end it."""
    if draft.status.phase != "Degraded":
        draft.event("Warning", ACTIVE_UNAVAILABLE, gap_message(draft.status.served))


def _unavailable(served: Served, observed: Observed) -> str:
    what = f"no server of revision {served.active_revision}, which clients talk to, is available"
    if cause := cause_of_loss(observed.deployments, serving_label(served.active_fingerprint)):
        return f"{what}: {cause}"
    return (
        f"{what}; it was removed or stopped, or its pods fail: restore its Deployment, or let the revision of this "
        "manifest take its place"
    )


def activate(draft: Draft, owner: Owner, spec: Spec, observed: Observed) -> Traffic:
    """Point the clients' Service at the verified revision in one write, when they may be moved to it."""
    served = draft.status.served
    serving = served.candidate_fingerprint
    known = served.candidate_vector_space
    note_candidate(draft)
    waits = waits_for(draft, owner, spec, observed, known)
    if waits is not None:
        return waits
    desired = build_service(owner, owner.name, serving, port_of(observed, serving))
    drift = drift_of(
        draft, observed.services.get(owner.name), desired, observed, new=served.active_fingerprint != serving
    )
    if drift.apply:
        draft.actions.append(Apply(manifest=desired, why="the verified revision takes the traffic"))
    if drift.wait is not None:
        return _held(drift.wait, served, applied=drift.apply)
    if drift.stale:
        draft.look_again_in(1.0)
        draft.at_once = drift.apply
        return MOVING
    moved, space = served.active_fingerprint != serving, vector_space(draft.status)
    served = draft.status.served
    revision = spec.deploy.pinned or draft.status.stage(Stage.DEPLOY).revision
    if moved:
        draft.event("Normal", "Activated", f"{service_url(owner, owner.name)} serves revision {revision}")
        if served.reindex.get("required") and spec.deploy.acknowledged != space:
            draft.event("Warning", "ReindexRequired", str(served.reindex["reason"]))
        left = served.active_fingerprint or (served.moved_to if served.moved_to != serving else "")
        served = begin_drain(served, left, observed, spec.deploy.drain_s)
    draft.status = replace(
        draft.status,
        served=replace(
            served,
            active_fingerprint=serving,
            active_revision=revision,
            moved_to="",
            candidate_fingerprint="",
            candidate_revision=0,
            candidate_vector_space="",
            reindex={} if spec.deploy.acknowledged == space else served.reindex,
            artefact_digest=serving_model(draft).digest,
            url=clients_url(owner),
            astray="",
            refused={},
            evaluated_on=still_evaluated_on(draft.status, revision)
            if spec.deploy.pinned and not moved
            else evaluated_on(draft.status, revision),
            model=spec.deploy.model_name,
            checkpoint=draft.status.stage(Stage.FINETUNE).artefacts.get(Artefact.CHECKPOINT),
            vector_space=space,
            contract=_client_contract(draft, spec),
        ),
    )
    _freeze(draft, spec)
    if moved:
        # What served before goes once this is on record: a write that fails must not leave clients to what is gone.
        draft.look_again_in(1.0)
        draft.at_once = True
        return MOVING
    retire(draft, owner, observed, serving)
    return ACTIVE


def _held(wait: Wait, served: Served, *, applied: bool) -> Traffic:
    """Somebody changes the Service back. What clients reach meanwhile is for `keep_active` to say, but not in a pass
    that has `applied` it: it would apply the active revision's.
    """
    there = served.active_fingerprint == served.candidate_fingerprint
    message = wait.message if there else f"verified, but clients cannot be moved to it: {wait.message}"
    return Traffic(state="moving" if applied else "waiting", reason=wait.reason, message=message, broken=True)


def _freeze(draft: Draft, spec: Spec) -> None:
    """Later revisions are scored on the set of the first that was Ready, until the manifest asks for another one."""
    known, made = draft.status.evaluation_set, draft.status.stage(Stage.PREP).artefacts.get(Artefact.EVALUATION_SET)
    if made is None or spec.deploy.pinned or (known is not None and spec.freeze and known.asked == spec.labelled_asked):
        return
    evaluated = draft.status.stage(Stage.EVAL)
    frozen = FrozenSet(
        ref=made,
        revision=evaluated.revision,
        asked=spec.labelled_asked,
        made_by=draft.status.stage(Stage.PREP).fingerprint,
        queries=evaluated.counts.get("queries", 0),
    )
    draft.status = replace(draft.status, evaluation_set=frozen)


def _client_contract(draft: Draft, spec: Spec) -> Mapping[str, Any]:
    """Fine-tuning keeps the base model's description, which inputs tells in every revision, export or not."""
    details = draft.status.stage(Stage.INPUTS).details
    encoder = details.get("encoder") or {}
    graph = draft.status.stage(Stage.EXPORT).details.get("contract") or {}
    beside = {key: details[key] for key in ("tokenizerDigest",) if key in details}
    if (side := trained_side(draft.status)) == tables.QUERY_SIDE:
        beside["side"] = side
    return {**graph, **spec.deploy.profile.client_contract(encoder), **beside}
