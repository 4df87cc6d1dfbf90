"""The eval stage: baseModel, checkpoint and evaluationSet in, evalReport out.

Metrics: base and fineTuned, each ndcg@k, map@k, recall@k and precision@k. Counts: queries, passages,
unknownPassages. Details: headline (the metric of the uplift), relativeUplift, confidenceInterval ([low, high],
95 %), precision (what the models computed in); relativeUplift and confidenceInterval are null when the base model
finds nothing.
Whether the uplift is enough is the operator's decision, not this stage's.
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
from embedding_stages.contract.servers import Precision
from embedding_stages.contract.settings import Eval
from embedding_stages.encoder.description import Role
from embedding_stages.encoder.fitting import FittingEncoder, stacked
from embedding_stages.encoder.load import load_in_precision
from embedding_stages.errors import BadInput, StageError, Stopped, settings_of
from embedding_stages.evaluate.evaluation_set import EvaluationSet, load_evaluation_set
from embedding_stages.evaluate.metrics import Scores, headline, k_values_of, measure
from embedding_stages.evaluate.report import BASE, FINE_TUNED, build_report, save_report, uplift_of
from embedding_stages.runner import StageContext
from embedding_stages.vectors import Vectors

_FIELD = "spec.stages.eval"
_CHUNK = 4096  # texts between two resume points; also how soon SIGTERM is heard
_MODELS = ((BASE, Artefact.BASE_MODEL), (FINE_TUNED, Artefact.CHECKPOINT))
Embed = Callable[[list[str], Role], Vectors]  # texts -> float32 (texts, dimension) of length 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """NVIDIA embed recipe: k = 1, 5, 10, 100 and batches of 128."""

    k_values: tuple[int, ...]
    batch_size: int
    precision: Precision | None = None  # what the server computes in; None: bfloat16 on a GPU, float32 on a CPU

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Settings:
        """Raises BadInput `SettingInvalid`."""
        asked = settings_of(Eval, raw)
        k_values = k_values_of(asked.kValues, field="spec.evaluation.kValues")
        precision = cast("Precision | None", asked.precision)
        return cls(k_values=k_values, batch_size=asked.batchSize, precision=precision)


def work(context: StageContext) -> StageResult:
    """Evaluate both models on the same set, one after the other, so that one accelerator holds one model."""
    settings = Settings.of(context.settings)
    evaluation_set = load_evaluation_set(context.input(Artefact.EVALUATION_SET))
    if evaluation_set.unknown_passages:
        context.log("judgements name passages that the corpus lacks", judgements=evaluation_set.unknown_passages)
    scores: dict[str, Scores] = {}
    texts = len(evaluation_set.queries) + len(evaluation_set.passages)
    for number, (model, artefact) in enumerate(_MODELS):
        vectors = _ModelVectors(context, model, context.input(artefact), settings)
        vectors.done, vectors.total = number * texts, len(_MODELS) * texts
        scores[model] = evaluate_model(model, evaluation_set, vectors.embed, settings.k_values)
        context.log("evaluated", model=model, **{headline(settings.k_values): _headline(scores[model], settings)})
    uplift = uplift_of(scores[BASE], scores[FINE_TUNED], settings.k_values)
    digests = {name.value: ref.digest for name, ref in context.request.inputs.items()}
    precision = settings.precision or ("bfloat16" if torch.cuda.is_available() else "float32")
    report = build_report(evaluation_set, scores, uplift, settings.k_values, digests, precision=precision)
    save_report(context.folder(Artefact.EVAL_REPORT), report)
    return context.result(
        metrics={model: found.means for model, found in scores.items()},
        counts={key: report[key] for key in ("queries", "passages", "unknownPassages")},
        details={key: report[key] for key in ("headline", "relativeUplift", "confidenceInterval", "precision")},
    )


def evaluate_model(model: str, evaluation_set: EvaluationSet, embed: Embed, k_values: tuple[int, ...]) -> Scores:
    """Raises Stopped (fine-tuned) or BadInput (base) `VectorsNotFinite` for a model that answers NaN."""
    passages = embed(list(evaluation_set.passages), "passage")
    queries = embed(list(evaluation_set.queries), "query")
    try:
        return measure(evaluation_set, queries, passages, k_values)
    except StageError as error:
        if error.reason != "VectorsNotFinite":
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

    def __init__(self, context: StageContext, model: str, folder: Path, settings: Settings) -> None:
        self._context = context
        self._model = model
        self._folder = folder
        self._settings = settings
        self._encoder: FittingEncoder | None = None

    def embed(self, texts: list[str], role: Role) -> Vectors:
        """float32 (len(texts), hidden). Raises OutOfMemory when a single text does not fit, Transient on SIGTERM."""
        return stacked(len(texts), self._parts(texts, role))

    def _parts(self, texts: list[str], role: Role) -> Iterator[Vectors]:
        for start in range(0, len(texts), _CHUNK):
            self._context.stop_if_asked()
            part = texts[start : start + _CHUNK]
            yield self._saved(f"{self._model}-{role}-{start}", part, role)
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


def _headline(scores: Scores, settings: Settings) -> float:
    return scores.means[headline(settings.k_values)]
