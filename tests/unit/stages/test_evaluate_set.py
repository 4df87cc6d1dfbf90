"""The evaluation set: what is read, and what is refused with which word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedding_stages.errors import BadInput
from embedding_stages.evaluate.evaluation_set import load_evaluation_set

CORPUS = [
    {"_id": "b", "title": "", "text": "two"},
    {"_id": "a", "title": "One", "text": "first"},
    {"_id": "c", "text": ""},
]
QUERIES = [{"_id": "q2", "text": "second?"}, {"_id": "q1", "text": "first?"}, {"_id": "q3", "text": "not judged"}]
JUDGEMENTS = "query-id\tcorpus-id\tscore\nq2\tb\t1\nq1\ta\t2\n"


def write(folder: Path, corpus: object = CORPUS, queries: object = QUERIES, judgements: str = JUDGEMENTS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, content in (("corpus", corpus), ("queries", queries)):
        text = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)  # type: ignore[attr-defined]
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "qrels/test.tsv").write_text(judgements)
    return folder


def test_rows_are_sorted_by_id_and_texts_joined_as_beir_does(tmp_path: Path) -> None:
    found = load_evaluation_set(write(tmp_path / "set"))
    assert found.query_ids == ("q1", "q2")  # q3 has no judgement
    assert found.queries == ("first?", "second?")
    assert found.passage_ids == ("a", "b", "c")
    assert found.passages == ("One first", "two", "-")  # endpoints refuse an empty text
    assert found.relevance == {"q1": {"a": 2}, "q2": {"b": 1}}
    assert found.unknown_passages == 0


def test_judged_passages_that_the_corpus_lacks_are_counted(tmp_path: Path) -> None:
    found = load_evaluation_set(write(tmp_path / "set", judgements=JUDGEMENTS + "q1\tgone\t1\nq1\tgone-too\t0\n"))
    assert found.unknown_passages == 1


def test_what_an_earlier_release_left_in_texts_is_taken_out_as_the_server_does(tmp_path: Path) -> None:
    corpus = [{"_id": "a", "text": "Dampf\u00adschiff"}, {"_id": "b", "text": "می\u200cخواهم"}]
    found = load_evaluation_set(write(tmp_path / "set", corpus=corpus))
    assert found.passages == ("Dampfschiff", "می\u200cخواهم")


def test_queries_that_are_passages_are_known(tmp_path: Path) -> None:
    queries = [{"_id": name, "text": "x"} for name in ("a", "b", "c", "q")]
    judgements = "query-id\tcorpus-id\tscore\na\tb\t1\nb\tb\t1\nc\tb\t1\nc\tc\t-1\nq\tb\t1\n"
    found = load_evaluation_set(write(tmp_path / "set", queries=queries, judgements=judgements))
    assert found.asked_by_passages == {"a", "c"}  # b is judged relevant to itself


REFUSED = {
    "no header: BEIR would drop the first judgement": ({"judgements": "q1\ta\t1\n"}, "the header must be"),
    "a judged query without text": ({"judgements": JUDGEMENTS + "q9\ta\t1\n"}, "'q9'"),
    "a repeated passage id: BEIR would keep the last": (
        {"corpus": [*CORPUS, CORPUS[0]]},
        ":4: _id 'b' occurs twice",
    ),
    "a passage without id": ({"corpus": [*CORPUS, {"text": "x"}]}, "corpus.jsonl:4: _id must be"),
    "a passage id that is a number": ({"corpus": [*CORPUS, {"_id": 7, "text": "x"}]}, "corpus.jsonl:4: _id must be"),
    "a query without text": (
        {"queries": [{"_id": "q1", "text": " "}, {"_id": "q2", "text": "x"}]},
        ":1: text is empty",
    ),
    "a text that is a list": ({"corpus": [*CORPUS, {"_id": "z", "text": ["x"]}]}, "corpus.jsonl:4: text must be"),
    "a text that is half a character": (
        {"corpus": [*CORPUS, {"_id": "z", "text": "\ud800"}]},
        ":4: text is not text",
    ),
    "a line that is no JSON": ({"corpus": "{\n"}, "JSON object a line"),
    "a line that is no object": ({"corpus": "[]\n"}, "JSON object a line"),
    "no passages": ({"corpus": "\n"}, "it holds no passages"),
    "no judgements": ({"judgements": "query-id\tcorpus-id\tscore\n"}, "no passage is judged relevant"),
    "nothing relevant": ({"judgements": "query-id\tcorpus-id\tscore\nq1\ta\t0\n"}, "no passage is judged relevant"),
    "a grade that is no number": ({"judgements": JUDGEMENTS + "q1\tb\thigh\n"}, "qrels/test.tsv:4: score 'high'"),
    "a row that is too short": ({"judgements": JUDGEMENTS + "q1\tb\n"}, "qrels/test.tsv:4: 2 columns"),
}


@pytest.mark.parametrize(("change", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, change: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_evaluation_set(write(tmp_path / "set", **change))  # type: ignore[arg-type]
    assert caught.value.reason == "EvaluationSetInvalid"
    assert caught.value.field == "spec.evaluation.beir"
    assert word in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(BadInput, match=r"queries\.jsonl: it is missing"):
        load_evaluation_set(folder)
