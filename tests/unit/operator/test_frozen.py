"""What is settled with a revision comes back from the status, and only while the manifest says the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_manifest

from embedding_operator.resource.api import Spec
from embedding_operator.resource.frozen import carry, data_generation, resolved
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage

NEWER: Mapping[str, str] = {name: f"{image}-next" for name, image in IMAGES.items()}
NO_GPU: Mapping[str, Any] = {"resources": {"limits": {"nvidia.com/gpu": 0}}}
JOBS = [stage for stage in Stage if stage is not Stage.DEPLOY]


def as_stored(value: Any) -> Any:
    """As the API server hands it back: 7.0 is 7 in its JSON."""
    return json.loads(
        json.dumps(value), parse_float=lambda text: int(float(text)) if float(text) % 1 == 0 else float(text)
    )


def settled(**sections: Any) -> Status:
    """The status of a first revision."""
    spec = carry(parse_spec(a_manifest(**sections), IMAGES), Status(), 1)
    return Status(revision=1, resolved=as_stored(resolved(spec, Status(), 1)))


def later(status: Status, generation: int, **sections: Any) -> Spec:
    """The manifest as the next release reads it."""
    return carry(parse_spec(a_manifest(**sections), NEWER), status, generation)


@pytest.mark.parametrize("generation", [1, 2])
def test_everything_comes_back_as_it_was_settled(generation: int) -> None:
    before, after = carry(parse_spec(a_manifest(), IMAGES), Status(), 1), later(settled(), generation)
    for stage in JOBS:
        assert after.stages[stage].pod.image == IMAGES[stage]
        assert after.stages[stage].settings == before.stages[stage].settings
        assert after.stages[stage].settled_in == 1
    assert type(after.stages[Stage.PREP].settings["qualityThreshold"]) is float


def test_an_edited_section_is_resolved_anew_within_the_next_revision() -> None:
    after = later(settled(), 2, stages={"finetune": {"epochs": 5}})
    assert after.stages[Stage.FINETUNE].settings["epochs"] == 5
    assert after.stages[Stage.FINETUNE].settled_in == 1  # the image, until the stage has to run


@pytest.mark.parametrize(
    ("first", "then", "image"),
    [
        ({"image": "mine:1"}, {}, NEWER[Stage.FINETUNE]),
        ({}, {"image": "mine:1"}, "mine:1"),
        ({"image": "mine:1"}, {"image": "mine:2"}, "mine:2"),
        ({}, {"nodeSelector": {"a": "b"}}, IMAGES[Stage.FINETUNE]),
    ],
)
def test_an_image_of_the_manifest_is_never_taken_for_a_default(first: Any, then: Any, image: str) -> None:
    after = later(settled(stages={"finetune": first}), 2, stages={"finetune": then})
    assert after.stages[Stage.FINETUNE].pod.image == image


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"stages": "none"},
        {"stages": {"finetune": {"epochs": 3, "image": "x:1"}}},
        {"stages": {"finetune": {"settings": {"epochs": "many"}, "image": "x:1", "codeVersion": 1, "settledIn": 1}}},
        {"stages": {"finetune": {"settings": {}, "image": "x:1", "codeVersion": None, "settledIn": 1}}},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_read_is_settled_anew(damage: dict[str, Any]) -> None:
    after = later(replace(settled(), resolved=damage), 1)
    assert after.stages[Stage.FINETUNE].pod.image == NEWER[Stage.FINETUNE]
    assert after.stages[Stage.FINETUNE].settings["epochs"] == 3


LOOKS: list[tuple[dict[str, Any], bool]] = [
    ({"baseModel": {"name": "other", "source": {"pvc": {"claimName": "models"}}}}, True),
    ({"corpus": {"source": {"configMap": {"name": "docs"}}, "version": "2"}}, True),
    ({"evaluation": {"beir": {"pvc": {"claimName": "labelled"}}}}, True),
    ({"stages": {"inputs": {"env": [{"name": "A", "value": "1"}]}}}, True),
    ({"evaluation": {"kValues": [1, 10]}}, False),
    *(({"stages": {stage: {"env": [{"name": "A", "value": "1"}]}}}, False) for stage in ("prep", "export", "deploy")),
    ({"stages": {"finetune": {"epochs": 5}}}, False),
    ({"stages": {"finetune": {"matryoshka": [64]}}}, True),  # it looks whether the model can do it
    ({"stages": {"finetune": {"lora": {"targets": ["q_proj"]}}}}, True),
    ({"stages": {"finetune": {"validation": {}}}}, False),
    ({"stages": {"deploy": {"replicas": 2}}}, False),
    ({"stages": {"inputs": {"resources": {"limits": {"memory": "9Gi"}}, "timeoutSeconds": 9}}}, False),
    ({"tolerance": {"atOne": "0.5", "minCosine": "0.5"}}, False),
    ({"storage": {"size": "60Gi"}}, False),
    ({"imagePullSecrets": [{"name": "registry"}]}, False),
    ({"suspend": True}, False),
    ({"runPolicy": {"startDeadlineSeconds": 99}}, False),
]


@pytest.mark.parametrize(("sections", "looks"), LOOKS, ids=str)
def test_an_edit_of_what_inputs_reads_looks_at_the_sources_again(sections: dict[str, Any], looks: bool) -> None:
    status = settled()
    assert data_generation(later(status, 2, **sections), status, 2) == (2 if looks else 1)


@pytest.mark.parametrize(
    ("sections", "stages"),
    [
        ({"corpus": {"source": {"configMap": {"name": "docs"}}, "minTextLength": 9}}, "inputs sdg"),
        ({"evaluation": {"kValues": [1, 10]}}, "eval verify"),
        ({"evaluation": {"beir": {"pvc": {"claimName": "labelled"}}}}, "inputs"),
        ({"stages": {"prep": {"seed": 1}}}, "prep"),
        ({"stages": {"finetune": {"matryoshka": [64]}}}, "inputs finetune"),
        ({"stages": {"deploy": {"backend": {"torch": {}}}}}, "eval deploy"),  # eval computes in what is served
        ({"stages": {"deploy": {"backend": {"torch": {}}, **NO_GPU}}}, "deploy"),
        ({"tolerance": {"atOne": "0.5", "minCosine": "0.5"}}, ""),
    ],
    ids=str,
)
def test_an_edit_concerns_the_stages_whose_settings_follow_from_it(sections: Any, stages: str) -> None:
    before, after = parse_spec(a_manifest(), IMAGES).stages, parse_spec(a_manifest(**sections), IMAGES).stages
    assert [stage for stage in Stage if before[stage].asked != after[stage].asked] == stages.split()


@pytest.mark.parametrize(("quoted", "number"), [("1e-5", 1e-5), ("0.02", 0.02), ("1", 1), ("0.00015", 0.00015)])
def test_a_decimal_is_the_same_with_and_without_its_quotes(quoted: str, number: float) -> None:
    same_in_both_spellings({"learningRate": quoted}, {"learningRate": number})


def test_a_decimal_of_a_section_is_the_same_with_and_without_its_quotes() -> None:
    same_in_both_spellings({"validation": {"share": "0.1"}}, {"validation": {"share": 0.1}})


def same_in_both_spellings(*sections: Mapping[str, Any]) -> None:
    specs = [parse_spec(a_manifest(stages={"finetune": section}), IMAGES) for section in sections]
    first, second = (spec.stages[Stage.FINETUNE] for spec in specs)
    assert (first.asked, first.settings) == (second.asked, second.settings)


def test_the_served_name_follows_the_base_models() -> None:
    after = later(settled(), 2, baseModel={"name": "other", "source": {"pvc": {"claimName": "models"}}})
    assert after.stages[Stage.DEPLOY].settings["modelName"] == "other"
