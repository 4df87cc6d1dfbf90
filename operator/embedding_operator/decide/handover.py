"""May clients be moved to the verified candidate? With strategy Shadow the owner of the index says so. Pure.

Vectors of two vector spaces cannot be compared, so a client that is moved before the index was filled anew gets answers
that mean nothing. A candidate of the same vector space, and the first revision of all, need nobody's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from embedding_operator.decide.decision import Apply, DeleteObject, Draft, Observed
from embedding_operator.decide.drift import drift_of
from embedding_operator.decide.lost import answers
from embedding_operator.decide.refusals import refusal_wait
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import PORT, build_service, service_url, serving_label
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import Served, Status
from embedding_stages.contract import Artefact, Stage, vector_space_of
from embedding_stages.contract import settings as tables
from embedding_stages.contract.servers import EMBEDDINGS_PATH

AWAITING: Final = "AwaitingAcknowledgement"
_MOST: Final = 1 << 53  # of tokens and seconds: rates are what somebody's image has told
MISMATCH: Final = "AcknowledgementMismatch"
_FIELD: Final = "spec.stages.deploy.acknowledgedVectorSpace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Where a verified revision stands with clients.

    "active": they reach it; "moving": the Service is being pointed at it; "waiting": they stay with the older one.
    """

    state: Literal["active", "moving", "waiting"]
    reason: str = ""
    message: str = ""
    broken: bool = False  # somebody has to act


ACTIVE: Final = Traffic(state="active")
MOVING: Final = Traffic(
    state="moving", reason="Activating", message="verified; the Service is being pointed at this revision"
)


def next_name(owner: Owner) -> str:
    """The Service of a verified candidate that clients are not moved to yet."""
    return f"{owner.name}-next"


def port_of(observed: Observed, fingerprint: str, live: Mapping[str, Any] | None = None) -> str:
    """The name of the port of the pods that serve `fingerprint`; of pods that are gone, what the Service has of it."""
    label = serving_label(fingerprint)
    ports = ((live or {}).get("spec") or {}).get("ports") or ()  # others may have added some
    known = next((item.get("targetPort") for item in ports if item.get("port") == PORT), None)
    otherwise = known if isinstance(known, str) else "http"
    return next((item.port_name for item in observed.deployments if item.serving == label), otherwise)


def vector_space(status: Status) -> str:
    """Of the model that this revision trained; empty before it has.

    Where only queries' side was trained, passages keep the base model's vectors, and the space is the base model's: an
    index of it stays, whichever revision of that base answers queries.
    """
    trained = status.stage(Stage.FINETUNE)
    made = trained.artefacts.get(Artefact.CHECKPOINT)
    if made is not None and trained_side(status) == tables.QUERY_SIDE:
        made = status.stage(Stage.INPUTS).artefacts.get(Artefact.BASE_MODEL)
    return vector_space_of(made.digest) if made is not None else ""


def trained_side(status: Status) -> str:
    """What this revision trained, as finetune tells it; a release that knew no sides trained the whole model."""
    return str(status.stage(Stage.FINETUNE).details.get("side") or tables.SIDES[0])


def note_candidate(draft: Draft) -> None:
    """Say what moving to the candidate takes, before anybody moves."""
    served, space = draft.status.served, vector_space(draft.status)
    if served.active_fingerprint == served.candidate_fingerprint:  # perhaps again, in place of one that waited
        draft.status = replace(draft.status, served=_without_candidate(served))
        return
    if not served.vector_space:
        return
    # That clients were moved before the index was filled anew stays said beside a candidate of the space they are in.
    behind = served.reindex.get("required") and served.candidate_vector_space in ("", served.vector_space)
    reindex = served.reindex if behind and space == served.vector_space else _reindex(draft.status, space)
    draft.status = replace(draft.status, served=replace(served, candidate_vector_space=space, reindex=reindex))


def _reindex(status: Status, space: str) -> dict[str, Any]:
    """Whether an index has to be filled anew, and what that takes at the rate that verify measured."""
    served = status.served
    if space == served.vector_space:
        return {"required": False, "reason": f"the candidate answers in the same vector space, {space}"}
    before = served.vector_space or "that was not recorded"
    found: dict[str, Any] = {
        "required": True,
        "reason": f"the candidate's vectors are of space {space}, those of the index of space {before}; they cannot be "
        "compared",
    }
    passages = status.stage(Stage.SDG).counts.get("chunks", 0)
    rate = status.stage(Stage.VERIFY).details.get("rate") or {}
    if passages:
        found["passages"] = passages
    if passages and rate.get("tokensPerPassage"):
        found["tokens"] = round(min(_MOST, passages * float(rate["tokensPerPassage"])))
    if passages and rate.get("passagesPerSecond"):
        found["seconds"] = max(1, round(min(_MOST, passages / float(rate["passagesPerSecond"]))))
    return found


def waits_for(draft: Draft, owner: Owner, spec: Spec, observed: Observed, known: str) -> Traffic | None:
    """Offer the candidate beside what serves; None when clients may be moved to it. `known` is the vector space of the
    candidate on record.
    """
    served, space = draft.status.served, vector_space(draft.status)
    asks = (
        spec.deploy.strategy == "Shadow"
        and bool(served.active_fingerprint or served.vector_space)  # also where Recreate removed what served
        and served.active_fingerprint != served.candidate_fingerprint
        and served.vector_space != space
    )
    if not asks or spec.deploy.acknowledged == space:
        return None
    name = next_name(owner)
    service = build_service(owner, name, served.candidate_fingerprint, port_of(observed, served.candidate_fingerprint))
    index = f"(vector space {served.vector_space or 'unknown'})"
    serving = f"clients stay with revision {served.active_revision} {index}"
    if not served.active_fingerprint:
        serving = f"clients reach no server: the one that they knew {index} was removed"
    drift = drift_of(draft, observed.services.get(name), service, observed, new=not served.next_url)
    if drift.apply:
        draft.actions.append(Apply(manifest=service, why="the index is filled anew through it"))
    if drift.wait is not None or (drift.stale and (not drift.apply or refusal_wait(observed) is not None)):
        # Perhaps it is a stranger's, or leads elsewhere: nobody may be sent there.
        draft.status = replace(draft.status, served=replace(served, next_url=""))
        if drift.wait is not None:
            message = f"verified, but not offered: {drift.wait.message}; {serving}"
            return Traffic(state="waiting", reason=drift.wait.reason, message=message, broken=True)
        return Traffic(state="waiting", reason=AWAITING, message=f"verified, but {name} is not made yet; {serving}")
    url = f"{service_url(owner, name)}{EMBEDDINGS_PATH}"
    if served.next_url != url and (known != space or name not in observed.services):  # else it was told before
        draft.event("Normal", AWAITING, f"{url} answers in vector space {space}; {_cure(space)}")
    draft.status = replace(draft.status, served=replace(served, next_url=url))
    if spec.deploy.acknowledged not in ("", served.vector_space):
        return Traffic(
            state="waiting",
            reason=MISMATCH,
            message=f"{_FIELD}: {spec.deploy.acknowledged} is neither the candidate's vector space, {space}, nor the "
            f"one that serves; {serving}; {_cure(space)}",
            broken=True,
        )
    message = f"verified, and offered at {name}; {serving}; {_cure(space)}"
    return Traffic(state="waiting", reason=AWAITING, message=message)


def _cure(space: str) -> str:
    return f'fill the index anew from it, then set {_FIELD}: "{space}"'


def forget_lost_offer(draft: Draft, observed: Observed) -> None:
    """Nobody is told of an address where nobody answers. It is told again when the candidate does."""
    served = draft.status.served
    if served.next_url and not answers(observed.deployments, serving_label(served.candidate_fingerprint)):
        draft.status = replace(draft.status, served=replace(served, next_url=""))


def withdraw_offer(draft: Draft, owner: Owner, observed: Observed) -> None:
    """No candidate waits: its Service goes."""
    name = next_name(owner)
    if name in observed.services:
        draft.actions.append(DeleteObject(kind="Service", name=name, why="no candidate waits to be acknowledged"))
    draft.status = replace(draft.status, served=replace(_without_candidate(draft.status.served), next_url=""))


def _without_candidate(served: Served) -> Served:
    """What moving to a candidate would have taken is nobody's question when it is gone."""
    if not served.candidate_vector_space:
        return served
    kept = served.reindex if served.candidate_vector_space == served.vector_space else {}
    return replace(served, candidate_vector_space="", reindex=kept)
