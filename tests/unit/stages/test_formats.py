"""What crosses stages, on disk: bytes that a release has once written, and readers beside their writers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from beir.datasets.data_loader import GenericDataLoader

from embedding_stages.contract.canaries import CANARIES
from embedding_stages.errors import BadInput, StageError
from embedding_stages.formats import beir, characters, documents, lines, pairs, set_documents, training_set
from embedding_stages.formats.beir import BeirPassage, BeirQuery, BeirReader, Judgement
from embedding_stages.formats.documents import Document
from embedding_stages.formats.lines import FormatError
from embedding_stages.formats.pairs import Pair, PairSet, Passage, normalised
from embedding_stages.formats.set_documents import SetDocument, documents_of
from embedding_stages.formats.training_set import TrainingExample

DOCUMENTS = [Document(id="0a", path="a b.txt", text="Größe\n“x”"), Document(id="0b", path="b.md", text="2")]
PASSAGES = [Passage("0a-0000", "0a", "Größe\n“x”"), Passage("0b-0000", "0b", "2")]
PAIRS = [
    Pair.about("0a", "How große?", ("0a-0000",), kind="usage"),
    Pair.about("0b", "Which number?", ("0b-0000", "0a-0000"), kind="multi_hop", score=9.0),
]
EXAMPLES = [TrainingExample(query="Größe?", positive="b", negatives=("a", "c"))]
SCORED = [replace(EXAMPLES[0], scores=(0.75, 0.5, -1.0))]
SET_DOCUMENTS = [
    SetDocument("0a", "ab" * 32, ("0a-0000", "0a-0001"), "12" * 32),
    SetDocument("0b", "cd" * 32, ("0b-0000",)),  # of a set that was written before there was the second digest
]
BEIR_PASSAGES = [BeirPassage("p1", "Ein Titel", "Größe"), BeirPassage('p"2', "", "two"), BeirPassage("p3", "", "")]
BEIR_QUERIES = [BeirQuery("q1", "Größe?"), BeirQuery("q2", "Who?"), BeirQuery("q3", "Nobody judged?")]
JUDGEMENTS = [Judgement("q1", "p1", 2), Judgement("q1", 'p"2', 0), Judgement("q2", 'p"2', 1)]


def write_beir(folder: Path) -> None:
    beir.write_passages(folder, BEIR_PASSAGES)
    beir.write_queries(folder, BEIR_QUERIES)
    beir.write_judgements(folder, JUDGEMENTS)


# Artefacts of earlier releases are reused by their digest: not a byte may change.
WRITTEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "documents.jsonl": (
        lambda folder: documents.write_documents(folder / documents.FILE, DOCUMENTS),
        '{"id": "0a", "path": "a b.txt", "text": "Größe\\n“x”"}\n{"id": "0b", "path": "b.md", "text": "2"}\n',
    ),
    "chunks.jsonl": (
        lambda folder: pairs.write_passages(folder / pairs.PASSAGES, PASSAGES),
        ('{"id": "0a-0000", "document_id": "0a", "text": "Größe\\n“x”"}\n'
        '{"id": "0b-0000", "document_id": "0b", "text": "2"}\n'),
    ),
    "pairs.jsonl": (
        lambda folder: pairs.write_pairs(folder / pairs.PAIRS, PAIRS),
        ('{"id": "q-3d07e5f91925245a", "question": "How große?", "document_id": "0a", '
        '"chunk_ids": ["0a-0000"], "type": "usage", "score": null}\n'
        '{"id": "q-c3928b1edac09267", "question": "Which number?", "document_id": "0b", '
        '"chunk_ids": ["0b-0000", "0a-0000"], "type": "multi_hop", "score": 9.0}\n'),
    ),
    "train.jsonl": (
        lambda folder: training_set.write_training_set(folder, dict.fromkeys("dcba", "t"), EXAMPLES),
        '{"query": "Größe?", "positive": "b", "negatives": ["a", "c"]}\n',
    ),
    "scored/train.jsonl": (
        lambda folder: training_set.write_training_set(folder / "scored", dict.fromkeys("dcba", "ä"), SCORED),
        '{"query": "Größe?", "positive": "b", "negatives": ["a", "c"], "scores": [0.75, 0.5, -1.0]}\n',
    ),
    "passages.jsonl": (
        lambda folder: training_set.write_training_set(folder, dict.fromkeys("dcba", "ä"), EXAMPLES),
        '{"id": "a", "text": "ä"}\n{"id": "b", "text": "ä"}\n{"id": "c", "text": "ä"}\n',
    ),
    "corpus.jsonl": (
        write_beir,
        ('{"_id": "p1", "title": "Ein Titel", "text": "Größe"}\n{"_id": "p\\"2", "title": "", "text": "two"}\n'
        '{"_id": "p3", "title": "", "text": ""}\n'),
    ),
    "queries.jsonl": (
        write_beir,
        '{"_id": "q1", "text": "Größe?"}\n{"_id": "q2", "text": "Who?"}\n{"_id": "q3", "text": "Nobody judged?"}\n',
    ),
    "set/documents.jsonl": (
        lambda folder: set_documents.write_set_documents(folder / "set", SET_DOCUMENTS),
        (f'{{"id": "0a", "sha256": "{"ab" * 32}", "passages": ["0a-0000", "0a-0001"], '
        f'"sha256_without_spaces": "{"12" * 32}"}}\n'
        f'{{"id": "0b", "sha256": "{"cd" * 32}", "passages": ["0b-0000"]}}\n'),
    ),
    "qrels/test.tsv": (
        write_beir,
        'query-id\tcorpus-id\tscore\nq1\tp1\t2\nq1\tp"2\t0\nq2\tp"2\t1\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_is_written_as_ever(tmp_path: Path, name: str) -> None:
    write, expected = WRITTEN[name]
    write(tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == expected


def test_what_was_written_is_read(tmp_path: Path) -> None:
    for write, _ in WRITTEN.values():
        write(tmp_path)
    assert list(documents.read_documents(tmp_path)) == DOCUMENTS
    assert pairs.read_pairs(tmp_path) == PairSet({one.id: one for one in PASSAGES}, PAIRS)
    assert set_documents.read_set_documents(tmp_path / "set") == SET_DOCUMENTS
    assert training_set.read_training_set(tmp_path) == (dict.fromkeys("abc", "ä"), EXAMPLES)
    assert training_set.read_training_set(tmp_path / "scored") == (dict.fromkeys("abc", "ä"), SCORED)
    reader = BeirReader.of(tmp_path)
    assert list(reader.passages()) == BEIR_PASSAGES
    assert list(reader.queries()) == BEIR_QUERIES
    assert list(reader.judgements({"q1", "q2"}, {"p1", 'p"2'})) == JUDGEMENTS


def test_a_document_has_one_digest_however_it_is_cut_and_spaced() -> None:
    """Nor do characters count that nobody sees: release 0.1 kept fewer of them."""
    digest = hashlib.sha256(b"One two. Three. ").hexdigest()
    without_spaces = hashlib.sha256(b"Onetwo.Three.").hexdigest()
    one = (["One two. Three."], ["One two.", "Three."], ["One\n two.", " Three. "], ["One tw\u200co. Th\xadree."])
    for texts in one:
        passages = [Passage(f"0a-{number}", "0a", text) for number, text in enumerate(texts)]
        names = tuple(one.id for one in passages)
        assert documents_of([*passages, Passage("0b-0", "0b", "x")])[0] == SetDocument(
            "0a", digest, names, without_spaces
        )


def test_a_document_without_spaces_is_the_same_wherever_it_is_cut() -> None:
    whole, parts = ("配置文件中的超时时间默认为三十秒。",), ("配置文件中的超时", "时间默认为三十秒。")
    found = {documents_of(Passage("a", "a", text) for text in texts)[0].digest for texts in (whole, parts)}
    assert len(found) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_beirs_own_loader_reads_the_same(tmp_path: Path) -> None:
    write_beir(tmp_path)
    corpus, queries, relevance = GenericDataLoader(data_folder=str(tmp_path)).load(split="test")
    reader = BeirReader.of(tmp_path)
    assert corpus == {one.id: {"title": one.title, "text": one.text} for one in reader.passages()}
    texts = {one.id: one.text for one in reader.queries()}
    judgements = list(reader.judgements(texts))
    assert queries == {one.query_id: texts[one.query_id] for one in judgements}
    for query, grades in relevance.items():
        assert grades == {one.passage_id: one.score for one in judgements if one.query_id == query}


DAMAGED: dict[str, tuple[str, str, Callable[[Path], Any], str]] = {
    "a corpus without documents.jsonl": ("x", "", lambda f: list(documents.read_documents(f)), "CorpusDamaged"),
    "a document that is cut off": (
        documents.FILE, '{"id": "a", "te', lambda f: list(documents.read_documents(f)), "CorpusDamaged",
    ),
    "a passage without text": (pairs.PASSAGES, '{"id": "a"}\n', pairs.read_pairs, "PairsDamaged"),
    "a training set without passages": ("x", "", training_set.read_training_set, "TrainingSetInvalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_names_file_and_cure(tmp_path: Path, name: str) -> None:
    file, text, read, reason = DAMAGED[name]
    (tmp_path / file).write_text(text)
    with pytest.raises(StageError) as caught:
        read(tmp_path)
    assert caught.value.reason == reason
    assert ".jsonl" in caught.value.message
    assert ";" in caught.value.message, "what is wrong, and the cure"
    assert caught.value.field or not isinstance(caught.value, BadInput)


def test_lines_of_untrusted_files_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("12345\n1\n1\n")
    for bounds, refused in ((lines.Bounds(5, 9), "f:1"), (lines.Bounds(6, 2), "f:3")):
        with (tmp_path / "f").open("rb") as stream, pytest.raises(FormatError, match=f"^{refused}: longer"):
            list(lines.read_lines(stream, "f", bounds))


SAME_QUERY = [
    ("case, white space and final marks", "What is it?", "what  is IT ?!", True),
    ("the width of letters", "ｗｈａｔ", "what", True),
    ("composed and decomposed letters", "caf\u00e9", "cafe\u0301", True),
    ("letters that have no capital", "Straße", "STRASSE", True),
    ("a comma", "Well, what is it?", "Well what is it", True),
    ("quotation marks", 'What is "it"?', "what is “it”", True),
    ("brackets and dashes", "read-only (mode)", "read only mode", True),
    ("an underscore", "get_nowait", "get nowait", True),
    ("marks of other scripts", "これは何ですか？", "これは何ですか。", True),
    ("a mark at the start", "¿Qué es?", "qué es", True),
    ("an apostrophe around a word", "the 'it' field", "the it field", True),
    ("how an apostrophe is typed", "don't", "don’t", True),
    ("another tense", "What is it?", "What was it?", False),
    ("a symbol", "C++", "C", False),
    ("punctuation that is part of a name", "C#", "C", False),
    ("a capital within a name", "OrderedDict", "ordereddict", True),
    ("vowel signs", "कि", "का", False),
    ("an apostrophe within a word", "we're", "were", False),
    ("emoji", "What is 🚀?", "What is 🔥?", False),
    ("a name written as words", "OrderedDict", "ordered dict", False),
    ("another order", "a b", "b a", False),
    ("a joiner that people leave out", "می\u200cخواهم", "میخواهم", True),
    ("a zero-width space and a space", "ខ្ញុំ\u200bសរសេរ", "ខ្ញុំ សរសេរ", True),
    ("marks of direction", "\u200f\u2067שלום\u2069?", "שלום", True),
    ("a soft hyphen", "Dampf\u00adschiff", "Dampfschiff", True),
    ("how an emoji is shown", "What is ☎\ufe0f?", "What is ☎?", True),
]


@pytest.mark.parametrize(("sentence", "one", "other", "same"), SAME_QUERY, ids=[row[0] for row in SAME_QUERY])
def test_queries_are_the_same_but_for(sentence: str, one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # England
CLEANED = [
    ("joiners, of Persian, Sinhala and emoji", "می\u200cخواهم ක්\u200dෂ 👩\u200d🔬", None),
    ("zero-width spaces, of Khmer and Thai", "ខ្ញុំ\u200bសរសេរ ไทย\u200bแลนด์", None),
    ("variation selectors and combining marks", "☎\ufe0f 葛\U000e0100 x\u0302\u034f कि", None),
    ("the tags of a flag", f"a {FLAG}", None),
    ("what a line is made of", "a\tb\n c", None),
    ("decomposed letters", "e\u0301", "é"),
    ("compatible letters", "ﬁ ½ ｗ", None),
    ("other line ends", "a\r\nb\rc\u2028d\u2029e\x85f\fg\vh", "a\nb\nc\nd\ne\nf\ng\nh"),
    ("controls", "a\x1b\x07b\x9f\x1e", "ab"),
    ("a soft hyphen", "Dampf\u00adschiff", "Dampfschiff"),
    ("byte-order marks and word joiners", "\ufeffa\ufeff\u2060b", "ab"),
    ("direction", "\u200ea\u200f\u061cb\u202ec\u2067d\u2069\u206a", "abcd"),
    ("tags without a flag", "a\U000e0069\U000e0067\U000e006e", "a"),
    ("an instruction behind a flag", "\U0001f3f4" + "\U000e0069" * 20 + "\U000e007f", "\U0001f3f4"),
]


@pytest.mark.parametrize(("sentence", "text", "cleaned"), CLEANED, ids=[row[0] for row in CLEANED])
def test_characters_that_stay_and_that_go(sentence: str, text: str, cleaned: str | None) -> None:
    assert characters.clean(text) == (text if cleaned is None else cleaned)
    assert characters.clean(characters.clean(text)) == characters.clean(text)


def test_canaries_are_clean() -> None:
    """A server cleans what it is asked, and their vectors are known to others."""
    assert [text for _, text in CANARIES if characters.clean(text) != text] == []


@pytest.mark.parametrize("text", ["what is it", "don't do that", "was ist grün 5", ""])
def test_a_bare_query_is_its_own_normal_form(text: str) -> None:
    assert normalised(text) == text
