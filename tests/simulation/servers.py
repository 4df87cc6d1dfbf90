"""The controller of Deployments and the kubelet of their pods: the part of the world that serves."""

from __future__ import annotations

import json
import math
from random import Random
from typing import TYPE_CHECKING, Any

from simulation.fake_cluster import NAMESPACE, FakeCluster
from simulation.pods import missing_secret, without_image

from embedding_stages.contract import fingerprint_of
from embedding_stages.contract.canaries import CANARIES

Raw = dict[str, Any]


def answer_canaries(cluster: FakeCluster, url: str) -> list[list[float]] | None:
    """What the endpoint behind a Service answers: the same for the same weights, and like no other's."""
    service = cluster.objects.get(("Service", NAMESPACE, url.split("/")[2].partition(".")[0]))
    if service is None:
        return None
    wanted = service["spec"]["selector"].items()
    for deployment in cluster.find("Deployment"):
        template = deployment["spec"]["template"]
        if wanted <= template["metadata"]["labels"].items() and deployment.get("status", {}).get("availableReplicas"):
            weights = cluster.swapped or template["spec"]["initContainers"][0]["command"][-1]
            return [unit_vector(f"{weights} {role} {text}") for role, text in CANARIES]
    return None


def unit_vector(seed: str) -> list[float]:
    """Of 8 numbers."""
    random = Random(seed)
    numbers = [random.gauss(0, 1) for _ in range(8)]
    length = math.sqrt(sum(x * x for x in numbers))
    return [x / length for x in numbers]


class Servers:
    """What `World` is besides; the rest of it is declared here."""

    cluster: FakeCluster
    secrets: dict[str, set[str]]
    server: str
    gone: tuple[str, ...]
    image_id: str
    refuses_pods: str
    volume: dict[str, str]

    if TYPE_CHECKING:

        def pods_of(self, owner: Raw) -> list[Raw]: ...
        def _make_pod(self, owner: Raw, number: int, index: int = 0) -> Raw: ...
        def _warn(self, pod: Raw, message: str, reason: str = "FailedMount") -> None: ...
        def _edit(self, raw: Raw, edit: Any) -> None: ...
        def _remove(self, raw: Raw) -> None: ...
        def _now(self) -> str: ...

    def _deployment(self, deployment: Raw) -> None:
        generation, wanted = deployment["metadata"]["generation"], deployment["spec"]["replicas"]
        if deployment.get("status", {}).get("observedGeneration") != generation:
            self._edit(deployment, lambda raw: raw.setdefault("status", {}).update(observedGeneration=generation))
            self._count(deployment)
            return
        new, old = self._by_template(deployment)
        if self.refuses_pods:
            refused = {"type": "ReplicaFailure", "status": "True", "message": self.refuses_pods}
            self._edit(deployment, lambda raw: raw["status"].update(conditions=[refused]))
            return
        if old and (deployment["spec"]["strategy"]["type"] == "Recreate" or self._answering(new) >= wanted):
            self._remove(old.pop())
        elif len(new) < wanted:
            self._make_pod(deployment, len(self.cluster.watch))
        for pod in new[wanted:]:
            self._remove(pod)
        for pod in new[:wanted]:
            self._serve(pod)
        self._count(deployment)

    def _by_template(self, deployment: Raw) -> tuple[list[Raw], list[Raw]]:
        """Pods of the latest template, and older ones."""
        template = fingerprint_of(deployment["spec"]["template"])[:10]
        new, old = [], []
        for pod in self.pods_of(deployment):
            (new if pod["metadata"]["labels"]["pod-template-hash"] == template else old).append(pod)
        return new, old

    def _count(self, deployment: Raw) -> None:
        new, old = self._by_template(deployment)
        counts = {
            "replicas": len(new) + len(old),
            "updatedReplicas": len(new),
            "availableReplicas": self._answering(new + old),
        }
        self._edit(deployment, lambda raw: raw["status"].update(counts, conditions=[]))

    def _answering(self, pods: list[Raw]) -> int:
        """Pods that answer; what servers do that are new does not change those that run."""
        names = {pod["metadata"]["name"] for pod in pods}
        live = [pod for pod in self.cluster.find("Pod") if pod["metadata"]["name"] in names]
        return 0 if self.server != "ready" else sum(pod["status"]["phase"] == "Running" for pod in live)

    def _serve(self, pod: Raw) -> None:
        check = pod["spec"]["initContainers"][0]
        mount = next(item for item in check["volumeMounts"] if "subPath" in item)
        name = pod["spec"]["containers"][0]["name"]
        lies_there = self.volume.get(mount["subPath"].partition("/")[2], "nothing")
        if missing := missing_secret(pod, self.secrets):
            self._warn(pod, missing)
        elif pod["status"]["phase"] == "Pending" and (waits := without_image(pod, self.gone)):
            self._edit(pod, lambda raw: raw["status"].update(waits))
        elif pod["status"]["phase"] == "Pending" and (self.server == "no check" or lies_there != check["command"][-1]):
            said = {"reason": "ArtefactMismatch", "message": f"digest is {lies_there}"}
            ended = {"terminated": {"exitCode": 10, "reason": "Error", "message": json.dumps(said)}}
            if self.server == "no check":
                ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
            again = {"name": check["name"], "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
            self._edit(pod, lambda raw: raw["status"].update(initContainerStatuses=[again]))
        elif self.server == "crash":
            ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "no such profile"}}
            now = pod["status"].get("containerStatuses", [{}])[0].get("state", {})
            state = {"running": {}} if "waiting" in now else {"waiting": {"reason": "CrashLoopBackOff"}}
            crashed = {"name": name, "state": state, "lastState": ended}
            self._edit(pod, lambda raw: raw["status"].update(containerStatuses=[crashed]))
        else:
            now = next(iter(pod["status"].get("containerStatuses", ())), {})
            running = {"name": name, "imageID": self.image_id, "state": {"running": {"startedAt": self._now()}}}
            if now.get("imageID") == self.image_id and "startedAt" in now["state"].get("running", {}):
                running = now  # it runs on
            intact = {"name": check["name"], "state": {"terminated": {"exitCode": 0}}}
            self._edit(
                pod,
                lambda raw: raw["status"].update(
                    phase="Running", containerStatuses=[running], initContainerStatuses=[intact]
                ),
            )
