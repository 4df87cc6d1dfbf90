"""The eval stage: baseModel, checkpoint and evaluationSet in, evalReport out.

Where another revision serves, its checkpoint (activeCheckpoint) is measured on the same set; where the manifest names
guards, base and tuned model are measured on each of them (guardSets).

Metrics: base and fineTuned, each ndcg@k, map@k, recall@k and precision@k. Counts: queries, passages,
unknownPassages. Details: headline (the metric of the uplift), relativeUplift, confidenceInterval ([low, high],
95 %), precision (what the models computed in), evaluationSet (its digest), activeCheckpoint (its digest, or null), and
comparisons by what the tuned model is compared with: base, active, guard:<name>; each has, by metric, what
`comparison.Comparison` says; dimensions, for a model of several sizes, by size: ndcg@10 of the tuned model's vectors
cut to it, and bytesPerMillion passages. relativeUplift and confidenceInterval are null when the base model finds
nothing. A set without queries has no metrics, comparisons and dimensions. Where all that is longer than a termination
message may be, precision and MAP stand in report.json alone.
Whether the tuned model is good enough is the operator's decision, not this stage's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.canaries import CANARIES
from embedding_stages.contract.servers import Precision
from embedding_stages.contract.settings import DEFAULT_GATE_METRICS, Eval
from embedding_stages.encoder.description import Role, description_of
from embedding_stages.encoder.fitting import FittingEncoder, stacked
from embedding_stages.encoder.load import load_in_precision
from embedding_stages.errors import BadInput, StageError, Stopped, settings_of
from embedding_stages.evaluate.canaries import embed_canaries
from embedding_stages.evaluate.comparison import compare_scores
from embedding_stages.evaluate.dimensions import sweep
from embedding_stages.evaluate.evaluation_set import EvaluationSet, load_evaluation_set
from embedding_stages.evaluate.metrics import Scores, headline, k_values_of, measure
from embedding_stages.evaluate.report import (
    ACTIVE,
    BASE,
    FINE_TUNED,
    GUARD,
    Uplift,
    build_report,
    fitted,
    save_report,
    uplift_of,
)
from embedding_stages.runner import StageContext
from embedding_stages.vectors import Vectors

_FIELD = "spec.stages.eval"
_CHUNK = 4096  # texts between two resume points; also how soon SIGTERM is heard
_MODELS = ((BASE, Artefact.BASE_MODEL), (FINE_TUNED, Artefact.CHECKPOINT), (ACTIVE, Artefact.ACTIVE_CHECKPOINT))
_MAIN = ""  # the evaluation set among the sets; the others are guards, by name
Embed = Callable[[list[str], Role], Vectors]  # texts -> float32 (texts, dimension) of length 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """NVIDIA embed recipe: k = 1, 5, 10, 100 and batches of 128."""

    k_values: tuple[int, ...]
    batch_size: int
    gate_metrics: tuple[str, ...] = DEFAULT_GATE_METRICS
    precision: Precision | None = None  # what the server computes in; None: bfloat16 on a GPU, float32 on a CPU

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Settings:
        """Raises BadInput `SettingInvalid`."""
        asked = settings_of(Eval, raw)
        k_values = k_values_of(asked.kValues, field="spec.evaluation.kValues")
        precision = cast("Precision | None", asked.precision)
        return cls(k_values=k_values, batch_size=asked.batchSize, gate_metrics=asked.gateMetrics, precision=precision)


def work(context: StageContext) -> StageResult:
    """Evaluate every model on the same sets, one after the other, so that one accelerator holds one model."""
    settings = Settings.of(context.settings)
    sets = _load_sets(context)
    main = sets[_MAIN]
    scores, beside = _scores(context, sets, settings)
    of_main = {model: found[_MAIN] for model, found in scores.items()}
    uplift = uplift_of(of_main[BASE], of_main[FINE_TUNED], settings.k_values) if main.queries else Uplift(None, None)
    digests = {name.value: ref.digest for name, ref in context.request.inputs.items()}
    report = build_report(
        main,
        of_main,
        uplift,
        settings.k_values,
        digests,
        precision=settings.precision or ("bfloat16" if torch.cuda.is_available() else "float32"),
        comparisons=_comparisons(scores, settings),
        beside=beside,
    )
    save_report(context.folder(Artefact.EVAL_REPORT), report)
    told = ("headline", "relativeUplift", "confidenceInterval", "precision", "comparisons", "dimensions")
    result = context.result(
        metrics={model: of_main[model].means for model in (BASE, FINE_TUNED)},
        counts={key: report[key] for key in ("queries", "passages", "unknownPassages")},
        details={key: report[key] for key in told}
        | {name.value: digests.get(name.value) for name in (Artefact.EVALUATION_SET, Artefact.ACTIVE_CHECKPOINT)},
    )
    return fitted(result)


def _load_sets(context: StageContext) -> dict[str, EvaluationSet]:
    """The evaluation set, which may have lost every query, and the guards by name."""
    main = load_evaluation_set(context.input(Artefact.EVALUATION_SET), may_be_empty=True)
    if main.unknown_passages:
        context.log("judgements name passages that the corpus lacks", judgements=main.unknown_passages)
    guards = {}
    if context.has_input(Artefact.GUARD_SETS):
        folder = context.input(Artefact.GUARD_SETS)
        guards = {
            path.name: load_evaluation_set(path, field=f"spec.evaluation.guards[name={path.name}].beir")
            for path in sorted(folder.iterdir())
        }
    return {_MAIN: main, **guards}


def _open_models(context: StageContext) -> dict[str, Path]:
    """All folders, before the first model embeds: what is gone is told at once.

    Raises BadInput `ActiveCheckpointMissing`: of the models this one alone is not made again when stages run again.
    """
    found = {}
    for model, artefact in _MODELS:
        if not context.has_input(artefact):
            continue
        try:
            found[model] = context.input(artefact)
        except StageError as error:
            if model != ACTIVE:
                raise
            raise BadInput(
                "ActiveCheckpointMissing",
                f"the model that serves cannot be compared with ({error.message}): restore that folder of the "
                "workspace and edit the manifest to run again, or first serve a revision whose checkpoint is there "
                "(status.history lists them)",
                field="spec.stages.deploy.pinRevision",
            ) from error
    return found


def _scores(
    context: StageContext, sets: Mapping[str, EvaluationSet], settings: Settings
) -> tuple[dict[str, dict[str, Scores]], dict[str, Any]]:
    """(scores by model and set, what else the report says of the tuned model: dimensions and canaries).

    What serves now is not measured on guards: those ask what tuning made of the base model.
    """
    models = _open_models(context)
    wanted = {model: [_MAIN] if model == ACTIVE else list(sets) for model in models}
    total = sum(sets[name].texts for names in wanted.values() for name in names) + len(CANARIES)
    done, scores, beside = 0, dict[str, dict[str, Scores]](), dict[str, Any]()
    for model, folder in models.items():
        vectors = _ModelVectors(context, model, folder, settings)
        if model == FINE_TUNED and description_of(folder).query_map:
            vectors.passages_of = BASE  # whose weights it has: they are embedded already
        vectors.done, vectors.total = done, total
        for name in wanted[model]:
            vectors.of_set = f"-guard.{name}" if name else ""
            swept = (model, name) == (FINE_TUNED, _MAIN)
            sizes = description_of(folder).dimensions if swept else ()
            found, by_size = evaluate_model(model, sets[name], vectors.embed, settings.k_values, sizes)
            scores.setdefault(model, {})[name] = found
            if swept:
                beside["dimensions"] = by_size
            said = {headline(settings.k_values): found.means.get(headline(settings.k_values))}
            context.log("evaluated", model=model, **({"guard": name} if name else {}), **said)
        if model == FINE_TUNED:
            vectors.of_set = "-canaries"
            beside["canaries"] = embed_canaries(vectors.embed)
        done = vectors.done
    return scores, beside


def _comparisons(scores: Mapping[str, Mapping[str, Scores]], settings: Settings) -> dict[str, dict[str, Any]]:
    """What the tuned model is compared with -> metric -> figures; guards are judged by the headline metric alone."""
    tuned = scores[FINE_TUNED]
    found: dict[str, dict[str, Any]] = {}
    for model in (BASE, ACTIVE):
        if model in scores and tuned[_MAIN].per_query:
            metrics = dict.fromkeys((headline(settings.k_values), *settings.gate_metrics))
            found[model] = compare_scores(scores[model][_MAIN], tuned[_MAIN], metrics)
    for name in tuned:
        if name != _MAIN:
            one = [headline(settings.k_values)]
            figures = compare_scores(scores[BASE][name], tuned[name], one)
            found[f"{GUARD}{name}"] = {**figures, "queries": len(tuned[name].per_query)}
    return found


def evaluate_model(
    model: str, evaluation_set: EvaluationSet, embed: Embed, k_values: tuple[int, ...], sizes: tuple[int, ...] = ()
) -> tuple[Scores, dict[str, dict[str, Any]]]:
    """(scores, the sweep over `sizes`, of the same vectors).

    Raises Stopped (fine-tuned) or BadInput (base) `VectorsNotFinite` for a model that answers NaN.
    """
    if not evaluation_set.queries:
        return Scores({}, {}), {}
    passages = embed(list(evaluation_set.passages), "passage")
    queries = embed(list(evaluation_set.queries), "query")
    try:
        return measure(evaluation_set, queries, passages, k_values), sweep(evaluation_set, queries, passages, sizes)
    except StageError as error:
        if error.reason != "VectorsNotFinite":
            raise
        if model == ACTIVE:
            raise
        if model == BASE:
            cure = "the base model is damaged or overflows: choose another revision"
            raise BadInput(error.reason, f"{error.message}; {cure}", field="spec.baseModel") from error
        cure = "training diverged: lower the learning rate"
        raise Stopped(error.reason, f"{error.message}; {cure}", field="spec.stages.finetune.learningRate") from error


class _ModelVectors:
    """Embeds with a model that is loaded when first needed; finished parts are kept for the next attempt."""

    done = 0  # texts of all models, for progress
    total = 1
    of_set = ""  # in names of files; no guard's name has a dot, so that none is another's or the canaries'

    def __init__(self, context: StageContext, model: str, folder: Path, settings: Settings) -> None:
        self._context = context
        self._model = model
        self._folder = folder
        self._settings = settings
        self._encoder: FittingEncoder | None = None
        self.passages_of = model  # of equal weights

    def embed(self, texts: list[str], role: Role) -> Vectors:
        """float32 (len(texts), hidden). Raises OutOfMemory when a single text does not fit, Transient on SIGTERM."""
        return stacked(len(texts), self._parts(texts, role))

    def _parts(self, texts: list[str], role: Role) -> Iterator[Vectors]:
        for start in range(0, len(texts), _CHUNK):
            self._context.stop_if_asked()
            part = texts[start : start + _CHUNK]
            model = self.passages_of if role == "passage" else self._model
            yield self._saved(f"{model}{self.of_set}-{role}-{start}", part, role)
            self.done += len(part)
            self._context.progress(self.done, self.total)

    def _saved(self, name: str, texts: list[str], role: Role) -> Vectors:
        path = self._context.scratch("vectors") / f"{name}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):  # none yet, or cut off by a crash of the node
            saved = np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
            if saved.ndim == 2 and len(saved) == len(texts):
                return saved
        vectors = self._fitting().embed(texts, role=role)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as stream:
            np.save(stream, vectors)
        unfinished.rename(path)
        return vectors

    def _fitting(self) -> FittingEncoder:
        if self._encoder is None:
            encoder = load_in_precision(self._folder, self._settings.precision, log=self._context.log)
            self._encoder = FittingEncoder(encoder, self._settings.batch_size, self._context.log)
        return self._encoder
