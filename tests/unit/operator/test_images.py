"""What is a reference of an image, and what is told of one before a pod exists."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_manifest

from embedding_operator.decide.decision import Draft
from embedding_operator.decide.warnings import warn
from embedding_operator.resource.api import SpecError
from embedding_operator.resource.images import check_images, floats, is_reference
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Status
from embedding_operator.settings import Settings
from embedding_stages.contract import Stage

DIGEST = "sha256:" + "0a" * 32
# reference -> whether it is one, whether it says which image it is
REFERENCES: dict[str, tuple[bool, bool]] = {
    "nginx": (True, False),
    "nginx:1.27": (True, True),
    "registry.example/team/name:1.0": (True, True),
    "localhost:5000/a": (True, False),
    "10.0.0.1:5000/a/b__c/d--e:V_1.x": (True, True),
    f"Registry.Example:443/a@{DIGEST}": (True, True),
    f"a/b:1@{DIGEST}": (True, True),
    "": (False, False),
    "https://registry.example/name:1": (False, True),
    "Team/name:1/x": (False, False),
    "registry.example/Team/name:1": (False, True),
    "registry.example/team name:1": (False, True),
    "name:": (False, False),
    "name:1:2": (False, True),
    "name@sha256:12": (False, False),
    "name:-1": (False, False),
    "/name:1": (False, True),
    "name/": (False, False),
    "a//b": (False, False),
    "name:1 ": (False, False),
    "name:1\n": (False, False),
    "${IMAGE}": (False, False),
    "name:" + "v" * 129: (False, False),
}


@pytest.mark.parametrize("text", REFERENCES)
def test_a_reference_is_what_a_runtime_reads_as_one(text: str) -> None:
    valid, named = REFERENCES[text]
    assert is_reference(text) is valid
    if valid:
        assert floats(text) is not named


WRONG = "registry.example/team/Name:1"
FIELDS: dict[str, dict[str, Any]] = {
    **{f"spec.stages.{stage}.image": {"stages": {stage.value: {"image": WRONG}}} for stage in Stage if stage != "sdg"},
    "spec.baseModel.source.image.reference": {
        "baseModel": {"name": "m", "source": {"image": {"reference": WRONG, "path": "/m"}}}
    },
    "spec.corpus.source.image.reference": {"corpus": {"source": {"image": {"reference": WRONG, "path": "/d"}}}},
    "spec.evaluation.beir.image.reference": {"evaluation": {"beir": {"image": {"reference": WRONG, "path": "/b"}}}},
}


@pytest.mark.parametrize("field", FIELDS)
def test_an_image_that_is_none_is_refused_before_any_stage_runs(field: str) -> None:
    with pytest.raises(SpecError, match=r"must be an image, such as registry\.example/team/name:1\.0") as caught:
        check_images(parse_spec(a_manifest(**FIELDS[field]), IMAGES))
    assert str(caught.value).startswith(field)


def test_an_image_without_tag_and_digest_is_warned_of_from_the_start() -> None:
    spec = parse_spec(
        a_manifest(
            corpus={"source": {"image": {"reference": "registry.example/docs", "path": "/d"}}},
            stages={"finetune": {"image": "registry.example:5000/finetune"}, "eval": {"image": "e:1"}},
        ),
        IMAGES,
    )
    draft = Draft(status=Status())
    warn(draft, spec)
    told = [(item.stage, item.message.split(" ")[0]) for item in draft.status.warnings]
    assert told == [
        (Stage.FINETUNE, "spec.stages.finetune.image:"),
        (Stage.INPUTS, "spec.corpus.source.image.reference:"),
    ]
    assert [event.reason for event in draft.events] == ["StageWarned"] * 2
    warn(draft, spec)
    assert len(draft.events) == 2


def test_the_operator_does_not_start_with_a_default_image_that_is_none() -> None:
    names = ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE", "SERVE_TORCH")
    env = {f"IMAGE_{name}": "registry.example/a:1" for name in names}
    Settings.from_env(env)
    with pytest.raises(ValueError, match=r"IMAGE_EXPORT='https://registry\.example/a:1' must be an image"):
        Settings.from_env(env | {"IMAGE_EXPORT": "https://registry.example/a:1"})
