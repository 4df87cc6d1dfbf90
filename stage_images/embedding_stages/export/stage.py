"""The export stage: checkpoint (and evaluationSet, when given, for parity; trainingSet, to calibrate) in,
servingModel out.

Metrics: parity.minCosine, parity.maxAbsDiff; parity.ndcg@10 and parity.checkpointNdcg@10 where they are measured.
Details: contract, what a client of the served model must know; built, what was written; left, what was written before
it and left, with the fault of each; engine, where one was built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import torch

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import TENSORRT, Export
from embedding_stages.encoder.description import ROLES, EncoderDescription
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import Stopped, settings_of
from embedding_stages.export.calibration import Feed, calibration_texts, feeds
from embedding_stages.export.engine import Machine, build_engine, engine_machine
from embedding_stages.export.engine_run import EngineEncoder
from embedding_stages.export.parity import (
    Exported,
    OnnxEncoder,
    checkpoint_vectors,
    measure_parity,
    sample_texts,
)
from embedding_stages.export.ranking import RankingSet, ndcg_at_10, ranking_set
from embedding_stages.export.verdict import FELL_BACK, Candidate, Figures, candidates, cure, fault
from embedding_stages.export.written import Written, write_candidate
from embedding_stages.runner import StageContext

_STEPS: Final = 4  # a candidate: written, parity, ranking, engine


def work(context: StageContext) -> StageResult:
    """Export, then gate on parity with the checkpoint; what fails is left for the next candidate, if there is one."""
    settings = settings_of(Export, context.settings)
    machine = engine_machine() if settings.format == TENSORRT else None
    export = _Export(context, settings, machine)
    left: list[tuple[Candidate, str]] = []
    tried = candidates(settings)
    for number, candidate in enumerate(tried):
        export.step = (number * _STEPS, len(tried) * _STEPS)
        written, figures, engine, wrong = export.attempt(candidate)
        if not wrong:
            export.report(_STEPS * (len(tried) - number))
            return _result(context, export, written, figures, engine, left)
        context.log("the export is left", candidate=str(candidate), fault=wrong)
        left.append((candidate, wrong))
    last, wrong = left[-1]
    helps, field = cure(last)
    said = "".join(f"; {candidate} before it: {why}" for candidate, why in left[:-1])
    raise Stopped(
        "ParityFailed", f"the exported model differs from the checkpoint in {last}: {wrong}; {helps}{said}", field=field
    )


class _Export:
    """One stage's work: what its candidates share."""

    def __init__(self, context: StageContext, settings: Export, machine: Machine | None) -> None:
        self.context, self.settings, self.machine = context, settings, machine
        self.checkpoint = context.input(Artefact.CHECKPOINT)
        self.encoder = PaddedEncoder.load(self.checkpoint, device="cpu", dtype=torch.float32)
        self.evaluation_set = (
            context.input(Artefact.EVALUATION_SET) if context.has_input(Artefact.EVALUATION_SET) else None
        )
        self.folder = context.folder(Artefact.SERVING_MODEL)
        self.texts = sample_texts(self.evaluation_set, self.encoder.description)
        self.step = (0, _STEPS)

    @cached_property
    def ranked(self) -> tuple[RankingSet, float] | None:
        """What is searched, and the checkpoint's own NDCG@10."""
        found = None if self.evaluation_set is None else ranking_set(self.evaluation_set)
        if found is None:
            return None
        queries = checkpoint_vectors(self.encoder, found.queries, "query")
        return found, ndcg_at_10(found, queries, checkpoint_vectors(self.encoder, found.passages, "passage"))

    def attempt(self, candidate: Candidate) -> tuple[Written, Figures, Mapping[str, Any], str]:
        """(what was written, its figures, its engine, what is wrong with it)."""
        scratch = self.context.scratch("graph")
        written = write_candidate(candidate, self.encoder, self.checkpoint, self.folder, scratch, self._calibration)
        self.report(1)
        self.context.stop_if_asked()
        figures = self._measure(candidate, OnnxEncoder(written.judged))
        wrong = fault(candidate, figures, self.settings)
        if wrong or self.machine is None:
            return written, figures, {}, wrong
        engine = build_engine(
            self.folder, self.machine, self.encoder.description.max_tokens, self.context.workspace.root
        )
        self.context.stop_if_asked()
        figures = self._measure(candidate, EngineEncoder(self.folder))
        wrong = fault(candidate, figures, self.settings)
        return written, figures, engine, f"its engine: {wrong}" if wrong else ""

    def report(self, step: int) -> None:
        """Progress within this candidate."""
        done, total = self.step
        self.context.progress(min(done + step, total), total)

    def _measure(self, candidate: Candidate, exported: Exported) -> Figures:
        parity = measure_parity(self.encoder, exported, self.texts)
        self.report(2)
        ndcg = before = None
        if candidate.ranks and self.ranked is not None:
            found, before = self.ranked
            queries = exported.embed(found.queries, role="query")
            ndcg = ndcg_at_10(found, queries, exported.embed(found.passages, role="passage"))
        figures = Figures(
            min_cosine=parity.min_cosine,
            max_abs_diff=parity.max_abs_diff,
            texts=parity.texts,
            ndcg=ndcg,
            checkpoint_ndcg=before,
        )
        self.report(3)
        self.context.log("parity", candidate=str(candidate), maxAbsDiff=parity.max_abs_diff, **figures.to_json())
        return figures

    def _calibration(self) -> Sequence[Feed]:
        texts = calibration_texts(self.context.input(Artefact.TRAINING_SET))
        return list(feeds(texts, self.encoder.tokenizer, self.encoder.description))


def _result(
    context: StageContext,
    export: _Export,
    written: Written,
    figures: Figures,
    engine: Mapping[str, Any],
    left: Sequence[tuple[Candidate, str]],
) -> StageResult:
    built = {
        "candidate": str(written.candidate),
        "products": written.products,
        "quantizedProducts": written.quantized,
        **({"engine": dict(engine)} if engine else {}),
    }
    warnings = [f"{candidate} was left, {written.candidate} was built instead: {why}" for candidate, why in left]
    ranking = {"ndcg@10": figures.ndcg, "checkpointNdcg@10": figures.checkpoint_ndcg}
    return context.result(
        **({"reason": FELL_BACK, "message": "; ".join(warnings)} if left else {}),
        metrics={
            "parity": {
                "minCosine": figures.min_cosine,
                "maxAbsDiff": figures.max_abs_diff,
                **{name: value for name, value in ranking.items() if value is not None},
            }
        },
        counts={"parityTexts": figures.texts},
        details={
            "contract": serving_contract(export.encoder.description, written, with_engine=bool(engine)),
            "built": built,
            **(
                {"left": [{"candidate": str(item), "fault": why} for item, why in left], "warnings": warnings}
                if left
                else {}
            ),
        },
    )


def serving_contract(description: EncoderDescription, written: Written, *, with_engine: bool = False) -> dict[str, Any]:
    """What clients of the served model must know; copied to status.served.contract."""
    candidate = written.candidate
    return {
        "path": "/v1/embeddings",
        "inputTypes": list(ROLES),
        "prefixes": dict(description.prefixes),
        "dimensions": list(description.dimensions),
        "normalized": description.normalized,
        "maxTokens": description.max_tokens,
        "precision": candidate.precision,
        **({"quantization": candidate.quantization} if candidate.quantization != "none" else {}),
        **({"format": TENSORRT} if with_engine else {}),
        "opset": written.opset,
    }
