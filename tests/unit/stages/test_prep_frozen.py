"""A frozen evaluation set: what stays of it when documents change, and that training keeps away from it."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stages.prep_work import DOCUMENTS, character_counter, lines, records, stage

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, StageResult
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.formats import set_documents
from embedding_stages.formats.pairs import Pair
from embedding_stages.sdg.fit import Fit
from embedding_stages.sdg.passages import make_passages
from embedding_stages.sdg.units import read_units

Records = list[dict[str, Any]]
Edit = Callable[[Records, Records, list[str]], None]  # of chunks and pairs, knowing which documents are asked


def first_set(tmp_path: Path, chunks: Records, pairs: Records, *, as_0_1: bool = False) -> ArtefactRef:
    """The evaluation set of an earlier revision; `as_0_1`: without what that release did not write."""
    made = len(list((tmp_path / "prep").glob("*")))
    code, result = stage(tmp_path, chunks, pairs, fingerprint=f"earlier{made}")
    assert code == 0, result
    ref = result.artefacts[Artefact.EVALUATION_SET]
    if as_0_1:
        (tmp_path / ref.path / set_documents.FILE).unlink()
    return ArtefactRef(path=ref.path, digest=digest_of_folder(tmp_path / ref.path))


def asked_documents(folder: Path) -> list[str]:
    relevance = load_evaluation_set(folder, may_be_empty=True).relevance
    return sorted({name.rpartition("-")[0] for grades in relevance.values() for name in grades})


def trained(tmp_path: Path, result: StageResult) -> set[str]:
    """The documents of all positives and negatives."""
    passages = lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "passages.jsonl")
    return {item["id"].rpartition("-")[0] for item in passages}


def changed(chunks: Records, document: str) -> None:
    chunk = next(item for item in chunks if item["document_id"] == document)
    chunk["text"] += " Since yesterday it says more."


def left(chunks: Records, pairs: Records, document: str) -> None:
    for items in (chunks, pairs):
        items[:] = [item for item in items if item["document_id"] != document]


def others(asked: list[str]) -> list[str]:
    return sorted({f"d{n}" for n in range(DOCUMENTS)} - set(asked))


def joined(chunks: Records, pairs: Records, asked: list[str]) -> None:
    more_chunks, more_pairs = records(DOCUMENTS + 5)
    chunks += more_chunks[3 * DOCUMENTS :]
    pairs += more_pairs[2 * DOCUMENTS :]


def asked_otherwise(chunks: Records, pairs: Records, asked: list[str]) -> None:
    for number, pair in enumerate(pairs):
        pair |= {"id": f"other{number}", "question": f"Where says subject{pair['document_id'][1:]} {number}?"}


def reflowed(chunks: Records, pairs: Records, asked: list[str]) -> None:
    for chunk in chunks:
        chunk["text"] = chunk["text"].replace(" ", "\n  ")


def renamed(chunks: Records, pairs: Records) -> None:
    for item in (*chunks, *pairs):
        item["document_id"] = f"moved-{item['document_id']}"
    for chunk in chunks:
        chunk["id"] = f"moved-{chunk['id']}"
    for pair in pairs:
        pair["chunk_ids"] = [f"moved-{name}" for name in pair["chunk_ids"]]


def all_replaced(chunks: Records, pairs: Records, asked: list[str]) -> None:
    joined(chunks, pairs, asked)
    for number in range(DOCUMENTS):
        left(chunks, pairs, f"d{number}")


# What happened since, the edit, and what the set lost: documents that are asked, and others.
SINCE: dict[str, tuple[Edit, int, int]] = {
    "nothing": (lambda chunks, pairs, asked: None, 0, 0),
    "documents joined": (joined, 0, 0),
    "other questions were written": (asked_otherwise, 0, 0),
    "white space changed": (reflowed, 0, 0),
    "a document changed that is only searched": (lambda chunks, _, asked: changed(chunks, others(asked)[0]), 0, 1),
    "a document left that is only searched": (lambda chunks, pairs, asked: left(chunks, pairs, others(asked)[0]), 0, 1),
    "a document changed that is asked": (lambda chunks, _, asked: changed(chunks, asked[0]), 1, 0),
    "a document left that is asked": (lambda chunks, pairs, asked: left(chunks, pairs, asked[0]), 1, 0),
    "all documents were replaced": (all_replaced, 2, 8),
}


@pytest.mark.parametrize("as_0_1", [False, True], ids=["a set of this release", "a set of release 0.1"])
@pytest.mark.parametrize("what", SINCE)
def test_the_set_stays_but_for_documents_that_changed_or_left_since(tmp_path: Path, what: str, as_0_1: bool) -> None:
    edit, lost_asked, lost_others = SINCE[what]
    chunks, pairs = records()
    frozen = first_set(tmp_path, chunks, pairs, as_0_1=as_0_1)
    before = load_evaluation_set(tmp_path / frozen.path)
    asked = asked_documents(tmp_path / frozen.path)
    edit(chunks, pairs, asked)
    code, result = stage(tmp_path, chunks, pairs, frozen=frozen, evalFraction=0.5, seed=7)
    assert code == 0, result
    made = result.artefacts[Artefact.EVALUATION_SET]
    after = load_evaluation_set(tmp_path / made.path, may_be_empty=True)
    assert (made.digest == frozen.digest) is (lost_asked + lost_others == 0)
    assert result.counts["droppedFrozenQueries"] == len(before.queries) - len(after.queries) == 2 * lost_asked
    lost_passages = 3 * (lost_asked + lost_others)
    assert result.counts["droppedFrozenPassages"] == len(before.passages) - len(after.passages) == lost_passages
    assert any("frozen" in item and "freeze" in item for item in result.details["warnings"]) is bool(lost_passages)
    kept = dict(zip(before.passage_ids, before.passages, strict=True)).items()
    assert kept >= dict(zip(after.passage_ids, after.passages, strict=True)).items()
    assert {key: before.relevance[key] for key in after.relevance} == after.relevance
    still_asked = asked_documents(tmp_path / made.path)
    assert len(still_asked) == len(asked) - lost_asked
    assert trained(tmp_path, result).isdisjoint(still_asked)
    assert {item["document_id"] for item in chunks} - trained(tmp_path, result) == set(still_asked)


@pytest.mark.parametrize("as_0_1", [False, True], ids=["a set of this release", "a set of release 0.1"])
def test_documents_whose_files_moved_are_the_same_and_still_do_not_train(tmp_path: Path, as_0_1: bool) -> None:
    chunks, pairs = records()
    frozen = first_set(tmp_path, chunks, pairs, as_0_1=as_0_1)
    renamed(chunks, pairs)
    code, result = stage(tmp_path, chunks, pairs, frozen=frozen, evalFraction=0.5, seed=7)
    assert code == 0, result
    assert result.artefacts[Artefact.EVALUATION_SET].digest == frozen.digest
    assert (result.counts["droppedFrozenQueries"], result.counts["droppedFrozenPassages"]) == (0, 0)
    asked = {f"moved-{name}" for name in asked_documents(tmp_path / frozen.path)}
    assert {item["document_id"] for item in chunks} - trained(tmp_path, result) == asked


def test_a_question_goes_with_each_document_that_answers_it(tmp_path: Path) -> None:
    chunks, pairs = records()
    asked = asked_documents(tmp_path / first_set(tmp_path, chunks, pairs).path)
    for pair in pairs:
        if pair["document_id"] in asked and pair["id"].endswith("a"):
            pair["question"] = "Which word is said in two documents?"
    frozen = first_set(tmp_path, chunks, pairs)
    assert len(load_evaluation_set(tmp_path / frozen.path).queries) == 3
    changed(chunks, asked[0])
    _, result = stage(tmp_path, chunks, pairs, frozen=frozen)
    assert result.counts["evaluationQueries"] == 1, "what the other document alone answers"
    assert asked_documents(tmp_path / result.artefacts[Artefact.EVALUATION_SET].path) == asked[1:]


TEXTS = {
    f"text{n}": "\n\n".join(
        f"# Part {part} of {n}\n\nThe pump{n}{part} lifts water. It stops at level{n}{part}.\nThen it waits for "
        f"switch{n}{part}! Is valve{n}{part} closed? " + f"unbroken{n}{part}" * 150
        for part in range(3)
    )
    for n in range(8)
}


def cut(sentences: int) -> tuple[Records, Records]:
    chunks: Records = []
    pairs: Records = []
    for name, text in TEXTS.items():
        passages = make_passages(name, read_units(text), sentences=sentences)
        chunks += [{"id": one.id, "document_id": name, "text": one.text} for one in passages]
        pair = Pair.about(name, f"Where is the pump{name[-1]}0?", (passages[0].id,), kind="usage")
        pairs.append(pair.to_json())
    return chunks, pairs


@pytest.mark.parametrize("sentences", [1, 2, 5])
def test_how_documents_are_cut_drops_nothing(tmp_path: Path, sentences: int) -> None:
    frozen = first_set(tmp_path, *cut(3))
    chunks, pairs = cut(sentences)
    assert len(chunks) != len(cut(3)[0])
    code, result = stage(tmp_path, chunks, pairs, frozen=frozen, margin=1.0)
    assert code == 0, result
    assert result.artefacts[Artefact.EVALUATION_SET].digest == frozen.digest
    assert trained(tmp_path, result).isdisjoint(asked_documents(tmp_path / frozen.path))


UNSPACED = {
    f"text{n}": f"水泵{n}号 " + "".join(map(chr, random.Random(n).choices(range(0x4E00, 0x5600), k=300)))
    for n in range(8)
}


def cut_to_fit(most: int) -> tuple[Records, Records]:
    """By a model that reads so many characters."""
    fit = Fit(character_counter(most))
    chunks: Records = []
    pairs: Records = []
    for name, text in UNSPACED.items():
        passages = fit.make_passages(name, read_units(text), sentences=5)
        chunks += [{"id": one.id, "document_id": name, "text": one.text} for one in passages]
        pairs.append(Pair.about(name, text.split()[0], (passages[0].id,), kind="usage").to_json())
    return chunks, pairs


@pytest.mark.parametrize("as_before", [False, True], ids=["a set of today", "a set without the second digest"])
def test_a_document_without_spaces_is_known_however_much_a_model_reads(tmp_path: Path, as_before: bool) -> None:
    first = cut_to_fit(60)
    frozen = first_set(tmp_path, *first)
    if as_before:
        documents = tmp_path / frozen.path / set_documents.FILE
        documents.write_text(re.sub(', "sha256_without_spaces": "[0-9a-f]{64}"', "", documents.read_text()))
        frozen = ArtefactRef(path=frozen.path, digest=digest_of_folder(tmp_path / frozen.path))
    chunks, pairs = first if as_before else cut_to_fit(41)
    assert as_before or len(chunks) != len(first[0])
    code, result = stage(tmp_path, chunks, pairs, frozen=frozen, margin=1.0)
    assert code == 0, result
    assert result.artefacts[Artefact.EVALUATION_SET].digest == frozen.digest
    assert trained(tmp_path, result).isdisjoint(asked_documents(tmp_path / frozen.path))


LABELLED = {
    "corpus.jsonl": '{"_id": "x", "title": "", "text": "An answer."}\n',
    "queries.jsonl": '{"_id": "1", "text": "what says WORD30"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\tx\t1\n",
}


def test_a_frozen_labelled_set_is_taken_whole(tmp_path: Path) -> None:
    chunks, pairs = records()
    _, first = stage(tmp_path, chunks, pairs, labelled=LABELLED, fingerprint="first")
    frozen = first.artefacts[Artefact.EVALUATION_SET]
    _, same = stage(tmp_path, chunks, pairs, labelled=LABELLED, frozen=frozen, fingerprint="same")
    newer = {**LABELLED, "queries.jsonl": '{"_id": "1", "text": "what says WORD40"}\n'}
    changed(chunks, "d4")
    code, result = stage(tmp_path, chunks, pairs, labelled=newer, frozen=frozen)
    assert code == 0, result
    assert {made.artefacts[Artefact.EVALUATION_SET].digest for made in (first, same, result)} == {frozen.digest}
    assert (result.counts["droppedFrozenQueries"], result.counts["droppedFrozenPassages"]) == (0, 0)
    assert result.counts["droppedLeaked"] == 1
    told = [["labelled set changed" in warning for warning in made.details["warnings"]] for made in (same, result)]
    assert [any(one) for one in told] == [False, True]


def damage(folder: Path) -> None:
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Another?"}) + "\n")


@pytest.mark.parametrize("labelled", [None, LABELLED], ids=["of documents", "labelled"])
@pytest.mark.parametrize("harm", [shutil.rmtree, damage, lambda folder: (folder / "link").symlink_to("/")])
def test_a_set_that_is_gone_or_damaged_names_the_field_and_the_cure(
    tmp_path: Path, harm: Callable[[Path], None], labelled: dict[str, str] | None
) -> None:
    _, first = stage(tmp_path, *records(), labelled=labelled, fingerprint="first")
    frozen = first.artefacts[Artefact.EVALUATION_SET]
    harm(tmp_path / frozen.path)
    code, result = stage(tmp_path, *records(), labelled=labelled, frozen=frozen)
    assert (code, result.reason, result.field) == (10, "FrozenSetMissing", "spec.evaluation.freeze")
    assert frozen.path in result.message
    assert "set this to false" in result.message
    assert "restore" in result.message
