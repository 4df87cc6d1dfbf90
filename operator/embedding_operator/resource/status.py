"""The status as frozen values, to and from JSON. What is not here is not remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from embedding_stages.contract import Artefact, ArtefactRef, Stage

State = Literal["Pending", "Waiting", "Running", "Succeeded", "Reused", "Skipped", "Failed"]
ConditionStatus = Literal["True", "False", "Unknown"]
# What a stage says of itself is cut, or one talkative image would make every status write be refused.
_MESSAGE_CHARACTERS: Final = 1024
_REASON_CHARACTERS: Final = 64
_MEMORY: Final = frozenset({"broken", "ranUntil", "imageIDs", "imageID"})
_FIXED_BELOW: Final = 1e6
# Every pass reads and every watch carries the whole status.
_STATUS_BYTES: Final = 31 << 10
_SHORT_CHARACTERS: Final = 128
_SHORT_LOG_CHARACTERS: Final = 512
# Something in the workspace is not what its stage wrote.
DAMAGED: Final = frozenset({"ArtefactMismatch", "ArtefactDamaged", "ArtefactMissing", "ArtefactUnsafe"})
DONE_STATES: tuple[State, ...] = ("Succeeded", "Reused", "Skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """One stage of the current revision. Done-ness lives here, never in the existence of a Job."""

    name: Stage
    state: State = "Pending"
    reason: str = "NotStarted"
    message: str = ""
    fingerprint: str = ""
    image: str = ""
    job_name: str = ""
    attempt: int = 0
    distrusted: int = 0  # results of attempts up to this one are not taken: the workspace was tampered with since
    revision: int = 0  # the revision that did the work
    reused_from: int | None = None
    started_at: str = ""
    finished_at: str = ""
    percent: int | None = None
    step: int = 0
    total_steps: int = 0
    eta_seconds: int | None = None
    artefacts: Mapping[Artefact, ArtefactRef] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)  # the stage's own words
    broken: bool = False  # what the stage waits for will not come unless somebody acts
    ran_until: str = ""  # when its Job was last seen running, while it waits again
    image_ids: Sequence[str] = ()  # digests of the images that its pods run; of the server, all that were measured
    restores: int = 0  # how often its Deployment was restored in a row, after somebody else had changed it
    restored_at: str = ""  # when it was last
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.state in DONE_STATES

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name.value,
            "state": self.state,
            "reason": self.reason[:_REASON_CHARACTERS],
            "message": self.message[:_MESSAGE_CHARACTERS],
            "fingerprint": self.fingerprint,
            "image": self.image,
            "jobName": self.job_name,
            "attempt": self.attempt,
            "distrustedAttempts": self.distrusted or None,
            "revision": self.revision,
            "reusedFrom": self.reused_from,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "artefacts": {name.value: ref.to_json() for name, ref in self.artefacts.items()},
            "counts": dict(self.counts),
            "details": dict(self.details),
            "broken": self.broken or None,
            "ranUntil": self.ran_until,
            "imageIDs": list(self.image_ids),
            "restores": self.restores or None,
            "restoredAt": self.restored_at,
            "metrics": {kind: {k: decimal_text(v) for k, v in values.items()} for kind, values in self.metrics.items()},
        }
        if self.percent is not None:
            body["progress"] = _present(
                {
                    "percent": self.percent,
                    "step": self.step,
                    "totalSteps": self.total_steps,
                    "etaSeconds": self.eta_seconds,
                }
            )
        return _present(body)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> StageStatus:
        progress: Mapping[str, Any] = raw.get("progress") or {}
        details: Mapping[str, Any] = raw.get("details") or {}
        # An earlier release kept the operator's memory among the stage's details.
        memory = {key: details[key] for key in ("broken", "ranUntil", "imageIDs") if key in details} | {**raw}
        return cls(
            name=Stage(raw["name"]),
            state=raw.get("state", "Pending"),
            reason=raw.get("reason", "NotStarted"),
            message=raw.get("message", ""),
            fingerprint=raw.get("fingerprint", ""),
            image=raw.get("image", ""),
            job_name=raw.get("jobName", ""),
            attempt=int(raw.get("attempt", 0)),
            distrusted=int(raw.get("distrustedAttempts", 0)),
            revision=int(raw.get("revision", 0)),
            reused_from=raw.get("reusedFrom"),
            started_at=raw.get("startedAt", ""),
            finished_at=raw.get("finishedAt", ""),
            percent=progress.get("percent"),
            step=int(progress.get("step", 0)),
            total_steps=int(progress.get("totalSteps", 0)),
            eta_seconds=progress.get("etaSeconds"),
            artefacts={
                Artefact(k): ArtefactRef(path=v["path"], digest=v["digest"])
                for k, v in (raw.get("artefacts") or {}).items()
            },
            counts=dict(raw.get("counts") or {}),
            details={key: value for key, value in details.items() if key not in _MEMORY},
            broken=bool(memory.get("broken")),
            ran_until=memory.get("ranUntil", ""),
            restores=int(raw.get("restores", 0)),
            restored_at=raw.get("restoredAt", ""),
            image_ids=tuple(memory.get("imageIDs") or ()),
            metrics={k: {m: float(x) for m, x in v.items()} for k, v in (raw.get("metrics") or {}).items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A Kubernetes condition (meta/v1)."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str

    def to_json(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": self.last_transition_time,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Condition:
        return cls(
            type=raw["type"],
            status=raw["status"],
            reason=raw.get("reason", ""),
            message=raw.get("message", ""),
            observed_generation=int(raw.get("observedGeneration", 0)),
            last_transition_time=raw.get("lastTransitionTime", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Which revision clients talk to. `active` is set only after its verification."""

    active_fingerprint: str = ""
    active_revision: int = 0
    candidate_fingerprint: str = ""
    candidate_revision: int = 0
    artefact_digest: str = ""
    url: str = ""
    model: str = ""
    contract: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return _present(
            {
                "activeFingerprint": self.active_fingerprint,
                "activeRevision": self.active_revision or None,
                "candidateFingerprint": self.candidate_fingerprint,
                "candidateRevision": self.candidate_revision or None,
                "artefactDigest": self.artefact_digest,
                "url": self.url,
                "model": self.model,
                "contract": dict(self.contract),
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
            model=raw.get("model", ""),
            contract=dict(raw.get("contract") or {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything the operator remembers about a resource."""

    observed_generation: int = -1
    revision: int = 0
    phase: str = "Pending"
    current_stage: str = ""
    progress: str = ""
    uplift: str = ""
    stages: Sequence[StageStatus] = ()
    conditions: Sequence[Condition] = ()
    served: Served = field(default_factory=Served)
    metrics: Mapping[str, Any] = field(default_factory=dict)  # as shown: decimals are strings
    verification: Mapping[str, Any] = field(default_factory=dict)
    last_failure: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)

    def stage(self, name: Stage) -> StageStatus:
        return next((item for item in self.stages if item.name is name), StageStatus(name=name))

    def with_stage(self, item: StageStatus) -> Status:
        known = {old.name: old for old in self.stages} | {item.name: item}
        return replace(self, stages=tuple(known[name] for name in Stage if name in known))

    def condition(self, kind: str) -> Condition | None:
        return next((item for item in self.conditions if item.type == kind), None)

    def to_json(self) -> dict[str, Any]:
        body = _present(
            {
                "observedGeneration": self.observed_generation,
                "revision": self.revision,
                "phase": self.phase,
                "currentStage": self.current_stage,
                "progress": self.progress,
                "uplift": self.uplift,
                "stages": [item.to_json() for item in self.stages],
                "conditions": [item.to_json() for item in self.conditions],
                "served": self.served.to_json(),
                "metrics": dict(self.metrics),
                "verification": dict(self.verification),
                "lastFailure": dict(self.last_failure),
                "resolved": dict(self.resolved),
            }
        )
        return body if _size(body) <= _STATUS_BYTES else _shortened(body)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> Status:
        """A status that nobody wrote yet, or one that was edited beyond reading, starts afresh stage by stage."""
        raw = raw or {}
        return cls(
            observed_generation=int(raw.get("observedGeneration", -1)),
            revision=int(raw.get("revision", 0)),
            phase=raw.get("phase", "Pending"),
            current_stage=raw.get("currentStage", ""),
            progress=raw.get("progress", ""),
            uplift=raw.get("uplift", ""),
            stages=tuple(_readable_stages(raw.get("stages") or ())),
            conditions=tuple(Condition.from_json(item) for item in raw.get("conditions") or ()),
            served=Served.from_json(raw.get("served") or {}),
            metrics=dict(raw.get("metrics") or {}),
            verification=dict(raw.get("verification") or {}),
            last_failure=dict(raw.get("lastFailure") or {}),
            resolved=dict(raw.get("resolved") or {}),
        )


def _readable_stages(raw: Sequence[Mapping[str, Any]]) -> list[StageStatus]:
    found = []
    for item in raw:
        try:
            found.append(StageStatus.from_json(item))
        except (
            KeyError,
            ValueError,
            TypeError,
        ):  # a stage of another version: its work is found again by its Job
            continue
    return found


def _size(body: Mapping[str, Any]) -> int:
    return len(json.dumps(body).encode())


def _shortened(body: dict[str, Any]) -> dict[str, Any]:
    """Without what is least missed: what finished stages had to say, and most of a failed one's log."""
    done = [item for item in body.get("stages", ()) if item["state"] in DONE_STATES]
    good = [item for item in body.get("conditions", ()) if item["status"] == "True" and item["type"] != "Stalled"]
    for item in (*done, *good):
        if "message" in item:
            item["message"] = item["message"][:_SHORT_CHARACTERS]
    failure = body.get("lastFailure", {})
    if "logTail" in failure:
        failure["logTail"] = failure["logTail"][-_SHORT_LOG_CHARACTERS:]
    return body


def _present(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty values: a field that says nothing is not written. Zero and False say something."""
    return {key: value for key, value in raw.items() if value is not None and value not in ("", {}, [])}


def decimal_text(value: float) -> str:
    """Five places, as BEIR rounds; a figure that is no metric at all stays short."""
    return f"{value:.5f}" if abs(value) < _FIXED_BELOW else f"{value:.5g}"
