"""What export draws from a corpus: the same as if it held all of it, and it holds no more than it draws."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from embedding_stages.errors import BadInput
from embedding_stages.export import calibration
from embedding_stages.export.calibration import PASSAGES_READ, calibration_texts
from embedding_stages.export.drawn import at_places, even_places
from embedding_stages.export.ranking import PASSAGES, QUESTIONS, ranking_set
from embedding_stages.formats.beir import BeirPassage, BeirReader


class Text(str):
    """Counts how many of its kind are held at the same time."""

    __slots__ = ()
    held = most = 0

    def __new__(cls, value: str) -> Self:
        Text.held += 1
        Text.most = max(Text.most, Text.held)
        return super().__new__(cls, value)

    def __del__(self) -> None:
        Text.held -= 1


class Passage(BeirPassage):
    @property
    def full_text(self) -> str:
        return Text(f"{self.title} {self.text}".strip())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text of a passage is counted."""
    records, passages = calibration.read_records, BeirReader.passages

    def counted_records(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
        return ((where, {"text": Text(record["text"])}) for where, record in records(path))

    def counted_passages(self: BeirReader) -> Iterator[BeirPassage]:
        return (Passage(one.id, Text(one.title), Text(one.text)) for one in passages(self))

    monkeypatch.setattr(Text, "held", 0)
    monkeypatch.setattr(Text, "most", 0)
    monkeypatch.setattr(calibration, "read_records", counted_records)
    monkeypatch.setattr(BeirReader, "passages", counted_passages)


def write_set(folder: Path, *, passages: int, queries: int, relevant: int, seed: int) -> None:
    draw = random.Random(seed)
    (folder / "qrels").mkdir(parents=True)
    names = [f"p{draw.random()}" for _ in range(passages)]
    asked = [f"q{number}" for number in range(queries)]
    lines = [{"_id": name, "title": "", "text": f"of {name}"} for name in names]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"_id": name, "text": f"asks {name}"} for name in asked]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = [
        f"{name}\t{passage}\t{draw.choice((0, 1, 2))}\n"
        for name in asked
        for passage in draw.sample([*names, "gone"], relevant)
    ]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))


@pytest.mark.parametrize(
    ("passages", "queries", "relevant"),
    [(0, 0, 0), (3, 1, 1), (40, 300, 2), (700, 20, 3), (3000, 300, 2), (2000, 300, 4)],
)
def test_the_ranking_is_of_what_holding_all_of_the_set_would_choose(
    tmp_path: Path, passages: int, queries: int, relevant: int
) -> None:
    write_set(tmp_path, passages=passages, queries=queries, relevant=relevant, seed=passages)
    found = ranking_set(tmp_path)

    reader = BeirReader.of(tmp_path, may_be_empty=True)
    texts = {one.id: one.full_text for one in reader.passages()}
    asked = {one.id: one.text for one in reader.queries()}
    grades: dict[str, dict[str, int]] = {}
    for one in reader.judgements(asked) if asked else ():
        if one.score > 0 and one.passage_id in texts:
            grades.setdefault(one.query_id, {})[one.passage_id] = one.score
    chosen = [name for name in asked if name in grades][:QUESTIONS]
    needed = dict.fromkeys(name for query in chosen for name in grades[query])
    others = [name for name in texts if name not in needed]
    room = max(0, min(PASSAGES - len(needed), len(others)))
    names = [*needed, *(others[number * len(others) // room] for number in range(room))]

    if not chosen:
        assert found is None
        return
    assert found is not None
    assert list(found.queries) == [asked[name] for name in chosen]
    assert list(found.passages) == [texts[name] for name in names]
    assert [{names[place]: grade for place, grade in one.items()} for one in found.grades] == [
        grades[name] for name in chosen
    ]


@pytest.mark.usefixtures("counted")
def test_the_ranking_holds_the_texts_that_it_chose(tmp_path: Path) -> None:
    write_set(tmp_path, passages=4000, queries=20, relevant=3, seed=1)
    found = ranking_set(tmp_path)
    assert found is not None
    assert len(found.passages) == PASSAGES == Text.held
    assert Text.most <= PASSAGES + 8, "those that are drawn, and the one in hand"


@pytest.mark.usefixtures("counted")
def test_the_calibration_holds_the_texts_that_it_chose(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"p{number}", "text": f"t{number}"}) for number in range(4000)]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines) + "\n")
    texts = calibration_texts(tmp_path)
    assert texts == [f"t{number * 4000 // PASSAGES_READ}" for number in range(PASSAGES_READ)]
    assert Text.most <= PASSAGES_READ + 8


@pytest.mark.parametrize(
    ("said", "reason"),
    [("", "TrainingSetEmpty"), ('{"id": "a", "text": "t"}\n{"id": "b"}\n', "TrainingSetInvalid")],
)
def test_what_cannot_calibrate_is_named(tmp_path: Path, said: str, reason: str) -> None:
    (tmp_path / "passages.jsonl").write_text(said)
    with pytest.raises(BadInput) as told:
        calibration_texts(tmp_path)
    assert told.value.reason == reason


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(0, 4, []), (3, 0, []), (3, 4, [0, 1, 2]), (8, 4, [0, 2, 4, 6]), (10, 4, [0, 2, 5, 7])],
)
def test_places_are_even(count: int, most: int, places: list[int]) -> None:
    assert even_places(count, most) == places
    assert at_places(iter(range(count)), places) == places
