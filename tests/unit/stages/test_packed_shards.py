"""The stage with adapters and parallelism FSDP, two ranks over packs against one. The ranks run this file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"  # as conftest.py says to pytest

import pytest
import torch
from safetensors.torch import load_file
from unit.stages.ranks import run_ranks
from unit.stages.tiny_models import make_llama, run_stage

from embedding_stages.contract import ENV_PARALLELISM, Artefact, ExitCode, Stage, StageResult
from embedding_stages.encoder import hardware
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.finetune import stage
from embedding_stages.finetune.world import World

SETTINGS: dict[str, Any] = {
    "epochs": 1, "globalBatchSize": 2, "learningRate": 1e-3, "negativesPerQuery": 1,
    "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "down_proj"]},
}  # fmt: skip


def write_short_texts(folder: Path) -> None:
    """Few and short: Triton's interpreter is slow."""
    folder.mkdir()
    passages = [{"id": f"p{number}", "text": f"key{number}"} for number in range(4)]
    records = [
        {"query": f"ask{number}", "positive": f"p{number}", "negatives": [f"p{3 - number}"]} for number in range(4)
    ]
    for name, lines in (("passages.jsonl", passages), ("train.jsonl", records)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def packed(folder: Path, **_: Any) -> PackedEncoder:
    return PackedEncoder.load(folder, device="cpu", dtype=torch.float32)


def trained(root: Path, workspace: Path, world: World | None = None) -> tuple[int, StageResult]:
    """The stage's work on this rank; each rank has a workspace of its own, which only rank 0 publishes to."""
    inputs = {Artefact.BASE_MODEL: root / "base", Artefact.TRAINING_SET: root / "set"}
    workspace.mkdir(exist_ok=True)
    for name, path in inputs.items():
        (workspace / path.name).symlink_to(path)
        inputs[name] = workspace / path.name
    return run_stage(
        Stage.FINETUNE, lambda context: stage.work(context, world), workspace, settings=SETTINGS, inputs=inputs
    )


def _rank(root: Path) -> None:
    torch.set_num_threads(1)
    hardware._CPU_INFO = Path("/dev/null")  # float32, as conftest.py has it
    os.environ[ENV_PARALLELISM] = "FSDP"
    world = World.of(os.environ)
    assert world.sharded
    stage.load_encoder = packed  # type: ignore[assignment]
    code, result = trained(root, root / f"rank-{world.rank}", world)
    (root / f"rank-{world.rank}.json").write_text(json.dumps([code, result.to_json()]))
    world.leave(code)
    os._exit(code)


def test_adapters_are_trained_over_packs_with_shards_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights are frozen: a shard of them would save nothing, see `stage._encoder`."""
    make_llama(tmp_path / "base", hidden_size=64, num_hidden_layers=1)
    write_short_texts(tmp_path / "set")
    run_ranks(__file__, str(tmp_path), size=2, exit_codes=[0, 0])
    monkeypatch.setattr(stage, "load_encoder", packed)
    code, alone = trained(tmp_path, tmp_path / "alone")
    assert code == ExitCode.DONE, alone.message
    code, told = json.loads((tmp_path / "rank-0.json").read_text())
    together = StageResult.from_json(told)
    assert (together.details["workers"], together.counts["steps"]) == (2, 2)
    assert together.counts["tokensPerPack"] == alone.counts["tokensPerPack"]
    for name in ("firstLoss", "lastLoss"):
        assert together.details[name] == pytest.approx(alone.details[name], abs=1e-4)
    folders = [tmp_path / name / each.artefacts[Artefact.CHECKPOINT].path for name, each in
               (("rank-0", together), ("alone", alone))]  # fmt: skip
    found, expected = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in folders)
    assert found.keys() == expected.keys()
    assert any(value.any() for name, value in expected.items() if "lora_B" in name)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
