"""A resource whose stages go through a queue of the real Kueue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apiserver.api import EFT, Api, resource, until
from apiserver.process import Operator
from kueue.kubelet import Kubelet
from kueue.queues import LOW, QUEUE, give_back, make_queues, take_quota

from embedding_stages.contract import Stage

WORKLOADS = "/apis/kueue.x-k8s.io/v1beta1/namespaces/{}/workloads"
JOB_STAGES = [stage for stage in Stage if stage is not Stage.DEPLOY]
IN_THE_QUEUE = {"scheduling": {"queueName": QUEUE, "priorityClass": LOW}}


class Seen:
    """One resource in one namespace, with its operator and its pods at work."""

    def __init__(self, api: Api, namespace: str, kubelet: Kubelet) -> None:
        self.api, self.namespace, self.kubelet = api, namespace, kubelet

    def status(self) -> dict[str, Any]:
        code, answer = self.api.send("GET", f"{EFT.format(self.namespace)}/docs")
        assert code == 200, answer
        return dict(answer["status"])

    def stage(self, stage: Stage) -> dict[str, Any]:
        return next(
            (item for item in self.status().get("stages") or () if item["name"] == stage), {"state": "", "reason": ""}
        )

    def until(self, what: str, look: Callable[[], bool]) -> None:
        try:
            until(what, look, [self.kubelet.step])
        except AssertionError as error:
            _, workloads = self.api.send("GET", WORKLOADS.format(self.namespace))
            said = [item.get("status", {}).get("conditions") for item in workloads["items"]]
            told = {key: value for key, value in self.status().items() if key in ("phase", "stages", "conditions")}
            raise AssertionError(f"{error}: {told}, {said}") from error

    def stage_until(self, stage: Stage, reason: str, words: str = "") -> None:
        def look() -> bool:
            found = self.stage(stage)
            return found["reason"] == reason and words in found.get("message", "")

        self.until(f"{stage} {reason} {words}", look)

    def ready(self, generation: int = 1) -> None:
        def look() -> bool:
            found = self.status()
            return found.get("observedGeneration") == generation and found.get("phase") == "Ready"

        self.until("Ready", look)

    def edit(self, patch: dict[str, Any]) -> None:
        path = f"{EFT.format(self.namespace)}/docs"
        code, answer = self.api.send("PATCH", path, {"spec": patch}, "application/merge-patch+json")
        assert code == 200, answer

    def workload(self, stage: Stage) -> str:
        """The name of the Workload of the stage's only Job."""
        (job,) = (raw for raw in self.jobs() if f"-{stage}-" in raw["metadata"]["name"])
        path = WORKLOADS.format(self.namespace)
        selector = f"kueue.x-k8s.io/job-uid={job['metadata']['uid']}"
        _, answer = self.api.send("GET", path, labelSelector=selector)
        (found,) = answer["items"]
        return str(found["metadata"]["name"])

    def activate(self, workload: str, active: bool) -> None:
        path = f"{WORKLOADS.format(self.namespace)}/{workload}"
        code, answer = self.api.send("PATCH", path, {"spec": {"active": active}}, "application/merge-patch+json")
        assert code == 200, answer

    def jobs(self) -> list[dict[str, Any]]:
        _, answer = self.api.send("GET", f"/apis/batch/v1/namespaces/{self.namespace}/jobs")
        return [raw for raw in answer["items"] if "embedding-operator.dev/stage" in raw["metadata"].get("labels", {})]

    def one_job_a_stage(self) -> bool:
        attempts = [raw["metadata"]["labels"]["embedding-operator.dev/attempt"] for raw in self.jobs()]
        return attempts == ["1"] * len(JOB_STAGES)


def test_it_waits_for_quota_is_preempted_and_comes_to_ready_in_the_first_attempt(
    api: Api, namespace: str, operator: Operator, kubelet: Kubelet
) -> None:
    seen = Seen(api, namespace, kubelet)
    take_quota(api, namespace)
    kubelet.held = {Stage.FINETUNE}
    api.make(EFT.format(namespace), resource(namespace, IN_THE_QUEUE))
    seen.stage_until(Stage.INPUTS, "WaitingForQuota", "insufficient unused quota for pods")
    assert kubelet.started == []
    give_back(api, namespace)
    seen.stage_until(Stage.FINETUNE, "Running")
    take_quota(api, namespace)
    seen.stage_until(Stage.FINETUNE, "WaitingForQuota", "Preempted to accommodate a workload")
    seen.until("the pod to end", lambda: kubelet.stopped == [Stage.FINETUNE])
    kubelet.held = set()
    give_back(api, namespace)
    seen.ready()
    assert seen.one_job_a_stage()
    again = JOB_STAGES.index(Stage.FINETUNE) + 1
    assert kubelet.started == [*JOB_STAGES[:again], Stage.FINETUNE, *JOB_STAGES[again:]]
    assert "resume Job" not in operator.said()
    assert "Traceback" not in operator.said()


def test_the_resources_suspension_goes_through_kueue(
    api: Api, namespace: str, operator: Operator, kubelet: Kubelet
) -> None:
    seen = Seen(api, namespace, kubelet)
    kubelet.held = {Stage.PREP}
    api.make(EFT.format(namespace), resource(namespace, IN_THE_QUEUE))
    seen.stage_until(Stage.PREP, "Running")
    seen.edit({"suspend": True})
    seen.until("the pod to end", lambda: kubelet.stopped == [Stage.PREP])
    seen.until("Suspended", lambda: seen.status()["phase"] == "Suspended")
    take_quota(api, namespace)  # what is suspended holds no quota
    seen.until(
        "the other Job to run", lambda: bool([pod for pod in kubelet.pods() if "other" in pod["metadata"]["name"]])
    )
    give_back(api, namespace)
    kubelet.held = set()
    seen.edit({"suspend": False})
    seen.ready(3)
    assert seen.one_job_a_stage()


def test_what_an_administrator_deactivates_waits_for_the_administrator(
    api: Api, namespace: str, operator: Operator, kubelet: Kubelet
) -> None:
    seen = Seen(api, namespace, kubelet)
    kubelet.held = {Stage.SDG}
    api.make(EFT.format(namespace), resource(namespace, IN_THE_QUEUE))
    seen.stage_until(Stage.SDG, "Running")
    seen.activate(seen.workload(Stage.SDG), False)
    seen.stage_until(Stage.SDG, "WorkloadDeactivated", "deactivated")
    kubelet.held = set()
    seen.activate(seen.workload(Stage.SDG), True)
    seen.ready()
    assert seen.one_job_a_stage()


def test_a_queue_that_is_not_there_is_named_in_kueues_words(
    api: Api, namespace: str, operator: Operator, kubelet: Kubelet
) -> None:
    seen = Seen(api, namespace, kubelet)
    api.make(EFT.format(namespace), resource(namespace, {"scheduling": {"queueName": "nowhere"}}))
    seen.stage_until(Stage.INPUTS, "WaitingForQuota", "LocalQueue nowhere doesn't exist")
    seen.edit(IN_THE_QUEUE)
    seen.ready(2)


def test_a_server_in_the_queue_waits_for_quota_too(
    api: Api, namespace: str, operator: Operator, kubelet: Kubelet
) -> None:
    seen = Seen(api, namespace, kubelet)
    kubelet.held = {Stage.EXPORT}
    scheduling = {**IN_THE_QUEUE["scheduling"], "serving": True}
    api.make(EFT.format(namespace), resource(namespace, {"scheduling": scheduling}))
    seen.stage_until(Stage.EXPORT, "Running")
    make_queues(api, namespace, pods=0)
    kubelet.held = set()
    seen.stage_until(Stage.DEPLOY, "WaitingForQuota", "Kueue's queue 'team'")
    make_queues(api, namespace, pods=1)
    seen.stage_until(Stage.VERIFY, "WaitingForQuota", "insufficient unused quota for pods")
    make_queues(api, namespace, pods=2)
    seen.ready()
    assert seen.one_job_a_stage()
