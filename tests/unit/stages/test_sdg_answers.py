"""What a language model writes: which of it is read, believed and kept. No endpoint."""

from __future__ import annotations

import json
from typing import Any

import json_repair
import pytest
from unit.stages.llm_endpoint import pair

from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.sdg import prompts
from embedding_stages.sdg.answers import Usage
from embedding_stages.sdg.counted_text import CountedText, ReadTooOftenError
from embedding_stages.sdg.openai_provider import sections_of
from embedding_stages.sdg.tolerant import find_items
from embedding_stages.sdg.written import Written, outcome_of

PASSAGES = [
    Passage(f"d-{n}", "d", text)
    for n, text in enumerate(
        (
            "Alpha is the first letter.", "Omega ends the alphabet.",
            "کتاب تازه می\u200cخواهم.", "ខ្ញុំ\u200bសរសេរ\u200bឯកសារ។",
            "默认端口是8080。保修期为两年。", "보증 기간은 2년입니다. 환불은 안 됩니다.", "保証は二年です。",
        )
    )
]  # fmt: skip
DRAFTS = {
    "grounded": (pair("What is alpha?", "Alpha is the first"), ("d-0",)),
    "grounded in another passage than it says": (pair("What is omega?", "omega ends the ALPHABET."), ("d-1",)),
    "a quote too short to prove anything": (pair("What is alpha?", "Alpha"), None),
    "a quote that is not there": (pair("What is beta?", "Beta is the second letter."), None),
    "one of two quotes is not there": (
        {
            **pair("What is alpha?", "x"),
            "evidence": [{"passage": 0, "quote": "Alpha is the first"}, {"passage": 1, "quote": "no such text at all"}],
        },
        None,
    ),
    "evidence without its list": (
        {**pair("What is omega?", "x"), "evidence": {"passage": "1", "quote": "Omega ends the alphabet"}}, ("d-1",),
    ),
    "quotes alone": ({**pair("What is omega?", "x"), "evidence": ["Omega ends the alphabet."]}, ("d-1",)),
    "a quote alone that is not there": ({**pair("What is omega?", "x"), "evidence": "Omega is a letter."}, None),
    "no evidence": ({"question": "What is alpha?", "answer": "a letter", "evidence": []}, None),
    "no answer": ({**pair("What is alpha?", "Alpha is the first"), "answer": " "}, None),
    "a question that is no text": ({**pair("x", "Alpha is the first"), "question": 5}, None),
    "half a character": (pair("What is \ud800alpha?", "Alpha is the first"), None),
    "a question with a joiner": (pair("نمی\u200cدانم چیست؟", "Alpha is the first"), ("d-0",)),
    "a quote without the joiners of its passage": (pair("چه می\u200cخواهم؟", "کتاب تازه می خواهم"), ("d-2",)),
    "a quote without the zero-width spaces of its passage": (pair("តើខ្ញុំធ្វើអ្វី?", "ខ្ញុំសរសេរឯកសារ"), ("d-3",)),
    "a quote with spaces between the words": (pair("តើខ្ញុំធ្វើអ្វី?", "ខ្ញុំ សរសេរ ឯកសារ"), ("d-3",)),
    "a short question in Chinese, and a short quote": (pair("保修多久？", "保修期为两年"), ("d-4",)),
    "a short question in Korean, and a short quote": (pair("보증은 몇 년?", "보증 기간은 2년"), ("d-5",)),
    "a short quote in Japanese": (pair("保証期間は？", "保証は二年"), ("d-6",)),
    "a quote in Chinese too short to prove anything": (pair("默认端口是多少？", "端口"), None),
    "a question in Chinese too short to ask anything": (pair("端口", "默认端口是8080"), None),
    "an endless question": (pair("why " * 200, "Alpha is the first"), None),
    "no object": ("What is alpha?", None),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAFTS)
def test_only_what_quotes_the_document_is_believed(name: str) -> None:
    raw, passage_ids = DRAFTS[name]
    drafts, dropped = prompts.read_drafts([raw], PASSAGES, 5)
    assert [draft.passage_ids for draft in drafts] == ([passage_ids] if passage_ids else [])
    assert dropped == (0 if passage_ids else 1)


def test_a_question_is_cleaned_as_documents_are() -> None:
    raw = pair("What\u202e is\n al\u00adpha?", "Alpha is the first")
    drafts, _ = prompts.read_drafts([raw], PASSAGES, 5)
    assert drafts[0].question == "What is alpha?"


PAIR = {"question": "What is alpha?"}
BOTH = [PAIR, {"question": "What is omega?"}]
READ: dict[str, tuple[Any, list[Any]]] = {
    "an object": ({"pairs": BOTH}, BOTH),
    "nothing to ask": ({"pairs": []}, []),
    "a fence": ("Sure!\n```json\n" + json.dumps({"pairs": BOTH}) + "\n``` bye", BOTH),
    "thoughts": ('<think>{"pairs": [{"question": "no"}]} hm {</think> ' + json.dumps({"pairs": BOTH}), BOTH),
    "thoughts without their beginning": ('perhaps {"pairs": []}?</think>' + json.dumps({"pairs": BOTH}), BOTH),
    "thoughts in a channel": (
        "<|channel|>analysis<|message|>{...}<|channel|>final<|message|>" + json.dumps({"pairs": BOTH}), BOTH,
    ),
    "a document about thoughts": (json.dumps({"pairs": [{"question": "What is </think>?"}]}),
                                  [{"question": "What is </think>?"}]),
    "prose with brackets": ("[1] As {you} asked, [] or {}: " + json.dumps({"pairs": BOTH}) + " [2]", BOTH),
    "an array": (BOTH, BOTH),
    "one item": (PAIR, [PAIR]),
    "another name": ({"questions": BOTH}, BOTH),
    "a wrapper": ({"result": {"count": 2, "pairs": BOTH}}, BOTH),
    "an object in an array": ([{"pairs": BOTH}], BOTH),
    "an object an item": ([{"pairs": [item]} for item in BOTH], BOTH),
    "items by number": ({"pairs": {"0": BOTH[0], "1": BOTH[1]}}, BOTH),
    "JSON within JSON": ({"answer": json.dumps({"pairs": BOTH})}, BOTH),
    "a comma too many": ('{"pairs": [{"question": "What is alpha?"},]}', [PAIR]),
    "quotation marks within": ('{"pairs": [{"question": "What is "alpha"?"}]}', [{"question": 'What is "alpha"?'}]),
    "a comma too many behind the second of two": (json.dumps({"pairs": BOTH})[:-2] + ",]}", BOTH),
    "quotation marks within the second of two": (
        '{"pairs": [{"question": "What is alpha?"}, {"question": "What is "omega"?"}]}',
        [PAIR, {"question": 'What is "omega"?'}],
    ),
    "an item a line": ("\n".join(map(json.dumps, BOTH)), BOTH),
    "an item a line, between prose": ("Sure [1]:\n" + "\n".join(map(json.dumps, BOTH)) + "\nThat {is} all.", BOTH),
    "an item in the prose before the list": ("Such as " + json.dumps(PAIR) + ": " + json.dumps({"pairs": BOTH}), BOTH),
    "an item in the prose before a list with a slip": (
        'Such as {"question": "What?"}: {"pairs": [{"question": "What is alpha?"}, {"question": "What is "omega"?"}]}',
        [PAIR, {"question": 'What is "omega"?'}],
    ),
    "empty lists in items with slips": (
        '{"pairs": [{"question": "What is alpha?", "x": [],}, {"question": "What is omega?", "x": [],}]}',
        [{**item, "x": []} for item in BOTH],
    ),
    "JSON within JSON, with a slip": ({"answer": json.dumps({"pairs": BOTH})[:-2] + ",]}"}, BOTH),
    "as many items as can be asked for, and a comma too many": (
        json.dumps({"pairs": [PAIR] * 200})[:-2] + ",]}", [PAIR] * 200,
    ),
    "a comma that is missing": ('{"pairs": [{"question": "What is alpha?" "type": "x"}]}', [{**PAIR, "type": "x"}]),
    "Python": ("{'pairs': [{'question': 'What is alpha?', 'x': None}]}", [{**PAIR, "x": None}]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_was_asked_for_is_found_in_what_models_write(name: str) -> None:
    said, expected = READ[name]
    assert find_items(said if isinstance(said, str) else json.dumps(said), "pairs", cut=False) == expected
    if not isinstance(said, str):
        assert find_items(said, "pairs", cut=False) == expected


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"a": ', "{" * 100_000, "[" * 100_000, "{} " * 20_000, "I am sorry, I cannot.", '"pairs"', "7",
     '{"pairs": "none"}', "<think>I begin with the pairs"],
)  # fmt: skip
def test_what_has_none_of_it_is_said_so(text: str) -> None:
    assert find_items(text, "pairs", cut=False) is None


@pytest.mark.parametrize("begun", ["", '{"pairs": [', '{"pairs": [{"question": "'])
@pytest.mark.parametrize("piece", ["{", "[", '"[', '"{', '{"', '["', '"a"b', '{"pairs":[{"question":"x" ', "(", ","])
def test_mending_an_answer_without_sense_is_given_up(piece: str, begun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty thousand braces took 20 seconds: how often characters are looked at is bounded, on every machine alike."""
    texts: list[CountedText] = []
    mend = json_repair.loads

    def noted(text: CountedText, **options: Any) -> Any:
        texts.append(text)
        return mend(text, **options)

    monkeypatch.setattr(json_repair, "loads", noted)
    monkeypatch.setattr("embedding_stages.sdg.tolerant._MOST_LOOKED_AT", 50_000)
    find_items(begun + piece * (60_000 // len(piece)), "pairs", cut=False)
    assert all(type(text) is CountedText for text in texts)


def test_a_text_and_all_that_is_made_of_it_are_counted_together() -> None:
    text = CountedText("abc" * 10, most=20)
    assert text == "abc" * 10
    made = "x" + text[:15] + "y"
    assert [made[0], made[-1]] == ["x", "y"]
    with pytest.raises(ReadTooOftenError):
        list(made + text)


CUT: dict[str, tuple[str, list[Any] | None]] = {
    "in its first item": ('{"pairs": [{"question": "What is al', None),
    "in its second item": ('{"pairs": [{"question": "What is alpha?"}, {"question": "What is om', [PAIR]),
    "in its third item": (json.dumps({"pairs": BOTH})[:-2] + ', {"question": "What is th', BOTH),
    "in its third item, which names its second": (
        json.dumps({"pairs": BOTH})[:-2] + ', {"question": "What else?", "evidence": [{"question": "Wh',
        BOTH,
    ),
    "between items": ('{"pairs": [{"question": "What is alpha?"}, {"question": "What is omega?"}', BOTH),
    "between items, of which one has a slip": (
        '{"pairs": [{"question": "What is "alpha"?"}, {"question": "What is omega?"}, {"question": "What',
        [{"question": 'What is "alpha"?'}, BOTH[1]],
    ),
    "behind its end": (json.dumps({"pairs": BOTH}) + " I hope th", BOTH),
    "in its thoughts": ('<think>I would ask {"pairs": [{"question": "no"}', None),
}


@pytest.mark.parametrize("name", CUT)
def test_whole_items_of_an_answer_that_is_cut_are_kept(name: str) -> None:
    text, expected = CUT[name]
    assert find_items(text, "pairs", cut=True) == expected


def test_of_an_answer_of_the_judge_with_a_slip_no_score_is_given_to_another_question() -> None:
    """Scores may be known by their order alone, and an example of one would shift all."""
    scores = [{"index": place, "score": 9} for place in range(7)]
    assert find_items(json.dumps({"scores": scores})[:-2] + ",]}", "scores", cut=False) == scores[:1]
    said = 'Each is {"score": 10}.\n{"scores":[{"score":3},{"score":4},{"sc'
    assert find_items(said, "scores", cut=True) == [{"score": 10}]  # one score for several is none: see read_scores


@pytest.mark.parametrize(
    ("verdict", "scores"),
    [
        ([{"index": 1, "score": 9}], [None, 9.0]),
        ([{"index": 1, "score": 9}, {"index": 0, "score": 8}], [8.0, 9.0]),
        ([8, 9.5], [8.0, 9.5]),
        ([{"score": 8}, {"score": "9"}], [8.0, 9.0]),
        ([8], [None, None]),
        ([{"score": 8}, {"index": 0, "score": 9}], [9.0, None]),
        ([0, 11], [None, None]),
        ([True, None], [None, None]),
        (["good", []], [None, None]),
    ],
)
def test_scores_are_those_of_the_questions_that_they_name(verdict: list[Any], scores: list[float | None]) -> None:
    assert prompts.read_scores(verdict, 2) == scores


@pytest.mark.parametrize("index", [0, "0"])
@pytest.mark.parametrize("score", [9, 9.0, "9", "9.0"])
def test_numbers_in_quotation_marks_are_numbers(index: Any, score: Any) -> None:
    assert prompts.read_scores([{"index": index, "score": score}], 1) == [9.0]


@pytest.mark.parametrize(("pairs", "expected"), [(7, [3, 2, 2]), (2, [1, 1, 0]), (1, [1, 0, 0]), (14, [6, 4, 4])])
def test_types_keep_the_proportion_of_the_recipe(pairs: int, expected: list[int]) -> None:
    assert list(prompts.mix(pairs).values()) == expected


def about(document: str, *questions: tuple[str, int]) -> Written:
    pairs = [Pair.about(document, text, (f"{document}-{passage}",), kind="x", score=9.0) for text, passage in questions]
    return Written(document, pairs, usage=Usage(calls=1))


SHARED: dict[str, tuple[list[Written], list[tuple[str, tuple[str, ...]]], int]] = {
    "different questions": (
        [about("a", ("One?", 0)), about("b", ("Two?", 0))], [("One?", ("a-0",)), ("Two?", ("b-0",))], 0,
    ),
    "a question about two documents": (
        [about("a", ("Same?", 0), ("One?", 1)), about("b", ("same", 0))], [("One?", ("a-1",))], 2,
    ),
    "a question about three documents, twice about one": (
        [about("a", ("Same?", 0)), about("b", ("Same?", 0), ("Same?", 1)), about("c", ("Same?", 0))], [], 4,
    ),
    "a question about two places of a document": (
        [about("a", ("Same?", 0), ("Same?", 1))], [("Same?", ("a-0", "a-1"))], 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_a_question_about_two_documents_is_dropped_from_both(name: str) -> None:
    documents, expected, dropped = SHARED[name]
    outcome = outcome_of(documents)
    assert [(item.query, item.passage_ids) for item in outcome.pairs] == expected
    assert outcome.counts["droppedDuplicates"] == dropped


def test_a_long_document_is_asked_about_in_a_few_places() -> None:
    passages = [Passage(f"d-{n}", "d", "x" * 2000) for n in range(100)]
    sections = sections_of(passages, 7)
    assert [section[0].id for section in sections] == ["d-0", "d-24", "d-48", "d-72"]
    assert all(sum(len(chunk.text) for chunk in section) <= 12_000 for section in sections)
    assert sections_of(passages[:3], 7) == [passages[:3]]
