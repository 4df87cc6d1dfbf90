"""What users make, the operator's resource and its peers' counterparts: steps one after the other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.scale.api import Raw

MADE_LABEL: Final = "bench-scale/made"
HELD_LABEL: Final = "bench-scale/held"
STEPS: Final = 6
_IMAGE: Final = "image:1"


@dataclass(frozen=True)
class Kind:
    """`path` is of all namespaces; `phase_of` gives Done, Failed or something else."""

    name: str
    group: str
    plural: str
    steps: int  # Jobs of one, or pods where it has no Jobs
    manifest: Callable[[str, str], Raw]  # namespace and name
    phase_of: Callable[[Raw], str]

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.plural}"

    def within(self, namespace: str) -> str:
        return f"/apis/{self.group}/namespaces/{namespace}/{self.plural}"


def _meta(namespace: str, name: str) -> Raw:
    return {"name": name, "namespace": namespace, "labels": {MADE_LABEL: "true"}}


def fine_tune(namespace: str, name: str) -> Raw:
    """The smallest resource that there is."""
    return {
        "apiVersion": "embedding-operator.dev/v1alpha1",
        "kind": "EmbeddingFineTune",
        "metadata": _meta(namespace, name),
        "spec": {
            "baseModel": {"name": "m", "source": {"pvc": {"claimName": "models"}}},
            "corpus": {"source": {"configMap": {"name": "docs"}}},
            "stages": {"sdg": {"provider": {"extractive": {}}}},
        },
    }


def _resource_phase(raw: Raw) -> str:
    phase = str((raw.get("status") or {}).get("phase", ""))
    return {"Ready": "Done"}.get(phase, phase)


def job_set(namespace: str, name: str) -> Raw:
    """Six replicated Jobs of one pod each; every one waits for its predecessor to complete."""
    template = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "stage", "image": _IMAGE}]},
        },
    }
    steps: list[Raw] = []
    for number in range(STEPS):
        before = [{"name": f"step-{number - 1}", "status": "Complete"}] if number else []
        steps.append({"name": f"step-{number}", "replicas": 1, "dependsOn": before, "template": {"spec": template}})
    for step in steps:
        if not step["dependsOn"]:
            del step["dependsOn"]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _meta(namespace, name),
        "spec": {"replicatedJobs": steps},
    }


def _job_set_phase(raw: Raw) -> str:
    state = (raw.get("status") or {}).get("terminalState", "")
    return {"Completed": "Done"}.get(state, state or "Running")


def workflow(namespace: str, name: str) -> Raw:
    """Six steps, each a pod of its own."""
    steps = [[{"name": f"step-{number}", "template": "work"}] for number in range(STEPS)]
    work = {"name": "work", "container": {"image": _IMAGE, "command": ["work"]}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": _meta(namespace, name),
        "spec": {"entrypoint": "all", "templates": [{"name": "all", "steps": steps}, work]},
    }


def _workflow_phase(raw: Raw) -> str:
    phase = str((raw.get("status") or {}).get("phase", ""))
    return {"Succeeded": "Done", "Error": "Failed"}.get(phase, phase)


# Our seven Jobs: inputs, sdg, prep, finetune, eval, export, verify; the model server comes between the last two.
KINDS: Final[Mapping[str, Kind]] = {
    "EmbeddingFineTune": Kind(
        "EmbeddingFineTune", "embedding-operator.dev/v1alpha1", "embeddingfinetunes", 7, fine_tune, _resource_phase
    ),
    "JobSet": Kind("JobSet", "jobset.x-k8s.io/v1alpha2", "jobsets", STEPS, job_set, _job_set_phase),
    "Workflow": Kind("Workflow", "argoproj.io/v1alpha1", "workflows", STEPS, workflow, _workflow_phase),
}
