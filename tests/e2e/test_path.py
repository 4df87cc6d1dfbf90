"""The whole path on a real cluster, one resource through its life. The tests run in the order of this file."""

from __future__ import annotations

import base64
import json
import math
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e.kube import NAMESPACE, OPERATOR_NAMESPACE, ROOT, Kube
from e2e.manifests import fine_tune

NAME = "path"
JOB_STAGES = ("inputs", "sdg", "prep", "finetune", "eval", "export", "verify")
DIMENSION = 384  # of MiniLM


def _advertise(count: int) -> None:
    subprocess.run(["python3", "hack/cluster", "advertise", f"nvidia.com/gpu={count}"], cwd=ROOT, check=True)


@pytest.fixture(scope="module", autouse=True)
def gpu_node() -> Iterator[None]:
    """The node offers one GPU, so that the stages' default request can be scheduled."""
    _advertise(1)
    yield
    _advertise(0)


def _embed(kube: Kube, service: str, **body: Any) -> dict[str, Any]:
    model = "sentence-transformers/all-MiniLM-L6-v2"
    return kube.post(service, "/v1/embeddings", {"model": model, "input_type": "query", **body})


def _finished(kube: Kube, stage: str) -> bool:
    return kube.stage(NAME, stage).get("state") in ("Succeeded", "Reused")


def test_reaches_ready_although_the_operator_is_killed_in_every_stage(
    kube: Kube, images: dict[str, str], kill_operator: Callable[[], None]
) -> None:
    kube.apply(fine_tune(NAME, images["demo-model"], gpu=True))
    for stage in (*JOB_STAGES[:-1], "deploy", "verify"):
        kube.until(
            f"{stage} begins; now {kube.status(NAME).get('progress')}",
            lambda stage=stage: (
                _finished(kube, stage)
                or kube.stage(NAME, stage).get("attempt")
                or (stage == "deploy" and kube.stage(NAME, stage))
            ),
            300,
            every_s=0.2,
        )
        kill_operator()
    kube.until_ready(NAME, generation=1, timeout_s=300)
    assert {stage: len(names) for stage, names in kube.jobs_of(NAME).items()} == dict.fromkeys(JOB_STAGES, 1)


def test_jobs_asked_for_a_gpu_and_got_it(kube: Kube) -> None:
    for job in kube.list("jobs", f"embedding-operator.dev/owner={NAME}"):
        stage = job["metadata"]["labels"]["embedding-operator.dev/stage"]
        limits = job["spec"]["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
        expected = "1" if stage in ("prep", "finetune", "eval") else None
        assert limits.get("nvidia.com/gpu") == expected, stage


def test_kubectl_shows_and_waits(kube: Kube) -> None:
    table = kube.run("get", "eft", NAME, "-n", NAMESPACE).splitlines()
    assert table[0].split() == ["NAME", "PHASE", "STAGE", "PROGRESS", "NDCG@10", "UPLIFT", "VERIFIED", "AGE"]
    status = kube.status(NAME)
    for text in ("Ready", "done", status["metrics"]["fineTuned"]["ndcg@10"], status["uplift"], "True"):
        assert text in table[1]
    kube.run("wait", "--for=condition=Ready", "--timeout=5s", f"eft/{NAME}", "-n", NAMESPACE)
    events = {item["reason"] for item in kube.list("events")}
    assert {"Completed", "Available", "Activated", "Ready"} <= events


def test_the_served_model_measured_as_it_was_evaluated(kube: Kube) -> None:
    status = kube.status(NAME)
    assert status["verification"]["withinTolerance"] is True
    assert status["verification"]["artefactDigest"] == status["served"]["artefactDigest"]
    assert status["metrics"]["served"].keys() == status["metrics"]["fineTuned"].keys()
    base, tuned = (float(status["metrics"][kind]["ndcg@10"]) for kind in ("base", "fineTuned"))
    assert float(status["metrics"]["relativeUplift"]) == pytest.approx((tuned - base) / base, abs=1e-4)


def test_the_endpoint_answers_with_a_finite_unit_vector(kube: Kube) -> None:
    answer = _embed(kube, NAME, input=["How do I read a CSV file?"])
    vector = answer["data"][0]["embedding"]
    assert len(vector) == DIMENSION
    assert all(math.isfinite(x) for x in vector)
    assert math.sqrt(sum(x * x for x in vector)) == pytest.approx(1, abs=1e-3)
    encoded = _embed(kube, NAME, input="How do I read a CSV file?", encoding_format="base64")["data"][0]["embedding"]
    assert list(struct.unpack(f"<{DIMENSION}f", base64.b64decode(encoded))) == pytest.approx(vector, abs=1e-5)


def test_an_edited_epoch_reuses_what_comes_before_while_the_old_revision_answers(kube: Kube) -> None:
    old = kube.status(NAME)["served"]["activeFingerprint"]
    failures: list[str] = []
    answers = [0]
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.25):
            try:
                _embed(kube, NAME, input="still there?")
                answers[0] += 1
            except OSError as error:
                failures.append(str(error))

    client = threading.Thread(target=ask)
    client.start()
    try:
        kube.patch(NAME, {"stages": {"finetune": {"epochs": 2}}})
        status = kube.until_ready(NAME, generation=2, timeout_s=400)
    finally:
        stop.set()
        client.join()
    states = {stage["name"]: (stage["state"], stage.get("reusedFrom")) for stage in status["stages"]}
    assert states["inputs"] == states["sdg"] == states["prep"] == ("Reused", 1)
    assert all(states[stage] == ("Succeeded", None) for stage in ("finetune", "eval", "export", "verify"))
    assert status["served"]["activeFingerprint"] != old
    assert answers[0] > 10
    assert not failures, f"{len(failures)} of {answers[0]} requests failed: {failures[:3]}"
    jobs = {stage: len(names) for stage, names in kube.jobs_of(NAME).items()}
    assert jobs == dict.fromkeys(JOB_STAGES, 2) | {"inputs": 1, "sdg": 1, "prep": 1}


def test_a_nim_deployment_is_exercised_with_our_server_in_its_place(kube: Kube, images: dict[str, str]) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ngc", "namespace": NAMESPACE}}
    kube.apply({**secret, "stringData": {"api-key": "not-a-real-key"}})
    nim = {"ngcKeySecretRef": {"name": "ngc", "key": "api-key"}, "sharedMemory": "64Mi"}
    kube.patch(
        NAME,
        {
            "stages": {
                "deploy": {
                    "image": images["serve"],
                    "backend": {"onnx": None, "nim": nim},
                    "resources": {"limits": {"nvidia.com/gpu": 0}},
                }
            }
        },
    )
    status = kube.until_ready(NAME, generation=3, timeout_s=200)
    states = {stage["name"]: stage["state"] for stage in status["stages"]}
    assert all(states[stage] == "Reused" for stage in ("sdg", "prep", "finetune", "eval", "export"))
    active = status["served"]["activeFingerprint"][:16]  # the older server drains beside it
    pod = kube.list("pods", f"embedding-operator.dev/serving={active}")[0]
    env = {item["name"]: item for item in pod["spec"]["containers"][0]["env"]}
    assert env["NIM_CUSTOM_MODEL"]["value"] == "/opt/nim/custom_model"
    assert env["NGC_API_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "ngc"


def test_a_model_that_training_ruined_is_never_served(kube: Kube) -> None:
    serving = kube.status(NAME)["served"]["activeFingerprint"]
    exports = kube.jobs_of(NAME)["export"]
    kube.patch(NAME, {"gates": {"onFail": "Stop"}, "stages": {"finetune": {"learningRate": "0.01"}}})
    condition = kube.until_condition(NAME, "QualityGatePassed", "False", "WorseThanBase", timeout_s=300)
    assert "goes on serving" in condition["message"]
    status = kube.status(NAME)
    assert (status["phase"], status["currentStage"]) == ("Blocked", "eval")
    assert status["served"]["activeFingerprint"] == serving
    assert kube.jobs_of(NAME)["export"] == exports
    assert _embed(kube, NAME, input="still there?")["data"]
    kube.patch(NAME, {"gates": {"onFail": "Warn"}, "stages": {"finetune": {"learningRate": "2e-5"}}})
    kube.until_ready(NAME, generation=5, timeout_s=300)


def test_the_contract_says_what_an_index_must_know(kube: Kube) -> None:
    """Its canaries are what the endpoint answers, and a client that expects another vector space is refused."""
    contract = kube.until("the canaries are written", lambda: _contract(kube), 60)
    served = kube.status(NAME)["served"]
    assert contract["vectorSpace"] == served["vectorSpace"]
    assert contract["tokenizerDigest"].startswith("sha256:")
    for item in contract["canaries"]["texts"][::5]:
        asked = {"input": item["text"], "input_type": item["role"], **contract["requestFields"]}
        answer = _embed(kube, NAME, **asked)["data"][0]["embedding"]
        known = struct.unpack(f"<{DIMENSION}f", base64.b64decode(item["vector"]))
        assert sum(x * y for x, y in zip(known, answer, strict=True)) > 0.9999


def _contract(kube: Kube) -> dict[str, Any] | None:
    raw = (kube.get("configmap", f"{NAME}-contract") or {}).get("data", {}).get("contract.json", "{}")
    contract: dict[str, Any] = json.loads(raw)
    return contract if "canaries" in contract else None


def test_a_swapped_artefact_is_not_served_and_the_status_says_why(kube: Kube) -> None:
    """The export of revision 1 is put in the place of the served one, as a mistaken hand would."""
    exports = {
        job["metadata"]["annotations"]["embedding-operator.dev/fingerprint"]
        for job in kube.list("jobs", f"embedding-operator.dev/owner={NAME},embedding-operator.dev/stage=export")
    }
    served = kube.stage(NAME, "export")["artefacts"]["servingModel"]["path"]
    other = next(f"export/{fp}/servingModel" for fp in exports if fp not in served)
    job = kube.list("jobs", f"embedding-operator.dev/owner={NAME},embedding-operator.dev/stage=export")[0]
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    container["command"] = ["cp", f"/workspace/{other}/model.onnx", f"/workspace/{served}/model.onnx"]
    container["resources"] = {}
    swap = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "swap", "namespace": NAMESPACE}, "spec": pod}
    kube.apply(swap)
    kube.until(
        "the model is swapped",
        lambda: (kube.get("pod", "swap") or {}).get("status", {}).get("phase") == "Succeeded",
        60,
    )
    kube.run("delete", "pod", "swap", "-n", NAMESPACE, "--wait")  # even a finished pod holds its volume
    kube.run("delete", "pods", "-n", NAMESPACE, "-l", "embedding-operator.dev/serving", "--wait")
    condition = kube.until_condition(NAME, "Deployed", "False", "ArtefactMismatch", timeout_s=60)
    assert "not the exported one" in condition["message"]
    assert kube.condition(NAME, "Ready")["status"] == "False"
    assert kube.status(NAME)["phase"] == "Degraded"
    # An edit starts a new revision; what was damaged is made anew.
    kube.patch(NAME, {"tolerance": {"atOne": "0.04"}})
    status = kube.until_ready(NAME, generation=6, timeout_s=300)
    assert status["verification"]["artefactDigest"] == status["served"]["artefactDigest"]


def test_deleting_it_with_the_operator_down_leaves_nothing(kube: Kube) -> None:
    kube.run("scale", "deployment", "-n", OPERATOR_NAMESPACE, "embedding-operator", "--replicas=0")
    try:
        kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--wait", "--timeout=60s")
        kinds = "jobs,pods,deployments,services,configmaps,persistentvolumeclaims"
        kube.until(
            "every child is gone",
            lambda: not kube.list(kinds, f"embedding-operator.dev/owner={NAME}"),
            180,
        )
    finally:
        kube.run("scale", "deployment", "-n", OPERATOR_NAMESPACE, "embedding-operator", "--replicas=2")
        kube.run("rollout", "status", "-n", OPERATOR_NAMESPACE, "deployment/embedding-operator", "--timeout=120s")
