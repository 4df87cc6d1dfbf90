"""What a stage has used, from what is seen of its pods and what the status remembers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from unit.operator.builders import NOON, a_job, a_pod, a_result, a_spec, a_stage

from embedding_operator.decide.decision import Observed
from embedding_operator.decide.limits import left_s, overrun
from embedding_operator.decide.usage import eta_s, figures, is_late, measured
from embedding_operator.metrics import Metrics
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import JobView
from embedding_operator.resource.limits import RunLimits
from embedding_operator.resource.status import StageStatus, Status
from embedding_operator.resource.usage import Spent, Usage
from embedding_stages.contract import Stage

GPUS = 4
LLM = {"sdg": {"provider": {"openAI": {"baseURL": "http://llm/v1", "model": "m"}}}}


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def ran(uid: str, begun: float | None, ended: float | None = None, **changes: Any) -> PodView:
    """A pod of four GPUs; its times are seconds after noon."""
    known: dict[str, Any] = {"created": at(begun or 0), "began": at(begun) if begun is not None else None}
    if ended is not None:
        known |= {"ended": at(ended), "exit_code": 1, "phase": "Failed"}
    elif begun is not None:
        known |= {"running_since": at(begun), "phase": "Running"}
    return a_pod(uid=uid, gpus=GPUS, **{**known, **changes})


def job_of(*pods: PodView, **changes: Any) -> JobView:
    newest = {pod.index: pod for pod in sorted(pods, key=lambda pod: pod.created)}
    return a_job(Stage.FINETUNE, pods=tuple(newest.values()), all_pods=pods, **changes)


def spent(
    known: Usage, *jobs: JobView, now: float, begun: datetime | None = None, **beside: Any
) -> tuple[Usage, Spent]:
    """(what is remembered, what is judged by)."""
    observed = Observed(now=at(now), generation=1, **beside)
    exact = measured(known, jobs, observed, begun, exact=True)
    return measured(known, jobs, observed, begun), exact.spent


@pytest.mark.parametrize(
    ("pods", "now", "active"),
    [
        ([], 100, 0),
        ([ran("a", None)], 100, 0),
        ([ran("a", 10)], 100, 90),
        ([ran("a", 10, 70)], 100, 60),
        ([ran("a", 10, 70), ran("b", 80)], 100, 80),
        ([ran("a", 10, gone_by=at(50), deleting=True)], 100, 40),
        ([ran("a", 10, phase="Failed", running_since=None)], 100, 0),
        ([ran("a", 10, 5)], 100, 0),
        ([ran("a", 200)], 100, 0),
    ],
    ids=[
        "none",
        "not begun",
        "runs",
        "ended",
        "replaced",
        "of a kubelet that is silent, no longer than it was to be there",
        "nobody knows when it ended",
        "a clock that went back",
        "a clock that is ahead",
    ],
)
def test_the_time_of_a_pod_is_that_of_its_container(pods: Sequence[PodView], now: float, active: int) -> None:
    _, exact = spent(Usage(), job_of(*pods), now=now)
    assert exact == Spent(active_s=active, gpu_s=active * GPUS)


def test_of_several_nodes_every_gpu_counts_and_the_time_once() -> None:
    _, exact = spent(Usage(), job_of(ran("a", 0), ran("b", 10, index=1), nodes=2), now=100)
    assert exact == Spent(active_s=100, gpu_s=(100 + 90) * GPUS)


def test_what_was_before_the_run_is_an_earlier_runs() -> None:
    jobs = [job_of(ran("a", 0, 50)), job_of(ran("b", 60))]
    assert spent(Usage(), *jobs, now=100, begun=at(80))[1].active_s == 20


def test_a_pod_that_runs_is_remembered_every_ten_minutes_and_judged_by_the_second() -> None:
    known, exact = spent(Usage(), job_of(ran("a", 0)), now=1199)
    assert (known.spent.active_s, exact.active_s) == (600, 1199)
    known, exact = spent(known, job_of(ran("a", 0, 1199)), now=1210)
    assert (known.spent.active_s, exact.active_s) == (1199, 1199)


@pytest.mark.parametrize(
    ("pod", "now", "late"),
    [
        (ran("a", 0), 590, False),
        (ran("a", 0), 1210, True),
        (ran("a", 0, gone_by=at(620)), 590, True),
        (ran("a", 0, gone_by=at(620)), 20, False),
        (ran("a", 0, 590), 600, True),
        (ran("a", 0, 590), 594, False),
    ],
    ids=["runs", "has run for long", "is asked to stop", "has only just begun", "has ended", "its Job is about to end"],
)
def test_what_a_pod_has_used_is_written_while_it_can_be_seen(pod: PodView, now: float, late: bool) -> None:
    job = job_of(pod)
    told, _ = spent(Usage(), job, now=now)
    assert is_late(Usage(), told, [job], at(now)) is late


def test_tokens_of_a_pod_that_runs_are_told_with_its_time() -> None:
    def after(known: Usage, now: float, tokens: int) -> tuple[Usage, Spent]:
        job = a_job(Stage.SDG, pods=(pod := ran("a", 0),), all_pods=(pod,))
        tails = {job.name: f'{{"progress":{{"percent":1,"llmTokens":{tokens}}}}}'}
        return spent(known, job, now=now, log_tails=tails)

    first, _ = after(Usage(), 610, 100)
    second, exact = after(first, 700, 200)
    assert (second, exact.llm_tokens) == (first, 200)
    third, _ = after(second, 1210, 300)
    assert third.spent.llm_tokens == 300


def test_whatever_is_seen_in_which_order_no_pod_is_counted_twice() -> None:
    """Each view may be of an operator that has just started: it knows the status alone."""
    first, second, third = ran("a", 0, 100), ran("b", 110, 200), ran("c", 210)
    views = [(90, [ran("a", 0)]), (101, [first]), (115, [first, ran("b", 110)]), (190, [ran("b", 110)]),
             (201, [second]), (215, [first, second, third]), (240, [first, third]), (271, [third]), (272, []),
             (280, [first, second, third]), (900, [third])]  # fmt: skip
    known = Usage()
    for now, pods in views:
        for _ in range(2):
            known, _ = spent(Usage.from_json(known.to_json()), job_of(*pods), now=now)
    assert known.spent.gpu_s == (100 + 90 + 600) * GPUS
    assert len(known.parts) <= 2


def test_the_end_of_a_pod_is_the_last_word_about_its_time() -> None:
    """An event that is late makes a pod seem to run."""
    known, _ = spent(Usage(), job_of(ran("a", 0)), now=700)
    known, _ = spent(known, job_of(ran("a", 0, 100)), now=710)
    assert known.spent.active_s == 100


def of_nodes(attempt: int, begun: float, **changes: Any) -> JobView:
    """A Job of 64 nodes whose pods are made over two seconds."""
    uids = (f"{attempt:04d}-{number:04d}-aaaa-bbbb" for number in range(64))
    pods = (ran(uid, begun + number % 2, index=number, **changes) for number, uid in enumerate(uids))
    return job_of(*pods, attempt=attempt)


def test_however_many_pods_there_are_the_status_takes_what_is_remembered_of_them() -> None:
    """Pods on lost nodes stay for as long as nobody removes the nodes, also those of earlier attempts."""
    week = 7 * 86400
    lost = [of_nodes(attempt, attempt * week, gone_by=at(attempt * week + 60)) for attempt in (1, 2, 3)]
    known, last = Usage(), of_nodes(4, 4 * week)
    for now in (6 * week, 6 * week + 1200):
        known, exact = spent(known, *lost, last, now=now)
        assert len(known.to_json()["pods"]) <= 4096
        assert Usage.from_json(known.to_json()) == known
        used = 64 * GPUS * (3 * 60 + now - 4 * week)
        assert exact.gpu_s == pytest.approx(used, abs=64 * GPUS * 2)
        assert known.spent.gpu_s == pytest.approx(used, abs=64 * GPUS * 602)


def test_pods_of_one_second_that_are_too_many_are_closed_together() -> None:
    many = job_of(*(ran(f"{number:04d}-aaaa-bbbb-cccc", 10, 70) for number in range(200)))
    known, _ = spent(Usage(), many, now=100)
    assert known.spent.gpu_s == 200 * GPUS * 60
    assert known.parts == ()
    assert spent(known, many, now=200)[0] == known


def test_a_hundred_drains_are_remembered_in_a_line() -> None:
    known, pods = Usage(), []
    for number in range(100):
        pods = [*pods, ran(f"uid-{number:09d}", number * 100, number * 100 + 50)]
        known, _ = spent(known, job_of(*pods), now=number * 100 + 60)
    assert known.spent.active_s == 5000
    assert len(str(known.to_json())) < 200


@pytest.mark.parametrize("told", ["result", "progress", "both"])
def test_tokens_are_those_of_each_process(told: str) -> None:
    result = a_result(Stage.SDG, llm_tokens=500)
    line = '{"progress":{"percent":1,"llmTokens":450}}'
    ended = {"termination_message": result.to_json()} if told != "progress" else {}
    job = a_job(Stage.SDG, pods=(pod := ran("a", 0, 50, **ended),), all_pods=(pod,))
    tails = {} if told == "result" else {job.name: line}
    known, exact = spent(Usage(), job, now=60, log_tails=tails)
    assert exact.llm_tokens == (450 if told == "progress" else 500)
    again = a_job(Stage.SDG, name="second", pods=(pod := ran("b", 70),), all_pods=(pod,))
    _, exact = spent(known, job, again, now=80, log_tails={"second": line})
    assert exact.llm_tokens == (450 if told == "progress" else 500) + 450


def test_another_run_pays_for_no_token_of_an_earlier_one() -> None:
    def job(pod: PodView) -> JobView:
        return a_job(Stage.SDG, pods=(pod,), all_pods=(pod,))

    def telling(tokens: int) -> dict[str, str]:
        return {job(ran("a", 0)).name: f'{{"progress":{{"percent":1,"llmTokens":{tokens}}}}}'}

    known, _ = spent(Usage(), job(ran("a", 0)), now=100, log_tails=telling(400))
    later = Usage.from_json(known.begun_anew().to_json())
    assert later.spent == Spent()
    later, exact = spent(later, job(ran("a", 0)), now=750, begun=at(110), log_tails=telling(450))
    assert (later.spent.llm_tokens, exact.llm_tokens, exact.active_s) == (50, 50, 640)
    said = a_result(Stage.SDG, llm_tokens=500).to_json()
    later, _ = spent(later, job(ran("a", 0, 160, termination_message=said)), now=170, begun=at(110))
    assert later.spent == Spent(active_s=50, gpu_s=50 * GPUS, llm_tokens=100)
    fresh, _ = spent(Usage(), job(ran("a", 0, 100, termination_message=said)), now=170, begun=at(110))
    assert fresh.spent == Spent()


def a_status(**stages: StageStatus) -> Status:
    return Status(revision=1, stages=tuple(stages.values()))


USED = a_status(prep=a_stage(Stage.PREP, usage=Usage(closed=Spent(active_s=1000, gpu_s=1000))))


@pytest.mark.parametrize(
    ("sections", "stage", "amount", "reason"),
    [
        ({}, Stage.FINETUNE, Spent(active_s=10**9, gpu_s=10**9, llm_tokens=10**12), None),
        ({"limits": {"gpuSeconds": 1500}}, Stage.FINETUNE, Spent(gpu_s=499), None),
        ({"limits": {"gpuSeconds": 1500}}, Stage.FINETUNE, Spent(gpu_s=500), "GPUBudgetSpent"),
        ({"limits": {"gpuSeconds": 1500}}, Stage.EXPORT, Spent(gpu_s=500), None),
        ({"limits": {"gpuSeconds": 900}, "accelerator": "none"}, Stage.FINETUNE, Spent(), None),
        ({"limits": {"llmTokens": 100}}, Stage.SDG, Spent(llm_tokens=100), None),
        ({"limits": {"llmTokens": 100}, "stages": LLM}, Stage.SDG, Spent(llm_tokens=100), "TokenBudgetSpent"),
        ({"limits": {"llmTokens": 100}, "stages": LLM}, Stage.PREP, Spent(llm_tokens=100), None),
        ({"runPolicy": {"activeDeadlineSeconds": 1100}}, Stage.EXPORT, Spent(active_s=100), "DeadlineExceeded"),
        ({"runPolicy": {"activeDeadlineSeconds": 1100}}, Stage.EXPORT, Spent(active_s=99), None),
    ],
)
def test_a_stage_ends_where_the_run_has_used_what_that_stage_uses(
    sections: dict[str, Any], stage: Stage, amount: Spent, reason: str | None
) -> None:
    over = overrun(USED, a_spec(**sections), stage, amount)
    assert (over.reason if over else None) == reason
    if over is not None:
        assert over.kind == "Stopped"


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (None, RunLimits()),
        ("gone", RunLimits()),
        ({"gpuSeconds": "many", "llmTokens": 5}, RunLimits(llm_tokens=5)),
        (RunLimits(active_s=1, gpu_s=2, llm_tokens=3).to_json(), RunLimits(active_s=1, gpu_s=2, llm_tokens=3)),
    ],
)
def test_limits_are_read_as_the_status_keeps_them(raw: object, read: RunLimits) -> None:
    assert RunLimits.from_json(raw) == read


def test_who_used_it_is_said() -> None:
    over = overrun(USED, a_spec(limits={"gpuSeconds": 1200}), Stage.FINETUNE, Spent(active_s=100, gpu_s=400))
    assert str(over).startswith(
        "spec.limits.gpuSeconds: this revision's run has used 1400 of 1200 GPU seconds (prep 1000, finetune 400): "
    )


@pytest.mark.parametrize(
    ("sections", "pods", "seconds"),
    [
        ({}, [ran("a", 0)], None),
        ({"limits": {"gpuSeconds": 1400}}, [ran("a", 0)], 75),
        ({"limits": {"gpuSeconds": 1400}}, [ran("a", 0, 50)], None),
        ({"limits": {"gpuSeconds": 1400}}, [ran("a", 0), ran("b", 0, index=1)], 37.5),
        ({"runPolicy": {"activeDeadlineSeconds": 1400}}, [ran("a", 0), ran("b", 0, index=1)], 300),
        ({"limits": {"llmTokens": 1400}}, [ran("a", 0)], 10),
    ],
)
def test_the_next_look_is_due_when_a_limit_may_be_used_up(
    sections: dict[str, Any], pods: list[PodView], seconds: float | None
) -> None:
    assert left_s(USED, a_spec(**sections).limits, job_of(*pods), Spent(active_s=100, gpu_s=100)) == seconds


@pytest.mark.parametrize(
    ("changes", "eta"),
    [
        ({}, 7 + 30 + 40 + 50 + 60),
        ({"eta_seconds": None}, None),
        ({"state": "Waiting"}, None),
    ],
)
def test_a_run_is_done_when_the_last_of_its_stages_is(changes: dict[str, Any], eta: int | None) -> None:
    running = {"state": "Running", "eta_seconds": 7, **changes}
    later = (Stage.EVAL, Stage.EXPORT, Stage.DEPLOY, Stage.VERIFY)
    known = [a_stage(stage, state="Pending", took_s=30 + 10 * number) for number, stage in enumerate(later)]
    status = Status(stages=(a_stage(Stage.FINETUNE, **running), *known))
    assert eta_s(status, a_spec()) == eta
    unknown = status.with_stage(a_stage(Stage.DEPLOY, state="Pending"))
    assert eta_s(unknown, a_spec()) is None
    without = status.with_stage(a_stage(Stage.EXPORT, state="Skipped"))
    torch = a_spec(stages={"deploy": {"backend": {"torch": {}}}})
    assert eta_s(without, torch) == (None if eta is None else eta - 40)


def test_what_nothing_was_used_of_is_not_told() -> None:
    assert figures(Status(), a_spec()) == {}
    assert figures(USED, a_spec()) == {"activeSeconds": 1000, "gpuHours": "0.28"}


def test_metrics_count_what_the_status_says_more_than_before() -> None:
    metrics = Metrics(None)

    def told() -> float:
        (family,) = metrics.gpu_seconds.collect()
        return sum(item.value for item in family.samples if item.name.endswith("_total"))

    def using(seconds: int, revision: int = 1) -> Status:
        stage = a_stage(Stage.FINETUNE, usage=Usage(closed=Spent(gpu_s=seconds)))
        return Status(revision=revision, stages=(stage,))

    for old, new, total in ((Status(), using(60), 60), (using(60), using(90), 90), (using(90), using(95, 2), 185)):
        metrics.used(old, new, {})
        assert told() == total
    metrics.used(using(95, 2), using(5, 3), {Stage.FINETUNE: Spent(gpu_s=20)})
    assert told() == 185 + 20 + 5
