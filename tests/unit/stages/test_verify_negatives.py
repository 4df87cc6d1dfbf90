"""What the verify stage asks wrongly on purpose, against the real server and against servers that do it wrong."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.stages.query_maps import a_map, with_map
from unit.stages.test_evaluate_metrics import a_set
from unit.stages.test_evaluate_set import write
from unit.stages.test_verify_stage import K_VALUES, report_of, verify, workspace
from unit.stages.tiny_serving import HIDDEN, TOPICS, make_serving_folder, serving

from embedding_stages.contract import TERMINATION_MESSAGE_BYTES, Artefact, ExitCode, servers
from embedding_stages.contract.canaries import texts_of
from embedding_stages.contract.servers import NIM_1, SERVERS
from embedding_stages.encoder.description import EncoderDescription, Role
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.errors import Stopped
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.evaluate.metrics import Scores, measure
from embedding_stages.evaluate.report import save_report
from embedding_stages.serve import app
from embedding_stages.serve.onnx_model import OnnxModel
from embedding_stages.serve.requests import RequestError, parse_request
from embedding_stages.verify import client as client_module
from embedding_stages.verify.negatives import SAMPLE, Measured, Negatives, sample_of

__all__ = ["workspace"]  # the fixture

# Words of passages before every query: it is found better without them, which is how a passage is sent.
SWAPPED = {"query": "topic19 topic18 topic17 topic16 topic15 topic14 ", "passage": ""}


def with_prefixes(workspace: Path, prefixes: dict[str, str]) -> None:
    """The model and its evaluation, with other prefixes."""
    shutil.rmtree(workspace / "model")
    make_serving_folder(workspace / "model", prefixes=prefixes)
    save_report(workspace / "report", report_of(workspace / "model", workspace / "set"))


def with_sizes(workspace: Path, sizes: tuple[int, ...]) -> None:
    description = EncoderDescription.load(workspace / "model")
    replace(description, dimensions=sizes).save(workspace / "model")


def found_by(workspace: Path, role: Role, *, size: int = HIDDEN) -> float:
    """NDCG@10 of the queries sent in this role, without a server."""
    evaluation_set, model = load_evaluation_set(workspace / "set"), OnnxModel(workspace / "model")
    queries = model.vectors(model.reader.read(evaluation_set.queries, role, "END"), size)
    passages = model.vectors(model.reader.read(evaluation_set.passages, "passage", "END"), size)
    return measure(evaluation_set, queries, passages, (10,)).means["ndcg@10"]


def test_the_wrong_role_and_the_fewest_dimensions_are_measured(workspace: Path) -> None:
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    right, wrong = (found_by(workspace, role) for role in ("query", "passage"))
    short = found_by(workspace, "query", size=4)
    assert result.details["sample"] == {"queries": 20, "ndcg@10": right}
    assert result.details["roleSwap"] == {"ndcg@10": wrong, "symmetric": False}
    assert result.details["wrongPrefix"] == {"sent": "otherRole", "ndcg@10": wrong}, "the server puts the prefix"
    assert result.details["truncated"] == {
        "dimension": 4, "answer": "sliced", "ndcg@10": short, "unlistedRefused": True,
    }  # fmt: skip
    written = json.loads((workspace / result.artefacts[Artefact.VERIFY_REPORT].path / "report.json").read_text())
    assert written["roleSwap"] == result.details["roleSwap"]


def test_passages_are_embedded_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = watch(monkeypatch)
    with serving(workspace / "model") as url:
        verify(workspace, url)
    sent = [text for body in bodies if body["input_type"] == "passage" for text in body["input"]]
    evaluation_set = load_evaluation_set(workspace / "set")
    assert sorted(sent) == sorted([*evaluation_set.passages, *evaluation_set.queries, *texts_of("passage")])


def watch(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any] = lambda raw: raw) -> list[Any]:
    """The bodies that the server gets; `change` may replace one, or raise RequestError."""
    bodies: list[Any] = []

    def parse(raw: Any, **options: Any) -> Any:
        bodies.append(raw)
        return parse_request(change(raw), **options)

    monkeypatch.setattr(app, "parse_request", parse)
    return bodies


SYMMETRIC = {
    "no prefixes": {"query": "", "passage": ""},
    "one prefix for both": {"query": "query: ", "passage": "query: "},
    "prefixes that the model does not tell apart": {"query": "ask: ", "passage": "tell: "},  # unknown words, both
}


@pytest.mark.parametrize("prefixes", SYMMETRIC.values(), ids=SYMMETRIC.keys())
def test_a_symmetric_model_is_reported_as_one(workspace: Path, prefixes: dict[str, str]) -> None:
    with_prefixes(workspace, prefixes)
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    assert result.details["roleSwap"] == {"ndcg@10": result.details["sample"]["ndcg@10"], "symmetric": True}
    assert (result.details["wrongPrefix"] is None) == (prefixes["query"] == prefixes["passage"])


def test_swapped_prefixes_stop_the_stage_and_name_the_field(workspace: Path) -> None:
    with_prefixes(workspace, SWAPPED)
    assert found_by(workspace, "passage") > found_by(workspace, "query") + 0.05
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert (code, result.reason, result.field) == (ExitCode.STOPPED, "RolesSwapped", "spec.baseModel.prefixes")
    for words in (f"{found_by(workspace, 'query'):.5f}", f"{found_by(workspace, 'passage'):.5f}", "n=20", "exchange"):
        assert words in result.message


@pytest.mark.parametrize("prefixes", [{"query": "", "passage": ""}, {"query": "query: ", "passage": "passage: "}])
def test_a_query_map_makes_the_roles_differ(workspace: Path, prefixes: dict[str, str]) -> None:
    with_prefixes(workspace, prefixes)
    add_map(workspace, a_map(HIDDEN, size=0.1))
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    assert result.details["roleSwap"]["symmetric"] is False
    assert (result.details["wrongPrefix"] is None) == (prefixes["query"] == prefixes["passage"])
    assert result.details["truncated"]["answer"] == "sliced"


def test_a_map_that_finds_less_than_the_base_model_accuses_no_prefixes(workspace: Path) -> None:
    with_prefixes(workspace, {"query": "", "passage": ""})
    add_map(workspace, QueryMap(-np.eye(HIDDEN, dtype=np.float32)))
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    assert result.details["roleSwap"]["ndcg@10"] > result.details["sample"]["ndcg@10"] + 0.5


def add_map(workspace: Path, query_map: QueryMap) -> None:
    (workspace / "model").rename(workspace / "base")
    with_map(workspace / "base", workspace / "model", query_map)


def test_prefixes_the_right_way_round_pass(workspace: Path) -> None:
    with_prefixes(workspace, {"query": SWAPPED["passage"], "passage": SWAPPED["query"]})
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message


def test_too_few_questions_accuse_nobody(workspace: Path) -> None:
    corpus = [{"_id": f"p{at}", "text": f"{word} {word}"} for at, word in enumerate(TOPICS)]
    queries = [{"_id": f"q{at}", "text": TOPICS[at]} for at in range(9)]
    judgements = "query-id\tcorpus-id\tscore\n" + "".join(f"q{at}\tp{at}\t1\n" for at in range(9))
    shutil.rmtree(workspace / "set")
    write(workspace / "set", corpus, queries, judgements)
    with_prefixes(workspace, SWAPPED)
    assert found_by(workspace, "passage") > found_by(workspace, "query") + 0.05
    with serving(workspace / "model") as url:
        assert verify(workspace, url)[0] == ExitCode.DONE


# Differences of questions that changed sides when asked in the other role -> whether that shows swapped prefixes.
CHANGED = {
    "none of ten": ([0.0] * 10, False),
    "three of ten, all for the better": ([1.0, 0.5, 0.37] + [0.0] * 7, False),
    "seven of twenty, six for the better": ([0.63] * 6 + [-0.63] + [0.0] * 13, False),
    "eight of nine": ([1.0] * 8 + [0.0], False),
    "eight of ten, all for the better": ([0.63] * 8 + [0.0] * 2, True),
    "half of two hundred, two thirds for the better": ([0.5] * 67 + [-0.5] * 33 + [0.0] * 100, True),
}


@pytest.mark.parametrize(("differences", "swapped"), CHANGED.values(), ids=CHANGED.keys())
def test_chance_accuses_nobody(differences: list[float], swapped: bool) -> None:
    right = {f"q{at}": {"ndcg@10": max(0.0, -each)} for at, each in enumerate(differences)}
    other = {f"q{at}": {"ndcg@10": max(0.0, each)} for at, each in enumerate(differences)}
    found = Negatives(right=Scores({}, right), swapped=Scores({}, other), details={})
    refused = pytest.raises(Stopped, match="give both roles one prefix") if swapped else contextlib.nullcontext()
    with refused:
        found.check_roles()


CLIENT_PREFIXES = {
    "both roles have one: none is the wrong one": ({"query": "query: ", "passage": "passage: "}, "noPrefix"),
    "the same for both": ({"query": "query: ", "passage": "query: "}, "noPrefix"),
    "queries have none: the passages' is the wrong one": ({"query": "", "passage": "passage: "}, "otherRole"),
    "passages have none, so that none is theirs": ({"query": "query: ", "passage": ""}, "otherRole"),
}


@pytest.mark.parametrize(("prefixes", "sent"), CLIENT_PREFIXES.values(), ids=CLIENT_PREFIXES.keys())
def test_where_clients_put_the_prefix_leaving_it_out_is_the_wrong_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, prefixes: dict[str, str], sent: str
) -> None:
    plain = replace(NIM_1, name="plain", input_types=(), request_fields={})
    monkeypatch.setattr(servers, "SERVERS", (*SERVERS, plain))
    with_prefixes(workspace, {"query": "", "passage": ""})
    shutil.copytree(workspace / "model", workspace / "unaware")
    replace(EncoderDescription.load(workspace / "model"), prefixes=prefixes).save(workspace / "model")

    async def silent(request: Any, handler: Any) -> Any:
        return app.web.json_response({}) if request.path == "/v1/metadata" else await handler(request)

    bodies = watch(monkeypatch)
    with serving(workspace / "unaware", front=silent) as url:
        code, result = verify(workspace, url, server="plain")
    assert code == ExitCode.DONE, result.message
    found = result.details["wrongPrefix"]
    assert found["sent"] == sent
    if sent == "otherRole":
        assert found["ndcg@10"] == result.details["roleSwap"]["ndcg@10"]
    texts = [text for body in bodies for text in body["input"]]
    bare = set(load_evaluation_set(workspace / "set").queries)
    assert any(text in bare for text in texts) == (sent == "noPrefix" or "" in prefixes.values())


def ignored(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != "dimensions"}


def refused(raw: dict[str, Any]) -> dict[str, Any]:
    if "dimensions" in raw:
        raise RequestError(400, "dimensions are not offered")
    return raw


def failed(raw: dict[str, Any]) -> dict[str, Any]:
    if "dimensions" in raw:
        raise RequestError(500, "out of range")
    return raw


def early(raw: dict[str, Any]) -> dict[str, Any]:
    if "dimensions" in raw:
        raise RequestError(425, "too early")  # unlike 429 it does not ask for a wait
    return raw


def other_text(raw: dict[str, Any]) -> dict[str, Any]:
    return {**raw, "input": ["topic1"] * len(raw["input"])} if "dimensions" in raw else raw


@pytest.mark.parametrize(
    ("fault", "answer", "unlisted_refused"),
    [(ignored, "other", False), (refused, "refused", True), (failed, "other", False), (early, "other", False),
     (other_text, "other", True)],
)  # fmt: skip
def test_a_server_that_does_not_cut_as_it_was_evaluated_is_reported_without_a_figure(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Any], Any],
    answer: str,
    unlisted_refused: bool,
) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.01)
    watch(monkeypatch, fault)
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    assert result.details["truncated"] == {"dimension": 4, "answer": answer, "unlistedRefused": unlisted_refused}


def test_a_model_of_one_size_is_not_asked_for_another(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sizes(workspace, (HIDDEN,))
    bodies = watch(monkeypatch)
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert (code, result.details["truncated"]) == (ExitCode.DONE, None)
    assert all("dimensions" not in body for body in bodies)


def test_a_model_that_lists_one_dimension_is_asked_for_more_than_it_has(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_sizes(workspace, (HIDDEN, 1))
    bodies = watch(monkeypatch)
    with serving(workspace / "model") as url:
        _, result = verify(workspace, url)
    assert [body["dimensions"] for body in bodies if "dimensions" in body] == [1, HIDDEN + 1]
    assert result.details["truncated"]["unlistedRefused"] is True


def test_of_many_questions_a_part_is_asked_wrongly_and_always_the_same() -> None:
    assert sample_of(SAMPLE) == list(range(SAMPLE))
    chosen = sample_of(1000)
    assert chosen == sample_of(1000) == sorted(set(chosen))
    assert len(chosen) == SAMPLE
    assert chosen[-1] > 900, "of all of them"
    ids = [f"q{at:04}" for at in range(300)]
    whole = a_set({name: {"a": 1} for name in ids})
    vectors = np.eye(300, dtype=np.float32)
    found = Measured.of(whole, vectors, vectors[:3])
    assert found.evaluation_set.query_ids == tuple(ids[row] for row in sample_of(300))
    assert found.evaluation_set.relevance.keys() == set(found.evaluation_set.query_ids)
    assert np.array_equal(found.queries, vectors[sample_of(300)])


def test_the_fullest_result_fits_a_termination_message(workspace: Path) -> None:
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url, kValues=[*K_VALUES, *range(9_988, 10_001)])
    assert code == ExitCode.DONE, result.message
    assert len(result.to_json().encode()) < TERMINATION_MESSAGE_BYTES * 0.8
