"""Faults that last until somebody acts. One resource meets each of them on its way, is cured, and is Ready in the end.

The tests run in the order of this file: each ends with the cure, and the next fault is further on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2e.kube import NAMESPACE, Kube
from e2e.manifests import fine_tune
from node.machine import SmallDisk
from node.record import Record
from node.registry import EmptyRegistry
from settings import NODE_NAME

NAME, CLAIM = "cured", "cured-workspace"
TOO_SMALL_MB, LARGE_MB = 30, 1500  # of a workspace; the base model alone has 90
LITTLE_MEMORY = "48Mi"  # Python starts in it, PyTorch does not
LITTLE_DISK = "4Ki"  # a log is longer


@pytest.fixture(scope="module")
def disk(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """The workspace: a claim of a volume that is a small file system of its own."""
    found = SmallDisk(tmp_path_factory.mktemp("disk") / "workspace", TOO_SMALL_MB)
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    size = {"storage": f"{TOO_SMALL_MB}Mi"}
    volume = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": size,
        "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": str(found.path)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        "claimRef": {"namespace": NAMESPACE, "name": CLAIM},
    }
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "volumeName": CLAIM,
        "resources": {"requests": size},
    }
    metadata = {"name": CLAIM, "namespace": NAMESPACE}
    kube.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": CLAIM}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
    )
    # The scheduler may look at a pod whose claim was not bound when it came only minutes later.
    kube.run("wait", "-n", NAMESPACE, f"pvc/{CLAIM}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    yield found
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
    kube.run("delete", "pvc", CLAIM, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
    kube.run("delete", "pv", CLAIM, "--ignore-not-found", "--wait", timeout_s=300)
    kube.until("its volume is no longer mounted", found.removed, 120)


@pytest.fixture(scope="module")
def registry() -> Iterator[EmptyRegistry]:
    with EmptyRegistry() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def applied(kube: Kube, images: dict[str, str], record: Record, disk: SmallDisk, registry: EmptyRegistry) -> None:
    manifest = fine_tune(NAME, images["demo-model"])
    manifest["spec"]["storage"] = {"existingClaim": CLAIM}
    stages = manifest["spec"]["stages"]
    stages["sdg"]["image"] = registry.image("no-such-sdg")
    stages["prep"]["resources"]["limits"]["memory"] = LITTLE_MEMORY
    stages["finetune"]["resources"]["limits"]["ephemeral-storage"] = LITTLE_DISK
    stages["finetune"]["epochs"] = 100  # the kubelet looks at disks every ten seconds
    stages["deploy"] = {"image": registry.image("no-such-server")}
    kube.apply(manifest)


def _until(kube: Kube, stage: str, state: str, reason: str, timeout_s: float) -> dict[str, Any]:
    """The stage's entry once it says so."""

    def look() -> dict[str, Any] | None:
        found = kube.stage(NAME, stage)
        return found if (found.get("state"), found.get("reason")) == (state, reason) else None

    try:
        return kube.until(f"{stage} {state} {reason}", look, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {kube.stage(NAME, stage)}") from error


def _cure(kube: Kube, record: Record, stage: str, spec: dict[str, Any]) -> None:
    print(record.table(NAME, 0, stage))
    kube.patch(NAME, spec)
    kube.until(
        f"{stage} is done after the cure; it says {kube.stage(NAME, stage)}",
        lambda: kube.stage(NAME, stage).get("state") in ("Succeeded", "Reused"),
        300,
    )


def _ends(record: Record, stage: str) -> list[str]:
    """How the pods of the stage ended."""
    return [item.end for item in record.pods.values() if (item.owner, item.stage) == (NAME, stage)]


def test_a_full_workspace_is_told_and_goes_on_once_it_is_larger(kube: Kube, record: Record, disk: SmallDisk) -> None:
    entry = _until(kube, "inputs", "Failed", "DiskFull", 180)
    assert "spec.storage.size" in entry["message"]
    assert disk.free_megabytes() < TOO_SMALL_MB
    assert len(kube.jobs_of(NAME)["inputs"]) == 1, "a full disk is not tried again and again"
    assert kube.condition(NAME, "Stalled")["status"] == "True"
    assert kube.status(NAME)["lastFailure"]["reason"] == "DiskFull"
    disk.grow(LARGE_MB)
    _cure(kube, record, "inputs", {"retryToken": "larger"})


def test_an_image_that_is_not_there_is_told_and_costs_no_attempt(kube: Kube, record: Record) -> None:
    entry = _until(kube, "sdg", "Waiting", "ImagePullFailed", 120)
    assert "spec.stages.sdg.image: the image cannot be pulled" in entry["message"]
    assert "not found" in entry["message"]
    assert kube.condition(NAME, "Ready")["status"] == "False"
    _cure(kube, record, "sdg", {"stages": {"sdg": {"image": None}}})
    assert _ends(record, "sdg").count("0 Completed") == 1


def test_a_stage_that_the_kernel_killed_is_out_of_memory(kube: Kube, record: Record) -> None:
    entry = _until(kube, "prep", "Failed", "OOMKilled", 180)
    assert (
        f"spec.stages.prep.resources.limits.memory: the container ran out of memory at {LITTLE_MEMORY}"
        in (entry["message"])
    )
    assert _ends(record, "prep") == ["137 OOMKilled", "137 OOMKilled"], "once more, then it has failed"
    assert entry["attempt"] == 2
    _cure(kube, record, "prep", {"stages": {"prep": {"resources": {"limits": {"memory": None}}}}})


def test_a_stage_that_the_kubelet_evicted_for_its_disk_is_told_apart(kube: Kube, record: Record) -> None:
    entry = _until(kube, "finetune", "Failed", "DiskFull", 400)
    assert entry["message"].startswith("spec.stages.finetune.resources.limits.ephemeral-storage: the pod was evicted")
    assert entry["attempt"] == 2
    print(record.table(NAME, 0, "finetune"))


def test_a_workspace_that_fills_up_in_the_middle_of_a_run_is_told_the_same(
    kube: Kube, record: Record, disk: SmallDisk
) -> None:
    """This one is somebody else's: the model is not written by the stage's own code, but by a library."""
    disk.fill(but_megabytes=20)
    cure = {"epochs": 1, "resources": {"limits": {"ephemeral-storage": None}}}
    kube.patch(NAME, {"stages": {"finetune": cure}})

    def full() -> bool:
        entry = kube.stage(NAME, "finetune")
        return entry.get("state") == "Failed" and entry["message"].startswith(
            "spec.storage.size: the workspace is full"
        )

    kube.until(f"finetune has no room; it says {kube.stage(NAME, 'finetune')}", full, 300)
    entry = kube.stage(NAME, "finetune")
    assert (entry["reason"], entry["attempt"]) == ("DiskFull", 1)
    disk.empty()
    _cure(kube, record, "finetune", {"retryToken": "emptied"})


def test_a_server_whose_image_is_not_there_waits_for_it_and_is_ready_in_the_end(kube: Kube, record: Record) -> None:
    entry = _until(kube, "deploy", "Waiting", "ImagePullFailed", 400)
    assert "spec.stages.deploy.image: the image cannot be pulled" in entry["message"]
    assert kube.condition(NAME, "Deployed")["reason"] == "ImagePullFailed"
    _cure(kube, record, "deploy", {"stages": {"deploy": {"image": None}}})
    kube.until_ready(NAME, generation=kube.generation(NAME), timeout_s=300)
    print(record.table(NAME, 0, "deploy", "Validated", "Ready"))


def test_after_all_of_it_nothing_ran_twice_and_nothing_is_left(kube: Kube, record: Record) -> None:
    assert record.done_twice(NAME) == []
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--wait", timeout_s=120)
    kinds = "jobs,pods,deployments,services,configmaps"
    kube.until("every child is gone", lambda: not kube.list(kinds, f"embedding-operator.dev/owner={NAME}"), 180)
    assert kube.get("pvc", CLAIM) is not None, "a claim of the user's own stays"
