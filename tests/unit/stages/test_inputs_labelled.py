"""The user's own BEIR set: what is accepted and what is refused, with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embedding_stages.encoder.tokens import MAX_TEXT_CHARACTERS
from embedding_stages.errors import BadInput
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.inputs import labelled as inputs_labelled
from embedding_stages.inputs.labelled import LabelledSet

FIELD = "spec.evaluation.beir.pvc.path"
CORPUS = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "text": "two"}]
QUERIES = [{"_id": "q1", "text": "first?"}, {"_id": "q2", "text": "second?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"


def make_set(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in CORPUS))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps(record) for record in QUERIES) + "\n\n")
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    return folder


def test_a_sound_set_is_written_in_one_form_without_queries_that_have_no_score(tmp_path: Path) -> None:
    counts = LabelledSet(make_set(tmp_path / "set"), FIELD).write(tmp_path / "out")
    assert (counts.passages, counts.queries, counts.judgements, counts.skipped_queries) == (2, 1, 2, 1)
    lines = (tmp_path / "out" / "corpus.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"_id": "d2", "title": "", "text": "two"}
    assert (tmp_path / "out" / "qrels" / "test.tsv").read_text() == QRELS
    assert [json.loads(line)["_id"] for line in (tmp_path / "out" / "queries.jsonl").read_text().splitlines()] == ["q1"]


def test_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        content = (folder / name).read_bytes().replace(b"\n", b"\r\n")
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert LabelledSet(folder, FIELD).write(tmp_path / "out").judgements == 2


def test_a_passage_without_text_is_accepted_as_evaluation_does(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    append("corpus.jsonl", '{"_id": "d3", "text": ""}')(folder)
    append("corpus.jsonl", '{"_id": "d4"}')(folder)
    assert LabelledSet(folder, FIELD).write(tmp_path / "out").passages == 4
    assert load_evaluation_set(tmp_path / "out").passages == ("T one", "two", "-", "-")


def test_a_text_counts_in_characters_however_json_spells_them(tmp_path: Path) -> None:
    """json.dumps writes 6 bytes for each of these by default."""
    folder = make_set(tmp_path / "set")
    append("corpus.jsonl", json.dumps({"_id": "d3", "text": "中" * MAX_TEXT_CHARACTERS}))(folder)
    assert LabelledSet(folder, FIELD).write(tmp_path / "out").passages == 3
    assert inputs_labelled.MAX_TEXT_CHARACTERS == MAX_TEXT_CHARACTERS


ACCEPTED: dict[str, tuple[list[str], dict[str, int]]] = {
    "a passage that the corpus lacks, as BEIR's ArguAna has": (["q1\td9\t1", "q1\td8\t0"], {"unknownPassages": 1}),
    "the same line twice": (["q1\td1\t1", "q1\td1\t1", "q1\td2\t0"], {"repeatedJudgements": 3}),
    "a passage that is worse than not relevant": (["q1\td3\t-1"], {"unknownPassages": 0}),
    "grades as tables write them": (["q2\td1\t2.0", "q2\td2\t+1"], {"skippedLabelledQueries": 0}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_public_sets_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    lines, told = ACCEPTED[name]
    folder = make_set(tmp_path / "set")
    append(QRELS_FILE, "\n".join(lines))(folder)
    counts = LabelledSet(folder, FIELD).write(tmp_path / "out")
    assert {count: counts.told().get(count, 0) for count in told} == told
    found = load_evaluation_set(tmp_path / "out")
    assert found.unknown_passages == counts.unknown_passages
    assert sum(map(len, found.relevance.values())) == counts.judgements


SHARED: dict[str, tuple[str, str, list[str]]] = {
    "ids that were numbered separately": ("one?", "d1\td2\t1", ["d1"]),
    "a query that is a passage": ("one", "d1\td2\t1", []),
    "a query that is a passage with its title": ("T  one", "d1\td2\t1", []),
    "a query that is a passage's title, as Quora's are": ("T", "d1\td2\t1", []),
    "a passage that answers the query of its id": ("one?", "d1\td1\t1", []),
    "a query that is not scored": ("one?", "d1\td2\t0", []),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_query_with_the_id_of_another_text_is_told(tmp_path: Path, name: str) -> None:
    """BEIR's rule is by id, whatever the texts: the query does not find that passage. Nobody may have meant it."""
    text, judgement, shared = SHARED[name]
    folder = make_set(tmp_path / "set")
    append("queries.jsonl", json.dumps({"_id": "d1", "text": text}))(folder)
    append(QRELS_FILE, judgement)(folder)
    counts = LabelledSet(folder, FIELD).write(tmp_path / "out")
    assert list(counts.shared_ids) == shared
    assert counts.told().get("sharedIds", 0) == len(shared)
    assert [FIELD in said and "'d1'" in said for said in counts.warnings(FIELD)] == [True] * len(shared)


@pytest.mark.parametrize(
    "name", ['"Weird Al" Yankovic', " a b ", "می\u200cخواهم", "e\u0301", "\ufeff1", "a\u00a0b", "a,b'c"]
)
def test_an_id_is_the_same_for_all_stages_as_it_is_written(tmp_path: Path, name: str) -> None:
    folder = make_set(tmp_path / "set")
    append("corpus.jsonl", json.dumps({"_id": name, "text": "three"}))(folder)
    append("queries.jsonl", json.dumps({"_id": name, "text": "third?"}))(folder)
    append(QRELS_FILE, f"{name}\t{name}\t1")(folder)
    LabelledSet(folder, FIELD).write(tmp_path / "out")
    assert load_evaluation_set(tmp_path / "out").relevance[name] == {name: 1}


def test_all_unsound_lines_are_told_at_once(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    append(QRELS_FILE, "\n".join(f"q{number}\td1\t1" for number in range(10, 30)))(folder)
    with pytest.raises(BadInput) as caught:
        LabelledSet(folder, FIELD).write(tmp_path / "out")
    assert caught.value.message.startswith(
        "20 lines are unsound: qrels/test.tsv:4: query 'q10' is not in queries.jsonl"
    )
    assert "qrels/test.tsv:13: query 'q19'" in caught.value.message
    assert caught.value.message.endswith(". And 10 more")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_set_is_read_as_its_byte_order_marks_say(tmp_path: Path, encoding: str) -> None:
    folder = make_set(tmp_path / "set")
    append("corpus.jsonl", json.dumps({"_id": "d3", "text": "ក\u2028ខ"}, ensure_ascii=False))(folder)
    for name in ("corpus.jsonl", "queries.jsonl", QRELS_FILE):
        (folder / name).write_bytes((folder / name).read_text().encode(encoding))
    assert LabelledSet(folder, FIELD).write(tmp_path / "out").judgements == 2
    assert load_evaluation_set(tmp_path / "out").passages == ("T one", "two", "ក\nខ")


def test_texts_are_cleaned_as_documents_are(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    append("corpus.jsonl", json.dumps({"_id": "d3", "text": "ខ្ញុំ\u200bអាន\u200b" * 9 + "\u00ad\u202e"}))(folder)
    LabelledSet(folder, FIELD).write(tmp_path / "out")
    assert load_evaluation_set(tmp_path / "out").passages[-1] == "ខ្ញុំ\u200bអាន\u200b" * 9


def append(name: str, line: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as stream:
            stream.write(line + "\n")

    return change


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
QRELS_FILE = "qrels/test.tsv"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no corpus": (lambda f: (f / "corpus.jsonl").unlink(), "corpus.jsonl is missing"),
    "no qrels": (lambda f: (f / QRELS_FILE).unlink(), "qrels/test.tsv is missing"),
    "a link": (lambda f: [(f / "corpus.jsonl").unlink(), (f / "corpus.jsonl").symlink_to("/etc/passwd")], "is a link"),
    "a Git LFS pointer": (lambda f: (f / "corpus.jsonl").write_text(POINTER), "run `git lfs pull`"),
    "a pointer for qrels": (lambda f: (f / QRELS_FILE).write_text(POINTER), "qrels/test.tsv is a Git LFS pointer"),
    "an empty corpus": (lambda f: (f / "corpus.jsonl").write_text(""), "corpus.jsonl: it holds no passages"),
    "no JSON": (append("corpus.jsonl", "{oops"), "corpus.jsonl:3: not JSON"),
    "no object": (append("corpus.jsonl", "[1]"), "corpus.jsonl:3: not a JSON object"),
    "an id twice": (append("corpus.jsonl", '{"_id": "d1", "text": "x"}'), "corpus.jsonl:3: _id 'd1' occurs twice"),
    "a number as id": (append("queries.jsonl", '{"_id": 7, "text": "x"}'), "queries.jsonl:4: _id must be a string"),
    "an empty text": (append("queries.jsonl", '{"_id": "q3", "text": " "}'), "queries.jsonl:4: text is empty"),
    "a text that is none": (append("queries.jsonl", '{"_id": "q3", "text": 3}'), "queries.jsonl:4: text must be"),
    "half a surrogate": (
        append("queries.jsonl", '{"_id": "q3", "text": "\\ud800"}'),
        "queries.jsonl:4: text is not text",
    ),
    "a passage that no server takes": (
        append("corpus.jsonl", json.dumps({"_id": "d3", "title": "T", "text": "a" * (MAX_TEXT_CHARACTERS - 1)})),
        "corpus.jsonl:3: the text has 1048577 characters",
    ),
    "a query that no server takes": (
        append("queries.jsonl", json.dumps({"_id": "q3", "text": "a" * (MAX_TEXT_CHARACTERS + 1)})),
        "queries.jsonl:4: the text has 1048577 characters",
    ),
    "another header": (lambda f: (f / QRELS_FILE).write_text("q\td\ts\n"), "qrels/test.tsv:1: the header must be"),
    "two columns": (append(QRELS_FILE, "q1\td1"), "qrels/test.tsv:4: 2 columns"),
    "an unknown query": (append(QRELS_FILE, "q9\td1\t1"), "qrels/test.tsv:4: query 'q9' is not in"),
    "no known passage": (
        lambda f: (f / QRELS_FILE).write_text(QRELS.replace("\td", "\tx")),
        "qrels/test.tsv: no relevant passage, such as 'x1', is in corpus.jsonl",
    ),
    "a pair twice with other scores": (
        append(QRELS_FILE, "q1\td1\t2"),
        "qrels/test.tsv:4: this passage is judged twice for the query, 1 and 2",
    ),
    "a tab in an id": (append("corpus.jsonl", '{"_id": "d\\t3", "text": "x"}'), "corpus.jsonl:3: _id must be a string"),
    "mostly what was once not decoded": (
        append("corpus.jsonl", json.dumps({"_id": "d3", "text": "\ufffd" * 9 + "a"})),
        "corpus.jsonl:3: text is not text",
    ),
    "a score that is none": (append(QRELS_FILE, "q2\td1\tNaN"), "qrels/test.tsv:4: score 'NaN'"),
    "half a score": (append(QRELS_FILE, "q2\td1\t0.5"), "qrels/test.tsv:4: score '0.5'"),
    "a score beyond trec_eval's": (append(QRELS_FILE, "q2\td1\t128"), "qrels/test.tsv:4: score '128'"),
    "nothing relevant": (
        lambda f: (f / QRELS_FILE).write_text(QRELS.replace("d1\t1", "d1\t0")),
        "no query has a relevant",
    ),
    "Latin-1": (lambda f: (f / "queries.jsonl").write_bytes(b"\xe4"), "queries.jsonl:1: not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unsound_set_is_refused_with_file_and_line(tmp_path: Path, name: str) -> None:
    change, said = REFUSED[name]
    folder = make_set(tmp_path / "set")
    change(folder)
    with pytest.raises(BadInput) as caught:
        LabelledSet(folder, FIELD).write(tmp_path / "out")
    assert said in caught.value.message
    assert ";" in caught.value.message, "what is wrong, and the cure"
    assert caught.value.field == FIELD
    assert caught.value.reason in ("LabelledSetInvalid", "LabelledSetIncomplete")
