"""What is judged beside what serves where evaluation sets change, and what of vectors where exports do."""

from __future__ import annotations

from typing import Any

import pytest
from simulation import work
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled

from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest

EPOCHS: dict[str, Any] = {"finetune": {"epochs": 5}}
TORCH: dict[str, Any] = {"deploy": {"backend": {"torch": {}}}}


def labelled(claim: str) -> dict[str, Any]:
    return {"evaluation": {"beir": {"pvc": {"claimName": claim}}}}


def keep_training_sets(patch: pytest.MonkeyPatch) -> None:
    """A set that is corrected changes no training set, and so no model."""
    made = work._artefact

    def artefact(request: StageRequest, name: Artefact, corpus: str) -> ArtefactRef:
        ref = made(request, name, corpus)
        is_training = request.stage is Stage.PREP and name is Artefact.TRAINING_SET
        return ArtefactRef(path=ref.path, digest=work._digest({"training": corpus})) if is_training else ref

    patch.setattr(work, "_artefact", artefact)


def ended(scene: Scene) -> Scene:
    return scene.run(lambda scene: is_ready(scene) or is_stalled(scene)).settle(3)


def test_what_serves_is_judged_on_the_set_that_it_was_evaluated_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A labelled set is corrected: the training set stays as it was, and so does the model."""
    keep_training_sets(monkeypatch)
    scene = ended(a_scene(**labelled("first"), stages=TORCH))
    scene.edit(a_spec(**labelled("corrected"), stages=TORCH))
    scene.turn()
    ended(scene)
    assert (len(scene.ran(Stage.FINETUNE)), len(scene.ran(Stage.EVAL))) == (1, 2)
    scene.world.tuned_quality = 0.95
    scene.edit(a_spec(**labelled("corrected"), stages={**EPOCHS, **TORCH}))
    scene.turn()
    ended(scene)
    assert scene.condition("QualityGatePassed") == "False WorseThanActive"


@pytest.mark.parametrize("today", [{}, {"export": {"quantization": "int8"}}], ids=["none", "another limit"])
def test_a_quantized_revision_that_has_served_is_served_again(today: dict[str, Any]) -> None:
    scene = a_scene(stages={"export": {"quantization": "int8", "minCosine": "0.8"}})
    scene.world.canary_cosine = 0.85
    ended(scene)
    scene.world.canary_cosine = 1.0
    scene.edit(a_spec(stages={**EPOCHS, **today}))
    scene.turn()
    ended(scene)
    scene.world.canary_cosine = 0.85
    scene.edit(a_spec(stages={**EPOCHS, **today, "deploy": {"pinRevision": 1}}))
    scene.turn()
    ended(scene)
    assert scene.status.phase == "Ready"


@pytest.mark.parametrize(("cosine", "phase"), [(0.9985, "Ready"), (0.98, "Blocked")])
def test_verify_allows_what_export_was_told_to_allow(cosine: float, phase: str) -> None:
    scene = a_scene(stages={"export": {"precision": "fp16", "minCosine": "0.99"}})
    scene.world.canary_cosine = cosine
    ended(scene)
    assert scene.status.phase == phase


FOUND = [0.1, 0.3, 0.1, 0.05]
NONE = [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("comparisons", "told"),
    [
        ({"base": {"ndcg@10": FOUND, "recall@1": NONE}}, "True Passed"),
        ({"base": {"ndcg@10": NONE, "recall@1": NONE}}, "False NothingFound"),
        (
            {"base": {"ndcg@10": NONE, "recall@1": NONE}, "active": {"recall@1": [0.6, 0.0, -0.7, 0.05]}},
            "False WorseThanActive",
        ),
    ],
    ids=["another metric finds", "nothing finds", "what serves finds"],
)
def test_nothing_is_found_only_where_nothing_finds(
    comparisons: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = work._compared
    monkeypatch.setattr(work, "_compared", lambda *given: {**compared(*given), "comparisons": comparisons})
    scene = ended(a_scene(gates={"metrics": ["recall@1"]}))
    assert scene.condition("QualityGatePassed") == told


def test_a_pin_does_not_forget_on_which_set_what_serves_was_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_training_sets(monkeypatch)
    scene = ended(a_scene(**labelled("first"), stages=TORCH))
    pinned = {"deploy": {"backend": {"torch": {}}, "pinRevision": 1}}
    for stages in (TORCH, pinned):
        scene.edit(a_spec(**labelled("corrected"), stages=stages))
        scene.turn()
        ended(scene)
        assert is_ready(scene)
    scene.world.tuned_quality = 0.95
    scene.edit(a_spec(**labelled("corrected"), stages={**EPOCHS, **TORCH}))
    scene.turn()
    ended(scene)
    assert scene.condition("QualityGatePassed") == "False WorseThanActive"


def test_a_new_set_is_no_cure_where_none_is_frozen() -> None:
    scene = a_scene()
    scene.world.base_quality = scene.world.tuned_quality = 0.0
    scene.run(is_stalled)
    assert scene.condition("QualityGatePassed") == "False NothingFound"
    told, ran = scene.message("QualityGatePassed"), len(scene.ran(Stage.PREP))
    scene.edit(a_spec(evaluation={"freeze": False}))
    scene.run(is_stalled).settle(5)
    assert "spec.evaluation.freeze: false" not in told or len(scene.ran(Stage.PREP)) > ran


def test_a_pin_by_the_number_of_an_earlier_revision_of_the_same_server_forgets_no_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third revision is the first once more, on the corrected set: a pin of the first moves nobody."""
    keep_training_sets(monkeypatch)
    scene = ended(a_scene(**labelled("first"), stages=TORCH))
    pinned = {"deploy": {"backend": {"torch": {}}, "pinRevision": 1}}
    for claim, stages in (("first", {**EPOCHS, **TORCH}), ("corrected", TORCH), ("corrected", pinned)):
        scene.edit(a_spec(**labelled(claim), stages=stages))
        scene.turn()
        ended(scene)
        assert is_ready(scene)
    scene.world.tuned_quality = 0.95
    scene.edit(a_spec(**labelled("corrected"), stages={"finetune": {"epochs": 9}, **TORCH}))
    scene.turn()
    ended(scene)
    assert scene.condition("QualityGatePassed") == "False WorseThanActive"
