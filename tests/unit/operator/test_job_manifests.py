"""A stage's Job: restricted, deterministic, and with no more than the stage needs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import OPEN_AI, OWNER, Raw, a_request, a_spec
from unit.operator.job_pods import HUB, JOBS, RICH, job, pod

from embedding_operator.decide.attempts import kept_s
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.job import build_job, job_name, template_of
from embedding_operator.objects.manifests.storage import build_workspace
from embedding_operator.resource.api import Spec
from embedding_operator.resource.labels import GPUS_ANNOTATION
from embedding_stages import contract
from embedding_stages.contract import Stage, StageRequest


@pytest.mark.parametrize("stage", JOBS)
@pytest.mark.parametrize("spec", [a_spec(), RICH, a_spec(baseModel=HUB)], ids=["plain", "rich", "hub"])
def test_every_pod_satisfies_the_restricted_standard(spec: Spec, stage: Stage) -> None:
    body = pod(spec, stage)
    assert body["securityContext"]["runAsNonRoot"] is True
    assert body["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert body["automountServiceAccountToken"] is False
    assert body["restartPolicy"] == "Never"
    for container in [*body.get("initContainers", ()), *body["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    kinds = {kind for volume in body["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"persistentVolumeClaim", "emptyDir", "configMap", "secret"}
    mounted = {mount["name"] for item in body["containers"] for mount in item["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in body["volumes"]}


@pytest.mark.parametrize("stage", JOBS)
def test_where_the_platform_gives_users_no_pod_names_one(stage: Stage) -> None:
    named, given = (pod(replace(RICH, given_user=given), stage)["securityContext"] for given in (False, True))
    assert {key: named[key] for key in named.keys() - given.keys()} == dict.fromkeys(
        ("runAsUser", "runAsGroup", "fsGroup"), 65532
    )
    assert (given["runAsNonRoot"], given["seccompProfile"]) == (True, {"type": "RuntimeDefault"})


def test_the_same_arguments_give_the_same_job() -> None:
    assert json.dumps(job(RICH)) == json.dumps(job(RICH))


def test_attempts_are_the_operators_to_count_and_drains_cost_nothing() -> None:
    body = job(RICH, Stage.FINETUNE)["spec"]
    assert (body["backoffLimit"], body["activeDeadlineSeconds"]) == (0, 3 * (7 + 1800))
    assert body["podReplacementPolicy"] == "Failed"
    condition = {"type": "DisruptionTarget", "status": "True"}
    assert body["podFailurePolicy"]["rules"] == [{"action": "Ignore", "onPodConditions": [condition]}]


def test_the_longest_name_has_63_characters() -> None:
    name = job_name(replace(OWNER, name="a" * 40), a_request(Stage.FINETUNE, attempt=9999))
    assert len(name) == 63
    assert re.fullmatch("a{40}-finetune-[0-9a-f]{8}-9999", name)


def test_no_two_attempts_have_the_same_name() -> None:
    names = [
        job_name(replace(OWNER, uid=uid), a_request(fingerprint=fingerprint, revision=revision, attempt=attempt))
        for uid in ("one", "another")
        for fingerprint in ("ab" * 32, "cd" * 32)
        for revision in (1, 3)
        for attempt in (1, 2)
    ]
    assert len(set(names)) == len(names)


def test_it_belongs_to_its_resource() -> None:
    meta = job(RICH)["metadata"]
    assert meta["ownerReferences"][0] | {"uid": OWNER.uid, "controller": True} == meta["ownerReferences"][0]
    labels = job(RICH)["spec"]["template"]["metadata"]["labels"]
    assert labels == meta["labels"]
    assert all(len(value) <= 63 for value in labels.values())


@pytest.mark.parametrize("text", ["$(HOME)", "$$(HOME)", "a$b", "$$", "$", "$(", "é\"'\n"])
def test_a_request_arrives_as_it_was_sent(text: str) -> None:
    request = a_request(settings={"provider": text})
    env = build_job(OWNER, a_spec(), request)["spec"]["template"]["spec"]["containers"][0]["env"]
    value = next(item["value"] for item in env if item["name"] == contract.ENV_REQUEST)
    assert StageRequest.from_json(kubelet_expands(value)) == request


def kubelet_expands(text: str) -> str:
    """As the kubelet reads a value: `$$` is a `$`, and `$(NAME)` is a variable's value."""
    return re.sub(r"\$(?:(\$)|\(([^)]*)\))", lambda match: match[1] or f"<value of {match[2]}>", text)


@pytest.mark.parametrize("stage", JOBS)
def test_a_secret_goes_into_the_stage_that_needs_it_and_no_other(stage: Stage) -> None:
    spec = a_spec(baseModel=HUB, stages={"sdg": {"provider": OPEN_AI}})
    secrets = {v["secret"]["secretName"] for v in pod(spec, stage)["volumes"] if "secret" in v}
    assert secrets == {Stage.SDG: {"llm"}, Stage.INPUTS: {"hub"}}.get(stage, set())
    assert "valueFrom" not in str(pod(spec, stage))


def test_a_secret_is_a_file_that_only_the_group_reads() -> None:
    body = pod(a_spec(stages={"sdg": {"provider": OPEN_AI}}))
    volume = next(item for item in body["volumes"] if "secret" in item)
    assert volume["secret"]["items"] == [{"key": "token", "path": contract.SECRET_FILE}]
    assert volume["secret"]["defaultMode"] == 0o440
    mount = next(item for item in body["containers"][0]["volumeMounts"] if item["name"] == volume["name"])
    assert mount == {"name": volume["name"], "mountPath": f"{contract.SECRETS_PATH}/openai", "readOnly": True}


def of_the_llm(said: Raw | None) -> Spec:
    bundle = {} if said is None else {"caBundle": said}
    return a_spec(stages={"sdg": {"provider": {"openAI": OPEN_AI["openAI"] | bundle}}})


def of_the_hub(said: Raw | None) -> Spec:
    bundle = {} if said is None else {"caBundle": said}
    source = {"pvc": {"claimName": "docs"}}
    return a_spec(
        baseModel={"name": "m", "source": {"huggingFace": {"revision": "a" * 40, **bundle}}}, corpus={"source": source}
    )


@pytest.mark.parametrize(("said", "key"), [({"name": "pki"}, "ca.crt"), ({"name": "pki", "key": "all.pem"}, "all.pem")])
@pytest.mark.parametrize(
    ("a_spec_of", "stage", "purpose"), [(of_the_llm, Stage.SDG, "openai"), (of_the_hub, Stage.INPUTS, "huggingface")]
)
def test_certificates_of_authorities_go_into_the_stage_that_asks_whom_they_are_for(
    a_spec_of: Callable[[Raw | None], Spec], stage: Stage, purpose: str, said: Raw, key: str
) -> None:
    spec = a_spec_of(said)
    body = pod(spec, stage)
    volume = next(item for item in body["volumes"] if "configMap" in item)
    assert volume["configMap"] == {"name": "pki", "items": [{"key": key, "path": contract.AUTHORITIES_FILE}]}
    mount = next(item for item in body["containers"][0]["volumeMounts"] if item["name"] == volume["name"])
    assert mount == {"name": volume["name"], "mountPath": f"{contract.AUTHORITIES_PATH}/{purpose}", "readOnly": True}
    assert not any("pki" in str(pod(spec, other)) for other in JOBS if other is not stage)
    assert template_of(job(spec, stage)) != template_of(job(a_spec_of(None), stage))


def test_a_judge_has_a_key_and_authorities_of_its_own() -> None:
    judge = {"baseURL": "https://judge.test/v1", "model": "j", "apiKeySecretRef": {"name": "two", "key": "k"},
             "caBundle": {"name": "judges"}}  # fmt: skip
    body = pod(a_spec(stages={"sdg": {"provider": {"openAI": OPEN_AI["openAI"] | {"judge": judge}}}}), Stage.SDG)
    mounts = {mount["name"]: mount["mountPath"] for mount in body["containers"][0]["volumeMounts"]}
    assert mounts["secret-judge"] == f"{contract.SECRETS_PATH}/judge"
    assert mounts["authorities-judge"] == f"{contract.AUTHORITIES_PATH}/judge"
    assert {volume["secret"]["secretName"] for volume in body["volumes"] if "secret" in volume} == {"llm", "two"}


def test_scheduling_fields_reach_the_pod_and_only_its_own() -> None:
    spec = replace(RICH, storage=replace(RICH.storage, access_modes=("ReadWriteMany",)))
    body, other = pod(spec, Stage.FINETUNE), pod(spec, Stage.EVAL)
    assert body["nodeSelector"] == {"gpu": "h100"}
    assert body["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert (body["priorityClassName"], body["runtimeClassName"]) == ("high", "nvidia")
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in body["containers"][0]["env"]
    assert body["imagePullSecrets"] == other["imagePullSecrets"] == [{"name": "registry"}]
    assert not {"nodeSelector", "tolerations", "priorityClassName", "runtimeClassName"} & other.keys()


def test_resources_of_one_namespace_can_share_a_claim() -> None:
    spec = a_spec(storage={"existingClaim": "shared"})
    other = Owner(namespace=OWNER.namespace, name=OWNER.name, uid="99999999-bbbb")
    paths = set()
    for owner in (OWNER, other):
        body = build_job(owner, spec, a_request())["spec"]["template"]["spec"]
        assert body["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared"}
        paths.add(body["containers"][0]["volumeMounts"][0]["subPath"])
    assert len(paths) == 2


def test_the_template_hash_knows_a_pod_and_not_its_request() -> None:
    plain = template_of(job(a_spec()))
    assert template_of(job(a_spec(), attempt=2, revision=3, settings={"seed": 1})) == plain
    assert template_of(job(a_spec(stages={"sdg": {"provider": OPEN_AI}}))) != plain
    assert template_of(job(a_spec(storage={"existingClaim": "other"}))) != plain


def test_the_workspace_is_what_the_manifest_asks_for() -> None:
    plain = build_workspace(OWNER, a_spec())
    assert plain["metadata"]["name"] == "handbook-workspace"
    assert plain["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}}
    asked = build_workspace(
        OWNER, a_spec(storage={"size": "1Ti", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]})
    )
    assert asked["spec"]["storageClassName"] == "fast"
    assert asked["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("finetune", "days"),
    [
        ({"timeoutSeconds": 86400, "retries": 5}, 6),
        ({"timeoutSeconds": 86400, "retries": 0}, 4),  # out of memory is tried three times whatever is said
        ({"timeoutSeconds": 2_592_000, "retries": 20}, 601),
    ],
)
def test_a_finished_job_goes_when_no_later_attempt_can_count_it(finetune: Raw, days: float) -> None:
    spec = a_spec(stages={"finetune": finetune}, runPolicy={"startDeadlineSeconds": 10})
    wanted = kept_s(spec, Stage.FINETUNE)
    kept = build_job(OWNER, spec, a_request(Stage.FINETUNE), kept_s=wanted)["spec"]["ttlSecondsAfterFinished"]
    assert days * 86400 <= kept < min((days + 1) * 86400, 2**31)


@pytest.mark.parametrize(
    ("sections", "gpus"),
    [
        ({}, "1"),
        ({"stages": {"finetune": {"gpusPerNode": 4}}}, "4"),
        ({"stages": {"finetune": {"resources": {"limits": {"amd.com/gpu": "2"}}}}}, "2"),
        ({"accelerator": "none"}, None),
    ],
)
def test_a_pod_tells_its_gpus_and_is_no_other_pod_for_that(sections: dict[str, Any], gpus: str | None) -> None:
    job = build_job(OWNER, a_spec(**sections), a_request(Stage.FINETUNE))
    notes = job["spec"]["template"]["metadata"].get("annotations") or {}
    assert notes.get(GPUS_ANNOTATION) == gpus


def test_a_job_is_kept_as_long_as_either_outcome_may_be_looked_at() -> None:
    month = 30 * 86400
    for retention in ({"failedSeconds": month}, {"succeededSeconds": month, "failedSeconds": 0}):
        assert kept_s(a_spec(retention=retention), Stage.INPUTS) == month
    assert kept_s(a_spec(retention={"succeededSeconds": 0}), Stage.INPUTS) == kept_s(a_spec(), Stage.INPUTS)
