"""Questions by rules: what sentences give, and how the best are chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.stages.sdg_work import chunks_of, stage

from embedding_stages.contract import Artefact
from embedding_stages.formats.pairs import normalised
from embedding_stages.sdg.extractive import Statistics, candidates_of, drop_ambiguous
from embedding_stages.sdg.lexicon import base_verb, stem, third_person, words
from embedding_stages.sdg.rules import questions_of
from embedding_stages.sdg.units import Kind, Unit


def asked(text: str, *, signature: str = "", near: bool = False, opens: bool = True, heading: str = "") -> set[str]:
    """All wordings that the rules find for a sentence, keywords aside."""
    unit = Unit(kind=Kind.SENTENCE, text=text, signature=signature, opens=opens, heading=heading)
    found = questions_of(unit, signature_is_near=near)
    return {variant for question in found if question.type != "keywords" for variant in question.variants}


SENTENCES = {
    "an imperative": (
        "Pop the smallest item off the heap, maintaining the invariant.", "heappop(heap, /)",
        "Which function pops the smallest item off the heap, maintaining the invariant?",
    ),
    "what is returned is got": (
        "Return the inverse hyperbolic cosine of z.", "acosh(z, /)", "How do I get the inverse hyperbolic cosine of z?",
    ),
    "a third person": (
        "Removes all entries from the log.", "clear(self)", "Which method removes all entries from the log?",
    ),
    "a truth value": ("Return True if the queue is empty, False otherwise.", "empty(self)",
                      "How do I check whether the queue is empty?"),
    "a whether": ("Check whether a file descriptor is a terminal.", "isatty(fd)",
                  "How can I tell if a file descriptor is a terminal?"),
    "a noun phrase with a clause": (
        "A subclass of Queue that retrieves most recently added entries first.", "LifoQueue(maxsize=0)",
        "Which class retrieves most recently added entries first?",
    ),
    "a noun phrase": (
        "A string class for supporting $-substitutions.", "Template(template)",
        "Which class is the string class for supporting $-substitutions?",
    ),
    "a condition": ("If the header is missing from the message, None comes back.", "",
                    "What happens if the header is missing from the message?"),
    "an error": ("Raises KeyError if the mapping lost the entry meanwhile.", "",
                 "Which error is raised if the mapping lost the entry meanwhile?"),
    "a purpose": ("To rotate the signing keys, restart the controller.", "", "How do I rotate the signing keys?"),
    "a use": ("Use journalctl to read the kernel log.", "", "How do I read the kernel log?"),
    "an ability": ("You can pause the rollout by setting a label.", "", "How do I pause the rollout?"),
    "a definition": ("A tenant is a group of users with a shared quota.", "", "What is a tenant?"),
    "a term": ("sha256sum - print and check SHA256 digests of files", "",
               "What should I use to print and check SHA256 digests of files?"),
    "a list entry": ("- FileType -- A factory that opens files for arguments.", "",
                     "Which class opens files for arguments?"),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_gives_the_question_that_it_answers(name: str) -> None:
    text, signature, question = SENTENCES[name]
    assert question in asked(text, signature=signature)


@pytest.mark.parametrize(
    "text",
    [
        "Method resolution order: LifoQueue Queue builtins.object",
        "x = heap[0]  # smallest item",
        "It is the default.",
        "See below.",
        "https://example.org/a/b/c",
        "| a | b | c |",
        "Test result object",
        "heap[k] <= heap[2*k+1] for all k",
    ],
)
def test_what_says_nothing_gives_no_question(text: str) -> None:
    assert asked(text, signature="f(x)") == set()


def test_a_parameter_is_asked_for_only_where_its_function_is_named() -> None:
    text = "'policy' is passed to the generator that serializes the message."
    near = asked(text, signature="as_string(self, policy=None)", near=True, opens=False)
    assert "What is policy for in as_string?" in near
    assert asked(text, signature="as_string(self, policy=None)", near=False, opens=False) == set()


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Installing the operator", {"How do I install the operator?", "What are the steps to install the operator?"}),
        ("3.1 Rotate keys", {"How do I rotate keys?", "What are the steps to rotate keys?"}),
        ("Why is my pod pending?", {"Why is my pod pending?"}),
        ("Overview", set()),
        ("FUNCTIONS AND DATA", set()),
    ],
)
def test_a_heading_gives_a_question_when_it_says_something(heading: str, expected: set[str]) -> None:
    found = questions_of(Unit(kind=Kind.HEADING, text=heading), signature_is_near=False)
    assert {variant for question in found for variant in question.variants} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("get_nowait of OrderedDict, don't", ["get", "nowait", "of", "ordered", "dict", "don't"]),
        ("می\u200cخواهم\u200f بخوانم", ["میخواهم", "بخوانم"]),
        ("हिंदी किताबें", ["हिंदी", "किताबें"]),
        ("Dampf\u00adschiff", ["dampfschiff"]),
    ],
)
def test_words_are_read_with_their_marks_and_without_joiners(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("word", "base", "third"),
    [
        ("Returns", "return", "returns"),
        ("copies", "copy", "copies"),
        ("pass", "pass", "passes"),
        ("Fixes", "fix", "fixes"),
    ],
)
def test_verbs_change_their_form(word: str, base: str, third: str) -> None:
    assert base_verb(word) == base
    assert third_person(base) == third
    assert base_verb("queues of") is None


@pytest.mark.parametrize(
    ("one", "other"), [("entries", "entry"), ("copied", "copy"), ("caches", "cache"), ("classes", "class")]
)
def test_stems_of_inflections_are_equal_or_close(one: str, other: str) -> None:
    assert stem(one)[:3] == stem(other)[:3]


COMMON = "Initialize self from the given arguments and keywords."
ONE = f"push(item)\n    Push an item onto the stack of pending tasks.\n\nnew(x)\n    {COMMON}\n"
TWO = f"drain(pipe)\n    Empty the pipe before the worker is terminated.\n\nnew(y)\n    {COMMON}\n"


def test_a_sentence_that_stands_twice_is_not_asked_for() -> None:
    statistics = Statistics()
    documents = [chunks_of("one", ONE), chunks_of("two", TWO)]
    for chunks in documents:
        statistics.add(chunks)
    for chunks in documents:
        questions = [item.question for item in candidates_of(chunks, statistics, wanted=7, seed=42)]
        assert questions
        assert not any("keyword" in question for question in questions)


def test_a_question_of_two_documents_is_dropped_from_both() -> None:
    statistics = Statistics()
    same = "reset(x)\n    Reset the counters of {} worker processes gracefully.\n"
    documents = [chunks_of(name, same.format("")) for name in ("one", "two")]
    for chunks in documents:
        statistics.add([chunks[0]])
    statistics.sentences.clear()
    found = [candidates_of(chunks, statistics, wanted=7, seed=1) for chunks in documents]
    texts = [{normalised(item.question) for item in candidates} for candidates in found]
    kept, dropped = drop_ambiguous(found, 7)
    shared = texts[0] & texts[1]
    assert dropped == 2 * len(shared)
    assert not any(normalised(item.question) in shared for candidates in kept for item in candidates)


def test_pairs_point_at_the_chunk_that_they_come_from_and_are_the_same_again(tmp_path: Path) -> None:
    code, result, folder = stage(tmp_path, {"one": ONE, "two": TWO})
    assert code == 0, result
    chunks = {json.loads(line)["id"]: json.loads(line) for line in (folder / "chunks.jsonl").read_text().splitlines()}
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert result["counts"]["pairs"] == len(pairs) > 1
    for pair in pairs:
        assert pair["score"] is None
        assert {chunks[name]["document_id"] for name in pair["chunk_ids"]} == {pair["document_id"]}
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    again = stage(tmp_path, {"one": ONE, "two": TWO})
    assert again[1]["artefacts"][Artefact.PAIRS]["digest"] == result["artefacts"][Artefact.PAIRS]["digest"]


def test_another_seed_words_questions_differently(tmp_path: Path) -> None:
    text = {f"d{n}": f"name{n}(x)\n    Return the {w} of the frobnicated {w}s.\n" for n, w in enumerate("abcdefgh")}
    long = {name: item.replace(" a ", " alpha ") + ONE.replace("stack", f"stack{name}") for name, item in text.items()}
    first, second = stage(tmp_path, long), stage(tmp_path, long, seed=7)
    assert (first[2] / "chunks.jsonl").read_text() == (second[2] / "chunks.jsonl").read_text()
    assert (first[2] / "pairs.jsonl").read_text() != (second[2] / "pairs.jsonl").read_text()


def test_no_more_pairs_than_wanted(tmp_path: Path) -> None:
    text = "\n\n".join(f"f{n}(x)\n    Return the {w} of the planet's {w} survey." for n, w in enumerate(
        ("mass", "radius", "orbit", "albedo", "density", "gravity", "moons", "rings", "tilt")))  # fmt: skip
    _, result, _ = stage(tmp_path, {"one": text}, pairsPerDocument=3)
    assert result["counts"]["pairs"] == 3


def test_documents_without_sentences_are_bad_input(tmp_path: Path) -> None:
    code, result, _ = stage(tmp_path, {"one": "1 2 3\n\n4 5 6\n\n= = = = = = ="})
    assert (code, result["reason"], result["field"]) == (10, "NoPairs", "spec.stages.sdg.provider")


def test_a_failure_names_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_text: str) -> list[Unit]:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("embedding_stages.sdg.corpus.read_units", fails)
    code, result, _ = stage(tmp_path, {"one": ONE})
    assert (code, result["reason"]) == (1, "StageCrashed")
    assert result["message"].startswith("ZeroDivisionError: division by zero; in document 'one.txt': leave it out")


def test_another_language_gives_keyword_queries(tmp_path: Path) -> None:
    text = (
        "Der Bescheid wird nach Ablauf der gesetzlichen Frist von vier Wochen rechtskräftig und vollstreckbar.\n\n"
        "Gegen die Entscheidung kann binnen eines Monats schriftlich Widerspruch bei der Behörde eingelegt werden."
    )
    _, result, folder = stage(tmp_path, {"one": text, "two": ONE})
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert {pair["type"] for pair in pairs if pair["document_id"] == "one"} == {"keywords"}, result
