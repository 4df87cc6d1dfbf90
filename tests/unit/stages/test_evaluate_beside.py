"""What the eval stage measures beside base and tuned model: what serves now, guards, sizes; and an empty set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.stages.test_evaluate_set import write
from unit.stages.test_evaluate_stage import METRICS, evaluate, report_of, workspace
from unit.stages.tiny_models import TOPICS, run_stage

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import TERMINATION_MESSAGE_BYTES, Artefact, ExitCode, Stage, StageResult
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.evaluate.canaries import texts_of
from embedding_stages.evaluate.stage import work
from embedding_stages.runner import StageContext

__all__ = ["workspace"]  # the fixture

GUARD_QUERIES = 5


@pytest.fixture
def active(workspace: Path) -> Path:
    """What serves now is the tuned model itself."""
    return Path(shutil.copytree(workspace / "tuned", workspace / "active"))


@pytest.fixture
def guards(workspace: Path) -> Path:
    return make_guards(workspace, ["general", "law"])


def make_guards(workspace: Path, names: Sequence[str], asked: int = GUARD_QUERIES) -> Path:
    corpus = [{"_id": f"p{at}", "title": "", "text": f"a key{at} of the"} for at in range(TOPICS)]
    queries = [{"_id": f"q{at}", "text": f"ask{at}"} for at in range(asked)]
    judgements = "query-id\tcorpus-id\tscore\n" + "".join(f"q{at}\tp{at}\t1\n" for at in range(asked))
    for name in names:
        write(workspace / "guards" / name, corpus, queries, judgements)
    return workspace / "guards"


def name_sizes(folder: Path, sizes: tuple[int, ...]) -> None:
    replace(EncoderDescription.load(folder), dimensions=sizes).save(folder)


def test_the_tuned_model_is_compared_with_what_it_came_from_what_serves_and_on_the_guards(
    workspace: Path, active: Path, guards: Path
) -> None:
    more = {Artefact.ACTIVE_CHECKPOINT: active, Artefact.GUARD_SETS: guards}
    code, result = evaluate(workspace, more=more)
    assert code == ExitCode.DONE, result.message
    found = result.details["comparisons"]
    assert found.keys() == {"base", "active", "guard:general", "guard:law"}
    for metric in ("ndcg@10", "recall@10"):
        before, after, lower, detectable = found["base"][metric]
        assert before == pytest.approx(result.metrics["base"][metric], abs=2e-6)
        assert after == pytest.approx(result.metrics["fineTuned"][metric], abs=2e-6)
        assert lower <= after - before
        assert detectable > 0
        assert found["active"][metric] == [after, after, 0.0, 0.0], "the same model"
    for name in ("general", "law"):
        assert found[f"guard:{name}"].keys() == {"ndcg@10", "queries"}
        assert found[f"guard:{name}"]["queries"] == GUARD_QUERIES
    assert result.details["activeCheckpoint"] == digest_of_folder(active)
    report = report_of(workspace, result)
    assert report["comparisons"] == found
    assert report["perQuery"]["active"] == report["perQuery"]["fineTuned"]
    assert report["digests"].keys() == {"baseModel", "checkpoint", "evaluationSet", "activeCheckpoint", "guardSets"}


def test_what_serves_is_not_measured_on_guards(
    workspace: Path, active: Path, guards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = embeddings(monkeypatch)
    evaluate(workspace, more={Artefact.ACTIVE_CHECKPOINT: active, Artefact.GUARD_SETS: guards})
    queries, passages = [TOPICS], [TOPICS]
    guard = [TOPICS, GUARD_QUERIES]
    canaries = [8, 8]  # of each role, of the tuned model alone
    assert sorted(asked) == sorted([*queries * 3, *passages * 3, *guard * 2 * 2, *canaries])


@pytest.mark.parametrize("name", ["canaries", "passage", "query", "base", "x-query-0"])
def test_no_name_of_a_guard_changes_what_the_canaries_are_given(workspace: Path, name: str) -> None:
    _, without = evaluate(workspace)
    wanted = report_of(workspace, without)["canaries"]
    shutil.rmtree(workspace / "eval")
    guards = make_guards(workspace, [name], asked=len(texts_of("query")))
    code, result = evaluate(workspace, more={Artefact.GUARD_SETS: guards})
    assert code == ExitCode.DONE, result.message
    assert report_of(workspace, result)["canaries"] == wanted


def embeddings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of a model embeds."""
    asked: list[int] = []
    embed = PaddedEncoder.embed

    def watched(self: PaddedEncoder, texts: Sequence[str], **options: Any) -> Any:
        asked.append(len(texts))
        return embed(self, texts, **options)

    monkeypatch.setattr(PaddedEncoder, "embed", watched)
    return asked


def test_the_gates_metrics_are_compared_beside_the_headline(workspace: Path) -> None:
    _, result = evaluate(workspace, {"gateMetrics": ["recall@5", "map@100"]})
    assert result.details["comparisons"]["base"].keys() == {"ndcg@10", "recall@5", "map@100"}


def test_a_set_that_lost_its_queries_has_no_figures_and_guards_still_do(workspace: Path, guards: Path) -> None:
    shutil.rmtree(workspace / "set")
    write(workspace / "set", [], [], "query-id\tcorpus-id\tscore\n")
    name_sizes(workspace / "tuned", (32, 8))
    code, result = evaluate(workspace, more={Artefact.GUARD_SETS: guards})
    assert code == ExitCode.DONE, result.message
    assert result.metrics == {"base": {}, "fineTuned": {}}
    assert result.counts == {"queries": 0, "passages": 0, "unknownPassages": 0}
    assert result.details["comparisons"].keys() == {"guard:general", "guard:law"}
    assert result.details["dimensions"] == {}
    assert (result.details["relativeUplift"], result.details["confidenceInterval"]) == (None, None)
    assert report_of(workspace, result)["perQuery"] == {"base": {}, "fineTuned": {}}


def test_an_empty_guard_is_refused(workspace: Path) -> None:
    write(workspace / "guards" / "general", [], [], "query-id\tcorpus-id\tscore\n")
    code, result = evaluate(workspace, more={Artefact.GUARD_SETS: workspace / "guards"})
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "EvaluationSetInvalid")
    assert result.field == "spec.evaluation.guards[name=general].beir"


def other_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"other")


@pytest.mark.parametrize("harm", [shutil.rmtree, other_weights], ids=["gone", "damaged"])
def test_a_serving_model_that_cannot_be_read_names_the_cure_before_anything_is_embedded(
    workspace: Path, active: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = embeddings(monkeypatch)

    def harmed(context: StageContext) -> StageResult:
        harm(active)
        return work(context)

    inputs = {
        Artefact.BASE_MODEL: workspace / "base",
        Artefact.CHECKPOINT: workspace / "tuned",
        Artefact.EVALUATION_SET: workspace / "set",
        Artefact.ACTIVE_CHECKPOINT: active,
    }
    code, result = run_stage(Stage.EVAL, harmed, workspace, settings={}, inputs=inputs)
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "ActiveCheckpointMissing")
    assert result.field == "spec.stages.deploy.pinRevision"
    for words in ("activeCheckpoint", "restore", "status.history"):
        assert words in result.message
    assert asked == []


def test_each_size_that_the_tuned_model_lists_is_measured_and_nothing_is_embedded_for_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = embeddings(monkeypatch)
    name_sizes(workspace / "tuned", (32, 16, 2))
    name_sizes(workspace / "base", (32, 4))  # of the base model nobody asks
    code, result = evaluate(workspace)
    assert (code, len(asked)) == (ExitCode.DONE, 4 + 2)  # and the canaries of each role
    found = result.details["dimensions"]
    assert {size: figures["bytesPerMillion"] for size, figures in found.items()} == {
        "32": 128_000_000, "16": 64_000_000, "2": 8_000_000,
    }  # fmt: skip
    assert found["32"]["ndcg@10"] == result.metrics["fineTuned"]["ndcg@10"]
    assert 0 < found["2"]["ndcg@10"] < found["32"]["ndcg@10"] <= 1
    assert report_of(workspace, result)["dimensions"] == found


def test_the_fullest_result_fits_a_termination_message(workspace: Path, active: Path) -> None:
    names = ["g" * 32, "h" * 32]
    settings = {
        "kValues": [10, *range(9_986, 10_001)],
        "gateMetrics": ["precision@9997", "precision@9998", "precision@9999", "precision@10000"],
    }
    name_sizes(workspace / "tuned", (32, 16, 12, 10, 8, 4))
    more = {Artefact.ACTIVE_CHECKPOINT: active, Artefact.GUARD_SETS: make_guards(workspace, names)}
    code, result = evaluate(workspace, settings, more)
    assert code == ExitCode.DONE, result.message
    assert len(result.to_json().encode()) <= TERMINATION_MESSAGE_BYTES
    assert {name.split("@")[0] for name in result.metrics["fineTuned"]} >= {"ndcg", "recall"}, "what is judged"
    assert result.metrics["base"].keys() == result.metrics["fineTuned"].keys()
    assert len(result.details["comparisons"]["active"]) == 5
    assert len(result.details["dimensions"]) == 6
    assert len(report_of(workspace, result)["metrics"]["base"]) == 4 * 16, "the report has all"


def test_a_usual_result_leaves_nothing_out(workspace: Path, active: Path, guards: Path) -> None:
    name_sizes(workspace / "tuned", (32, 16, 8, 4))
    _, result = evaluate(workspace, more={Artefact.ACTIVE_CHECKPOINT: active, Artefact.GUARD_SETS: guards})
    assert result.metrics["base"].keys() == METRICS
