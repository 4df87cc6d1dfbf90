"""What the status knows of what serves, and of the set that later revisions are scored on; to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from embedding_operator.resource.stage_status import present
from embedding_stages.contract import ArtefactRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Which revision clients talk to. `active` is set only after its verification."""

    active_fingerprint: str = ""
    active_revision: int = 0
    candidate_fingerprint: str = ""
    candidate_revision: int = 0
    artefact_digest: str = ""
    url: str = ""
    astray: str = ""  # why clients may be led elsewhere: then there is no URL
    refused: Mapping[str, str] = field(default_factory=dict)  # reason, message: measured again, it answers otherwise
    evaluated_on: str = ""  # digest of the set, where it is another one than when it began to serve
    model: str = ""
    checkpoint: ArtefactRef | None = None  # what was trained, and is served
    vector_space: str = ""  # see contract.vector_space_of
    candidate_vector_space: str = ""
    contract_map: str = ""  # name of the ConfigMap with the contract
    canaries: Mapping[str, Any] = field(
        default_factory=dict
    )  # contract, takenAt, checkedAt, cosine; see decide/contract
    next_url: str = ""  # where a verified candidate answers while clients are not moved to it
    moved_to: str = ""  # fingerprint of a server that got clients in a pass that was lost, while none is active
    draining_fingerprint: str = ""  # the server that clients have left
    draining_until: str = ""  # when it is removed
    reindex: Mapping[str, Any] = field(default_factory=dict)  # what moving to the candidate takes
    contract: Mapping[str, Any] = field(default_factory=dict)
    replicas: int | None = None  # pods of the server that is scaled; see decide/scale.py
    selector: str = ""  # label selector of these pods

    @property
    def is_gap(self) -> bool:
        """Whether strategy Recreate has removed the server that clients were sent to, and they reach no other yet."""
        return bool(self.active_revision) and not self.active_fingerprint and not self.moved_to

    def terse(self, characters: int) -> Served:
        """With so many characters of each sentence."""
        refused = {name: text[:characters] for name, text in self.refused.items()}
        return replace(self, astray=self.astray[:characters], refused=refused)

    def to_json(self) -> dict[str, Any]:
        return present(
            {
                "activeFingerprint": self.active_fingerprint,
                "activeRevision": self.active_revision or None,
                "candidateFingerprint": self.candidate_fingerprint,
                "candidateRevision": self.candidate_revision or None,
                "artefactDigest": self.artefact_digest,
                "url": self.url,
                "astray": self.astray,
                "refused": dict(self.refused),
                "evaluatedOn": self.evaluated_on,
                "model": self.model,
                "checkpoint": self.checkpoint.to_json() if self.checkpoint is not None else None,
                "vectorSpace": self.vector_space,
                "candidateVectorSpace": self.candidate_vector_space,
                "contractConfigMap": self.contract_map,
                "canaries": dict(self.canaries),
                "nextURL": self.next_url,
                "movedTo": self.moved_to,
                "drainingFingerprint": self.draining_fingerprint,
                "drainingUntil": self.draining_until,
                "reindex": dict(self.reindex),
                "contract": dict(self.contract),
                "replicas": self.replicas,
                "selector": self.selector,
            }
        )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Served:
        return cls(
            active_fingerprint=raw.get("activeFingerprint", ""),
            active_revision=int(raw.get("activeRevision", 0)),
            candidate_fingerprint=raw.get("candidateFingerprint", ""),
            candidate_revision=int(raw.get("candidateRevision", 0)),
            artefact_digest=raw.get("artefactDigest", ""),
            url=raw.get("url", ""),
            astray=raw.get("astray", ""),
            refused=_refusal(raw.get("refused")),
            evaluated_on=str(raw.get("evaluatedOn") or ""),
            model=raw.get("model", ""),
            checkpoint=_ref(raw.get("checkpoint")),
            vector_space=raw.get("vectorSpace", ""),
            candidate_vector_space=raw.get("candidateVectorSpace", ""),
            contract_map=raw.get("contractConfigMap", ""),
            canaries=_mapping(raw.get("canaries")),
            next_url=raw.get("nextURL", ""),
            moved_to=raw.get("movedTo", ""),
            draining_fingerprint=raw.get("drainingFingerprint", ""),
            draining_until=raw.get("drainingUntil", ""),
            reindex=_mapping(raw.get("reindex")),
            contract=_mapping(raw.get("contract")),
            replicas=int(raw["replicas"]) if "replicas" in raw else None,
            selector=raw.get("selector", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSet:
    """The evaluation set that later revisions are scored on."""

    ref: ArtefactRef
    revision: int  # the first that was Ready with it
    asked: str  # hash of what the manifest said about the labelled set
    made_by: str = ""  # fingerprint of the prep work whose output it is
    queries: int = 0

    def to_json(self) -> dict[str, Any]:
        told = {"revision": self.revision, "asked": self.asked, "madeBy": self.made_by, "queries": self.queries}
        return {**self.ref.to_json(), **told}

    @classmethod
    def from_json(cls, raw: Any) -> FrozenSet | None:
        raw = raw if isinstance(raw, Mapping) else {}
        ref = _ref(raw)
        if ref is None:
            return None
        return cls(
            ref=ref,
            revision=int(raw.get("revision", 0)),
            asked=str(raw.get("asked", "")),
            made_by=str(raw.get("madeBy", "")),
            queries=int(raw.get("queries", 0)),
        )


def _mapping(raw: Any) -> dict[str, Any]:
    """Empty where somebody has made something else of it."""
    return dict(raw) if isinstance(raw, Mapping) else {}


def _refusal(raw: Any) -> dict[str, str]:
    """Empty where it cannot be told."""
    told = _mapping(raw)
    whole = all(isinstance(told.get(name), str) and told[name] for name in ("reason", "message"))
    return {name: told[name] for name in ("reason", "message")} if whole else {}


def _ref(raw: Any) -> ArtefactRef | None:
    """An artefact's reference, or None where there is none to be read."""
    try:
        return ArtefactRef(path=str(raw["path"]), digest=str(raw["digest"]))
    except (KeyError, TypeError):
        return None
