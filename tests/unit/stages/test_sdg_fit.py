"""Passages that the base model reads whole, and what is said of those that it does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from unit.stages.prep_work import records, word_counter
from unit.stages.prep_work import stage as prep_stage
from unit.stages.tiny_models import make_bert, make_llama

from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.sdg.fit import Fit
from embedding_stages.sdg.units import read_units

TEXT = "# The desk\n\nAsk for a key. It opens the door of the long hall that leads to the yard.\n\n" * 6


def model(folder: Path, *, most: int, passage: str = "passage: ", kind: str = "llama") -> Path:
    make = make_bert if kind == "bert" else make_llama
    make(folder)
    describe_model(folder, prefixes={"passage": passage}, max_tokens=most).save(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_counter_counts_what_the_model_gets(tmp_path: Path, kind: str) -> None:
    folder = model(tmp_path / "m", most=48, kind=kind)
    counter, texts = TokenCounter.load(folder), ["", "key1 of the", "zwölf Türen. " * 40]
    read = TextTokenizer.load(folder, describe_model(folder, prefixes={"passage": "passage: "}, max_tokens=48))
    counts = counter.whole(texts)
    assert [min(count, 48) for count in counts] == [len(row) for row in read.encode(texts, "passage")]
    assert counts[2] > 48
    assert counter.room == 48 - counts[0]


@pytest.mark.parametrize("most", [9, 10, 16, 30, 64, 500])
def test_passages_fit_and_lose_nothing(most: int) -> None:
    counter = word_counter(most)
    passages = Fit(counter).make_passages("d", read_units(TEXT), sentences=5)
    assert max(counter.whole([passage.text for passage in passages])) <= most
    assert " ".join(" ".join(passage.text for passage in passages).split()) == " ".join(TEXT.replace("# ", "").split())


@pytest.mark.parametrize("script", ["ภาษาไทย", "中文。", "кодировка ", "ab cd. ", "👩‍👩‍👧", "e\u0301"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_passages_of_any_script_fit(tmp_path: Path, script: str, kind: str) -> None:
    counter = TokenCounter.load(model(tmp_path / "m", most=40, kind=kind))
    passages = Fit(counter).make_passages("d", read_units(script * 400), sentences=5)
    assert max(counter.whole([passage.text for passage in passages])) <= 40


def test_no_mixture_of_lines_is_too_long() -> None:
    counter = word_counter(12)
    pieces = ("# A b c d", "f(x)", "One two three. Four five.", "", "```", "x = 1", "w " * 50, "TITLE OF IT", "- a b.")
    for seed in range(200):
        chance = random.Random(seed)
        text = "\n".join(chance.choice(pieces) for _ in range(30))
        passages = Fit(counter).make_passages("d", read_units(text), sentences=3)
        assert max(counter.whole([passage.text for passage in passages]), default=0) <= 12, seed


def test_sentences_are_not_more_than_asked_for() -> None:
    passages = Fit(word_counter(500)).make_passages("d", read_units("One two. " * 20), sentences=4)
    assert [passage.text.count("One") for passage in passages] == [4] * 5


def test_a_prefix_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"raise maxTokens or shorten prefixes.passage") as error:
        Fit.load(model(tmp_path / "m", most=16, passage="a passage of the corpus: "))
    assert error.value.field == "spec.baseModel.maxTokens"


@pytest.mark.parametrize(("most", "cut"), [(5, 30), (6, 0)])
def test_what_the_model_never_reads_is_said(tmp_path: Path, most: int, cut: int) -> None:
    code, result = prep_stage(
        tmp_path, *records(), max_tokens=most, qualityThreshold=7.0, evalFraction=0.2, margin=0.95, hardNegatives=2
    )
    assert code == 0, result.message
    assert (result.counts["passages"], result.counts["passagesCut"]) == (30, cut)
    said = [warning for warning in result.details["warnings"] if "never read" in warning]
    if cut:
        assert result.details["tokensNeverRead"] == round(1 / 6, 4)
        assert "30 of 30 passages are longer than maxTokens 5, and 17 % of all tokens are never read" in said[0]
        assert "stages.sdg.passages: fit" in said[0]
    else:
        assert result.details["tokensNeverRead"] == 0
        assert not said
