"""The launcher with real workers on the CPU: what a pod's exit code and termination message are."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from unit.stages.tiny_models import make_bert, run_stage, write_topics

from embedding_stages import contract
from embedding_stages.artefacts import Workspace, digest_of_folder, sha256_file
from embedding_stages.contract import Artefact, ArtefactRef, ExitCode, Stage, StageRequest, StageResult, parse_progress
from embedding_stages.errors import StageError, Transient
from embedding_stages.finetune.launch import Plan, launch
from embedding_stages.finetune.stage import checked_input, work
from embedding_stages.finetune.world import World
from embedding_stages.runner import StageContext

SETTINGS: dict[str, Any] = {
    "epochs": 40,  # 120 steps: long enough to be met in the middle
    "globalBatchSize": 8,
    "microBatchSize": 2,
    "learningRate": 1e-3,
    "negativesPerQuery": 3,
    "temperature": 0.1,
}
FEW_STEPS: dict[str, Any] = {"epochs": 4}  # for who only has to come to the end
TWO_WORKERS = {contract.ENV_PROCESSES: "2", contract.ENV_PARALLELISM: "DDP"}
NODES_DISK = "spec.stages.finetune.resources.requests.ephemeral-storage"
LIMIT_S = 240  # of a run, on a slow machine


def float32_site(workspace: Path) -> Path:
    """A folder for PYTHONPATH that makes every process train in float32, as the limits here want it (conftest.py)."""
    folder = workspace / "site"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "from embedding_stages.encoder import hardware\n"
        "hardware._CPU_INFO = Path('/dev/null')\n"
    )
    return folder


class Launched:
    """A running `python3 -m embedding_stages.finetune` on a workspace."""

    def __init__(
        self, workspace: Path, fingerprint: str, env: dict[str, str], data: str = "set", digest: str | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        """`digest`: what the request says of the training set, where it is not the truth."""
        base, data_set = workspace / "bert", workspace / data
        request = StageRequest(
            stage=Stage.FINETUNE,
            fingerprint=fingerprint,
            attempt=1,
            revision=1,
            image="test",
            settings=SETTINGS | settings,
            inputs={
                Artefact.BASE_MODEL: ArtefactRef(path=base.name, digest=digest_of_folder(base)),
                Artefact.TRAINING_SET: ArtefactRef(path=data, digest=digest or digest_of_folder(data_set)),
            },
        )
        node = env.get(contract.ENV_NODE_RANK, "0")
        self.message = workspace / f"message-{fingerprint}-{node}"
        self.message.unlink(missing_ok=True)
        self.errors = (workspace / f"errors-{fingerprint}-{node}").open("w+")
        own = {
            contract.ENV_REQUEST: request.to_json(),
            contract.ENV_WORKSPACE: str(workspace),
            contract.ENV_TERMINATION_LOG: str(self.message),
            "PYTHONPATH": os.pathsep.join([str(float32_site(workspace)), *sys.path]),
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "embedding_stages.finetune"],
            env=dict(os.environ) | own | env,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def until_step(self, step: int) -> None:
        """Read what the launcher writes until the log of this step or a later one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if '"step"' in line and json.loads(line).get("step", 0) >= step:
                return
        self.errors.seek(0)
        pytest.fail(f"ended before step {step}: {self.errors.read()}")

    def ended(self) -> tuple[int, StageResult | None, list[str]]:
        """(exit code, termination message, lines of standard output not yet read)."""
        try:
            lines = self.process.communicate(timeout=LIMIT_S)[0].splitlines()
        finally:
            self.process.kill()
            self.errors.close()
        text = self.message.read_text() if self.message.exists() else ""
        return self.process.returncode, StageResult.from_json(text) if text else None, lines

    def worker(self, local_rank: int) -> int:
        """The process id of a worker."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and f"LOCAL_RANK={local_rank}".encode() in variables:
                return int(folder.name)
        raise AssertionError(f"no worker {local_rank}")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_bert(root / "bert")
    write_topics(root / "set")
    broken = write_topics(root / "broken")
    (broken / "train.jsonl").write_text(json.dumps({"query": "a", "positive": "p0-0", "negatives": []}) + "\n")
    return root


def alone(workspace: Path, fingerprint: str, data: str = "set", **settings: Any) -> tuple[int, StageResult]:
    inputs = {Artefact.BASE_MODEL: workspace / "bert", Artefact.TRAINING_SET: workspace / data}
    settings = SETTINGS | settings
    return run_stage(Stage.FINETUNE, work, workspace, settings=settings, inputs=inputs, fingerprint=fingerprint)


@pytest.fixture(scope="module")
def whole(workspace: Path) -> tuple[StageResult, list[str]]:
    """An uninterrupted run of two workers."""
    code, result, lines = Launched(workspace, "whole", TWO_WORKERS).ended()
    assert code == ExitCode.DONE
    assert result is not None
    return result, lines


def test_two_workers_publish_what_one_process_would(whole: tuple[StageResult, list[str]], workspace: Path) -> None:
    result, _ = whole
    code, expected = alone(workspace, "alone")
    assert code == ExitCode.DONE
    assert result.counts == expected.counts
    assert (result.details["workers"], expected.details["workers"]) == (2, 1)
    assert result.details["firstLoss"] == pytest.approx(expected.details["firstLoss"], rel=1e-3)
    assert result.details["lastLoss"] == pytest.approx(expected.details["lastLoss"], rel=0.05)
    folder = workspace / result.artefacts[Artefact.CHECKPOINT].path
    assert digest_of_folder(folder) == result.artefacts[Artefact.CHECKPOINT].digest
    assert not list((workspace / "finetune").glob("*.partial"))


def test_rank_0_alone_writes_progress_and_steps(whole: tuple[StageResult, list[str]]) -> None:
    lines = [json.loads(line) for line in whole[1]]
    steps = [line["step"] for line in lines if line.get("message") == "step"]
    assert steps == [*range(1, 120, 10), 120]
    assert sum(line.get("message") == "stage ended" for line in lines) == 1
    progress = parse_progress("\n".join(whole[1]))
    assert progress is not None
    assert progress.percent == 100


def test_a_run_stopped_in_the_middle_saves_and_ends_at_the_same_place(
    whole: tuple[StageResult, list[str]], workspace: Path
) -> None:
    stopped = Launched(workspace, "stopped", TWO_WORKERS)
    stopped.until_step(11)
    stopped.process.send_signal(signal.SIGTERM)
    code, result, _ = stopped.ended()
    assert code == ExitCode.TRANSIENT
    assert result is not None
    assert result.reason == "Interrupted"
    (point,) = (workspace / "finetune" / "stopped.partial" / "scratch-resume").iterdir()
    losses = json.loads((point / "state.json").read_text())["losses"]
    assert 11 <= len(losses) < 120

    code, again, lines = Launched(workspace, "stopped", TWO_WORKERS).ended()
    assert code == ExitCode.DONE
    assert again is not None
    assert any(json.loads(line).get("message") == "resumed" for line in lines)
    assert again.details == whole[0].details
    assert again.artefacts[Artefact.CHECKPOINT].digest == whole[0].artefacts[Artefact.CHECKPOINT].digest


def test_bad_input_ends_like_a_single_process(workspace: Path) -> None:
    code, result, _ = Launched(workspace, "broken", TWO_WORKERS, data="broken").ended()
    expected = alone(workspace, "broken", data="broken")
    assert (code, result) == expected
    assert (code, expected[1].reason) == (ExitCode.BAD_INPUT, "NegativesMissing")


def test_an_input_that_rank_0_finds_damaged_ends_all(workspace: Path) -> None:
    code, result, _ = Launched(workspace, "damaged", TWO_WORKERS, digest="sha256:0").ended()
    assert result is not None
    assert (code, result.reason) == (1, "ArtefactDamaged")


@pytest.mark.parametrize(("rank", "reads"), [(0, ["config.json", "model"]), (1, [])])
def test_one_rank_reads_an_input_to_check_it(
    rank: int, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "model"):
        (folder / name).write_text(name)
    ref = ArtefactRef(path="base", digest=digest_of_folder(folder))
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=1, revision=1, image="i", settings={},
        inputs={Artefact.BASE_MODEL: ref},
    )  # fmt: skip
    context = StageContext(request=request, workspace=Workspace(tmp_path), sources=tmp_path, secrets=tmp_path)
    seen: list[str] = []

    def counted(path: Path) -> str:
        seen.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr("embedding_stages.artefacts.sha256_file", counted)
    world = World(rank=rank, size=1, local_rank=0, parallelism="DDP", device=torch.device("cpu"))
    assert checked_input(Artefact.BASE_MODEL, context, world) == folder
    assert seen == reads


def test_what_rank_0_finds_damaged_nobody_else_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank would blame the model for it: bad input, which is told in the place of damage."""
    (tmp_path / "base").mkdir()
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=1, revision=1, image="i", settings={},
        inputs={Artefact.BASE_MODEL: ArtefactRef(path="base", digest="sha256:0")},
    )  # fmt: skip
    context = StageContext(request=request, workspace=Workspace(tmp_path), sources=tmp_path, secrets=tmp_path)
    store = dist.HashStore()
    monkeypatch.setattr("embedding_stages.finetune.world._store", lambda: store)
    first, second = (
        World(rank=rank, size=2, local_rank=rank, parallelism="DDP", device=torch.device("cpu")) for rank in (0, 1)
    )
    with pytest.raises(StageError) as damage:
        checked_input(Artefact.BASE_MODEL, context, first)
    assert damage.value.reason == "ArtefactDamaged"
    first.meet("ended")
    with pytest.raises(Transient) as followed:
        checked_input(Artefact.BASE_MODEL, context, second)
    assert followed.value.reason == contract.PEER_LOST


def test_a_killed_worker_ends_the_pod_as_transient(workspace: Path) -> None:
    launched = Launched(workspace, "killed", TWO_WORKERS)
    launched.until_step(1)
    os.kill(launched.worker(0), signal.SIGKILL)
    code, result, _ = launched.ended()
    assert code == ExitCode.TRANSIENT
    assert result is not None
    assert result.reason == "WorkerLost"
    assert "SIGKILL" in result.message


def test_a_pod_without_room_for_its_workers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They write their ends to a temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/full"])
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=1, revision=1, image="i", settings={}, inputs={}
    )
    env = {contract.ENV_REQUEST: request.to_json(), contract.ENV_TERMINATION_LOG: str(tmp_path / "log")}
    plan = Plan(nodes=1, node_rank=0, processes=2, coordinator="")
    assert launch(plan, env) == ExitCode.TRANSIENT
    result = StageResult.from_json((tmp_path / "log").read_text())
    assert (result.reason, result.field) == (contract.DISK_FULL, NODES_DISK)


def test_a_worker_without_room_for_its_result_says_so(workspace: Path) -> None:
    site = float32_site(workspace)  # where each process looks for what it has to do first
    (workspace / "no-room").mkdir()
    (workspace / "no-room" / "sitecustomize.py").write_text(
        (site / "sitecustomize.py").read_text()
        + "import errno, os\n"
        + "from embedding_stages import full_disk\n"
        + "if 'LOCAL_RANK' in os.environ:\n"
        + "    full_disk.told = lambda result, log: False\n"
    )
    path = {"PYTHONPATH": os.pathsep.join([str(workspace / "no-room"), *sys.path])}
    code, result, _ = Launched(workspace, "no-room", TWO_WORKERS | path, **FEW_STEPS).ended()
    assert result is not None
    assert (code, result.reason, result.field) == (ExitCode.TRANSIENT, contract.DISK_FULL, NODES_DISK)


def two_nodes(workspace: Path, fingerprint: str, parallelism: str, **settings: Any) -> list[Launched]:
    """Launchers that meet on this machine, one worker each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        contract.ENV_NODES: "2",
        contract.ENV_COORDINATOR: f"127.0.0.1:{port}",
        contract.ENV_PARALLELISM: parallelism,
    }
    ranks = [env | {contract.ENV_NODE_RANK: str(rank)} for rank in (0, 1)]
    return [Launched(workspace, fingerprint, own, **settings) for own in ranks]


def test_two_nodes_meet_at_the_coordinator(workspace: Path) -> None:
    nodes = two_nodes(workspace, "nodes", "FSDP", **FEW_STEPS)
    (code_0, result_0, _), (code_1, result_1, _) = [node.ended() for node in nodes]
    assert (code_0, code_1) == (ExitCode.DONE, ExitCode.DONE)
    assert result_1 is None  # the run's result is the first node's
    assert result_0 is not None
    _, expected = alone(workspace, "one-node", **FEW_STEPS)
    assert result_0.counts == expected.counts
    for loss in ("firstLoss", "lastLoss"):
        assert result_0.details[loss] == pytest.approx(expected.details[loss], rel=1e-3)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_node_whose_peer_is_gone_ends_as_transient(lost: int, workspace: Path) -> None:
    nodes = two_nodes(workspace, f"gone-{lost}", "DDP")
    nodes[0].until_step(1)
    worker = nodes[lost].worker(0)
    nodes[lost].process.kill()
    os.kill(worker, signal.SIGKILL)
    code, result, _ = nodes[1 - lost].ended()
    assert code == ExitCode.TRANSIENT
    assert result is not None
    assert result.reason == "PeerLost"
    assert nodes[lost].ended()[:2] == (-signal.SIGKILL, None)
