"""Training of a model whose Dense modules make vectors of another size than its states have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from unit.stages.test_finetune_training import SETTINGS
from unit.stages.tiny_families import make_gemma3
from unit.stages.tiny_models import run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.finetune.stage import work

VALIDATION = {"share": 0.2, "everySteps": 3}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_gemma3(root / "base")
    write_topics(root / "set")
    return root


@pytest.mark.parametrize(
    "asked",
    [
        {"validation": VALIDATION},
        {"inBatchNegatives": True},
        {"lora": {"rank": 4}, "validation": VALIDATION, "inBatchNegatives": True, "matryoshka": [16]},
        {"side": "query", "matryoshka": [16]},
    ],
    ids="-".join,
)
def test_the_stage_learns_in_vectors_of_their_size(asked: dict[str, Any], workspace: Path) -> None:
    inputs = {Artefact.BASE_MODEL: workspace / "base", Artefact.TRAINING_SET: workspace / "set"}
    code, result = run_stage(
        Stage.FINETUNE, work, workspace, settings=SETTINGS | asked, inputs=inputs, fingerprint="-".join(asked)
    )
    assert code == ExitCode.DONE, result.message
    checkpoint = workspace / result.artefacts[Artefact.CHECKPOINT].path
    encoder = PaddedEncoder.load(checkpoint, device="cpu")
    assert encoder.description.hidden_size == 24
    assert encoder.description.dimensions == ((32, 16) if "matryoshka" in asked else (32,))
    assert encoder.embed(["the key1"], role="query").shape == (1, 32)
    before, after = (
        load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
        for folder in (workspace / "base", checkpoint)
    )
    assert bool((before == after).all()) is ("lora" in asked or "side" in asked), "adapters are of layers alone"
