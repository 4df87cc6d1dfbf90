"""What makes work another work, and what must not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from unit.operator.builders import IMAGES, OPEN_AI, a_manifest, a_ref, a_spec, a_stage, refs

from embedding_operator.resource.api import Spec
from embedding_operator.resource.frozen import carry, resolved
from embedding_operator.resource.pipeline import fingerprint, inputs_of, serving_fingerprint
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Status
from embedding_stages.contract import Artefact, ArtefactRef, Stage
from embedding_stages.contract import settings as tables
from embedding_stages.contract.declare import setting

PLAIN = {stage: fingerprint(stage, a_spec(), refs(stage)) for stage in Stage if stage is not Stage.DEPLOY}


@pytest.mark.parametrize(
    ("stage", "sections"),
    [
        (Stage.INPUTS, {"corpus": {"source": {"configMap": {"name": "other"}}}}),
        (Stage.INPUTS, {"corpus": {"source": {"configMap": {"name": "docs"}}, "include": ["*.md"]}}),
        (Stage.INPUTS, {"evaluation": {"beir": {"pvc": {"claimName": "labelled"}}}}),
        (Stage.SDG, {"stages": {"sdg": {"provider": {"extractive": {}}, "seed": 1}}}),
        (Stage.SDG, {"stages": {"sdg": {"provider": OPEN_AI}}}),
        (Stage.PREP, {"stages": {"prep": {"hardNegatives": 6}}}),
        (Stage.FINETUNE, {"stages": {"finetune": {"epochs": 4}}}),
        (Stage.FINETUNE, {"stages": {"finetune": {"image": "other:1"}}}),
        (Stage.FINETUNE, {"stages": {"finetune": {"env": [{"name": "A", "value": "1"}]}}}),
        (Stage.EVAL, {"evaluation": {"kValues": [1, 10]}}),
        (Stage.EXPORT, {"stages": {"export": {"precision": "fp16"}}}),
        (Stage.VERIFY, {"evaluation": {"kValues": [1, 10]}}),
    ],
    ids=str,
)
def test_what_a_stage_is_told_changes_its_fingerprint(stage: Stage, sections: dict[str, Any]) -> None:
    assert fingerprint(stage, a_spec(**sections), refs(stage)) != PLAIN[stage]


HOW: list[dict[str, Any]] = [
    {"resources": {"limits": {"memory": "9Gi"}}},
    {"nodeSelector": {"a": "b"}},
    {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
    {"priorityClassName": "high"},
    {"runtimeClassName": "nvidia"},
    {"podLabels": {"team": "search"}},
    {"podAnnotations": {"team.example/why": "a text"}},
    {"timeoutSeconds": 7},
    {"retries": 9},
]


@pytest.mark.parametrize("how", HOW, ids=lambda how: next(iter(how)))
def test_how_a_pod_is_run_does_not(how: dict[str, Any]) -> None:
    stages: dict[str, Any] = {stage.value: how for stage in Stage}
    stages["sdg"] = {"provider": {"extractive": {}}, **how}
    spec = a_spec(stages=stages)
    assert {stage: fingerprint(stage, spec, refs(stage)) for stage in PLAIN} == PLAIN


SPENDING: list[dict[str, Any]] = [
    {"concurrency": 64},
    {"judgeConcurrency": 2},
    {"preview": 5},
    {"maxTokensTotal": 1000},
    {"prices": {"promptPerMillion": "0.1"}},
]


@pytest.mark.parametrize("how", SPENDING, ids=lambda how: next(iter(how)))
def test_how_much_an_llm_may_cost_does_not_and_holds_at_once(how: dict[str, Any]) -> None:
    """Nor does it make the manifest say something else: the rest of the stage stays as it was settled."""
    spec = a_spec(stages={"sdg": {"provider": {"extractive": {}}, **how}})
    assert fingerprint(Stage.SDG, spec, refs(Stage.SDG)) == PLAIN[Stage.SDG]
    assert spec.stages[Stage.SDG].asked == a_spec().stages[Stage.SDG].asked
    before = Status(revision=1, resolved=resolved(carry(a_spec(), Status(), 1), Status(revision=1), 1))
    carried = carry(spec, before, 2).stages[Stage.SDG]
    assert carried.settled_in == 1
    assert carried.settings == spec.stages[Stage.SDG].settings


@pytest.mark.parametrize("how", [{"gpusPerNode": 8}, {"nodes": 2}, {"nodes": 2, "parallelism": "FSDP"}], ids=str)
def test_how_many_share_the_training_does_not_either(how: dict[str, Any]) -> None:
    spec = a_spec(stages={"finetune": how}, storage={"accessModes": ["ReadWriteMany"]})
    assert fingerprint(Stage.FINETUNE, spec, refs(Stage.FINETUNE)) == PLAIN[Stage.FINETUNE]


@pytest.mark.parametrize(
    "sections",
    [
        {"tolerance": {"atOne": "0.5", "minCosine": "0.5"}},
        {"suspend": True},
        {"runPolicy": {"startDeadlineSeconds": 99, "activeDeadlineSeconds": 9}},
        {"limits": {"gpuSeconds": 9, "llmTokens": 9}},
        {"retention": {"succeededSeconds": 0, "failedSeconds": 9, "revisions": 2}},
        {"imagePullSecrets": [{"name": "registry"}]},
        {"storage": {"size": "1Gi"}},
    ],
    ids=str,
)
def test_what_is_no_stages_business_changes_none(sections: dict[str, Any]) -> None:
    spec = a_spec(**sections)
    assert {stage: fingerprint(stage, spec, refs(stage)) for stage in PLAIN} == PLAIN


def test_an_image_of_the_release_is_not_part_of_the_work_and_one_of_the_manifest_is() -> None:
    newer = {name: f"{image}-next" for name, image in IMAGES.items()}
    spec = parse_spec(a_manifest(), newer)
    assert {stage: fingerprint(stage, spec, refs(stage)) for stage in PLAIN} == PLAIN
    assert serving_fingerprint(spec, a_ref("model")) == serving_fingerprint(a_spec(), a_ref("model"))
    own = {"stages": {"finetune": {"image": IMAGES[Stage.FINETUNE]}}}
    assert fingerprint(Stage.FINETUNE, a_spec(**own), refs(Stage.FINETUNE)) != PLAIN[Stage.FINETUNE]


@pytest.mark.parametrize("stage", list(PLAIN))
def test_a_code_version_that_is_raised_makes_it_another_work(stage: Stage) -> None:
    spec = a_spec()
    raised = spec.with_stage(stage, replace(spec.stages[stage], code_version=9))
    assert fingerprint(stage, raised, refs(stage)) != PLAIN[stage]


def test_a_setting_that_joined_later_changes_nothing_while_it_says_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(tables.Finetune):
        loraRank: int = setting(0, since="0.2", says="New.")

    monkeypatch.setattr(tables, "OF_STAGE", {**tables.OF_STAGE, Stage.FINETUNE: Later})
    assert a_spec().stages[Stage.FINETUNE].settings["loraRank"] == 0
    assert fingerprint(Stage.FINETUNE, a_spec(), refs(Stage.FINETUNE)) == PLAIN[Stage.FINETUNE]
    asked = a_spec(stages={"finetune": {"loraRank": 8}})
    assert fingerprint(Stage.FINETUNE, asked, refs(Stage.FINETUNE)) != PLAIN[Stage.FINETUNE]


def of_endpoint(**changes: Any) -> str:
    spec = a_spec(stages={"sdg": {"provider": {"openAI": OPEN_AI["openAI"] | changes}}})
    return fingerprint(Stage.SDG, spec, refs(Stage.SDG))


@pytest.mark.parametrize(
    "changes",
    [{"apiKeySecretRef": {"name": "two", "key": "token"}}, {"caBundle": {"name": "pki"}}, {"parameters": {}},
     {"omitParameters": []}],
)  # fmt: skip
def test_how_an_endpoint_is_reached_does_not_change_it(changes: dict[str, Any]) -> None:
    assert of_endpoint(**changes) == of_endpoint()


def of_hub(**changes: Any) -> Spec:
    return a_spec(baseModel={"name": "m", "source": {"huggingFace": {"revision": "a" * 40, **changes}}})


def test_by_whose_certificates_a_hub_is_trusted_changes_no_work_and_asks_for_no_new_look() -> None:
    """The hash of what is asked decides whether the sources are looked at again, which is another work."""
    plain, bundled = of_hub(), of_hub(caBundle={"name": "pki"})
    assert fingerprint(Stage.INPUTS, bundled, {}) == fingerprint(Stage.INPUTS, plain, {})
    assert {stage: item.asked for stage, item in bundled.stages.items()} == {
        stage: item.asked for stage, item in plain.stages.items()
    }
    assert of_hub(revision="b" * 40).stages[Stage.INPUTS].asked != plain.stages[Stage.INPUTS].asked


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"parameters": {"max_tokens": 9}},
        {"omitParameters": ["seed"]},
        {"parameters": {"seed": None}},
    ],
)
def test_what_an_endpoint_is_asked_changes_it(changes: dict[str, Any]) -> None:
    assert of_endpoint(**changes) != of_endpoint()


def test_other_inputs_change_it_and_where_they_lie_does_not() -> None:
    inputs = refs(Stage.SDG)
    edited = {Artefact.CORPUS: a_ref("another")}
    moved = {Artefact.CORPUS: ArtefactRef(path="elsewhere", digest=inputs[Artefact.CORPUS].digest)}
    assert fingerprint(Stage.SDG, a_spec(), edited) != PLAIN[Stage.SDG]
    assert fingerprint(Stage.SDG, a_spec(), moved) == PLAIN[Stage.SDG]


def test_a_labelled_set_is_part_of_what_prep_does() -> None:
    inputs = refs(Stage.PREP) | {Artefact.LABELLED_SET: a_ref("labelled")}
    assert fingerprint(Stage.PREP, a_spec(), inputs) != PLAIN[Stage.PREP]


def test_what_else_the_work_depends_on_changes_it() -> None:
    found = {fingerprint(Stage.INPUTS, a_spec(), {}, extra={"generation": n}) for n in (1, 2)}
    assert len(found) == 2


def test_an_order_of_keys_does_not() -> None:
    manifest = a_manifest(stages={"finetune": {"epochs": 2, "seed": 1}})
    turned = a_manifest(stages={"finetune": {"seed": 1, "epochs": 2}})
    one, two = (parse_spec(raw, IMAGES) for raw in (manifest, turned))
    inputs = refs(Stage.FINETUNE)
    assert fingerprint(Stage.FINETUNE, one, inputs) == fingerprint(Stage.FINETUNE, two, inputs)


@pytest.mark.parametrize(
    ("deploy", "same"),
    [
        ({"replicas": 3}, True),
        ({"nodeSelector": {"a": "b"}}, True),
        ({"timeoutSeconds": 9}, True),
        ({"image": "other:1"}, False),
        ({"modelName": "other"}, False),
        ({"env": [{"name": "A", "value": "1"}]}, False),
    ],
    ids=str,
)
def test_a_server_is_another_one_when_it_answers_otherwise(deploy: dict[str, Any], same: bool) -> None:
    model = a_ref("model")
    edited = serving_fingerprint(a_spec(stages={"deploy": deploy}), model)
    assert (edited == serving_fingerprint(a_spec(), model)) is same


def test_another_artefact_makes_another_server() -> None:
    assert serving_fingerprint(a_spec(), a_ref("one")) != serving_fingerprint(a_spec(), a_ref("two"))


def test_inputs_come_from_finished_stages_only() -> None:
    pairs = {Artefact.PAIRS: a_ref("pairs")}
    model = {Artefact.BASE_MODEL: a_ref("model"), Artefact.CORPUS: a_ref("corpus")}
    done = a_stage(Stage.INPUTS, artefacts=model)
    for state, found in (("Succeeded", True), ("Reused", True), ("Running", False), ("Pending", False)):
        status = Status(stages=(done, a_stage(Stage.SDG, state=state, artefacts=pairs)))
        assert (inputs_of(Stage.PREP, a_spec(), status) is not None) is found


@pytest.mark.parametrize(("passages", "reads"), [(None, False), ("sentences", False), ("fit", True)])
def test_questions_depend_on_the_model_where_passages_are_made_for_it(passages: str | None, reads: bool) -> None:
    model = {Artefact.BASE_MODEL: a_ref("model"), Artefact.CORPUS: a_ref("corpus")}
    status = Status(stages=(a_stage(Stage.INPUTS, state="Succeeded", artefacts=model),))
    sdg = {"provider": {"extractive": {}}} | ({"passages": passages} if passages else {})
    found = inputs_of(Stage.SDG, a_spec(stages={"sdg": sdg}), status)
    assert found is not None
    assert (Artefact.BASE_MODEL in found) is reads
