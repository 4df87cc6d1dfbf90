"""The verify stage under the real frame against the real server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from unit.stages.test_evaluate_set import write
from unit.stages.tiny_models import run_stage
from unit.stages.tiny_serving import HIDDEN, TOPICS, make_serving_folder, serving

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ExitCode, Stage, StageResult, servers
from embedding_stages.contract.servers import NIM_1, SERVERS, ServerProfile
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.evaluate.canaries import embed_canaries
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.evaluate.metrics import Scores, measure
from embedding_stages.evaluate.report import Uplift, build_report, save_report
from embedding_stages.serve import app
from embedding_stages.serve.app import Endpoint
from embedding_stages.serve.onnx_model import OnnxModel
from embedding_stages.serve.requests import parse_request
from embedding_stages.serve.server import load_model
from embedding_stages.verify.stage import work

K_VALUES = (1, 5, 10)


def prepared(tmp_path: Path) -> Path:
    """A serving model, an evaluation set, and the report of evaluating exactly that model."""
    folder = make_serving_folder(tmp_path / "model")
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(TOPICS, size=4)) for _ in range(60)]
    corpus = [{"_id": f"p{at}", "text": text} for at, text in enumerate(texts)]
    queries = [{"_id": f"q{at}", "text": " ".join(text.split()[:2])} for at, text in enumerate(texts[:20])]
    judgements = "query-id\tcorpus-id\tscore\n" + "".join(f"q{at}\tp{at}\t1\n" for at in range(20))
    write(tmp_path / "set", corpus, queries, judgements)
    (tmp_path / "report").mkdir()
    save_report(tmp_path / "report", report_of(folder, tmp_path / "set"))
    return tmp_path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return prepared(tmp_path)


def evaluated(folder: Path, evaluation_set_folder: Path) -> Scores:
    evaluation_set = load_evaluation_set(evaluation_set_folder)
    model = OnnxModel(folder)
    queries = model.vectors(model.reader.read(evaluation_set.queries, "query", "END"), HIDDEN)
    passages = model.vectors(model.reader.read(evaluation_set.passages, "passage", "END"), HIDDEN)
    return measure(evaluation_set, queries, passages, K_VALUES)


def report_of(folder: Path, evaluation_set_folder: Path) -> dict[str, Any]:
    scores = evaluated(folder, evaluation_set_folder)
    return build_report(
        load_evaluation_set(evaluation_set_folder),
        {"base": scores, "fineTuned": scores},
        Uplift(0.0, None),
        K_VALUES,
        {"evaluationSet": digest_of_folder(evaluation_set_folder)},
        precision="float32",
    )


def verify(workspace: Path, url: str, **changes: Any) -> tuple[int, StageResult]:
    settings = {
        "url": url,
        "model": "tiny",
        "kValues": list(K_VALUES),
        "batchSize": 16,
        "requestTimeoutSeconds": 5,
        "expectedDigest": digest_of_folder(workspace / "model"),
    }
    inputs = {
        Artefact.EVALUATION_SET: workspace / "set",
        Artefact.EVAL_REPORT: workspace / "report",
        Artefact.SERVING_MODEL: workspace / "model",
    }
    return run_stage(Stage.VERIFY, work, workspace, settings=settings | changes, inputs=inputs)


def test_queries_that_are_passages_and_texts_that_are_cleaned_change_nothing(workspace: Path) -> None:
    """A release kept soft hyphens in the set; half of its queries are passages, which do not find themselves."""
    texts = [f"{one} {two}\u00ad {one}" for one in TOPICS for two in TOPICS][:40]
    corpus = [{"_id": f"p{at}", "text": text} for at, text in enumerate(texts)]
    names = [f"p{at}" for at in range(10)] + [f"q{at}" for at in range(10)]
    queries = [{"_id": name, "text": text} for name, text in zip(names, texts, strict=False)]
    judgements = "".join(f"{name}\tp{at + 1}\t1\n" for at, name in enumerate(names))
    shutil.rmtree(workspace / "set")
    write(workspace / "set", corpus, queries, f"query-id\tcorpus-id\tscore\n{judgements}")
    save_report(workspace / "report", report_of(workspace / "model", workspace / "set"))

    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)

    assert code == ExitCode.DONE, result.message
    assert result.counts["changedQueries"] == 0
    assert load_evaluation_set(workspace / "set").asked_by_passages == set(names[:10])


def test_the_evaluated_model_gives_the_evaluated_numbers(workspace: Path) -> None:
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    digest = digest_of_folder(workspace / "model")
    assert code == ExitCode.DONE, result.message
    assert result.metrics["served"] == pytest.approx(dict(evaluated(workspace / "model", workspace / "set").means))
    assert result.counts == {
        "queries": 20, "passages": 60, "invalidVectors": 0, "retries": 0, "changedQueries": 0,
    }  # fmt: skip
    assert result.details.keys() == {
        "artefactDigest", "serverDigest", "dimension", "rate", "canaryCosine",
        "sample", "roleSwap", "wrongPrefix", "truncated",
    }  # fmt: skip
    assert [result.details[key] for key in ("artefactDigest", "serverDigest", "dimension")] == [digest, digest, HIDDEN]
    rate = result.details["rate"]
    assert rate.keys() == {"passagesPerSecond", "tokensPerPassage", "tokensPerSecond"}
    assert rate["tokensPerPassage"] == 8  # four words, a prefix of two, [CLS] and [SEP]
    written = json.loads((workspace / result.artefacts[Artefact.VERIFY_REPORT].path / "report.json").read_text())
    assert written["metrics"] == result.metrics
    assert written["changed"] == {}
    assert len(written["perQuery"]["served"]) == 20


@pytest.mark.parametrize("profile", [item for item in SERVERS if item.input_types], ids=lambda item: item.name)
def test_every_profile_in_the_table_is_measured_the_same(workspace: Path, profile: ServerProfile) -> None:
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url, server=profile.name)
    assert (code, result.counts["changedQueries"]) == (ExitCode.DONE, 0)


def test_a_server_that_announces_another_name_is_not_ready_for_clients(workspace: Path) -> None:
    with serving(workspace / "model", name="nvidia/its-own-name") as url:
        code, result = verify(workspace, url)
    assert (code, result.reason) == (ExitCode.STOPPED, "ModelNameUnknown")
    assert "nvidia/its-own-name" in result.message
    assert result.field == "spec.stages.deploy.modelName"


def test_a_server_that_is_not_told_the_role_gets_prefixed_texts_at_its_own_paths(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server here knows no prefixes, as one that serves the bare weights."""
    asked: list[str] = []
    bodies: list[dict[str, Any]] = []
    plain = replace(NIM_1, name="plain", input_types=(), request_fields={}, ready_path="/health", metadata_path=None)
    plain = replace(plain, models_path=None)
    monkeypatch.setattr(servers, "SERVERS", (*SERVERS, plain))

    async def front(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        asked.append(request.path)
        if request.path == "/health":
            return web.json_response({})
        return await handler(request)

    def parse(raw: dict[str, Any], **options: Any) -> Any:
        bodies.append(raw)
        return parse_request(raw, **options)

    monkeypatch.setattr(app, "parse_request", parse)
    description = EncoderDescription.load(workspace / "model")
    shutil.copytree(workspace / "model", workspace / "unaware")
    replace(description, prefixes={"query": "", "passage": ""}).save(workspace / "unaware")
    replace(description, prefixes={"query": "q ", "passage": "p "}).save(workspace / "model")
    with serving(workspace / "unaware", front=front) as url:
        code, result = verify(workspace, url, server="plain")
    assert code == ExitCode.DONE, result.message
    assert set(asked) == {"/health", "/v1/embeddings"}
    assert {key for body in bodies for key in body} == {"input", "model", "encoding_format", "dimensions"}
    queries = load_evaluation_set(workspace / "set").queries
    sent = [text for body in bodies for text in body["input"]]
    assert sorted(text for text in sent if text[:2] not in {"q ", "p "}) == sorted(queries), "with no prefix: once"
    assert result.details["wrongPrefix"]["sent"] == "noPrefix"


def test_a_server_that_hides_another_model_is_seen_in_the_metrics(workspace: Path) -> None:
    other = make_serving_folder(workspace / "other", seed=9)

    async def silent(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        if request.path == "/v1/metadata":
            return web.json_response({"modelInfo": []})  # as NIM answers
        return await handler(request)

    with serving(other, front=silent) as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE  # whether it is within tolerance is the operator's decision
    assert result.details["serverDigest"] is None
    assert result.counts["changedQueries"] > 0
    assert result.metrics["served"] != pytest.approx(dict(evaluated(workspace / "model", workspace / "set").means))
    written = json.loads((workspace / result.artefacts[Artefact.VERIFY_REPORT].path / "report.json").read_text())
    assert len(written["changed"]) == result.counts["changedQueries"]


def test_a_server_that_says_it_serves_another_model_is_stopped(workspace: Path) -> None:
    other = make_serving_folder(workspace / "other", seed=9)
    with serving(other) as url:
        code, result = verify(workspace, url)
    assert (code, result.reason) == (ExitCode.STOPPED, "ArtefactMismatch")
    assert digest_of_folder(other) in result.message
    assert digest_of_folder(workspace / "model") in result.message


def test_a_server_that_is_replaced_meanwhile_is_noticed(workspace: Path) -> None:
    endpoint = Endpoint("tiny")
    other = load_model(make_serving_folder(workspace / "other", seed=9))

    async def replaced(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        if request.path == "/v1/embeddings":
            endpoint.loaded = other
        return await handler(request)

    with serving(workspace / "model", endpoint=endpoint, front=replaced) as url:
        code, result = verify(workspace, url)
    assert (code, result.reason) == (ExitCode.STOPPED, "ArtefactMismatch")


def test_swapped_weights_on_the_volume_are_a_mismatch_and_not_a_damaged_input(workspace: Path) -> None:
    expected = digest_of_folder(workspace / "model")
    shutil.rmtree(workspace / "model")
    make_serving_folder(workspace / "model", seed=9)
    code, result = verify(workspace, "http://127.0.0.1:9", expectedDigest=expected)
    assert (code, result.reason) == (ExitCode.STOPPED, "ArtefactMismatch")
    assert expected in result.message
    assert digest_of_folder(workspace / "model") in result.message


def test_a_report_about_another_evaluation_set_is_refused(workspace: Path) -> None:
    report = report_of(workspace / "model", workspace / "set")
    save_report(workspace / "report", report | {"digests": {"evaluationSet": "sha256:other"}})
    code, result = verify(workspace, "http://127.0.0.1:9")
    assert (code, result.reason) == (1, "EvaluationReportInvalid")


def test_a_report_that_the_volume_does_not_give_is_asked_for_again(workspace: Path) -> None:
    report = workspace / "report" / "report.json"
    report.unlink()
    code, result = verify(workspace, "http://127.0.0.1:9")
    assert (code, result.reason) == (1, "EvaluationReportInvalid")
    report.mkdir()  # any other error than that it is not there
    code, result = verify(workspace, "http://127.0.0.1:9")
    assert (code, result.reason) == (ExitCode.TRANSIENT, "InputOutputError")


@pytest.mark.parametrize("same", [True, False], ids=["the evaluated model", "other weights"])
def test_without_a_question_the_canaries_are_compared(workspace: Path, same: bool) -> None:
    shutil.rmtree(workspace / "set")
    write(workspace / "set", [], [], "query-id\tcorpus-id\tscore\n")
    model = OnnxModel(workspace / "model" if same else make_serving_folder(workspace / "other", seed=9))
    canaries = embed_canaries(lambda texts, role: model.vectors(model.reader.read(texts, role, "END"), HIDDEN))
    nothing = {model: Scores({}, {}) for model in ("base", "fineTuned")}
    report = build_report(
        load_evaluation_set(workspace / "set", may_be_empty=True),
        nothing,
        Uplift(None, None),
        K_VALUES,
        {"evaluationSet": digest_of_folder(workspace / "set")},
        precision="float32",
        beside={"canaries": canaries},
    )
    save_report(workspace / "report", report)
    with serving(workspace / "model") as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    assert (result.metrics["served"], result.counts["queries"]) == ({}, 0)
    assert (result.details["canaryCosine"] > 0.9999) is same
