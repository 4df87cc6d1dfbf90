"""How often the gates let a worse model get traffic, and how often they stop a better one.

python3 bench/gates.py [--revisions 500] [--samples 10000]

Seeded revisions with a known true effect are compared by the eval stage's bootstrap and judged by the operator's gates
under a manifest that says nothing but the criterion. The scores are synthetic, so that the truth is known. A resource
has its own questions and is trained five times. Each revision is compared with the base model and with what serves
then, the last revision that passed, on the same questions: the set is frozen, so a model has the same scores each time.

The true effect is a difference of NDCG@10 to the base model over all questions that might be asked, drawn from -0.15 to
0.15. A revision is truly worse where its truth lies 0.03 or more below the base model's or below that of what serves,
truly better where it lies 0.03 or more above both. What lies between is neither, and either verdict on it is right.

Shapes of the scores:
- normal: both metrics have the same true effect, and differences between any two models have a standard deviation of
  0.25 a question, with a correlation of 0.6 between NDCG@10 and Recall@10. Scores are not bounded; only their
  differences count.
- ranks: each question has one relevant passage, whose rank follows from the question's difficulty, the model and
  chance. The metrics follow from the rank, as in real evaluations: most differences are 0, some are large. NDCG@10 is
  0.59 and Recall@10 0.74 for the base model, the standard deviation of NDCG@10's differences is 0.25 for equal models,
  that of Recall@10's 0.35.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "operator"), str(ROOT / "stage_images")]

from embedding_operator.decide.gates import judge_gates  # noqa: E402
from embedding_operator.resource.api import TORCH_SERVER, Spec  # noqa: E402
from embedding_operator.resource.spec import parse_spec  # noqa: E402
from embedding_operator.resource.status import Served, StageStatus  # noqa: E402
from embedding_stages.contract import Stage  # noqa: E402
from embedding_stages.evaluate.bootstrap import SAMPLES  # noqa: E402
from embedding_stages.evaluate.comparison import compare  # noqa: E402

COUNTS: Final = (50, 100, 300, 1000)
CRITERIA: Final = ("PointEstimate", "NotInferior", "Better")
MARGIN: Final = 0.03
_WIDEST: Final = 0.15  # true effect
OF_A_RESOURCE: Final = 5
_SEED: Final = 7
_NDCG, _RECALL = "ndcg@10", "recall@10"
_PAIRED: Final = 0.25
_CORRELATION: Final = 0.6  # that of the shape `ranks`
# Of the logarithm of the relevant passage's rank: mean and standard deviation over questions, and the part of the
# latter that is the model's own.
_MIDDLE, _SPREAD, _OWN = 0.36, 3.0, 0.98
_IMAGES: Final = {name: f"bench.test/{name}:1" for name in (*Stage, TORCH_SERVER)}

Floats = NDArray[np.float64]
Shape = Callable[[np.random.Generator, int], "Callable[[float], Model]"]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model with its score for each question; `effect` is the truth, over all questions."""

    effect: float
    scores: Mapping[str, Sequence[float]]
    beside: dict[tuple[Model, int], Mapping[str, list[float]]] = field(default_factory=dict)  # see _compared


@dataclass(frozen=True, slots=True)
class Resource:
    """The models of one resource, on its questions."""

    base: Model
    revisions: Sequence[Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one revision."""

    least: float  # the smaller one of its true differences to the base model and to what served
    passed: bool
    detectable: float

    @property
    def worse(self) -> bool:
        return self.least <= -MARGIN

    @property
    def better(self) -> bool:
        return self.least >= MARGIN


def normal(generator: np.random.Generator, questions: int) -> Callable[[float], Model]:
    """effect -> a model, on questions that are drawn once."""
    level = generator.uniform(0.2, 1.0, questions)

    def model(effect: float) -> Model:
        ndcg, own = generator.normal(0.0, _PAIRED / 2**0.5, (2, questions))
        recall = _CORRELATION * ndcg + (1 - _CORRELATION**2) ** 0.5 * own
        return _model(effect, level + effect + ndcg, level + effect + recall)

    return model


def ranks(generator: np.random.Generator, questions: int) -> Callable[[float], Model]:
    """The same for scores that follow from ranks."""
    difficulty = generator.normal(_MIDDLE, (_SPREAD**2 - _OWN**2) ** 0.5, questions)

    def model(effect: float) -> Model:
        noise = generator.normal(0.0, _OWN, questions)
        rank = 1.0 + np.floor(np.exp(difficulty + noise - _shift(effect)))
        found = rank <= 10
        return _model(effect, np.where(found, 1.0 / np.log2(1.0 + rank), 0.0), found.astype(np.float64))

    return model


SHAPES: Final[Mapping[str, Shape]] = {"normal": normal, "ranks": ranks}


def _model(effect: float, ndcg: Floats, recall: Floats) -> Model:
    return Model(effect, {_NDCG: ndcg.tolist(), _RECALL: recall.tolist()})


def _shift(effect: float) -> float:
    """How far the logarithm of the rank has to fall for this effect on the mean of NDCG@10."""
    shifts, means = _means()
    return float(np.interp(effect, means, shifts))


@cache
def _means() -> tuple[Floats, Floats]:
    """(shifts, true effects on NDCG@10), both rising."""
    shifts = np.linspace(-4.0, 4.0, 801)

    def mean(shift: float) -> float:
        law = NormalDist(_MIDDLE - shift, _SPREAD)
        below = [0.0, *(law.cdf(float(np.log(rank))) for rank in range(1, 11))]
        return sum((below[rank] - below[rank - 1]) / float(np.log2(1 + rank)) for rank in range(1, 11))

    return shifts, np.array([mean(float(shift)) - mean(0.0) for shift in shifts])


def random_resources(
    shape: Shape, questions: int, revisions: int, *, of_each: int = OF_A_RESOURCE, seed: int = _SEED
) -> list[Resource]:
    """Resources with `revisions` in all and `of_each` of one resource; the true effects are drawn."""
    generator = np.random.default_rng([seed, questions])
    found = []
    for _ in range(revisions // of_each):
        model = shape(generator, questions)
        effects = generator.uniform(-_WIDEST, _WIDEST, of_each)
        found.append(Resource(model(0.0), [model(float(effect)) for effect in effects]))
    return found


def same_resources(shape: Shape, questions: int, effects: Sequence[float], count: int) -> list[Resource]:
    """`count` resources whose revisions have these true effects, in this order."""
    generator = np.random.default_rng([_SEED, questions])
    models = (shape(generator, questions) for _ in range(count))
    return [Resource(model(0.0), [model(effect) for effect in effects]) for model in models]


def a_spec(**gates: Any) -> Spec:
    """The parsed manifest that says as little as possible, and `gates`."""
    raw = {
        "baseModel": {"name": "base", "source": {"pvc": {"claimName": "models", "path": "base"}}},
        "corpus": {"source": {"configMap": {"name": "docs"}}},
        "stages": {"sdg": {"provider": {"extractive": {}}}},
        **({"gates": gates} if gates else {}),
    }
    return parse_spec(raw, _IMAGES)


def _compared(before: Model, after: Model, samples: int) -> Mapping[str, list[float]]:
    """By metric, as the eval stage tells it. Kept, because the criteria ask for the same comparisons."""
    if (before, samples) not in after.beside:
        after.beside[before, samples] = {
            metric: compare(before.scores[metric], after.scores[metric], samples=samples).to_json()
            for metric in after.scores
        }
    return after.beside[before, samples]


def judge(resources: Iterable[Resource], spec: Spec, *, samples: int) -> Iterator[Verdict]:
    """Every revision in its order, with what served when it came."""
    for resource in resources:
        active, served = None, Served()
        for number, revision in enumerate(resource.revisions, start=1):
            comparisons = {"base": _compared(resource.base, revision, samples)}
            truth = [revision.effect]
            if active is not None:
                comparisons["active"] = _compared(active, revision, samples)
                truth.append(revision.effect - active.effect)
            evaluated = StageStatus(
                name=Stage.EVAL,
                revision=number,
                counts={"queries": len(revision.scores[_NDCG])},
                details={"comparisons": comparisons},
            )
            gate = judge_gates(evaluated, spec.gates, spec.guards, served)
            yield Verdict(least=min(truth), passed=gate.passed, detectable=comparisons["base"][_NDCG][3])
            if gate.passed:
                active, served = revision, Served(active_fingerprint=f"{number:064x}", active_revision=number)


def shares(verdicts: Sequence[Verdict]) -> tuple[Sequence[Verdict], float, Sequence[Verdict], float]:
    """(the truly worse, the share of them that passed, the truly better, the share of them that was blocked)."""
    worse, better = [item for item in verdicts if item.worse], [item for item in verdicts if item.better]
    return (
        worse,
        sum(item.passed for item in worse) / max(len(worse), 1),
        better,
        sum(not item.passed for item in better) / max(len(better), 1),
    )


def _row(label: str, verdicts: Sequence[Verdict]) -> str:
    worse, passed, better, blocked = shares(verdicts)
    told = float(np.mean([item.detectable for item in verdicts]))
    return f"| {label} | {told:.3f} | {len(worse)} | {passed:.1%} | {len(better)} | {blocked:.1%} |"


def _share(verdicts: Iterable[Verdict], *, passed: bool) -> str:
    """Of the last revision of each resource."""
    found = [item.passed is passed for item in verdicts]
    return f"{sum(found) / len(found):.1%}"


def border(shape: Shape, questions: int, spec: Spec, count: int) -> list[str]:
    """A true difference of exactly 0.03: worse passes, better is blocked; against the base model, then what serves."""
    serving = 0.1

    def last(*effects: float) -> list[Verdict]:
        return list(judge(same_resources(shape, questions, effects, count), spec, samples=1))[
            len(effects) - 1 :: len(effects)
        ]

    return [
        _share(last(-MARGIN), passed=True),
        _share(last(MARGIN), passed=False),
        _share(last(serving, serving - MARGIN), passed=True),
        _share(last(serving, serving + MARGIN), passed=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revisions", type=int, default=500)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of the bootstrap")
    parser.add_argument("--border", type=int, default=2000, help="revisions a figure at a difference of exactly 0.03")
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA, default=CRITERIA)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=tuple(SHAPES))
    options = parser.parse_args()
    for name in options.shapes:
        shape = SHAPES[name]
        print(f"\nscores: {name}\n\n| n | criterion | told | worse | of them passed | better | of them blocked |")
        print("|---:|---|---:|---:|---:|---:|---:|")
        for questions in COUNTS:
            resources = random_resources(shape, questions, options.revisions)
            for criterion in options.criteria:
                verdicts = list(judge(resources, a_spec(criterion=criterion), samples=options.samples))
                print(_row(f"{questions:,} | {criterion}", verdicts), flush=True)
        print("\nexactly 0.03, PointEstimate; beside the base model, then beside what serves\n")
        print("| n | worse: passed | better: blocked | worse: passed | better: blocked |")
        print("|---:|---:|---:|---:|---:|")
        for questions in COUNTS:
            print(f"| {questions:,} | {' | '.join(border(shape, questions, a_spec(), options.border))} |", flush=True)


if __name__ == "__main__":
    main()
