"""A run in which nothing goes wrong, and the ways to configure one."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from simulation.scene import NAME, a_ready_quickstart, a_scene, a_spec, is_ready, stage_is

from embedding_operator.resource.conditions import DEPENDENTS
from embedding_operator.resource.labels import OWNER_LABEL
from embedding_stages.contract import Stage

PIPELINE = [stage for stage in Stage if stage is not Stage.DEPLOY]


def test_every_stage_runs_once_and_in_order() -> None:
    scene = a_scene().run(is_ready)
    assert [name.split("-")[1] for name in scene.cluster.created_jobs] == [stage.value for stage in PIPELINE]
    assert set(scene.states().values()) == {"Succeeded"}
    assert scene.crashes == 0
    assert scene.refusals == []


def test_the_stage_that_writes_the_model_card_is_told_of_which_model() -> None:
    scene = a_scene().run(is_ready)
    told = {request.stage: request.base_model for request in scene.world.requests if request.base_model}
    name = scene.resource["spec"]["baseModel"]["name"]
    assert told == {Stage.FINETUNE: {"name": name}}


def test_columns_tell_the_story() -> None:
    scene = a_scene().run(is_ready)
    phases = [status["phase"] for status in scene.history]
    assert list(dict.fromkeys(phases)) == ["Running", "Verifying", "Ready"]
    stages = [status.get("currentStage", "") for status in scene.history]
    assert list(dict.fromkeys(stages)) == [*(stage.value for stage in Stage), ""]
    assert {"JobCreated", "50%", "done"} <= {status["progress"] for status in scene.history}
    assert scene.status.uplift == "+20.0%n=100"
    assert scene.resource["status"]["metrics"]["fineTuned"]["ndcg@10"] == "0.60000"
    assert scene.resource["status"]["metrics"]["served"] == scene.resource["status"]["metrics"]["fineTuned"]


def test_conditions_become_true_one_after_the_other_and_never_false() -> None:
    scene = a_scene().run(is_ready)
    for kind in DEPENDENTS:
        seen = [item["status"] for status in scene.history for item in status["conditions"] if item["type"] == kind]
        assert seen == sorted(seen, reverse=True), kind  # Unknown, then True
        assert seen[-1] == "True"
    assert scene.condition("Reconciling") == "absent"
    assert scene.condition("Ready") == "True Verified"


def test_clients_find_the_model_behind_the_service_of_the_resource() -> None:
    scene = a_scene().run(is_ready)
    served = scene.resource["status"]["served"]
    assert served["url"] == f"http://{NAME}.team-a:8000/v1/embeddings"
    assert "candidateFingerprint" not in served


@pytest.mark.parametrize(
    ("deploy", "more"),
    [
        ({}, {"precision": "fp32", "opset": 17, "requestLimits": {"texts": 2048, "bytes": 33554432}}),
        ({"backend": {"torch": {}}}, {"requestLimits": {"texts": 2048, "bytes": 33554432}}),
        ({"image": "nim:1", "backend": {"nim": {}}}, {"precision": "fp32", "opset": 17}),
        ({"image": "nim:2", "backend": {"nim": {"generation": 2}}}, {}),
    ],
    ids=["onnx", "torch", "nim 1", "nim 2"],
)
def test_clients_are_told_what_they_must_know_whatever_serves(deploy: dict[str, Any], more: dict[str, Any]) -> None:
    scene = a_scene(stages={"deploy": deploy}).run(is_ready)
    assert scene.status.served.contract == {
        "path": "/v1/embeddings",
        "inputTypes": ["query", "passage"],
        "requestFields": {"truncate": "END"},
        "prefixes": {"query": "query: ", "passage": "passage: "},
        "dimensions": [384],
        "normalized": True,
        "maxTokens": 512,
        "pooling": "mean",
        **more,
    }


def test_nothing_is_written_once_it_is_ready() -> None:
    scene = a_scene().run(is_ready)
    before = scene.writes()
    scene.settle(30)
    assert scene.writes() == before


def test_a_run_needs_few_writes() -> None:
    scene = a_scene().run(is_ready)
    verbs = [call.verb for call in scene.cluster.calls if call.writes]
    assert verbs.count("create") == len(PIPELINE) + 1  # the pod that tries the images
    assert verbs.count("delete") == 1
    # The claim, the Deployment, its Service, the clients' Service, the contract, and the record of the revision.
    assert verbs.count("apply") == 6
    assert verbs.count("status") <= 30
    assert verbs.count("event") <= 20


def test_progress_of_a_running_stage_is_shown() -> None:
    scene = a_scene().run(stage_is(Stage.FINETUNE, "Running"))
    entry = scene.status.stage(Stage.FINETUNE)
    assert (entry.percent, entry.step, entry.total_steps) == (50, 1, 2)


def test_deleting_the_resource_leaves_nothing_behind() -> None:
    scene = a_scene().run(stage_is(Stage.FINETUNE, "Running"))
    scene.cluster.remove("EmbeddingFineTune", "team-a", NAME)
    scene.settle_without_resource()
    assert [raw for raw in scene.cluster.objects.values() if OWNER_LABEL in raw["metadata"].get("labels", {})] == []


def test_an_existing_claim_is_used_as_it_is() -> None:
    scene = a_scene(storage={"existingClaim": "shared"}).run(is_ready)
    assert scene.cluster.find("PersistentVolumeClaim") == []
    volumes = json.dumps([raw["spec"]["template"]["spec"]["volumes"] for raw in scene.cluster.find("Job")])
    assert '"shared"' in volumes


@pytest.mark.parametrize(
    ("deploy", "named"),
    [
        ({"image": "nim:2", "backend": {"nim": {"generation": 2}}}, "nim, generation 2.0"),
        ({"image": "nim:2.2.2", "backend": {"nim": {}}}, "nim, generation 2.2"),
        ({"image": "nim:2.4.0", "backend": {"nim": {}}}, "nim, generation 2.4"),
        ({"image": "vllm:1", "backend": {"vllm": {}}}, "vllm"),
        ({"backend": {"torch": {}}}, "torch"),
    ],
)
def test_a_server_of_the_checkpoint_needs_no_export(deploy: dict[str, Any], named: str) -> None:
    scene = a_scene(stages={"deploy": deploy}).run(is_ready)
    assert scene.states()["export"] == "Skipped"
    said = next(item["message"] for item in scene.resource["status"]["conditions"] if item["type"] == "Exported")
    assert said == f"the server (backend {named}) reads the checkpoint, nothing is to be exported"
    assert scene.attempts(Stage.EXPORT) == []
    assert scene.condition("Exported") == "True ProfileServesCheckpoint"
    checkpoint = scene.status.stage(Stage.FINETUNE).artefacts
    assert list(scene.status.stage(Stage.EXPORT).artefacts.values()) == list(checkpoint.values())


def test_two_operators_of_different_ages_agree() -> None:
    """A pass with a cache that knows nothing but the list ends like one that heard every event."""
    scene = a_scene()
    for _ in range(100):
        scene.turn()
        scene.restart()
    assert is_ready(scene)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert scene.resource["spec"] == a_spec()


def test_the_columns_of_figures_stay_while_another_revision_runs() -> None:
    scene = a_scene().run(is_ready)
    before = (scene.status.ndcg, scene.status.uplift)
    assert before == ("0.60000", "+20.0%n=100")
    scene.world.tuned_quality = 1.1
    seen = len(scene.history)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    shown = [(status["ndcg@10"], status["uplift"]) for status in scene.history[seen:]]
    assert dict.fromkeys(shown) == dict.fromkeys([before, ("0.66000", "+32.0%n=100")])


def test_what_stages_warn_of_is_told_once_a_revision() -> None:
    scene = a_scene()
    scene.world.warnings = ["only 6 steps"]
    scene.run(is_ready).settle(3)
    assert [(item.stage, item.message) for item in scene.status.warnings] == [(Stage.FINETUNE, "only 6 steps")]
    assert scene.events().count("StageWarned") == 1
    scene.edit(a_spec(tolerance={"atOne": "0.05"}))
    scene.run(is_ready)
    assert len(scene.status.warnings) == 1
    assert scene.events().count("StageWarned") == 2
    scene.world.warnings = []
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    assert scene.status.warnings == ()
    assert scene.events().count("StageWarned") == 2


def test_a_run_is_told_in_a_dozen_events() -> None:
    """kubectl describe ends with them."""
    scene = a_ready_quickstart()
    told = Counter(scene.events())
    assert told == {"Completed": 7, "StageWarned": 1, "Passed": 1, "Available": 1, "Activated": 1, "Ready": 1}
    spec = scene.resource["spec"]
    scene.edit({**spec, "tolerance": {"atOne": "0.05"}})
    scene.run(lambda scene: scene.status.revision == 2 and is_ready(scene)).settle(3)
    assert Counter(scene.events()) - told == {"Reused": 1, "StageWarned": 1, "Available": 1}


def described(value: Any) -> int:
    """Lines that `kubectl describe` prints of a value that stands in a field: one of its own and one a leaf."""
    if isinstance(value, dict):
        return 1 + sum(described(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(described(item) - isinstance(item, dict) for item in value)
    return 1


def test_a_ready_quickstart_is_described_in_few_lines() -> None:
    """150 with its Events, as kubectl counts them in tests/apiserver; each later revision adds two, up to eight."""
    scene = a_ready_quickstart()
    of_events, of_identity = 3 + 15, 11
    spec, status = scene.resource["spec"], scene.resource["status"]
    assert described(spec) + described(status) + of_identity + of_events <= 150, status
    scene.edit({**spec, "stages": {**spec["stages"], "finetune": {"epochs": 5}}})
    scene.run(lambda scene: scene.status.revision == 2 and is_ready(scene)).settle(12)
    assert described(scene.resource["status"]["history"]) - described(status["history"]) == 2
