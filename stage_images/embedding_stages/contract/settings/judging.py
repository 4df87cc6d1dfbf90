"""How a revision is measured, judged and watched."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_stages.contract.declare import Table, setting
from embedding_stages.contract.settings.common import (
    DEFAULT_GATE_METRICS,
    DEFAULT_K_VALUES,
    JOINED,
    METRIC,
    METRIC_FORM,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Table):
    FIELD = "spec.evaluation"

    freeze: bool = setting(
        True,
        since=JOINED,
        says="Score later revisions on the evaluation set of the first one that was Ready; false takes a new set.",
    )
    kValues: tuple[int, ...] = setting(
        DEFAULT_K_VALUES,
        low=1,
        high=10_000,
        fewest=1,
        most=16,
        says="Cut-offs of the metrics, in rising order and 10 among them.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard(Table):
    """A further labelled set on which the tuned model may not fall far behind the base model."""

    FIELD = "spec.evaluation.guards"

    name: str = setting(
        since=JOINED,
        shortest=1,
        longest=32,
        pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        form="a-z, 0-9 and '-', with a letter or digit at both ends, such as general-2",
        says="Name of the set, in messages.",
    )
    maxRegression: float = setting(
        0.02, since=JOINED, low=0, high=1, says="How far NDCG@10 may fall below the base model's, absolute."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates(Table):
    """What a revision must measure before it may be exported and served."""

    FIELD = "spec.gates"

    enabled: bool = setting(True, since=JOINED, says="Whether a revision is judged before it is exported.")
    metrics: tuple[str, ...] = setting(
        DEFAULT_GATE_METRICS,
        since=JOINED,
        fewest=1,
        most=4,
        longest=16,
        pattern=METRIC,
        form=METRIC_FORM,
        says="Metrics that are judged; their cut-offs must be among evaluation.kValues.",
    )
    minRelativeUplift: float | None = setting(
        None,
        since=JOINED,
        low=0,
        high=10,
        says="Least relative change of NDCG@10 against the base model, whatever gates.metrics has. "
        "When absent what maxRegression.base allows.",
    )
    criterion: str = setting(
        "PointEstimate",
        since=JOINED,
        choices=("PointEstimate", "NotInferior", "Better"),
        says="What has to be within the limits: the measured difference, or the lower end of its one-sided 95 % "
        "interval (NotInferior). Better: that end above 0.",
    )
    onFail: str = setting(
        "Stop",
        since=JOINED,
        choices=("Stop", "Warn"),
        says="Stop: the revision is not exported and gets no traffic. Warn: it goes on, and its status says so.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxRegression(Table):
    """How far a metric may fall, absolute."""

    FIELD = "spec.gates.maxRegression"

    base: float = setting(0.0, since=JOINED, low=0, high=1, says="Below the base model's, absolute.")
    active: float = setting(
        0.01, since=JOINED, low=0, high=1, says="Below that of the revision that serves now, absolute."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance(Table):
    FIELD = "spec.tolerance"

    atOne: float | None = setting(
        None,
        low=0,
        high=1,
        says="At k below 5. When absent 0.01 where the evaluation computed in float32, 0.03 where in bfloat16.",
    )
    atFiveAndAbove: float | None = setting(
        None,
        low=0,
        high=1,
        says="At k of 5 and above. When absent 0.005 where the evaluation computed in float32, 0.01 where in bfloat16.",
    )
    minCosine: float | None = setting(
        None,
        since=JOINED,
        low=0,
        high=1,
        says="Least cosine between a canary's vectors, served and evaluated. When absent 0.999, or "
        "stages.export.minCosine where that is less; where the served model is quantized stages.export.minCosine, or "
        "0.97 for fp8 and 0.9 for int8.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Table):
    """How what serves is watched after it was verified."""

    FIELD = "spec.verification"

    intervalSeconds: int | None = setting(
        None,
        since=JOINED,
        low=60,
        high=604_800,
        says="How often the canaries of the contract are sent to what serves, seconds; never when absent.",
    )
