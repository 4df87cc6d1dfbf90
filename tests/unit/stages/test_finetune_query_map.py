"""Training of queries' side alone: the base model stays, a map learns. Two ranks run this file too, see `_rank`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.stages.query_maps import mapped
from unit.stages.ranks import run_ranks
from unit.stages.tiny_models import make_bert, make_llama, run_stage, write_topics

from embedding_stages import contract
from embedding_stages.artefacts import Workspace
from embedding_stages.contract import MANIFEST_FILE, Artefact, ExitCode, Stage, StageRequest, StageResult
from embedding_stages.contract.settings import Finetune
from embedding_stages.encoder.description import QUERY_MAP_FILE, EncoderDescription, describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.publish import TOKENIZER_FILES
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.errors import Stopped, Transient
from embedding_stages.finetune import query_map
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingTexts, load_training_set, read_texts
from embedding_stages.finetune.loss import candidate_loss
from embedding_stages.finetune.query_map import QueryMapTrainer
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.world import World
from embedding_stages.runner import StageContext
from embedding_stages.vectors import Vectors

SETTINGS: dict[str, Any] = {
    "side": "query",
    "epochs": 12,
    "globalBatchSize": 8,
    "learningRate": 1e-2,
    "weightDecay": 1e-4,
    "negativesPerQuery": 3,
    "temperature": 0.05,
}
CPU = torch.device("cpu")


def prepare(root: Path) -> Path:
    """A base model as inputs leaves it, and a training set."""
    base = make_bert(root / "base")
    describe_model(base, prefixes={"query": "query: ", "passage": "passage: "}, max_tokens=None).save(base)
    write_topics(root / "set")
    return root


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("workspace"))


def tune(workspace: Path, fingerprint: str, **changes: Any) -> tuple[int, StageResult]:
    inputs = {Artefact.BASE_MODEL: workspace / "base", Artefact.TRAINING_SET: workspace / "set"}
    return run_stage(
        Stage.FINETUNE, work, workspace, settings=SETTINGS | changes, inputs=inputs, fingerprint=fingerprint
    )


def vectors_of(workspace: Path) -> tuple[TrainingTexts, Vectors]:
    texts = read_texts(workspace / "set", negatives_per_query=3)
    encoder = PaddedEncoder.load(workspace / "base", device="cpu")
    rows = [encoder.embed(texts.queries, role="query"), encoder.embed(texts.passages, role="passage")]
    return texts, np.concatenate(rows)


def trainer_of(workspace: Path, **changes: Any) -> tuple[QueryMapTrainer, list[Example]]:
    texts, vectors = vectors_of(workspace)
    options: dict[str, Any] = {"temperature": 0.05, "weight_decay": 0.0, "device": CPU}
    return QueryMapTrainer(vectors, **options | changes), texts.examples


def test_texts_and_token_ids_are_numbered_alike(workspace: Path) -> None:
    tokenizer = PaddedEncoder.load(workspace / "base", device="cpu").tokenizer
    texts = read_texts(workspace / "set", negatives_per_query=2)
    data = load_training_set(workspace / "set", tokenizer, negatives_per_query=2)
    assert data.examples == texts.examples
    assert data.rows == tokenizer.encode(texts.queries, "query") + tokenizer.encode(texts.passages, "passage")


def test_before_the_first_step_the_map_is_the_identity_and_the_loss_the_base_models(workspace: Path) -> None:
    trainer, examples = trainer_of(workspace)
    _, vectors = vectors_of(workspace)
    assert np.array_equal(trainer.query_map().weight, np.eye(32, dtype=np.float32))
    table = torch.from_numpy(vectors)
    queries = table[[example.query for example in examples]]
    candidates = table[torch.tensor([example.candidates for example in examples])]
    expected = candidate_loss(queries, candidates, torch.ones(candidates.shape[:2], dtype=torch.bool), 0.05)
    torch.testing.assert_close(trainer.losses(examples).detach(), expected, rtol=0, atol=1e-4)


def test_a_step_sees_what_the_map_will_answer(workspace: Path) -> None:
    trainer, examples = trainer_of(workspace)
    for _ in range(3):
        trainer.step(examples, 1e-2)
    _, vectors = vectors_of(workspace)
    queries = mapped(trainer.query_map().weight, vectors[[example.query for example in examples]])
    logits = np.stack([queries[at] @ vectors[list(example.candidates)].T for at, example in enumerate(examples)]) / 0.05
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]
    np.testing.assert_allclose(trainer.losses(examples).detach().numpy(), expected, rtol=0, atol=1e-3)


def test_examples_with_fewer_negatives_are_not_padded_with_candidates(workspace: Path) -> None:
    trainer, examples = trainer_of(workspace)
    fewer = replace(examples[1], candidates=examples[1].candidates[:2])
    both = trainer.losses([examples[0], fewer])
    torch.testing.assert_close(both[1:], trainer.losses([fewer]))


def test_weight_decay_draws_the_map_back_to_the_identity(workspace: Path) -> None:
    free, held = (trainer_of(workspace, weight_decay=decay)[0] for decay in (0.0, 0.01))
    _, examples = trainer_of(workspace)
    for _ in range(20):
        free.step(examples, 1e-2)
        held.step(examples, 1e-2)
    assert float(held.change.detach().norm()) < 0.7 * float(free.change.detach().norm())


def test_a_loss_that_is_not_finite_changes_nothing(workspace: Path) -> None:
    texts, vectors = vectors_of(workspace)
    broken = vectors.copy()
    broken[texts.examples[0].query] = np.nan
    trainer = QueryMapTrainer(broken, temperature=0.05, weight_decay=0.0, device=CPU)
    with pytest.raises(Stopped) as caught:
        trainer.step(texts.examples, 1e-2)
    assert (caught.value.reason, caught.value.field) == ("LossNotFinite", "spec.stages.finetune.learningRate")
    assert not trainer.change.any()


def test_the_stage_leaves_the_base_model_with_a_map_that_lowers_the_loss(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = tune(workspace, "whole")
    assert code == ExitCode.DONE, result.message
    assert result.counts == {"examples": 24, "steps": 36, "globalBatchSize": 8, "microBatchSize": 8}
    assert result.details["lastLoss"] < 0.7 * result.details["firstLoss"]
    assert {key: result.details[key] for key in ("side", "precision", "workers")} == {
        "side": "query", "precision": "fp32", "workers": 1,
    }  # fmt: skip
    assert '"percent":100' in capsys.readouterr().out
    base, checkpoint = workspace / "base", workspace / result.artefacts[Artefact.CHECKPOINT].path
    names = {path.name for path in base.iterdir()} - {MANIFEST_FILE}
    assert {path.name for path in checkpoint.iterdir()} >= names | {QUERY_MAP_FILE}
    for name in names & {"model.safetensors", *TOKENIZER_FILES}:
        assert (checkpoint / name).read_bytes() == (base / name).read_bytes(), name
    described = EncoderDescription.load(checkpoint)
    assert described == replace(EncoderDescription.load(base), query_map=True)
    texts, vectors = vectors_of(workspace)
    tuned = PaddedEncoder.load(checkpoint, device="cpu")
    count = len(texts.queries)
    assert tuned.embed(texts.passages, role="passage").tobytes() == vectors[count:].tobytes()
    found = tuned.embed(texts.queries, role="query")
    weight = QueryMap.load(checkpoint, described)
    assert weight is not None
    np.testing.assert_allclose(found, mapped(weight.weight, vectors[:count]), rtol=0, atol=1e-5)
    places = [example.candidates for example in texts.examples]
    assert accuracy(found, vectors, places) > accuracy(vectors[:count], vectors, places)


def test_the_adapters_beside_a_base_model_stay_whole(tmp_path: Path) -> None:
    """A checkpoint that was trained with adapters has them in a folder of their own, where nobody adds them twice."""
    base = make_bert(tmp_path / "base")
    for name in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/manifest.json"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(name)
    described = describe_model(base, prefixes=None, max_tokens=None)
    query_map.save_checkpoint(QueryMap(np.eye(32, dtype=np.float32)), base, tmp_path / "checkpoint", described)
    kept, there = (
        {path.name: path.read_text() for path in (folder / "adapter").iterdir()}
        for folder in (tmp_path / "checkpoint", base)
    )
    assert kept == there


def test_the_checkpoint_needs_no_code_and_turns_by_the_base_models_angles_in_transformers_4(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    (base / "adapter_config.json").write_text("{}")  # of adapters that are merged; transformers would look for them
    described = describe_model(base, prefixes=None, max_tokens=None)
    query_map.save_checkpoint(QueryMap(np.eye(32, dtype=np.float32)), base, tmp_path / "checkpoint", described)
    assert not (tmp_path / "checkpoint" / "adapter_config.json").exists()
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert "auto_map" in json.loads((base / "config.json").read_text())
    assert "auto_map" not in config, "the code is not there"
    assert (config["rope_theta"], config["torch_dtype"]) == (5e5, "float32")


def test_a_teachers_ranking_is_learned_where_the_preset_says_so(workspace: Path) -> None:
    scored = write_topics(workspace / "scored")
    lines = [json.loads(line) for line in (scored / "train.jsonl").read_text().splitlines()]
    written = (json.dumps(line | {"scores": [0.9, *[0.4] * len(line["negatives"])]}) + "\n" for line in lines)
    (scored / "train.jsonl").write_text("".join(written))
    found = {}
    for name, preset in (("scored", "auto"), ("scored", "recipe"), ("set", "auto")):
        inputs = {Artefact.BASE_MODEL: workspace / "base", Artefact.TRAINING_SET: workspace / name}
        asked = SETTINGS | {"preset": preset}
        mark = f"{name}-{preset}"
        found[mark] = run_stage(Stage.FINETUNE, work, workspace, settings=asked, inputs=inputs, fingerprint=mark)
    code, result = found["scored-auto"]
    assert code == ExitCode.DONE, result.message
    assert result.details["loss"] == "ranking"
    assert result.details["lastLoss"] < 0.7 * result.details["firstLoss"]
    assert found["scored-recipe"][1].details["loss"] == "contrastive"
    assert (found["set-auto"][0], found["set-auto"][1].reason) == (ExitCode.BAD_INPUT, "ScoresMissing")


def accuracy(queries: Vectors, vectors: Vectors, places: list[tuple[int, ...]]) -> float:
    """Share of the queries whose positive is nearer than every negative."""
    scores = [vectors[list(place)] @ query for query, place in zip(queries, places, strict=True)]
    return float(np.mean([row[0] > row[1:].max() for row in scores]))


def test_the_same_settings_make_the_same_map_and_another_seed_another(workspace: Path) -> None:
    maps = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        code, result = tune(workspace, f"seed-{name}", seed=seed, epochs=2)
        assert code == ExitCode.DONE
        maps.append((workspace / result.artefacts[Artefact.CHECKPOINT].path / QUERY_MAP_FILE).read_bytes())
    assert maps[0] == maps[1] != maps[2]


def test_a_set_that_cannot_be_used_ends_as_bad_input(workspace: Path) -> None:
    folder = write_topics(workspace / "broken")
    (folder / "train.jsonl").write_text(json.dumps({"query": "a", "positive": "p0-0", "negatives": []}) + "\n")
    inputs = {Artefact.BASE_MODEL: workspace / "base", Artefact.TRAINING_SET: folder}
    code, result = run_stage(Stage.FINETUNE, work, workspace, settings=SETTINGS, inputs=inputs, fingerprint="broken")
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "NegativesMissing")


def context_of(root: Path, name: str) -> StageContext:
    request = StageRequest(
        stage=Stage.FINETUNE,
        fingerprint=name,
        attempt=1,
        revision=1,
        image="test",
        settings=SETTINGS,
        inputs={},
    )
    return StageContext(request=request, workspace=Workspace(root), sources=root, secrets=root)


def test_a_pod_that_is_asked_to_stop_ends_soon_and_its_successor_begins_again(workspace: Path) -> None:
    context = context_of(workspace, "stopped")
    context.stopping.set()
    asked = Finetune.of(SETTINGS)
    with pytest.raises(Transient) as caught:
        query_map.tune_queries(context, World.alone(), asked, workspace / "base", workspace / "set")
    assert caught.value.reason == contract.INTERRUPTED
    code, result = tune(workspace, "stopped", epochs=1)
    assert code == ExitCode.DONE, result.message


# --- several ranks ----------------------------------------------------------------------------------------------------


def _rank(root: Path) -> None:
    """Tune as one of two, and write what came out to <root>/rank-<rank>.json."""
    query_map._CHUNK = 5  # texts: rank 1 hears of rank 0 several times
    world = World.of(os.environ)
    world.join()
    context = context_of(root, "ranks")
    context.leads = world.leads
    result = query_map.tune_queries(context, world, Finetune.of(SETTINGS), root / "base", root / "set")
    said = {"result": result.to_json(), "written": (context.folder(Artefact.CHECKPOINT) / QUERY_MAP_FILE).is_file()}
    (root / f"rank-{world.rank}.json").write_text(json.dumps(said))
    world.leave(ExitCode.DONE)


def test_rank_0_does_the_work_and_the_others_wait_for_it(tmp_path: Path) -> None:
    run_ranks(str(Path(__file__)), str(prepare(tmp_path)), size=2, exit_codes=[0, 0])
    leader, other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert leader["written"]
    assert other["written"], "rank 1 came back after rank 0 had written"
    assert StageResult.from_json(leader["result"]).details["workers"] == 2
    assert StageResult.from_json(other["result"]).counts == {}


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
