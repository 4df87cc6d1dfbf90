"""Evaluation queries that are taken out of the passages that they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.stages.prep_work import lines, records, stage

from embedding_stages.contract import Artefact
from embedding_stages.formats.pairs import Passage
from embedding_stages.prep.withheld import MOST, SENTENCE, WORDS, Withheld, withhold

SENTENCES = [
    "The crystalline lens of vertebrates grows during the whole life.",
    "Its proteins were separated by electrophoresis on starch gel.",
    "Young rabbits showed twice the amount of soluble fractions.",
    "Irradiation with x-rays changed the pattern within four weeks.",
    "Controls of the same age remained without any visible change.",
]
BARE = "electronic coordinate transformer circuit details are given for the construction of an electronic calculating unit which enables the polar coordinates of a vector to be derived"  # noqa: E501


def withheld(*texts: str, seed: int = 1, others: int = 20) -> Withheld:
    passages = {f"d-{n}": Passage(f"d-{n}", "d", text) for n, text in enumerate(texts)}
    more = {f"o-{n}": Passage(f"o-{n}", f"o{n}", f"Filler of the number {n} and the word{n}.") for n in range(others)}
    return withhold(passages | more, {"d"}, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_what_asks_is_gone_from_the_answer(seed: int) -> None:
    text = " ".join(SENTENCES)

    found = withheld(text, seed=seed)

    assert [pair.type for pair in found.pairs] == [SENTENCE, WORDS] * 2
    assert found.pairs[0].query in SENTENCES[0]  # the opening one
    left = found.texts["d-0"]
    assert all(pair.passage_ids == ("d-0",) for pair in found.pairs)
    kept = [one for one in SENTENCES if one in left]
    assert len(kept) == len(SENTENCES) - 2
    assert left == " ".join(kept)
    gone = [one for one in SENTENCES if one not in left]
    for sentence, whole, terms in zip(gone, found.pairs[::2], found.pairs[1::2], strict=True):
        assert whole.query in sentence
        assert 3 <= len(terms.query.split()) <= 5
        assert all(word in sentence for word in terms.query.split())
        assert not {"the", "of", "and"} & set(terms.query.split())


def test_a_text_without_sentences_gives_neighbouring_words() -> None:
    found = withheld(BARE)

    assert [pair.type for pair in found.pairs] == [SENTENCE, WORDS]
    assert 16 <= len(found.texts["d-0"].split()) < len(BARE.split())
    assert set(found.texts["d-0"].split()) <= set(BARE.split())
    assert all(word in BARE for pair in found.pairs for word in pair.query.split())


@pytest.mark.parametrize(
    "sentence",
    [
        "کتاب\u200cهای تازه\u200cای که می\u200cخواهم بخوانم در قفسه\u200cی دوم هستند",
        "हिंदी की पुरानी किताबें दूसरी अलमारी में रखी गई हैं",
    ],
)
def test_words_with_joiners_and_vowel_signs_are_words(sentence: str) -> None:
    """Nine of them make a sentence that can ask; a text without such sentences gives its opening words."""
    text = " ".join(f"{sentence}! A{'bcdefg'[number]} " + "and so it was on this day. " for number in range(6))

    asked = [pair.query for pair in withheld(text, sentence).pairs if pair.type == SENTENCE]

    assert sentence in asked[0]


@pytest.mark.parametrize(
    "text", ["", "One short sentence.", " ".join(SENTENCES[:2]), "word " * 20, "東京都は日本の首都です。人口は多い。"]
)
def test_a_passage_of_which_nothing_would_be_left_asks_nothing(text: str) -> None:
    assert withheld(text).pairs == []


@pytest.mark.parametrize(("passages", "queries"), [(1, 4), (4, 16), (10, MOST), (11, MOST)])
def test_a_long_document_does_not_outvote_the_others(passages: int, queries: int) -> None:
    found = withheld(*[" ".join(SENTENCES)] * passages, others=80)

    assert len(found.pairs) == queries
    assert set(found.texts) == {name for pair in found.pairs for name in pair.passage_ids}


def test_documents_that_train_are_left_as_they_are() -> None:
    found = withhold({"t-0": Passage("t-0", "t", " ".join(SENTENCES))}, (), seed=1)

    assert found == Withheld([], {})


def test_the_stage_asks_what_was_withheld_and_searches_what_is_left(tmp_path: Path) -> None:
    chunks, pairs = records(20)
    for number, chunk in enumerate(chunks):  # other words in each, for near-duplicates do not train
        chunk["text"] = " ".join(
            f"Sentence {n} has " + " ".join(f"{letter}{number}{n}" for letter in "pqrstuvw") + "." for n in range(5)
        )

    code, result = stage(tmp_path, chunks, pairs, evaluationQueries="withheld")

    assert code == 0, result
    folder = tmp_path / result.artefacts[Artefact.EVALUATION_SET].path
    passages = {line["_id"]: line["text"] for line in lines(folder, "corpus.jsonl")}
    rows = [row.split("\t") for row in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    original = {chunk["id"]: chunk["text"] for chunk in chunks}
    kinds = result.details["evaluationKinds"]
    assert set(kinds) == {SENTENCE, WORDS}
    assert sum(kinds.values()) == len(rows) == result.counts["evaluationQueries"]
    asked = {name for _, name, _ in rows}
    assert {name for name in passages if passages[name] != original[name]} == asked
    assert len({name.split("-")[0] for name in asked}) == 4
    training = lines(tmp_path / result.artefacts[Artefact.TRAINING_SET].path, "passages.jsonl")
    assert all(line["text"] == original[line["id"]] for line in training)


def test_the_pairs_are_asked_where_passages_are_too_short(tmp_path: Path) -> None:
    code, result = stage(tmp_path, *records(), evaluationQueries="withheld")

    assert code == 0, result
    assert result.details["evaluationKinds"] == {"usage": 4}
    assert any("too short to take a sentence out" in warning for warning in result.details["warnings"])
