"""How an attempt in one pod ended, and whether there is another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from unit.operator.builders import NOON, a_failed_job, a_pod, a_spec, an_ended_pod
from unit.operator.outcomes import INTERRUPTED, SAID, failure_of

from embedding_operator.decide.attempts import micro_batch, retry_at
from embedding_operator.decide.outcome import Failure, outcome_of
from embedding_operator.objects.views import JobView
from embedding_stages.contract import ExitCode


def too_large(volume: str, limit: str) -> str:
    return f'Usage of EmptyDir volume "{volume}" exceeds the limit "{limit}". '


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (ExitCode.BAD_INPUT, "BadInput"),
        (ExitCode.TRANSIENT, "Transient"),
        (ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
        (ExitCode.STOPPED, "Stopped"),
        (1, "Bug"),
        (2, "Bug"),
        (139, "Bug"),
    ],
)
def test_the_exit_code_says_what_to_do(exit_code: int, kind: str) -> None:
    told = failure_of(a_failed_job(an_ended_pod(exit_code, SAID)))
    assert (told.kind, told.reason, told.exit_code) == (kind, "Because", exit_code)
    assert str(told) == "spec.corpus: it is so"
    silent = failure_of(a_failed_job(an_ended_pod(exit_code, "Traceback")))
    assert (silent.kind, silent.reason) == (kind, "StageCrashed")
    assert "Traceback" in str(silent)


@pytest.mark.parametrize(
    ("job", "kind", "reason", "field"),
    [
        (a_failed_job(None), "Transient", "PodLost", ""),
        (a_failed_job(a_pod(phase="Failed")), "Transient", "PodLost", ""),
        (a_failed_job(an_ended_pod(137, reason="OOMKilled")), "Bug", "OOMKilled", "resources.limits.memory"),
        (a_failed_job(an_ended_pod(137, reason="Error")), "Bug", "StageCrashed", ""),
        (a_failed_job(None, "DeadlineExceeded"), "Stopped", "Timeout", "timeoutSeconds"),
        (a_failed_job(an_ended_pod(20, SAID), "DeadlineExceeded"), "Stopped", "Timeout", "timeoutSeconds"),
        (
            a_failed_job(an_ended_pod(1, "cp: no such file", failed_init="copy-corpus")),
            "BadInput",
            "SourceImagePathMissing",
            "spec.corpus.source.image.path",
        ),
        (a_failed_job(an_ended_pod(1, "no busybox", failed_init="tools")), "Bug", "StageCrashed", ""),
        (
            a_failed_job(a_pod(phase="Failed", blocked_by="container istio-init ended with exit code 1")),
            "Transient",
            "InjectedContainerBlocks",
            "",
        ),
        (a_failed_job(an_ended_pod(0, sidecars=("x",))), "Transient", "PodLost", ""),
        (
            a_failed_job(an_ended_pod(137, failed_init="copy-corpus", evicted=too_large("source-corpus", "50Gi"))),
            "BadInput",
            "SourceImageTooLarge",
            "spec.corpus.source.image.path",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted=too_large("source-corpus", "50Gi"))),
            "BadInput",
            "SourceImageTooLarge",
            "spec.corpus.source.image.path",
        ),
        (
            a_failed_job(
                an_ended_pod(137, evicted="Pod ephemeral local storage usage exceeds the total limit of 1Gi.")
            ),
            "Bug",
            "DiskFull",
            "resources.limits.ephemeral-storage",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node was low on resource: memory.")),
            "Disrupted",
            "Evicted",
            "resources.requests.memory",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node was low on resource: ephemeral-storage.")),
            "Disrupted",
            "DiskFull",
            "resources.requests.ephemeral-storage",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node was low on resource: inodes.")),
            "Disrupted",
            "Evicted",
            "",
        ),
        (
            a_failed_job(a_pod(phase="Failed", evicted="The node had condition: [DiskPressure].")),
            "Disrupted",
            "Evicted",
            "",
        ),
        (
            a_failed_job(an_ended_pod(1, "OSError: [Errno 28] No space left on device: '/workspace/x'")),
            "BadInput",
            "DiskFull",
            "spec.storage.size",
        ),
        (
            a_failed_job(an_ended_pod(20, "the result could not be written to /dev/x: No space left on device")),
            "Transient",
            "DiskFull",
            "resources.requests.ephemeral-storage",
        ),
        (a_failed_job(a_pod(phase="Failed", node_lost=True)), "Disrupted", "NodeLost", ""),
        (a_failed_job(a_pod(phase="Failed", node_lost=True, disrupted=True)), "Disrupted", "NodeLost", ""),
        (a_failed_job(None, all_pods=(a_pod(node_lost=True, disrupted=True),)), "Disrupted", "NodeLost", ""),
        (a_failed_job(an_ended_pod(143, disrupted=True, tainted=True)), "Disrupted", "Evicted", ""),
        (a_failed_job(an_ended_pod(20, INTERRUPTED, disrupted=True, tainted=True)), "Disrupted", "Evicted", ""),
        (a_failed_job(an_ended_pod(143, disrupted=True)), "Disrupted", "PodDisrupted", ""),
        (a_failed_job(an_ended_pod(20, INTERRUPTED)), "Disrupted", "Interrupted", "spec.corpus"),
        (a_failed_job(an_ended_pod(1, INTERRUPTED)), "Bug", "Interrupted", "spec.corpus"),
        (
            a_failed_job(an_ended_pod(137, reason="OOMKilled", disrupted=True)),
            "Bug",
            "OOMKilled",
            "resources.limits.memory",
        ),
        (a_failed_job(an_ended_pod(10, SAID, disrupted=True)), "BadInput", "Because", "spec.corpus"),
    ],
    ids=[
        "no pod",
        "gone",
        "memory",
        "killed",
        "deadline",
        "deadline and result",
        "copy",
        "tools",
        "a container of somebody else",
        "done, and silent",
        "a copy too large",
        "a copy too large, without a code",
        "disk",
        "a node that ran short",
        "a node whose disk ran full",
        "a node that ran short of something else",
        "a node that takes no pod",
        "a full disk, without a result",
        "a disk without room for the result",
        "a lost node",
        "a lost node, told by a disruption",
        "a lost node, and a newer pod that is gone",
        "put out by a taint",
        "put out by a taint, and told so",
        "drained",
        "asked to stop",
        "a crash that says it was asked to stop",
        "memory, and drained",
        "bad input, and drained",
    ],
)
def test_what_never_reached_an_exit_code_is_sorted_too(job: JobView, kind: str, reason: str, field: str) -> None:
    failure = failure_of(job)
    assert (failure.kind, failure.reason) == (kind, reason)
    assert failure.field.endswith(field)
    assert ".;" not in failure.message, "the kubelet's sentence goes on"


def failed(*kinds: Any) -> list[tuple[JobView, Failure]]:
    return [
        (a_failed_job(None, attempt=number), Failure(kind=kind, reason="R", message=""))
        for number, kind in enumerate(kinds, 1)
    ]


@pytest.mark.parametrize(
    ("kinds", "retries", "seconds"),
    [
        (["Transient"], 3, 10),
        (["Transient"] * 2, 3, 20),
        (["Transient"] * 3, 3, 40),
        (["Transient"] * 4, 3, None),
        (["Transient"] * 9, 20, 300),
        (["Transient"], 0, None),
        (["Bug"], 3, 10),
        (["Bug"] * 2, 3, None),
        (["Bug"], 0, None),
        (["OutOfMemory"], 0, 0),
        (["OutOfMemory"] * 3, 0, 0),
        (["OutOfMemory"] * 4, 9, None),
        (["BadInput"], 9, None),
        (["Stopped"], 9, None),
        (["Disrupted"] * 9, 0, 300),
        (["Disrupted", "Transient"], 1, 10),
        (["Transient", "Transient", "Bug"], 3, 10),
        (["Bug", "Transient", "Transient"], 3, 20),
    ],
)
def test_each_class_has_its_own_retries_and_backoff(kinds: list[str], retries: int, seconds: int | None) -> None:
    wanted = None if seconds is None else NOON + timedelta(seconds=seconds)
    assert retry_at(failed(*kinds), retries) == wanted


@pytest.mark.parametrize(
    ("configured", "kinds", "size"),
    [
        (8, [], 8),
        (8, ["OutOfMemory"], 4),
        (8, ["OutOfMemory", "Transient", "OutOfMemory"], 2),
        (2, ["OutOfMemory"] * 3, 1),
        (8, ["Bug"], 8),
    ],
)
def test_the_micro_batch_is_halved_for_every_time_memory_ran_out(configured: int, kinds: list[str], size: int) -> None:
    assert micro_batch(configured, failed(*kinds)) == size


@pytest.mark.parametrize(("limits", "said"), [({"memory": "2Gi"}, "at 2Gi: raise it"), ({}, "out of memory: raise it")])
def test_who_ran_out_of_memory_is_told_at_which_limit(limits: dict[str, str], said: str) -> None:
    spec = a_spec(stages={"sdg": {"provider": {"extractive": {}}, "resources": {"limits": limits}}})
    failure = outcome_of(a_failed_job(an_ended_pod(137, reason="OOMKilled")), spec)
    assert isinstance(failure, Failure)
    assert str(failure).startswith("spec.stages.sdg.resources.limits.memory: ")
    assert str(failure).endswith(said)
