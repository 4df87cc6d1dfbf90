"""The status of one stage as a frozen value, to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from embedding_operator.resource.usage import Usage
from embedding_stages.contract import Artefact, ArtefactRef, Stage

State = Literal["Pending", "Waiting", "Running", "Succeeded", "Reused", "Skipped", "Failed"]
# What a stage says of itself is cut, or one talkative image would make every status write be refused.
_MESSAGE_CHARACTERS: Final = 1024
_REASON_CHARACTERS: Final = 64
_MEMORY: Final = frozenset({"broken", "ranUntil", "imageIDs", "imageID"})
_FIXED_BELOW: Final = 1e6
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
    progress_at: str = ""  # when the pod's log said so
    loss: float | None = None
    rate: str = ""  # with its unit
    usage: Usage = field(default_factory=Usage)  # in the run of the status's revision
    took_s: int | None = None  # when it was last done
    artefacts: Mapping[Artefact, ArtefactRef] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)  # the stage's own words
    broken: bool = False  # what the stage waits for will not come unless somebody acts
    ran_until: str = ""  # when its Job was last seen running, while it waits again
    image_ids: Sequence[str] = ()  # digests of the images that its pods run; of the server, all that were measured
    active_may_know: bool = False  # of eval: what serves may have trained on the questions; see decide/compared.py
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.state in DONE_STATES

    def anew(self, attempt: int) -> StageStatus:
        """To be asked again. Nothing that attempts up to this one did is believed, whatever they were asked for: those
        at other work have their own numbers.
        """
        return StageStatus(name=self.name, attempt=attempt, distrusted=attempt, took_s=self.took_s, usage=self.usage)

    def remembered(self) -> StageStatus:
        """Pending, with what is needed to recognise its work again."""
        return replace(
            self,
            state="Pending",
            reason="NotStarted",
            message="",
            percent=None,
            reused_from=None,
            details=self.details if self.artefacts else {},
            broken=False,
            ran_until="",
        )

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
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
            "activeMayKnow": self.active_may_know or None,
            "usage": self.usage.to_list() if self.done else self.usage.to_json(),
            "tookSeconds": self.took_s,
            "metrics": {kind: {k: decimal_text(v) for k, v in values.items()} for kind, values in self.metrics.items()},
        }
        if self.percent is not None:
            body["progress"] = present(
                {
                    "percent": self.percent,
                    "step": self.step,
                    "totalSteps": self.total_steps,
                    "etaSeconds": self.eta_seconds,
                    "at": self.progress_at,
                    "loss": None if self.loss is None else f"{self.loss:.5g}",
                    "rate": self.rate,
                }
            )
        return present(body)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> StageStatus:
        """Read what `to_json` or an earlier release wrote. Raises KeyError, ValueError, TypeError."""
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
            progress_at=progress.get("at", ""),
            loss=float(progress["loss"]) if "loss" in progress else None,
            rate=str(progress.get("rate", "")),
            usage=Usage.from_json(raw.get("usage")),
            took_s=int(raw["tookSeconds"]) if "tookSeconds" in raw else None,
            artefacts={
                Artefact(k): ArtefactRef(path=v["path"], digest=v["digest"])
                for k, v in (raw.get("artefacts") or {}).items()
            },
            counts=dict(raw.get("counts") or {}),
            details={key: value for key, value in details.items() if key not in _MEMORY},
            broken=bool(memory.get("broken")),
            ran_until=memory.get("ranUntil", ""),
            image_ids=tuple(memory.get("imageIDs") or ()),
            active_may_know=bool(raw.get("activeMayKnow")),
            metrics={k: {m: float(x) for m, x in v.items()} for k, v in (raw.get("metrics") or {}).items()},
        )


def present(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty values: a field that says nothing is not written. Zero and False say something."""
    return {key: value for key, value in raw.items() if value is not None and value not in ("", {}, [])}


def decimal_text(value: float) -> str:
    """Five places, as BEIR rounds; a figure that is no metric at all stays short."""
    return f"{value:.5f}" if abs(value) < _FIXED_BELOW else f"{value:.5g}"
