"""What an LLM costs: a ledger of answers, prices, a preview, a budget, a judge of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_llm import Script, Server
from unit.stages.llm_endpoint import FIELD, Endpoint, Reply, good, sdg
from unit.stages.scripted_sdg import PRICES, documents, scripted

from embedding_stages.errors import BadInput, Stopped
from embedding_stages.sdg.answers import Usage
from embedding_stages.sdg.bill import Forecast, Shape, spread
from embedding_stages.sdg.ledger import JUDGE, WRITER, Ledger
from embedding_stages.sdg.rationing import Rations

pytestmark = pytest.mark.usefixtures("no_proxy")
PREVIEW = re.compile(r"about (\d+) and (\d+), a price of ([\d.e-]+) after")


def test_an_answer_is_there_after_a_kill_and_a_line_that_was_cut_is_none(tmp_path: Path) -> None:
    path, request = tmp_path / "answers.jsonl", {"messages": ["\ud83d"]}
    with Ledger(path) as ledger:
        assert ledger.of(WRITER, request).take() is None
        ledger.of(WRITER, request).keep("first", Usage(1, 10, 2))
        ledger.of(WRITER, request).keep("second", Usage(1, 10, 3))
        ledger.of(JUDGE, request).keep("cut off", Usage(1, 5, 1))
    path.write_bytes(path.read_bytes()[:-20])
    with Ledger(path) as ledger:
        assert [
            kept.text for kept in (ledger.of(WRITER, request).take(), ledger.of(WRITER, request).take()) if kept
        ] == [
            "first",
            "second",
        ]
        assert ledger.of(WRITER, request).take() is None
        assert ledger.of(JUDGE, request).take() is None
        assert (ledger.spent(), ledger.paid()) == (Usage(2, 20, 5), 0)
        ledger.of(JUDGE, request).keep("again", Usage(1, 5, 1))
        assert ledger.paid() == 6
    with Ledger(path) as ledger:
        assert ledger.spent(JUDGE) == Usage(1, 5, 1)


def test_documents_of_a_preview_stand_for_all_sizes() -> None:
    shapes = [Shape(characters=size, calls=2, pairs=7) for size in (9, 1, 8, 2, 7, 3, 6, 4, 5, 10)]
    assert [shapes[place].characters for place in spread(shapes, 5)] == [8, 2, 6, 4, 10]
    assert spread(shapes, 99) == list(range(10))
    assert spread([], 5) == []


def test_documents_under_way_keep_back_what_the_worst_so_far_says(tmp_path: Path) -> None:
    shape = Shape(characters=4000, calls=2, pairs=7)
    guessed = round(shape.tokens)
    with Ledger(tmp_path / "answers.jsonl") as ledger:
        rations = Rations(
            iter("abcde"), shape=lambda _: shape, is_paid=lambda name: name == "b", ledger=ledger, most=6 * guessed
        )
        assert [rations.take(), rations.take()] == ["a", "b"]
        assert rations.take() is None, "nothing is known before one is done"
        rations.done(0, shape, Usage(2, guessed, 0))
        assert [rations.take(), rations.take()] == ["c", "d"]
        rations.done(2, shape, Usage(2, 4 * guessed, 0))
        assert rations.take() is None, "the one under way may take as much"
        rations.done(3, shape, Usage(2, guessed, 0))
        assert rations.take() == "e"


def test_a_budget_that_is_spent_is_not_called_too_small(tmp_path: Path) -> None:
    """What was spent before a kill may have finished no document."""
    shape = Shape(characters=4000, calls=2, pairs=7)

    def rations(ledger: Ledger) -> Rations[str]:
        return Rations(iter(["d"]), shape=lambda _: shape, is_paid=lambda _: False, ledger=ledger, most=1000)

    with Ledger(tmp_path / "answers.jsonl") as ledger:
        small = rations(ledger)
        assert small.take() is None
        with pytest.raises(BadInput, match="fewer than the first document takes"):
            small.check_all_were_taken(1, 0)
        ledger.of(WRITER, {"messages": []}).keep("text", Usage(1, 700, 200))
        spent = rations(ledger)
        assert spent.take() is None
        with pytest.raises(Stopped, match="900 of 1000 tokens are used"):
            spent.check_all_were_taken(1, 0)


def test_what_a_forecast_has_learned_is_kept(tmp_path: Path) -> None:
    path, shape = tmp_path / "learned.json", Shape(characters=1000, calls=2, pairs=7)
    assert Forecast.load(path) == Forecast()
    forecast = Forecast()
    forecast.learn(shape, Usage(2, 900, 300))
    forecast.save(path)
    assert Forecast.load(path) == forecast
    path.write_text("[[")
    assert Forecast.load(path) == Forecast()


def test_a_forecast_is_as_good_as_its_documents() -> None:
    forecast = Forecast()
    small, large = (Shape(characters=size, calls=2, pairs=7) for size in (1000, 9000))
    assert forecast.of([small]).tokens == round(small.prompt) + round(small.completion)
    forecast.learn(small, Usage(2, 2 * round(small.prompt), round(small.completion) // 2))
    assert forecast.of([large]) == Usage(2, round(2 * large.prompt), round(large.completion / 2))


def test_tokens_and_prices_are_told(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, result, pairs = scripted(tmp_path, server.url, documents(4), prices=PRICES, qualityThreshold=8.0)
        stats = server.state.stats()
    assert code == 0, result
    assert result["details"]["llmTokens"] == {
        "calls": stats["answered"],
        "prompt": stats["prompt"],
        "completion": stats["completion"],
    }
    kept = sum(pair["score"] >= 8 for pair in pairs)
    assert 0 < kept == result["counts"]["keptPairs"] < len(pairs)
    price = (stats["prompt"] * 2 + stats["completion"] * 8) / 1e6
    told = result["details"]["llmCost"]
    assert told["total"] == pytest.approx(price, rel=1e-4)
    assert told["perKeptPair"] == pytest.approx(price / kept, rel=1e-4)


def test_an_endpoint_that_does_not_count_is_estimated_and_the_status_says_so(tmp_path: Path) -> None:
    with Server(Script(usage=False)) as server:
        _, result, _ = scripted(tmp_path, server.url, documents(2))
        stats = server.state.stats()
    told = result["details"]["llmTokens"]
    assert told["estimated"] == told["calls"] == 4
    assert told["prompt"] + told["completion"] == pytest.approx(stats["prompt"] + stats["completion"], rel=0.2)


@pytest.mark.parametrize("judge", [{}, {"judge": {"model": "j"}}])
def test_a_preview_tells_the_bill_within_a_fifth_and_is_not_paid_twice(tmp_path: Path, judge: dict[str, Any]) -> None:
    texts = documents(60)
    with Server(Script()) as server:
        code, result, _ = scripted(tmp_path, server.url, texts, endpoint=judge, prices=PRICES, preview=5)
        first = server.state.stats()
        assert (code, result["reason"], result["field"]) == (40, "PreviewDone", "spec.stages.sdg.preview")
        assert result["message"].startswith("5 of 60 documents gave 35 questions")
        told = PREVIEW.search(result["message"])
        assert told is not None, result["message"]
        code, result, _ = scripted(tmp_path, server.url, texts, endpoint=judge, prices=PRICES)
        stats = server.state.stats()
    assert (code, first["answered"], stats["answeredTwice"]) == (0, 10, 0)
    real = (stats["prompt"], stats["completion"], result["details"]["llmCost"]["total"])
    assert [float(one) for one in told.groups()] == [pytest.approx(one, rel=0.2) for one in real]


def test_a_budget_stops_keeps_what_was_made_and_goes_on_where_it_is_raised(tmp_path: Path) -> None:
    texts = documents(40)
    with Server(Script()) as server:
        code, result, _ = scripted(tmp_path, server.url, texts, maxTokensTotal=30_000)
        spent = server.state.stats()
        assert (code, result["reason"], result["field"]) == (40, "TokenBudgetSpent", "spec.stages.sdg.maxTokensTotal")
        assert 15_000 < spent["prompt"] + spent["completion"] <= 30_000
        assert result["llmTokens"] == spent["prompt"] + spent["completion"]
        again = scripted(tmp_path, server.url, texts, maxTokensTotal=30_000)
        assert (again[0], server.state.stats()["answered"]) == (40, spent["answered"]), "nothing more is asked"
        assert "llmTokens" not in again[1]
        code, _, pairs = scripted(tmp_path, server.url, texts, maxTokensTotal=10_000_000)
        stats = server.state.stats()
    assert (code, len(pairs), stats["answeredTwice"]) == (0, 280, 0)


@pytest.mark.parametrize("at_once", [8, 64])
def test_a_budget_holds_before_anybody_knows_what_a_document_takes(
    tmp_path: Path, endpoint: type[Endpoint], at_once: int
) -> None:
    """A model that thinks takes many times as much as is guessed."""
    endpoint.reply = staticmethod(costs(8000))  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=100, maxTokensTotal=100_000, concurrency=at_once)
    assert (code, result["reason"]) == (40, "TokenBudgetSpent"), result
    assert 80_000 < result["llmTokens"] <= 100_000


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_budget_that_documents_run_over_ends_before_the_next_request(
    tmp_path: Path, endpoint: type[Endpoint], at_once: int
) -> None:
    """What is under way by then is answered, kept, and not asked for again."""
    cheap, dear = costs(10), costs(30_000)

    def reply(body: dict[str, Any], number: int) -> Reply:
        return (cheap if number <= 2 else dear)(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=20, maxTokensTotal=25_000, concurrency=at_once)
    assert (code, result["reason"]) == (40, "TokenBudgetSpent"), result
    assert 25_000 <= result["llmTokens"] < 25_000 + at_once * 30_100
    assert "documents are under way: " in result["message"]
    again = sdg(tmp_path, endpoint.url, documents=20, maxTokensTotal=25_000, concurrency=at_once, attempt=2)
    assert (again[0], again[1]["reason"], "llmTokens" in again[1]) == (40, "TokenBudgetSpent", False)
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=20, attempt=3)
    assert (code, len(pairs), len(endpoint.bodies)) == (0, 20, 40), result


def costs(tokens: int) -> Callable[[dict[str, Any], int], Reply]:
    def reply(body: dict[str, Any], number: int) -> Reply:
        status, answer, headers = good(body, number)
        return status, answer | {"usage": {"prompt_tokens": 50, "completion_tokens": tokens}}, headers

    return reply


def test_a_budget_smaller_than_one_document_asks_nothing(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, result, _ = scripted(tmp_path, server.url, documents(3), maxTokensTotal=100)
        assert server.state.stats()["answered"] == 0
    assert (code, result["reason"], result["field"]) == (10, "TokenBudgetTooSmall", "spec.stages.sdg.maxTokensTotal")
    assert "100 tokens are fewer than the first document takes, about" in result["message"]


def test_a_judge_of_its_own_has_its_address_its_key_and_its_limit(tmp_path: Path) -> None:
    slow = Script(latency=(0.05, 0.05))
    with Server(slow) as writer, Server(slow) as judge:
        section = {"judge": {"baseURL": judge.url, "model": "strict"}}
        code, result, _ = scripted(tmp_path, writer.url, documents(24), endpoint=section, judgeConcurrency=2)
        written, judged = writer.state.stats(), judge.state.stats()
    assert code == 0, result
    assert (written["roles"], judged["roles"]) == ({"writer": 24}, {"judge": 24})
    assert judged["mostAtOnce"] <= 2 < written["mostAtOnce"] <= 8
    assert result["details"]["judgeTokens"]["prompt"] == judged["prompt"]
    assert result["details"]["llmTokens"]["prompt"] == written["prompt"] + judged["prompt"]


def test_a_judge_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with Server(Script(models=["m"])) as server:
        code, result, _ = scripted(tmp_path, server.url, documents(3), endpoint={"judge": {"model": "nobody"}})
    assert (code, result["reason"], result["field"]) == (10, "LLMModelNotFound", f"{FIELD}.judge.model")
    assert "'nobody'" in result["message"]


def test_without_json_mode_and_without_json_the_cure_is_told(tmp_path: Path) -> None:
    with Server(Script(json_mode=False)) as server:
        code, result, _ = scripted(tmp_path / "a", server.url, documents(2))
    assert (code, result["details"]["llmParameters"]) == (0, {"leftOut": ["response_format"]})
    with Server(Script(json_mode=False, junk=1.0)) as server:
        code, result, _ = scripted(tmp_path / "b", server.url, documents(2))
    assert (code, result["reason"], result["field"]) == (10, "NoPairs", f"{FIELD}.model")
    assert "no JSON mode" in result["message"]


def test_a_ledger_holds_no_key(tmp_path: Path) -> None:
    with Server(Script()) as server:
        assert scripted(tmp_path, server.url, documents(2), maxTokensTotal=3000)[0] == 40
    lines = next(tmp_path.rglob("answers.jsonl")).read_text().splitlines()
    assert {json.loads(line)["role"] for line in lines} == {"writer"}, "the judge is the same model"
    assert "sk-very-secret" not in "".join(lines)
