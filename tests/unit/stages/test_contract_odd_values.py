"""What an image of somebody else's may print: a line of progress or a result that cannot be read is none."""

from __future__ import annotations

import json

import pytest

from embedding_stages.contract import Artefact, ArtefactRef, Progress, Stage, StageResult, parse_progress

WHOLE = (1 << 53) - 1  # the largest count that is taken
GOOD = '{"progress":{"percent":50,"step":1,"totalSteps":2}}'
DEEP = "[" * 10_000 + "]" * 10_000
# Values of a field, as JSON, with and without words for them.
ODD = {
    "infinity": "Infinity",
    "beyond a float": "1e999",
    "no number": "NaN",
    "negative": "-1",
    "large": "1" + "0" * 400,
    "larger": "1" + "0" * 5000,
    "too large by one": str(WHOLE + 1),
    "larger than 64 bits": str(1 << 63),
    "a large decimal": "1e300",
    "list": "[1]",
    "object": '{"a":1}',
    "text": '"many"',
    "text of a number": '"Infinity"',
    "nothing": "null",
    "true": "true",
    "deep": DEEP,
    "half a character": '"\\ud83d"',
    "a key of half a character": '{"\\ud83d":1}',
}
PROGRESS = ("percent", "step", "totalSteps", "etaSeconds", "loss", "rate", "unit", "llmTokens")
RESULT = (
    "schema",
    "stage",
    "fingerprint",
    "reason",
    "message",
    "field",
    "artefacts",
    "metrics",
    "counts",
    "details",
    "llmTokens",
)
PLACE = "the value"


def with_odd(whole: dict[str, object], text: str) -> str:
    """`whole` as JSON, with a value that Python may have no object for."""
    return json.dumps(whole).replace(f'"{PLACE}"', text)


@pytest.mark.parametrize("value", ODD.values(), ids=list(ODD))
@pytest.mark.parametrize("field", PROGRESS)
def test_progress_that_cannot_be_read_is_none(field: str, value: str) -> None:
    line = with_odd({"progress": {**json.loads(GOOD)["progress"], field: PLACE}}, value)
    found = parse_progress(f"{GOOD}\n{line}")
    assert found is not None, "the line before it"
    assert 0 <= found.percent <= 100
    assert all(abs(number) <= WHOLE for number in (found.step, found.total_steps, found.eta_seconds or 0))
    assert 0 <= found.llm_tokens <= WHOLE
    found.unit.encode()


@pytest.mark.parametrize("value", ODD.values(), ids=list(ODD))
def test_a_line_that_is_no_progress_is_passed_over(value: str) -> None:
    for line in (f'"progress" {value}', f'["progress", {value}]', f'{{"progress":{value}}}'):
        assert parse_progress(f"{GOOD}\n{line}") == Progress(percent=50, step=1, total_steps=2)


def a_result() -> dict[str, object]:
    ref = ArtefactRef(path="a", digest="b")
    made = StageResult(stage=Stage.SDG, fingerprint="0" * 64, artefacts={Artefact.PAIRS: ref}, counts={"queries": 3})
    whole: dict[str, object] = json.loads(made.to_json())
    return whole


def is_refused(text: str) -> bool:
    try:
        StageResult.from_json(text)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("value", ODD.values(), ids=list(ODD))
@pytest.mark.parametrize("field", RESULT)
def test_a_result_that_cannot_be_read_is_none(field: str, value: str) -> None:
    texts = [with_odd({**a_result(), field: PLACE}, value)]
    if field in ("counts", "metrics", "details", "artefacts"):
        texts.append(with_odd({**a_result(), field: {"pairs": PLACE}}, value))
        texts.append(with_odd({**a_result(), field: {"pairs": {"path": PLACE}}}, value))
    for text in texts:
        try:
            found = StageResult.from_json(text)
        except ValueError:
            continue
        assert all(abs(number) <= WHOLE for number in (*found.counts.values(), found.llm_tokens))
        json.dumps(dict(found.details), allow_nan=False, ensure_ascii=False).encode()
        assert StageResult.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("counts", '{"queries":1e999}'),
        ("counts", '{"queries":NaN}'),
        ("counts", f'{{"queries":{WHOLE + 1}}}'),
        ("details", f'{{"rate":{DEEP}}}'),
        ("llmTokens", "1e999"),
    ],
    ids=["count", "no count", "large count", "deep", "tokens"],
)
def test_a_number_that_no_status_can_hold_makes_a_result_none(field: str, value: str) -> None:
    assert is_refused(with_odd({**a_result(), field: PLACE}, value))


@pytest.mark.parametrize(
    "text",
    ["[" * 4000, '{"a":' * 4000, "1" * 5000, "Infinity", ""],
    ids=["lists", "objects", "digits", "no number", "nothing"],
)
def test_a_text_that_is_no_result_is_none(text: str) -> None:
    assert is_refused(text)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", str(10**400), '"\\ud83d"'], ids=["none", "infinite", "large", "half a character"]
)
def test_a_detail_that_cannot_be_held_loses_no_words(value: str) -> None:
    """Of a failure, or what it has cost."""
    raw = {**a_result(), "reason": "Interrupted", "llmTokens": 9, "details": {"rate": PLACE, "steps": 7}}
    read = StageResult.from_json(with_odd(raw, value))
    assert (read.reason, read.llm_tokens, read.details) == ("Interrupted", 9, {"steps": 7})
