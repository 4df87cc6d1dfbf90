"""What clients and the owner of an index must know of what serves, and whether it still answers the same. Pure.

The contract is a ConfigMap, `<name>-contract`. Its canaries are texts that never change with the vectors that the
endpoint gave them when it was verified: whoever holds vectors can compare, and so does the operator, at intervals. The
status keeps a sketch of them: a contract that somebody has deleted or bent is not made anew from a server that answers
otherwise.
"""

from __future__ import annotations

import base64
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from embedding_operator.decide.decision import Apply, Draft, Observed
from embedding_operator.decide.drift import Change, restore
from embedding_operator.decide.likeness import least_likeness, sketch
from embedding_operator.decide.refusals import RETRY_S, not_written
from embedding_operator.decide.verdict import LEAST_COSINE
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.records import CONTRACT_KEY, build_contract, contract_name
from embedding_operator.objects.manifests.serving import serving_label
from embedding_operator.objects.views import DeploymentView
from embedding_operator.resource.status import Served, Status
from embedding_operator.resource.times import is_ahead, noted_time, stamp
from embedding_stages.contract import Stage, fingerprint_of
from embedding_stages.contract.canaries import CANARIES, VERSION

CANARIES_DIFFER: Final = "CanariesDiffer"
_ASK_AGAIN_S: Final = 30.0
# What is kept of the canaries while their contract is made anew: what answers now has to be like what answered then.
_KEPT: Final = ("sketch", "checkedAt", "cosine")
_ASKED: Final = ("path", "inputTypes", "prefixes", "requestFields")
_LEAST_LIKENESS: Final = 1.0 - 3 * (1.0 - LEAST_COSINE)  # a sketch takes the least of sixteen for less than it is
_ASK_SELDOM_S: Final = 300.0  # what has not answered is perhaps out of the operator's reach, and so are many others
Vector = Sequence[float]


def publish_contract(draft: Draft, owner: Owner, observed: Observed) -> None:
    """Write the contract of what clients reach: at once, and with canaries when the endpoint has answered them."""
    served = draft.status.served
    if not served.active_fingerprint or not served.vector_space:
        return
    contract = _described(served)
    known = _known_of(served, _named(contract))
    same = known.get("contract") == _named(contract)
    if same and "takenAt" in known:
        return
    told = {name: known[name] for name in _KEPT if name in known} | {"of": _of(served), "contract": _named(contract)}
    if observed.canaries is not None and observed.canaries_of == served.active_fingerprint:
        remembered = str(known.get("sketch") or sketch(observed.canaries))
        likeness = least_likeness(remembered, observed.canaries)
        if likeness >= _LEAST_LIKENESS:
            contract["canaries"] = _canaries(observed.canaries)
            told = {"of": _of(served), "contract": told["contract"], "sketch": remembered}
            told |= {"takenAt": stamp(observed.now), "published": _named(contract)}
        elif not differ(served):
            told |= {"checkedAt": stamp(observed.now), "cosine": f"{likeness:.6f}"}
    if "takenAt" not in told:
        draft.look_again_in(_ASK_SELDOM_S if same else _ASK_AGAIN_S)
    if not same or "takenAt" in told:
        manifest = build_contract(owner, contract)
        draft.actions.append(Apply(manifest=manifest, why="clients and the owner of an index read it"))
        if not_written(observed, contract_name(owner.name)):
            draft.look_again_in(RETRY_S["record"])
            return
    draft.status = replace(
        draft.status, served=replace(draft.status.served, contract_map=contract_name(owner.name), canaries=told)
    )


def _known_of(served: Served, contract: str) -> Mapping[str, Any]:
    """What is known of the canaries of what serves now; nothing where it is known of another server. `contract` is the
    name of its contract, by which an earlier release tells.
    """
    known = served.canaries
    ours = known["of"] == _of(served) if "of" in known else known.get("contract") == contract
    return known if ours else {}


def _of(served: Served) -> str:
    """Of which server, and asked how."""
    asked = {name: served.contract.get(name) for name in _ASKED}
    return fingerprint_of([served.active_fingerprint, VERSION, served.model, asked])[:16]


def _described(served: Served) -> dict[str, Any]:
    """The contract without canaries."""
    return {
        "model": served.model,
        "revision": served.active_revision,
        "artefactDigest": served.artefact_digest,
        "vectorSpace": served.vector_space,
        **served.contract,
    }


def _named(contract: Mapping[str, Any]) -> str:
    return fingerprint_of(contract)[:16]


def _canaries(vectors: Sequence[Vector]) -> dict[str, Any]:
    texts = [
        {"role": role, "text": text, "vector": encode(vector)}
        for (role, text), vector in zip(CANARIES, vectors, strict=True)
    ]
    return {"version": VERSION, "encoding": "base64 of little-endian float32", "texts": texts}


def renewed(status: Status, servers: Iterable[DeploymentView]) -> datetime | None:
    """When what clients reach was made, or measured, last."""
    active = serving_label(status.served.active_fingerprint)
    made = [item.created for item in servers if item.serving == active]
    measured = noted_time(status.stage(Stage.VERIFY).finished_at)
    return max([*made, *([measured] if measured is not None else [])], default=None)


def due_s(served: Served, interval_s: int | None, now: datetime, renewed_at: datetime | None = None) -> float | None:
    """Seconds until the canaries are to be asked again; 0 or less: now; None: never."""
    last = noted_time(served.canaries.get("checkedAt") or served.canaries.get("takenAt"))
    if interval_s is None or last is None:
        return None
    is_renewed = renewed_at is not None and last < renewed_at and not is_ahead(renewed_at, now)
    if is_renewed and differ(served):  # perhaps it is cured, long before the interval
        return 0.0
    return 0.0 if is_ahead(last, now) else (last + timedelta(seconds=interval_s) - now).total_seconds()


def check_canaries(draft: Draft, interval_s: int | None, observed: Observed) -> None:
    """Compare what serves with what it answered when it was verified, when that is due."""
    served = draft.status.served
    left_s = due_s(served, interval_s, observed.now, renewed(draft.status, observed.deployments))
    if left_s is None:
        if "cosine" in served.canaries:
            kept = {key: value for key, value in served.canaries.items() if key not in ("cosine", "checkedAt")}
            draft.status = replace(draft.status, served=replace(served, canaries=kept))
        return
    if left_s > 0:
        draft.look_again_in(left_s)
        return
    if "takenAt" not in served.canaries:  # there is nothing to compare with
        return
    published = served.canaries.get("contract") == _named(_described(served))  # else it is what served before
    if not published or observed.canaries is None or observed.canaries_of != served.active_fingerprint:
        draft.look_again_in(_ASK_AGAIN_S)
        return
    known = _known(observed.contract, str(served.canaries.get("published", "")))
    drift = restore(draft, _change_of(served, observed, readable=known is not None), observed)
    if drift.wait is not None:  # what serves goes on without it
        draft.unkept = drift.wait.message
    if drift.apply:  # it is published anew
        kept = {name: served.canaries[name] for name in ("of", *_KEPT) if name in served.canaries}
        draft.status = replace(draft.status, served=replace(served, canaries=kept))
        draft.look_again_in(1.0)
    if known is None:
        return
    least = min(cosine(before, now) for before, now in zip(known, observed.canaries, strict=True))
    told = {"of": _of(served), **served.canaries}
    if "sketch" not in told:  # an earlier release remembered none
        told["sketch"] = sketch(known)
    told |= {"checkedAt": stamp(observed.now), "cosine": f"{least:.6f}"}
    draft.status = replace(draft.status, served=replace(served, canaries=told))
    draft.look_again_in(float(interval_s or 0))


def _change_of(served: Served, observed: Observed, *, readable: bool) -> Change:
    """What somebody has done to the contract, which is not as it was published; it may also be gone."""
    meta: Mapping[str, Any] = (observed.contract or {}).get("metadata") or {}
    return Change(
        kind="ConfigMap",
        name=served.contract_map,
        asked=str(served.canaries.get("contract", "")),
        field="" if readable else f"data.{CONTRACT_KEY}",
        managed=meta.get("managedFields") or (),
    )


def differ(served: Served, *, newer: bool = False) -> str:
    """The sentence that says so when the canaries differ; empty when they do not, or nobody asked.

    `newer`: the manifest is of another revision, so nobody can make the Deployment of what serves anew.
    """
    least = served.canaries.get("cosine")
    if least is None or float(least) >= LEAST_COSINE or served.canaries.get("of", _of(served)) != _of(served):
        return ""
    cure = (
        "let the revision of this manifest take its place, or pin the one that serves (spec.stages.deploy.pinRevision)"
        if newer
        else "delete its Deployment: it is made and checked anew; name an image whose tag has moved by its digest"
    )
    return (
        f"what serves answers a canary with cosine {least} to what it answered when it was verified, below "
        f"{LEAST_COSINE}: the model or the server was changed; {cure}"
    )


def encode(vector: Vector) -> str:
    """base64 of little-endian float32."""
    numbers = array("f", vector)
    return base64.b64encode(numbers.tobytes()).decode()  # every machine that Kubernetes runs on is little-endian


def decode(text: str) -> Vector:
    return array("f", base64.b64decode(text))


def cosine(one: Vector, other: Vector) -> float:
    """0 for vectors of different lengths, and for one without direction."""
    if len(one) != len(other):
        return 0.0
    lengths = math.sqrt(math.fsum(x * x for x in one)) * math.sqrt(math.fsum(x * x for x in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 0.0


def _known(config_map: Mapping[str, Any] | None, published: str) -> list[Vector] | None:
    """The vectors of the contract, or None where it has none that can be read, or is not what was `published`; empty
    where an earlier release published it.
    """
    try:
        contract = json.loads((config_map or {})["data"][CONTRACT_KEY])
        found = [decode(item["vector"]) for item in contract["canaries"]["texts"]]
    except (KeyError, TypeError, ValueError):
        return None
    if published and published != _named(contract):
        return None
    whole = len(found) == len(CANARIES) and len({len(vector) for vector in found}) == 1 and bool(found[0])
    return found if whole and all(math.isfinite(x) for vector in found for x in vector) else None
