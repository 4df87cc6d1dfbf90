"""Several kinds of questions in one run of the stage: balance, fallback, determinism, and rules alone as ever."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.stages.sdg_work import chunks_of, counted_of, pairs_in, stage
from unit.stages.test_sdg_extractive import ONE, TWO
from unit.stages.test_sdg_kinds import CHINESE, GERMAN, NO_MARKS

from embedding_stages.contract.settings import QUESTION_KINDS
from embedding_stages.formats.pairs import RULE_TYPES, Pair
from embedding_stages.sdg.extractive import Candidate, drop_ambiguous
from embedding_stages.sdg.kinds import WRITERS
from embedding_stages.sdg.prompts import TYPES
from embedding_stages.sdg.turns import candidates_in_turns, count_kinds, kind_of, turn_of

PARTS = ("pump", "valve", "rotor", "gasket", "nozzle", "bearing", "piston", "shaft", "flange", "spring")
FLUIDS = ("water", "diesel", "ammonia", "glycol", "steam", "helium", "butane", "ethanol", "nitrogen", "brine")
MANUAL = (
    "How the {part} is serviced with {fluid} in its circuit\n\nThe pressure sensor of the {part} measures {fluid} in "
    "cycles of one minute. If the {part} loses {fluid} during a test run, the control unit reports the leak to the "
    "operator. To replace the {part} of a {fluid} circuit, close the inlet tap and drain the storage tank. The control "
    "unit of the {part} records every test run of the {fluid} circuit in its event log."
)
MARKDOWN = (
    "# Installing the operator\n\nTo rotate the signing keys, restart the controller. A tenant is a group of users "
    "with a shared quota. Use journalctl to read the kernel log.\n\nIf the header is missing from the message, None "
    "comes back."
)
AS_EVER = (
    "93defd96ae4009d3513505904ca4e74a8aa9a1fb687da2600d95191176a857b5"  # of the release before kinds were asked for
)


def manuals(number: int = 50) -> dict[str, str]:
    """Each names two things that four others of fifty name too."""
    pairs = [(PARTS[at % 10], FLUIDS[(at + at // 10) % 10]) for at in range(number)]
    return {f"m{at}": MANUAL.format(part=part, fluid=fluid) for at, (part, fluid) in enumerate(pairs)}


def asked(
    texts: dict[str, str], kinds: Sequence[str] = QUESTION_KINDS, *, wanted: int = 7, seed: int = 42
) -> list[list[Candidate]]:
    documents = [chunks_of(name, text) for name, text in texts.items()]
    counted = counted_of(*documents)
    found = [candidates_in_turns(passages, counted, kinds, wanted=wanted, seed=seed) for passages in documents]
    return drop_ambiguous(found, wanted)[0]


def kinds_of(documents: list[list[Candidate]]) -> Counter[str]:
    return Counter(kind_of(item.type) for candidates in documents for item in candidates)


def test_rules_alone_write_byte_for_byte_what_they_wrote_before(tmp_path: Path) -> None:
    texts = {"one": ONE, "two": TWO, "de": "\n\n".join(
        ("Der Bescheid wird nach Ablauf der gesetzlichen Frist von vier Wochen rechtskräftig und vollstreckbar.",
         "Gegen die Entscheidung kann binnen eines Monats schriftlich Widerspruch bei der Behörde eingelegt werden.")),
        "plain": NO_MARKS, "md": MARKDOWN}  # fmt: skip
    for changes in ({}, {"questionKinds": ["rules"]}):
        _, result, folder = stage(tmp_path, texts, **changes)
        assert hashlib.sha256((folder / "pairs.jsonl").read_bytes()).hexdigest() == AS_EVER
        assert "questionKinds" not in result["details"]


def test_all_kinds_are_written_and_counted(tmp_path: Path) -> None:
    code, result, folder = stage(tmp_path, manuals(), questionKinds=list(QUESTION_KINDS))
    assert code == 0, result
    pairs = pairs_in(folder)
    counts = result["details"]["questionKinds"]
    assert counts == dict(Counter(kind_of(pair["type"]) for pair in pairs))
    assert set(counts) == set(QUESTION_KINDS)
    assert {pair["type"] for pair in pairs} <= RULE_TYPES
    assert all(pair["score"] is None and pair["chunk_ids"][0].startswith(pair["document_id"]) for pair in pairs)


def test_the_same_seed_writes_the_same_and_another_one_does_not(tmp_path: Path) -> None:
    kinds = {"questionKinds": list(QUESTION_KINDS)}
    first, again, other = (stage(tmp_path, manuals(9), **kinds, seed=seed)[2] for seed in (1, 1, 2))
    assert (first / "pairs.jsonl").read_bytes() == (again / "pairs.jsonl").read_bytes()
    assert (first / "pairs.jsonl").read_bytes() != (other / "pairs.jsonl").read_bytes()


@pytest.mark.parametrize(("wanted", "passages"), [(1, 1), (2, 1), (3, 1), (7, 5), (14, 5)])
def test_kinds_have_their_shares_over_the_corpus(wanted: int, passages: int) -> None:
    pages = list(manuals().values())
    texts = {f"m{at}": "\n\n".join(pages[at : at + passages]) for at in range(0, len(pages), passages)}
    found = kinds_of(asked(texts, wanted=wanted))
    assert found.total() >= 0.98 * len(texts) * wanted
    turn = Counter(turn_of(QUESTION_KINDS))
    for kind in turn:
        assert found[kind] / found.total() == pytest.approx(turn[kind] / turn.total(), abs=0.1), (kind, found)


def test_a_passage_has_one_title_and_others_take_the_place_of_a_second_one() -> None:
    found = kinds_of(asked(manuals()))
    assert found["title"] == 50
    assert found.total() == 50 * 7


@pytest.mark.parametrize("kinds", [["topic", "title"], ["terms"], ["rules", "excerpt"], ["topic"]])
def test_only_kinds_that_are_asked_for_are_written(kinds: list[str]) -> None:
    assert set(kinds_of(asked(manuals(), kinds))) == set(kinds)


def test_the_order_in_which_kinds_are_named_does_not_matter() -> None:
    assert turn_of(reversed(QUESTION_KINDS)) == turn_of(QUESTION_KINDS)
    assert Counter(turn_of(QUESTION_KINDS)) == {"topic": 2, "title": 2, "rules": 1, "excerpt": 1, "terms": 1}


def test_where_rules_find_nothing_others_take_their_place() -> None:
    (found,) = asked({"plain": NO_MARKS})
    assert len(found) == 7
    assert set(kinds_of([found])) == {"title", "excerpt", "terms"}, "and no topic in a corpus of one"


def test_terms_stand_in_for_a_topic_that_does_not_exist() -> None:
    assert set(kinds_of(asked({"plain": NO_MARKS}, ["topic"]))) == {"terms"}


def test_the_passages_of_a_document_take_turns() -> None:
    text = "\n\n".join(manuals(6).values())
    (found,) = asked({"long": text}, ["excerpt", "terms"], wanted=12)
    used = Counter(item.passage_id for item in found)
    assert len(used) == len(chunks_of("long", text)) > 3
    assert max(used.values()) - min(used.values()) <= 2


def test_no_question_is_asked_twice_in_any_order_of_its_words() -> None:
    for candidates in asked(manuals(10), wanted=30):
        orders = [" ".join(sorted(item.question.lower().split())) for item in candidates if item.type in WRITERS]
        assert len(set(orders)) == len(orders)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [("", set()), ("hello", set()), ("x = 1\ny = 2\n", set()), (CHINESE, {"title"}),
     (GERMAN[0], {"rules", "title", "excerpt", "terms"})],
)  # fmt: skip
def test_what_cannot_be_asked_is_not(text: str, kinds: set[str]) -> None:
    assert set(kinds_of(asked({"one": text}))) == kinds


def test_a_document_without_passages_gives_nothing() -> None:
    assert candidates_in_turns([], counted_of(), QUESTION_KINDS, wanted=7, seed=1) == []


def test_kinds_without_a_pair_are_not_counted() -> None:
    pairs = [Pair.about("d", f"q{kind}", ("d-0",), kind=kind) for kind in ("usage", "keywords", "topic")]
    assert count_kinds(pairs) == {"rules": 2, "topic": 1}
    assert list(count_kinds(pairs)) == ["rules", "topic"]


def test_types_of_all_kinds_are_those_of_rules_and_none_is_a_language_models() -> None:
    assert set(WRITERS) == set(QUESTION_KINDS) - {"rules"}
    assert set(WRITERS) < RULE_TYPES
    assert RULE_TYPES.isdisjoint(TYPES)
