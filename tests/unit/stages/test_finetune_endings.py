"""Which of several workers' failures is told, and how workers are laid out."""

from __future__ import annotations

import signal

import pytest

from embedding_stages import contract
from embedding_stages.contract import ExitCode, Stage, StageRequest, StageResult
from embedding_stages.finetune import launch
from embedding_stages.finetune.launch import Ending, Plan, judge


def ending(rank: int, code: int, reason: str = "", *, time: int = 0) -> Ending:
    result = StageResult(stage=Stage.FINETUNE, fingerprint="f", reason=reason) if reason else None
    return Ending(rank, code, time, result)


@pytest.mark.parametrize(
    ("sentence", "endings", "code", "reason"),
    [
        ("one failure is the pod's", [ending(0, 10, "NegativesMissing")], 10, "NegativesMissing"),
        ("the first in time counts", [ending(0, 30, "Later", time=2), ending(1, 10, "First", time=1)], 10, "First"),
        ("losing a peer is no cause", [ending(0, 20, "PeerLost"), ending(1, 10, "Bad", time=5)], 10, "Bad"),
        ("nor is being stopped for it", [ending(0, 20, "Interrupted"), ending(1, 1, "Bug")], 1, "Bug"),
        ("nor being ended while stuck", [ending(0, -9), ending(1, 30, "GPUOutOfMemory")], 30, "GPUOutOfMemory"),
        ("a kill is, where others lost a peer", [ending(0, 20, "PeerLost"), ending(1, -9, time=1)], 20, "WorkerLost"),
        ("a peer lost on another node is transient", [ending(0, 20, "PeerLost")], 20, "PeerLost"),
        ("torch's end of a stuck collective is too", [ending(0, -6)], 20, "WorkerLost"),
        ("a crash is a crash", [ending(0, -11)], 1, "StageCrashed"),
        ("a worker that says nothing has crashed", [ending(0, 1)], 1, "StageCrashed"),
    ],
)
def test_of_several_failures(sentence: str, endings: list[Ending], code: int, reason: str) -> None:
    def failed(why: str, message: str) -> StageResult:
        assert message
        return StageResult(stage=Stage.FINETUNE, fingerprint="f", reason=why, message=message)

    got, result = judge(endings, failed)
    assert (got, result.reason) == (code, reason)


@pytest.mark.parametrize(
    ("sentence", "env", "expected"),
    [
        ("nothing set is one process", {}, (1, 0, 1, "")),
        ("empty words count as nothing", {contract.ENV_PROCESSES: ""}, (1, 0, 1, "")),
        ("an index without nodes says nothing", {contract.ENV_NODE_RANK: "3"}, (1, 0, 1, "")),
        (
            "two nodes of eight",
            {
                contract.ENV_NODES: "2",
                contract.ENV_NODE_RANK: "1",
                contract.ENV_PROCESSES: "8",
                contract.ENV_COORDINATOR: "pod-0.job:29500",
            },
            (2, 1, 8, "pod-0.job:29500"),
        ),
        ("nodes without a meeting place", {contract.ENV_NODES: "2"}, None),
        ("an index beyond the nodes", {contract.ENV_NODES: "2", contract.ENV_NODE_RANK: "2"}, None),
        ("no processes", {contract.ENV_PROCESSES: "0"}, None),
        ("a number that is none", {contract.ENV_PROCESSES: "two"}, None),
    ],
)
def test_the_layout_of_workers(sentence: str, env: dict[str, str], expected: tuple[int, int, int, str] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError):  # noqa: PT011 - several messages
            Plan.of(env)
        return
    plan = Plan.of(env)
    assert (plan.nodes, plan.node_rank, plan.processes, plan.coordinator) == expected
    assert plan.several == (plan.nodes * plan.processes > 1)


def test_a_node_without_room_for_the_result_of_its_workers_is_worth_another_attempt(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    request = StageRequest(
        stage=Stage.FINETUNE, fingerprint="f", attempt=1, revision=1, image="i", settings={}, inputs={}
    )
    done = StageResult(stage=Stage.FINETUNE, fingerprint="f")
    monkeypatch.setattr(launch, "_outcome", lambda *_: (ExitCode.DONE, done))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    plan = Plan(nodes=1, node_rank=0, processes=2, coordinator="")
    env = {contract.ENV_REQUEST: request.to_json(), contract.ENV_TERMINATION_LOG: "/dev/full"}
    assert launch.launch(plan, env) == ExitCode.TRANSIENT
    assert "the result could not be written to /dev/full: No space left on device" in capfd.readouterr().err
