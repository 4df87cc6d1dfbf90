"""The status as frozen values, to and from JSON. What is not here is not remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from embedding_operator.resource.folding import folded, written_out
from embedding_operator.resource.restored import Restored, restored_from_json
from embedding_operator.resource.schedule_status import ScheduleStatus
from embedding_operator.resource.served_status import FrozenSet, Served
from embedding_operator.resource.stage_status import StageStatus, State, decimal_text, present
from embedding_operator.resource.times import stamp
from embedding_stages.contract import Stage

__all__ = [
    "DAMAGED",
    "PINNED",
    "SCALING",
    "TAKEN",
    "Condition",
    "ConditionStatus",
    "FrozenSet",
    "Served",
    "StageStatus",
    "StageWarning",
    "State",
    "Status",
    "decimal_text",
]

ConditionStatus = Literal["True", "False", "Unknown"]
# Every pass reads and every watch carries the whole status.
_STATUS_BYTES: Final = 31 << 10
_SHORT_CHARACTERS: Final = 80
_LEAST_MISSED: Final = frozenset({"skipped", "languages"})  # of a stage's details
_SHORT_LOG_CHARACTERS: Final = 120
_SHORT_MESSAGE_CHARACTERS: Final = 128
_SHORTEST: Final = 16
# Something in the workspace is not what its stage wrote.
DAMAGED: Final = frozenset({"ArtefactMismatch", "ArtefactDamaged", "ArtefactMissing", "ArtefactUnsafe"})

PINNED: Final = "PinnedRevision"  # the reason of a stage that does not run because an earlier revision serves again

# Of `resolved`:
SCALING: Final = "scaling"  # see decide/scale.py
SERVER_IMAGES: Final = "serverImages"  # see decide/rollout.py
LIMITS: Final = "limits"  # of the run; see resource/limits.py
MEASURED: Final = "measured"  # the revision whose server measured as it should; see decide/usage.py
TAKEN: Final = "taken"  # server, image and kind of model that served together; see resource/served.py


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
class StageWarning:
    """What a finished stage warns of, or what its figures do."""

    stage: Stage
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"stage": self.stage.value, "message": self.message}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> StageWarning:
        return cls(stage=Stage(raw["stage"]), message=str(raw["message"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything the operator remembers about a resource."""

    observed_generation: int = -1
    revision: int = 0
    phase: str = "Pending"
    current_stage: str = ""
    progress: str = ""
    ndcg: str = ""  # NDCG@10 and its uplift as the columns show them: see decide/figures
    uplift: str = ""
    warnings: Sequence[StageWarning] = ()
    stages: Sequence[StageStatus] = ()
    conditions: Sequence[Condition] = ()
    served: Served = field(default_factory=Served)
    metrics: Mapping[str, Any] = field(default_factory=dict)  # as shown: decimals are strings
    verification: Mapping[str, Any] = field(default_factory=dict)
    evaluation_set: FrozenSet | None = None
    history: Sequence[Mapping[str, Any]] = ()  # revisions that can be pinned, the oldest first
    last_failure: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)
    preflight: Mapping[str, Any] = field(default_factory=dict)  # revision, state, untried; see decide/preflight.py
    image_check: Mapping[str, Any] = field(default_factory=dict)  # see decide/image_check.py
    run: Mapping[str, Any] = field(default_factory=dict)  # of this revision; see decide/usage.py
    schedule: ScheduleStatus = field(default_factory=ScheduleStatus)  # see decide/schedule.py
    restored: Mapping[str, Restored] = field(default_factory=dict)  # objects that others change; see decide/drift.py

    def stage(self, name: Stage) -> StageStatus:
        for item in self.stages:
            if item.name is name:
                return item
        return StageStatus(name=name)

    def revision_of(self, generation: int) -> int:
        """The number of the revision that a generation of the manifest makes: looks at the sources make some too, and
        edits that only scale make none.
        """
        return generation + self.schedule.revisions - self.scalings

    @property
    def scalings(self) -> int:
        """How many generations only scaled; see decide/scale.py."""
        known = self.resolved.get(SCALING)
        edits = known.get("edits") if isinstance(known, Mapping) else None
        return edits if isinstance(edits, int) else 0

    def done_by(self, stage: Stage, fingerprint: str) -> StageStatus:
        """The entry that a Job of the stage works for: the look at the sources that is under way, or the stage's."""
        look = self.schedule.look
        return (
            look if look is not None and look.fingerprint == fingerprint and look.name is stage else self.stage(stage)
        )

    def has_judged(self, stage: Stage, fingerprint: str, revision: int, created: datetime) -> bool:
        """Whether nothing is to be learned any more from a Job of this work: how it ended is on record, or it is of an
        earlier revision, which asked for other work. What is on record may be older than the Job.

        Beside the inputs of a revision there are looks at the sources, which have its number; their Jobs are told apart
        by when they were made.
        """
        if revision > self.revision:  # as where a cure asks for the same work again
            return False
        entry = self.done_by(stage, fingerprint)
        if entry.fingerprint == fingerprint:
            return entry.done or entry.state == "Failed"
        if stage is Stage.INPUTS and revision == self.revision and self.schedule.next_look:
            return stamp(created) <= self.schedule.last_look
        return revision < self.revision

    def with_stage(self, item: StageStatus) -> Status:
        known = {old.name: old for old in self.stages} | {item.name: item}
        return replace(self, stages=tuple(known[name] for name in Stage if name in known))

    @property
    def at_rest(self) -> bool:
        """Whether the last pass left it Ready: an upgrade writes nothing into the status of such a one."""
        return self.phase == "Ready"

    def condition(self, kind: str) -> Condition | None:
        return next((item for item in self.conditions if item.type == kind), None)

    def to_json(self) -> dict[str, Any]:
        body = folded(self._body())
        if _size(body) <= _STATUS_BYTES:
            return body
        terse = replace(
            self,
            stages=_terse(self.stages),
            image_check=_terse_check(self.image_check),
            served=self.served.terse(_SHORTEST),
            restored={what: replace(item, said=item.said[:_SHORTEST]) for what, item in self.restored.items()},
        )
        return _shortened(folded(terse._body()))

    def _body(self) -> dict[str, Any]:
        return present(
            {
                "observedGeneration": self.observed_generation,
                "revision": self.revision,
                "phase": self.phase,
                "currentStage": self.current_stage,
                "progress": self.progress,
                "ndcg@10": self.ndcg,
                "uplift": self.uplift,
                "warnings": [item.to_json() for item in self.warnings],
                "stages": [item.to_json() for item in self.stages],
                "conditions": [item.to_json() for item in self.conditions],
                "served": self.served.to_json(),
                "metrics": dict(self.metrics),
                "verification": dict(self.verification),
                "evaluationSet": self.evaluation_set.to_json() if self.evaluation_set is not None else None,
                "history": [dict(item) for item in self.history],
                "lastFailure": dict(self.last_failure),
                "resolved": dict(self.resolved),
                "preflight": dict(self.preflight),
                "imageCheck": dict(self.image_check),
                "run": dict(self.run),
                "schedule": self.schedule.to_json(),
                "restored": {what: item.to_json() for what, item in self.restored.items()},
            }
        )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> Status:
        """A status that nobody wrote yet, or one that was edited beyond reading, starts afresh stage by stage."""
        raw = written_out(raw or {})
        return cls(
            observed_generation=int(raw.get("observedGeneration", -1)),
            revision=int(raw.get("revision", 0)),
            phase=raw.get("phase", "Pending"),
            current_stage=raw.get("currentStage", ""),
            progress=raw.get("progress", ""),
            ndcg=raw.get("ndcg@10", ""),
            uplift=raw.get("uplift", ""),
            warnings=tuple(_readable(StageWarning.from_json, raw.get("warnings") or ())),
            stages=tuple(_readable(StageStatus.from_json, raw.get("stages") or ())),
            conditions=tuple(Condition.from_json(item) for item in raw.get("conditions") or ()),
            served=Served.from_json(raw.get("served") or {}),
            metrics=dict(raw.get("metrics") or {}),
            verification=dict(raw.get("verification") or {}),
            evaluation_set=FrozenSet.from_json(raw.get("evaluationSet")),
            history=tuple(dict(item) for item in raw.get("history") or () if isinstance(item, Mapping)),
            last_failure=dict(raw.get("lastFailure") or {}),
            resolved=dict(raw.get("resolved") or {}),
            preflight=dict(raw.get("preflight") or {}),
            image_check=dict(raw.get("imageCheck") or {}),
            run=dict(raw.get("run") or {}),
            schedule=ScheduleStatus.from_json(raw.get("schedule")),
            restored=restored_from_json(raw.get("restored")),
        )


_Item = TypeVar("_Item")


def _readable(read: Callable[[Mapping[str, Any]], _Item], raw: Sequence[Mapping[str, Any]]) -> list[_Item]:
    """Without what another version wrote otherwise: a stage's work is found again by its Job."""
    found = []
    for item in raw:
        try:
            found.append(read(item))
        except (KeyError, ValueError, TypeError):
            continue
    return found


def _size(body: Mapping[str, Any]) -> int:
    return len(json.dumps(body).encode())


def _terse(stages: Sequence[StageStatus]) -> tuple[StageStatus, ...]:
    """What finished stages had to say is least missed."""
    return tuple(
        replace(
            item,
            message=item.message[:_SHORT_CHARACTERS],
            details={name: said for name, said in item.details.items() if name not in _LEAST_MISSED},
        )
        if item.done
        else item
        for item in stages
    )


def _terse_check(check: Mapping[str, Any]) -> Mapping[str, Any]:
    """The beginning of each cause tells an image that is not there from one that is denied."""
    wrong = check.get("wrong") or {}
    return {**check, "wrong": {key: str(cause)[:_SHORT_CHARACTERS] for key, cause in wrong.items()}} if wrong else check


def _shortened(body: dict[str, Any]) -> dict[str, Any]:
    """Without what is least missed after that: what good conditions say, most of a failed stage's log."""
    good = [item for item in body.get("conditions", ()) if item["status"] == "True" and item["type"] != "Stalled"]
    for item in (*good, *body.get("warnings", ())):
        if "message" in item:
            item["message"] = item["message"][:_SHORT_CHARACTERS]
    failure = body.get("lastFailure", {})
    if "message" in failure:  # the stage says it in full
        failure["message"] = failure["message"][:_SHORT_MESSAGE_CHARACTERS]
    if "logTail" in failure:
        failure["logTail"] = failure["logTail"][-_SHORT_LOG_CHARACTERS:]
    return body
