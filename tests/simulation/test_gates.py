"""A worse model gets no traffic, unless the manifest says so."""

from __future__ import annotations

import pytest
from simulation.clients import led_to
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Raw, Scene, a_scene, a_spec, is_ready, is_stalled

from embedding_operator.resource.api import KIND
from embedding_stages.contract import Artefact, Stage

EPOCHS = {"finetune": {"epochs": 5}}
RETRAINED = a_spec(stages=EPOCHS)


def test_a_first_model_that_is_half_as_good_is_never_exported() -> None:
    scene = a_scene()
    scene.world.tuned_quality = 0.4
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False WorseThanBase"
    assert scene.condition("Evaluated").startswith("True")
    assert scene.condition("Exported") == "Unknown Pending"
    assert scene.condition("Ready") == "False WorseThanBase"
    assert (scene.status.phase, scene.status.current_stage) == ("Blocked", "eval")
    assert scene.attempts(Stage.EXPORT) == []
    assert scene.cluster.find("Deployment") == []
    assert scene.events().count("WorseThanBase") == 1
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes


@pytest.mark.parametrize("strategy", ["BlueGreen", "Shadow", "Recreate"])
def test_a_later_model_that_is_half_as_good_leaves_what_serves_untouched(strategy: str) -> None:
    deploy = {"deploy": {"strategy": strategy}}
    scene = a_scene(stages=deploy).run(is_ready).settle(60)
    before, objects = led_to(scene), [raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")]
    scene.world.tuned_quality = 0.4
    scene.edit(a_spec(stages=deploy | EPOCHS))
    scene.run(is_stalled).settle(30)
    assert scene.condition("QualityGatePassed") == "False WorseThanBase"
    assert "revision 1 goes on serving" in scene.message("QualityGatePassed")
    assert scene.status.phase == "Blocked"
    assert led_to(scene) == before
    assert [raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")] == objects
    assert scene.status.served.active_revision == 1
    assert scene.status.served.url
    assert len(scene.attempts(Stage.EXPORT)) == 1


def test_a_model_that_is_better_than_the_base_and_worse_than_what_serves_is_stopped_too() -> None:
    scene = a_scene().run(is_ready)
    scene.world.tuned_quality = 0.95
    scene.edit(RETRAINED)
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False WorseThanActive"
    assert len(scene.ran(Stage.EVAL)) == 2
    active = scene.ran(Stage.EVAL)[1].inputs[Artefact.ACTIVE_CHECKPOINT]
    assert active == scene.status.served.checkpoint


NEW_SETS = {
    "a new set": {"stages": {"prep": {"evalFraction": "0.4"}}, "evaluation": {"freeze": False}},
    "a labelled set": {"evaluation": {"beir": {"pvc": {"claimName": "labelled"}}}},
}


@pytest.mark.parametrize("edit", NEW_SETS)
def test_what_serves_is_told_and_not_judged_on_questions_that_it_may_have_trained_on(edit: str) -> None:
    scene = a_scene().run(is_ready)
    scene.world.tuned_quality = 0.95  # beside a model that trained on these questions
    scene.edit(a_spec(**NEW_SETS[edit]))
    scene.run(is_ready).settle(5)
    assert scene.status.served.active_revision == 2
    assert scene.condition("QualityGatePassed") == "True Passed"
    message = scene.message("QualityGatePassed")
    assert "not judged beside the serving revision" in message
    assert "ndcg@10 0.57000 against 0.60000 (-0.03000)" in message
    writes = scene.writes()
    scene.settle(30)
    assert scene.writes() == writes
    scene.edit(a_spec(**NEW_SETS[edit], gates={"maxRegression": {"active": "0"}}))  # which judges the same figures
    scene.run(is_ready)
    scene.world.tuned_quality = 0.9
    stages = {**NEW_SETS[edit].get("stages", {}), **EPOCHS}
    scene.edit(a_spec(**{**NEW_SETS[edit], "stages": stages}))  # now what serves was evaluated on the same
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False WorseThanActive"


def test_a_model_that_is_worse_than_the_base_model_is_stopped_on_a_new_set_too() -> None:
    scene = a_scene().run(is_ready)
    scene.world.tuned_quality = 0.4
    scene.edit(a_spec(**NEW_SETS["a new set"]))
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False WorseThanBase"
    assert "not judged beside the serving revision" in scene.message("QualityGatePassed")


def test_what_serves_is_judged_on_the_frozen_set_whatever_else_is_edited() -> None:
    scene = a_scene().run(is_ready)
    scene.world.tuned_quality = 0.95
    scene.edit(a_spec(stages={"prep": {"hardNegatives": 6}}))
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False WorseThanActive"


def test_what_is_pinned_is_not_judged_on_a_set_that_was_frozen_after_it() -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(**NEW_SETS["a new set"]))
    scene.run(is_ready)
    scene.edit(a_spec(stages={"deploy": {"pinRevision": 1}}))
    scene.run(is_ready)
    scene.world.tuned_quality = 0.95
    scene.edit(RETRAINED)
    scene.run(is_ready)
    assert "not judged beside the serving revision" in scene.message("QualityGatePassed")


def test_a_worse_model_goes_on_where_the_manifest_says_so() -> None:
    scene = a_scene(gates={"onFail": "Warn"})
    scene.world.tuned_quality = 0.4
    scene.run(is_ready)
    assert scene.condition("QualityGatePassed") == "True Warned"
    assert "WorseThanBase" in scene.message("QualityGatePassed")
    assert scene.events().count("Warned") == 1


def test_an_edit_of_the_gate_lets_the_evaluated_model_go_on_without_another_run() -> None:
    scene = a_scene()
    scene.world.tuned_quality = 0.4
    scene.run(is_stalled)
    scene.edit(a_spec(gates={"onFail": "Warn"}))
    scene.run(is_ready)
    assert len(scene.ran(Stage.EVAL)) == 1


def test_what_finds_nothing_is_never_served() -> None:
    """As with a labelled set that is about other documents."""
    scene = a_scene()
    scene.world.tuned_quality = scene.world.base_quality = 0.0
    scene.run(is_stalled)
    assert scene.condition("Ready") == scene.condition("QualityGatePassed") == "False NothingFound"
    assert "spec.evaluation.beir" in scene.message("Ready")
    assert scene.attempts(Stage.EXPORT) == []
    scene.edit(a_spec(gates={"onFail": "Warn"}))
    scene.run(is_ready)
    assert scene.condition("QualityGatePassed") == "True Warned"


def test_an_uplift_is_asked_for_without_another_run_whatever_metrics_are_judged() -> None:
    gates = {"metrics": ["recall@10"]}
    scene = a_scene(gates=gates).run(is_ready)
    scene.edit(a_spec(gates=gates | {"minRelativeUplift": "0.5"}))
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False WorseThanBase"
    assert "ndcg@10 0.60000" in scene.message("QualityGatePassed")
    assert len(scene.ran(Stage.EVAL)) == 1


def test_a_gate_that_is_tightened_for_what_serves_takes_ready_and_not_the_server() -> None:
    scene = a_scene().run(is_ready)
    before = led_to(scene)
    scene.edit(a_spec(gates={"minRelativeUplift": "0.5"}))
    scene.run(is_stalled).settle(10)
    assert scene.condition("QualityGatePassed") == "False WorseThanBase"
    assert led_to(scene) == before
    assert scene.status.served.url
    scene.edit(a_spec())
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == 7


def test_later_revisions_are_scored_on_the_set_of_the_first_that_was_ready() -> None:
    scene = a_scene().run(is_ready)
    first = scene.digest(Stage.PREP, Artefact.EVALUATION_SET)
    assert scene.status.evaluation_set is not None
    assert scene.status.evaluation_set.ref.digest == first
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))  # which runs nothing anew
    scene.run(is_ready)
    assert len(scene.ran(Stage.PREP)) == 1
    scene.edit(a_spec(stages={"prep": {"hardNegatives": 6}}))
    scene.run(is_ready)
    assert scene.ran(Stage.PREP)[-1].inputs[Artefact.FROZEN_SET].digest == first
    assert scene.status.evaluation_set.ref.digest == first
    scene.edit(a_spec(stages={"prep": {"hardNegatives": 7}}, evaluation={"freeze": False}))
    scene.run(is_ready)
    assert Artefact.FROZEN_SET not in scene.ran(Stage.PREP)[-1].inputs
    assert scene.status.evaluation_set.ref.digest == scene.digest(Stage.PREP, Artefact.EVALUATION_SET) != first


def test_another_labelled_set_is_an_edit_of_the_evaluation_and_is_not_frozen_out() -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(evaluation={"beir": {"pvc": {"claimName": "labelled"}}}))
    scene.run(is_ready)
    assert Artefact.FROZEN_SET not in scene.ran(Stage.PREP)[-1].inputs


def test_an_edit_and_back_finds_the_work_that_made_the_frozen_set() -> None:
    scene = a_scene().run(is_ready)
    first = scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT)
    scene.edit(a_spec(stages={"prep": {"hardNegatives": 6}}))
    scene.run(is_ready)
    scene.edit(a_spec())
    scene.run(is_ready)
    assert scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT) == first


def test_a_workspace_that_is_not_believed_any_more_is_asked_for_the_same_work() -> None:
    scene = a_scene().run(is_ready)
    first = scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT)
    changed = scene.status.stage(Stage.EXPORT).artefacts[Artefact.SERVING_MODEL].path
    intact = scene.world.volume[changed]
    scene.world.volume[changed] = "sha256:changed"
    scene.edit(a_spec(evaluation={"kValues": [1, 5, 10]}))
    scene.run(is_stalled)
    assert scene.condition("Verified") == "False ArtefactMismatch"
    scene.world.volume[changed] = intact
    scene.edit(a_spec())
    scene.run(is_ready).settle(5)
    assert scene.digest(Stage.FINETUNE, Artefact.CHECKPOINT) == first
    assert not any(Artefact.FROZEN_SET in request.inputs for request in scene.ran(Stage.PREP))


def test_a_set_that_comes_out_otherwise_when_it_is_made_again_is_not_scored_on() -> None:
    scene = a_scene().run(is_ready)
    frozen = scene.status.evaluation_set
    assert frozen is not None

    def forget(raw: Raw) -> None:
        raw["status"]["evaluationSet"] = {"digest": "sha256:of another set"}

    scene.cluster.change(KIND, NAMESPACE, NAME, forget)
    scene.edit(a_spec(stages=EPOCHS))
    scene.settle(30)
    assert scene.ran(Stage.PREP)[-1].inputs[Artefact.FROZEN_SET].digest == "sha256:of another set"
    jobs = list(scene.cluster.created_jobs)
    scene.settle(30)
    assert scene.cluster.created_jobs == jobs


def test_an_edit_of_a_guards_limit_reads_nothing_anew() -> None:
    def guarded(limit: str) -> Raw:
        guard = {"name": "general", "beir": {"pvc": {"claimName": "guards"}}, "maxRegression": limit}
        return a_spec(evaluation={"guards": [guard]})

    scene = Scene(guarded("0.02")).run(is_ready)
    jobs = list(scene.cluster.created_jobs)
    scene.edit(guarded("0.05"))
    scene.run(is_ready)
    assert scene.cluster.created_jobs == jobs


def test_what_serves_is_compared_with_no_more_where_the_gates_are_off() -> None:
    scene = a_scene().run(is_ready)
    scene.world.volume[scene.status.stage(Stage.FINETUNE).artefacts[Artefact.CHECKPOINT].path] = "sha256:gone"
    scene.edit(RETRAINED)
    scene.run(is_stalled)
    assert scene.condition("Evaluated") == "False ArtefactMismatch"
    scene.edit(a_spec(stages=EPOCHS, gates={"enabled": False}))
    scene.run(is_ready).settle(5)
    assert scene.status.served.active_revision == 3
    runs = len(scene.ran(Stage.EVAL))
    scene.edit(RETRAINED)
    scene.run(is_ready).settle(5)
    assert len(scene.ran(Stage.EVAL)) == runs
