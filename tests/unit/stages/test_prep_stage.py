"""The whole prep stage, with vectors that count words instead of a model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from unit.stages.tiny_models import make_bert

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, ExitCode, Stage, StageRequest, StageResult
from embedding_stages.contract.settings import Prep
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import settings_of
from embedding_stages.prep.stage import prepare, work
from embedding_stages.runner import StageContext, run
from embedding_stages.vectors import Vectors

DOCUMENTS = 10


def count_words(texts: Sequence[str], role: Literal["query", "passage"]) -> Vectors:
    vectors = np.zeros((len(texts), 4096), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().strip("?.").split():
            vectors[row, zlib.crc32(word.encode()) % 4096] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def records(documents: int = DOCUMENTS, **changes: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Chunks and pairs: three chunks a document, two questions, one of them with two positives."""
    chunks, pairs = [], []
    for n in range(documents):
        chunks += [
            {"id": f"d{n}-{m}", "document_id": f"d{n}", "text": f"Part {m} of subject{n} says word{n}{m}."}
            for m in range(3)
        ]
        pairs.append({"id": f"q{n}a", "question": f"What says word{n}0?", "chunk_ids": [f"d{n}-0"]})
        pairs.append({"id": f"q{n}b", "question": f"Which part of subject{n}?", "chunk_ids": [f"d{n}-1", f"d{n}-2"]})
        for pair in pairs[-2:]:
            pair |= {"document_id": f"d{n}", "type": "usage", "score": None, **changes}
    return chunks, pairs


def stage(
    tmp_path: Path,
    chunks: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    *,
    labelled: dict[str, str] | None = None,
    model: Path | None = None,
    fingerprint: str = "f",
    **settings: Any,
) -> tuple[int, StageResult]:
    inputs: dict[Artefact, ArtefactRef] = {}

    def add(artefact: Artefact, folder: Path) -> None:
        path = folder.relative_to(tmp_path).as_posix()
        inputs[artefact] = ArtefactRef(path=path, digest=digest_of_folder(folder))

    folder = tmp_path / "pairs"
    folder.mkdir(exist_ok=True)
    (folder / "chunks.jsonl").write_text("".join(json.dumps(item) + "\n" for item in chunks))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(item) + "\n" for item in pairs))
    add(Artefact.PAIRS, folder)
    if labelled:
        for name, text in labelled.items():
            (tmp_path / "labelled" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "labelled" / name).write_text(text)
        add(Artefact.LABELLED_SET, tmp_path / "labelled")
    if model:
        add(Artefact.BASE_MODEL, model)
    request = StageRequest(
        stage=Stage.PREP, fingerprint=fingerprint, attempt=1, revision=1, image="i", settings=settings, inputs=inputs
    )

    def with_counted_words(context: StageContext) -> StageResult:
        return prepare(context, settings_of(Prep, context.settings), lambda _total: count_words)

    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(Stage.PREP, work if model else with_counted_words, env)
    return code, StageResult.from_json((tmp_path / "log").read_text())


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_fifth_of_the_documents_is_asked_and_the_others_train(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *records())
    assert code == 0, result
    evaluation = tmp_path / result.artefacts[Artefact.EVALUATION_SET].path
    training = tmp_path / result.artefacts[Artefact.TRAINING_SET].path
    assert result.counts == {
        "trainingRows": 8 * 3,
        "evaluationQueries": 2 * 2,
        "evaluationPassages": DOCUMENTS * 3,
        "droppedLowScore": 0,
        "droppedLeaked": 0,
        "droppedNoNegatives": 0,
    }
    assert [set(item) for item in lines(evaluation, "corpus.jsonl")] == [{"_id", "title", "text"}] * DOCUMENTS * 3
    rows = (evaluation / "qrels" / "test.tsv").read_text().splitlines()
    assert rows[0] == "query-id\tcorpus-id\tscore"
    assert len(rows) == 1 + 2 * 3
    held_out = {row.split("\t")[1].split("-")[0] for row in rows[1:]}
    assert len(held_out) == 2
    passages = {item["id"]: item["text"] for item in lines(training, "passages.jsonl")}
    for row in lines(training, "train.jsonl"):
        names = [row["positive"], *row["negatives"]]
        assert len(row["negatives"]) == 5
        assert len(set(names)) == 6
        assert all(name in passages and name.split("-")[0] not in held_out for name in names)
    assert len(result.details["warnings"]) == 2
    assert result.details["negatives"]["meanPositiveScore"] > result.details["negatives"]["meanNegativeScore"]


@pytest.mark.parametrize("change", [{"margin": 0.9}, {"hardNegatives": 2}, {"batchSize": 2}])
def test_settings_of_negatives_leave_the_evaluation_set_as_it_is(tmp_path: Path, change: dict[str, Any]) -> None:
    _, first = stage(tmp_path, *records())
    _, second = stage(tmp_path, *records(), fingerprint="other", **change)
    assert first.artefacts[Artefact.EVALUATION_SET].digest == second.artefacts[Artefact.EVALUATION_SET].digest


def test_siblings_are_never_negatives_of_each_other(tmp_path: Path) -> None:
    _, result = stage(tmp_path, *records(), margin=1.0)
    for row in lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "train.jsonl"):
        if row["query"].startswith("Which part"):
            document = row["positive"].split("-")[0]
            assert not {f"{document}-1", f"{document}-2"} & set(row["negatives"])


LABELLED = {
    "corpus.jsonl": '{"_id": "x", "title": "", "text": "An answer."}\n',
    "queries.jsonl": '{"_id": "1", "text": "what says WORD30"}\n{"_id": "2", "text": "Other?"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\tx\t1\n2\tx\t1\n",
}


def test_a_labelled_set_is_the_evaluation_and_its_questions_never_train(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *records(), labelled=LABELLED)
    assert code == 0, result
    evaluation = tmp_path / result.artefacts[Artefact.EVALUATION_SET].path
    assert {name: (evaluation / name).read_text() for name in LABELLED} == LABELLED
    assert result.counts["droppedLeaked"] == 1
    assert result.counts["trainingRows"] == DOCUMENTS * 3 - 1
    training = tmp_path / result.artefacts[Artefact.TRAINING_SET].path
    assert "What says word30?" not in {row["query"] for row in lines(training, "train.jsonl")}


def test_with_a_labelled_set_one_document_is_enough(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *records(1), labelled=LABELLED, margin=1.0)
    assert code == 0, result


def test_a_question_of_both_sides_is_asked_and_does_not_train(tmp_path: Path) -> None:
    chunks, pairs = records()
    for pair in pairs[::2]:
        pair["question"] = "The same question?"
    _, result = stage(tmp_path, chunks, pairs)
    assert result.counts["evaluationQueries"] == 3, "asked once, with both answers"
    assert result.counts["droppedLeaked"] == 8
    assert result.counts["trainingRows"] == 16


@pytest.mark.parametrize(
    ("documents", "changes", "settings", "reason", "field"),
    [
        (1, {}, {}, "TooFewDocuments", "spec.corpus.source"),
        (5, {"score": 3.0}, {}, "NoPairs", "spec.stages.prep.qualityThreshold"),
        (5, {}, {"margin": 0.01}, "NoTrainingRows", "spec.stages.prep.margin"),
        (5, {"question": "One question?"}, {}, "NoTrainingRows", "spec.corpus.source"),
    ],
)
def test_what_cannot_train_is_bad_input(
    tmp_path: Path, documents: int, changes: dict[str, Any], settings: dict[str, Any], reason: str, field: str
) -> None:
    code, result = stage(tmp_path, *records(documents, **changes), **settings)
    assert (code, result.reason, result.field) == (10, reason, field)


def test_low_scores_are_dropped_and_counted(tmp_path: Path) -> None:
    chunks, pairs = records(score=8.0)
    for pair in pairs[:4]:
        pair["score"] = 6.5
    _, result = stage(tmp_path, chunks, pairs)
    assert result.counts["droppedLowScore"] == 4


def test_damaged_pairs_are_a_bug_and_not_bad_input(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *([{"id": 1}], []))
    assert (code, result.reason) == (1, "PairsDamaged")


def test_a_real_encoder_mines(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *records(), model=make_bert(tmp_path / "model"), margin=1.0)
    assert code == 0, result
    assert result.counts["trainingRows"] > 0


def test_batches_of_the_base_model_shrink_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed, most = PaddedEncoder.embed, 3

    def small_memory(self: PaddedEncoder, texts: Sequence[str], *, batch_size: int, **options: Any) -> Any:
        if batch_size > most:
            raise torch.OutOfMemoryError("no room")
        return embed(self, texts, batch_size=batch_size, **options)

    monkeypatch.setattr(PaddedEncoder, "embed", small_memory)
    model = make_bert(tmp_path / "model")
    code, result = stage(tmp_path, *records(), model=model, margin=1.0)
    assert (code, result.reason) == (0, "Completed")
    most = 0
    code, result = stage(tmp_path, *records(), model=model, margin=1.0, fingerprint="other")
    assert (code, result.reason) == (ExitCode.OUT_OF_MEMORY, "GPUOutOfMemory")
