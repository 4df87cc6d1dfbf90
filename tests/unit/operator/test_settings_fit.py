"""What the operator tells a stage is what the stage's code reads: the two sides know each other by names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.operator.builders import OWNER, a_ref, a_spec, a_stage

from embedding_operator.decide.decision import Draft
from embedding_operator.decide.serving import verification
from embedding_operator.resource.pipeline import PIPELINE
from embedding_operator.resource.status import Served, Status
from embedding_stages.contract import Artefact, Stage

CODE = Path(__file__).parents[3] / "stage_images"


def source_of(stage: Stage) -> str:
    module = next(item.module for item in PIPELINE if item.stage is stage)
    return "\n".join(path.read_text() for path in sorted((CODE / module.replace(".", "/")).glob("*.py")))


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.DEPLOY])
def test_every_setting_is_read_by_its_stage(stage: Stage) -> None:
    settings = dict(a_spec().stages[stage].settings)
    if stage is Stage.VERIFY:
        export = a_stage(Stage.EXPORT, artefacts={Artefact.SERVING_MODEL: a_ref()})
        draft = Draft(status=Status(stages=(export,), served=Served(candidate_fingerprint="ab" * 32)))
        settings |= verification(draft, OWNER, a_spec())[1]
    code = source_of(stage)
    assert [name for name in settings if name not in code] == []


def test_every_stage_has_a_module_that_can_be_run() -> None:
    for item in PIPELINE:
        assert (CODE / item.module.replace(".", "/") / "__main__.py").is_file(), item.module
    assert (CODE / "embedding_stages/serve/check.py").is_file()


def test_what_a_stage_reads_an_earlier_one_writes() -> None:
    written: set[Artefact] = set()
    for item in PIPELINE:
        assert set(item.inputs) <= written, item.stage
        written |= set(item.outputs)
