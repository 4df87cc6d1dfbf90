"""The whole prep stage, with vectors that count words instead of a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages.prep_work import DOCUMENTS, lines, records, stage
from unit.stages.tiny_models import make_bert

from embedding_stages.contract import Artefact, ExitCode
from embedding_stages.encoder.model import PaddedEncoder


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
        "droppedNearDuplicates": 0,
        "droppedNoNegatives": 0,
        "passages": DOCUMENTS * 3,
        "passagesCut": 0,
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


def test_all_documents_that_an_evaluation_query_asks_about_are_held_out(tmp_path: Path) -> None:
    """Pairs about a bundle of documents have the id of its first one."""
    chunks, pairs = records()
    pairs = pairs[::2]  # of a document two passages answer nothing
    for n, pair in enumerate(pairs):
        pair["document_id"] = f"d{n - n % 2}"
    for number, chunk in enumerate(chunks):  # other words in each, for near-duplicates do not train
        chunk["text"] = " ".join([*(f"{letter}{number}" for letter in "pqrstuvw"), chunk["text"]])
    code, result = stage(tmp_path, chunks, pairs, margin=1.0, hardNegatives=30)
    assert code == 0, result
    rows = (tmp_path / result.artefacts[Artefact.EVALUATION_SET].path / "qrels" / "test.tsv").read_text().splitlines()
    asked = {row.split("\t")[1].split("-")[0] for row in rows[1:]}
    trained = lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "passages.jsonl")
    assert len(asked) == 2
    assert {item["id"].split("-")[0] for item in trained} == {f"d{n}" for n in range(DOCUMENTS)} - asked


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


# A passage that answers a question of the evaluation, or that question; and what nearly repeats it and would train.
HELD_OUT = "Part 0 of {subject} says, since the last edition of the handbook, {word}: nothing else was ever changed."
PLANTED: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "a passage with other case and marks": ("text", HELD_OUT, lambda text: text.upper().replace(",", " -")),
    "a passage with a word exchanged": ("text", HELD_OUT, lambda text: text.replace("edition", "printing")),
    "a query in another order": ("question", "What says {word}, as a rule?", lambda text: f"As a rule, {text[:-11]}?"),
    "a query with a word more": ("question", "What says {word} in it?", lambda text: text.replace("in", "with in")),
}


@pytest.mark.parametrize("kind", ["split", "labelled", "frozen"])
@pytest.mark.parametrize("what", PLANTED)
def test_what_nearly_repeats_the_evaluation_does_not_train(tmp_path: Path, what: str, kind: str) -> None:
    key, asked, repeat = PLANTED[what]
    chunks, pairs = records()
    _, first = stage(tmp_path, chunks, pairs, fingerprint="first")
    judged = (tmp_path / first.artefacts[Artefact.EVALUATION_SET].path / "qrels" / "test.tsv").read_text()
    held_out = next(n for n in range(DOCUMENTS) if f"\td{n}-0\t" in judged)
    training = next(n for n in range(DOCUMENTS) if f"\td{n}-0\t" not in judged)
    asked = asked.format(subject=f"subject{held_out}", word=f"word{held_out}0")
    items, of_a_document = (chunks, 3) if key == "text" else (pairs, 2)
    items[of_a_document * held_out][key] = asked
    _, second = stage(tmp_path, chunks, pairs, fingerprint="second")
    items[of_a_document * training][key] = repeat(asked)
    labelled = {
        "corpus.jsonl": json.dumps({"_id": "x", "text": asked if key == "text" else "An answer."}) + "\n",
        "queries.jsonl": json.dumps({"_id": "1", "text": pairs[2 * held_out]["question"]}) + "\n",
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\tx\t1\n",
    }
    evaluation: dict[str, dict[str, Any]] = {
        "split": {},
        "labelled": {"labelled": labelled},
        "frozen": {"frozen": second.artefacts[Artefact.EVALUATION_SET], "seed": 7},
    }
    code, result = stage(tmp_path, chunks, pairs, **evaluation[kind])
    assert code == 0, result
    assert result.counts["droppedNearDuplicates"] == 1
    texts = {item["text"] for item in lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "passages.jsonl")}
    queries = {item["query"] for item in lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "train.jsonl")}
    assert repeat(asked) not in texts | queries
    assert f"What says word{training}0?" not in queries, "its query goes with a passage"


def test_where_all_of_it_nearly_repeats_the_evaluation_nothing_trains(tmp_path: Path) -> None:
    chunks, pairs = records()
    for chunk in chunks:
        chunk["text"] = f"The same words in all of the documents, whatever they are about: {chunk['id'][-1]}."
    code, result = stage(tmp_path, chunks, pairs)
    assert (code, result.reason) == (10, "NoTrainingRows")
    assert "16 nearly repeat the evaluation's queries or answers" in result.message
