"""How a table of settings reads a manifest and a request, and what of it identifies work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from embedding_stages.contract import settings as tables
from embedding_stages.contract.declare import FIRST, NOT_SAID, SettingInvalid, Table, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Table):
    FIELD = "spec.sample.part"

    share: float = setting(0.5, since="0.2", low=0, high=1, says="A decimal.")
    names: tuple[str, ...] = setting(("x",), since="0.2", most=2, longest=3, says="A list.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Table):
    FIELD = "spec.sample"

    steps: int = setting(3, low=1, high=9, says="A whole number.")
    rate: float = setting(0.5, low=0, high=1, says="A decimal.")
    kind: str = setting("a", choices=("a", "b"), says="A word.")
    names: tuple[str, ...] = setting(("x",), most=2, longest=3, says="A list.")
    limit: int | None = setting(None, low=1, high=5, says="Absent when absent.")
    url: str = setting("", longest=9, told=True, says="Said by the operator.")
    rank: int = setting(0, low=0, high=9, since="0.2", says="Joined later, as before.")
    part: Part | None = setting(None, since="0.2", says="A section.")  # noqa: RUF009 - as every other setting
    overlap: int = setting(2, low=0, high=9, since="0.2", before=0, says="Joined later, with another default.")


def test_a_manifest_that_says_nothing_gets_every_default() -> None:
    assert Sample.parse({}) == Sample()
    assert Sample.parse({"names": [], "limit": None}) == Sample()


def test_a_manifest_writes_decimals_as_texts() -> None:
    found = Sample.parse({"steps": 9, "rate": "1e-1", "kind": "b", "names": ["y", "z"], "limit": 5})
    assert found == Sample(steps=9, rate=0.1, kind="b", names=("y", "z"), limit=5)


def test_what_the_operator_alone_tells_is_no_field_of_a_manifest() -> None:
    assert Sample.parse({"url": "mine"}).url == ""
    assert Sample.of({"url": "told"}).url == "told"


def test_a_request_comes_back_as_it_was_written_whatever_kind_of_number_json_made_of_it() -> None:
    written = Sample(rate=1.0, names=("a", "b")).to_json()
    assert Sample.of({**written, "rate": 1}) == Sample(rate=1.0, names=("a", "b"))
    assert isinstance(Sample.of({"rate": 1}).rate, float)


def test_a_request_of_an_older_operator_means_as_before() -> None:
    assert Sample.of({}) == Sample(overlap=0)


def test_a_section_is_there_as_soon_as_it_is_named() -> None:
    assert Sample.parse({}).part is None
    assert Sample.parse({"part": {}}).part == Part()
    found = Sample.parse({"part": {"share": "0.25", "names": ["y"]}})
    assert found.part == Part(share=0.25, names=("y",))
    assert found.to_json()["part"] == {"share": 0.25, "names": ["y"]}
    assert Sample.of(found.to_json()) == found


@pytest.mark.parametrize(
    ("raw", "identity"),
    [
        ({"steps": 3, "rank": 0, "overlap": 0}, {"steps": 3}),
        ({"steps": 3, "part": None}, {"steps": 3}),
        ({"part": {"share": 0.5, "names": ["x"]}}, {"part": {}}),
        ({"part": {"share": 0.25, "names": ["x"]}}, {"part": {"share": 0.25}}),
        ({"steps": 3, "rank": 4, "overlap": 2}, {"steps": 3, "rank": 4, "overlap": 2}),
        ({"rate": 0.5, "provider": "of another table"}, {"rate": 0.5, "provider": "of another table"}),
    ],
)
def test_only_what_is_not_as_before_identifies_work(raw: dict[str, Any], identity: dict[str, Any]) -> None:
    assert Sample.identity(raw) == identity


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"steps": 0}, "0 must be a whole number from 1 to 9"),
        ({"steps": 10}, "10 must be a whole number from 1 to 9"),
        ({"steps": 1.5}, "1.5 must be a whole number from 1 to 9"),
        ({"steps": True}, "True must be a whole number from 1 to 9"),
        ({"steps": "3"}, "'3' must be a whole number from 1 to 9"),
        ({"rate": "high"}, "'high' must be a number from 0 to 1"),
        ({"rate": "nan"}, "nan must be a number from 0 to 1"),
        ({"kind": "c"}, "'c' is not known; give a or b"),
        ({"kind": 1}, "1 must be a text"),
        ({"names": ["x", "y", "z"]}, "must have 0 to 2 items, has 3"),
        ({"names": ["long"]}, "must have 0 to 3 characters, has 4"),
        ({"names": "x"}, "'x' must be a list"),
        ({"limit": 6}, "6 must be a whole number from 1 to 5"),
    ],
    ids=str,
)
def test_a_value_that_is_refused_is_named_with_what_is_taken(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        Sample.parse(raw)
    assert (caught.value.field, caught.value.message) == (f"spec.sample.{next(iter(raw))}", says)


def test_a_setting_without_a_default_is_required() -> None:
    with pytest.raises(SettingInvalid, match="is required"):
        tables.BaseModel.parse({})
    with pytest.raises(SettingInvalid, match="is missing in the stage's request"):
        tables.BaseModel.of({})


@pytest.mark.parametrize("table", [*tables.OF_STAGE.values(), tables.Corpus, tables.Deploy, tables.Workers, tables.Run])
def test_every_setting_has_a_sentence_and_a_default_in_its_range(table: type[Table]) -> None:
    for item in table.settings().values():
        assert item.says.endswith("."), item.name
        assert item.since != FIRST or item.before is NOT_SAID, item.name
    assert table.of(table.parse({}).to_json()) == table.parse({})


@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        (True, "spec.sample.part", "True must be a section"),
        ({"share": "2"}, "spec.sample.part.share", "must be a number from 0 to 1"),
        ({"names": ["long"]}, "spec.sample.part.names", "must have 0 to 3 characters"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_section_is_named_with_its_path(raw: Any, field: str, says: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        Sample.parse({"part": raw})
    assert caught.value.field == field
    assert says in caught.value.message
