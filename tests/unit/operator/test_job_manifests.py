"""A stage's Job: restricted, deterministic, and with no more than the stage needs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import OPEN_AI, OWNER, Raw, a_request, a_spec

from embedding_operator.decide.outcome import kept_s
from embedding_operator.objects.compare import quantity
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.job import build_job, job_name, template_of
from embedding_operator.objects.manifests.storage import build_workspace
from embedding_operator.objects.manifests.workers import build_rendezvous_service
from embedding_operator.resource.api import Spec
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages import contract
from embedding_stages.contract import Stage, StageRequest

JOBS = [stage for stage in Stage if stage is not Stage.DEPLOY]
HUB = {"name": "m", "source": {"huggingFace": {"revision": "a" * 40, "tokenSecretRef": {"name": "hub", "key": "t"}}}}
IMAGE = {"reference": "files:1", "path": "/data/docs/", "pullPolicy": "Never"}


def a_claim(name: str, path: str) -> Raw:
    return {"name": "m", "source": {"pvc": {"claimName": name, "path": path}}}


RICH = a_spec(
    baseModel={"name": "m", "source": {"image": {"reference": "model:1", "path": "/model"}}},
    corpus={"source": {"image": IMAGE}},
    evaluation={"beir": {"pvc": {"claimName": "labelled"}}},
    imagePullSecrets=[{"name": "registry"}],
    stages={
        "sdg": {"provider": OPEN_AI},
        "finetune": {
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "timeoutSeconds": 7,
        },
    },
)


def replace_resources(spec: Spec, stage: Stage, resources: Raw) -> Spec:
    settings = spec.stages[stage]
    changed = replace(settings, pod=replace(settings.pod, resources=resources))
    return replace(spec, stages={**spec.stages, stage: changed})


def job(spec: Spec, stage: Stage = Stage.SDG, **changes: Any) -> Raw:
    return build_job(OWNER, spec, a_request(stage, image=spec.stages[stage].pod.image, **changes))


def pod(spec: Spec, stage: Stage = Stage.SDG) -> Raw:
    found: Raw = job(spec, stage)["spec"]["template"]["spec"]
    return found


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


def test_the_same_arguments_give_the_same_job() -> None:
    assert json.dumps(job(RICH)) == json.dumps(job(RICH))


def test_attempts_are_the_operators_to_count_and_drains_cost_nothing() -> None:
    body = job(RICH, Stage.FINETUNE)["spec"]
    assert (body["backoffLimit"], body["activeDeadlineSeconds"]) == (0, 7 + 1800)
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


@pytest.mark.parametrize("stage", JOBS)
def test_sources_are_read_by_inputs_alone(stage: Stage) -> None:
    names = {volume["name"] for volume in pod(RICH, stage)["volumes"]}
    sources = {"source-corpus", "source-model", "source-beir", "tools"}
    assert names & sources == (sources if stage is Stage.INPUTS else set())


def test_each_kind_of_source_is_mounted_read_only_where_the_stage_looks() -> None:
    body = pod(a_spec(evaluation={"beir": {"pvc": {"claimName": "labelled"}}}), Stage.INPUTS)
    volumes = {item["name"]: item for item in body["volumes"]}
    assert volumes["source-corpus"]["configMap"] == {"name": "docs"}
    assert volumes["source-model"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert volumes["source-beir"]["persistentVolumeClaim"]["claimName"] == "labelled"
    mounts = {item["name"]: item for item in body["containers"][0]["volumeMounts"]}
    for name in ("corpus", "model", "beir"):
        assert mounts[f"source-{name}"]["mountPath"] == f"/sources/{name}"
        assert mounts[f"source-{name}"]["readOnly"] is True
    assert "initContainers" not in body


def claims_of(body: Raw) -> list[str]:
    found = [item["persistentVolumeClaim"] for item in body["volumes"] if "persistentVolumeClaim" in item]
    return [item["claimName"] for item in found]


ONE_CLAIM: dict[str, tuple[Raw, list[str]]] = {
    "documents and model": (
        {"baseModel": a_claim("data", "model"), "corpus": {"source": {"pvc": {"claimName": "data", "path": "docs"}}}},
        ["handbook-workspace", "data"],
    ),
    "documents, model and labelled set": (
        {
            "baseModel": a_claim("data", "model"),
            "corpus": {"source": {"pvc": {"claimName": "data", "path": "docs"}}},
            "evaluation": {"beir": {"pvc": {"claimName": "data", "path": "beir"}}},
        },
        ["handbook-workspace", "data"],
    ),
    "everything in the workspace's claim": (
        {
            "baseModel": a_claim("data", "model"),
            "corpus": {"source": {"pvc": {"claimName": "data", "path": "docs"}}},
            "storage": {"existingClaim": "data"},
        },
        ["data"],
    ),
    "the model in the claim that the operator made": (
        {"baseModel": a_claim("handbook-workspace", "m")},
        ["handbook-workspace"],
    ),
    "two claims": (
        {"baseModel": a_claim("models", "m"), "corpus": {"source": {"pvc": {"claimName": "docs"}}}},
        ["handbook-workspace", "docs", "models"],
    ),
}


@pytest.mark.parametrize("row", ONE_CLAIM)
def test_a_claim_is_one_volume_however_often_it_is_mounted(row: str) -> None:
    """The kubelet never mounts a pod that has two volumes of one claim."""
    sections, claims = ONE_CLAIM[row]
    body = pod(a_spec(**sections), Stage.INPUTS)
    assert claims_of(body) == claims
    names = [item["name"] for item in body["volumes"]]
    assert len(names) == len(set(names))
    mounts = {item["mountPath"]: item for item in body["containers"][0]["volumeMounts"]}
    volumes = {item["name"]: item for item in body["volumes"]}
    for purpose, source in (("corpus", sections.get("corpus")), ("model", sections["baseModel"])):
        mount = mounts[f"/sources/{purpose}"]
        assert mount["readOnly"] is True
        assert "subPath" not in mount  # the stage says which folder is missing; the kubelet would not
        if source is not None:
            claim = volumes[mount["name"]]["persistentVolumeClaim"]
            assert claim["claimName"] == source["source"]["pvc"]["claimName"]
            assert claim.get("readOnly", False) is (mount["name"] != "workspace")
    assert mounts["/workspace"].get("readOnly") is None


def test_an_image_is_copied_by_a_program_that_the_image_need_not_have() -> None:
    body = pod(RICH, Stage.INPUTS)
    names = [item["name"] for item in body["initContainers"]]
    assert names == ["tools", "copy-corpus", "copy-model"]
    copy = body["initContainers"][1]
    assert copy["image"] == "files:1"
    assert copy["imagePullPolicy"] == "Never"
    assert copy["command"] == ["/tools/busybox", "cp", "-r", "/data/docs/.", "/sources/corpus"]
    volumes = {item["name"]: item for item in body["volumes"]}
    assert volumes["source-corpus"]["emptyDir"] == {"sizeLimit": "50Gi"}
    assert volumes["tools"]["emptyDir"] == {"sizeLimit": "16Mi"}


def test_a_copied_source_is_bounded_by_the_workspace_that_it_goes_into() -> None:
    spec = replace(RICH, storage=replace(RICH.storage, size="2Ti"))
    volumes = {item["name"]: item for item in pod(spec, Stage.INPUTS)["volumes"]}
    assert volumes["source-model"]["emptyDir"] == {"sizeLimit": "2Ti"}


@pytest.mark.parametrize("stage", JOBS)
def test_every_container_says_what_a_quota_may_ask_for(stage: Stage) -> None:
    """Where a ResourceQuota counts limits the manifest has to give those of the stage's container, and of no other."""
    body = pod(RICH, stage)
    (main,) = body["containers"]
    assert main["resources"]["requests"].keys() >= {"cpu", "memory"}
    for helper in body.get("initContainers", ()):
        for kind in ("requests", "limits"):
            assert helper["resources"][kind].keys() == {"cpu", "memory"}, helper["name"]
        for name, amount in helper["resources"]["requests"].items():  # a pod asks for the larger of the two
            assert quantity(amount) <= quantity(main["resources"]["requests"][name])


def test_helpers_ask_for_as_much_disk_as_the_stage() -> None:
    """A limit of theirs alone would be the pod's, and evict it."""
    disk = {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "9Gi"}}
    body = pod(replace_resources(RICH, Stage.INPUTS, disk), Stage.INPUTS)
    for helper in body["initContainers"]:
        for kind, values in disk.items():
            assert helper["resources"][kind]["ephemeral-storage"] == values["ephemeral-storage"]


def test_a_model_from_the_hub_needs_no_volume() -> None:
    assert "source-model" not in str(pod(a_spec(baseModel=HUB), Stage.INPUTS))


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


def workers(**finetune: Any) -> Spec:
    return a_spec(stages={"finetune": finetune}, storage={"accessModes": ["ReadWriteMany"]})


def variables(body: Raw) -> dict[str, str]:
    return {
        item["name"]: item["value"] for item in body["containers"][0]["env"] if item["name"] != contract.ENV_REQUEST
    }


@pytest.mark.parametrize("finetune", [{}, {"gpusPerNode": 0}, {"gpusPerNode": 1, "nodes": 1, "parallelism": "FSDP"}])
def test_one_process_is_told_nothing_of_others(finetune: Any) -> None:
    body = job(workers(**finetune), Stage.FINETUNE)["spec"]
    assert variables(body["template"]["spec"]) == {}
    assert "shm" not in str(body)
    assert "subdomain" not in str(body)
    assert (body["completions"], body["parallelism"], "completionMode" in body) == (1, 1, False)


def test_several_gpus_of_one_node_share_memory() -> None:
    spec = workers(gpusPerNode=4, parallelism="FSDP")
    body = pod(spec, Stage.FINETUNE)
    assert variables(body) == {"EFT_NODES": "1", "EFT_PROCESSES": "4", "EFT_PARALLELISM": "FSDP"}
    assert body["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert body["volumes"][-1] == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}}
    assert body["containers"][0]["volumeMounts"][-1] == {"name": "shm", "mountPath": "/dev/shm"}
    assert not {"subdomain", "topologySpreadConstraints"} & body.keys()
    assert "completionMode" not in job(spec, Stage.FINETUNE)["spec"]


def test_the_pods_of_several_nodes_meet_at_index_0() -> None:
    manifest = job(workers(gpusPerNode=0, nodes=3), Stage.FINETUNE)
    name, body = manifest["metadata"]["name"], manifest["spec"]
    assert (body["completionMode"], body["completions"], body["parallelism"]) == ("Indexed", 3, 3)
    assert (body["backoffLimit"], body["podReplacementPolicy"]) == (0, "Failed")
    template = body["template"]["spec"]
    assert variables(template) == {
        contract.ENV_NODES: "3",
        contract.ENV_PROCESSES: "1",
        contract.ENV_PARALLELISM: "DDP",
        contract.ENV_COORDINATOR: f"{name}-0.{name}:29500",
    }
    assert template["containers"][0]["command"] == ["python3", "-m", "embedding_stages.finetune"]
    assert template["subdomain"] == name
    (spread,) = template["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": name}
    service = build_rendezvous_service(OWNER, name, Stage.FINETUNE)
    assert service["metadata"]["name"] == name
    assert service["metadata"]["ownerReferences"] == manifest["metadata"]["ownerReferences"]
    assert SERVING_LABEL not in service["metadata"]["labels"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == spread["labelSelector"]["matchLabels"]


@pytest.mark.parametrize("stage", [stage for stage in JOBS if stage is not Stage.FINETUNE])
def test_the_other_stages_are_one_process(stage: Stage) -> None:
    assert job(workers(gpusPerNode=8, nodes=2), stage)["spec"] == job(workers(), stage)["spec"]


def test_the_longest_host_name_has_63_characters() -> None:
    name = job_name(replace(OWNER, name="a" * 37), a_request(Stage.FINETUNE, attempt=9999))
    assert len(f"{name}-63") == 63


@pytest.mark.parametrize(
    "finetune", [{"gpusPerNode": 2}, {"nodes": 2}, {"nodes": 2, "gpusPerNode": 2}, {"nodes": 2, "parallelism": "FSDP"}]
)
def test_the_template_hash_knows_how_many_share_the_work(finetune: Any) -> None:
    plain, shared = (template_of(job(spec, Stage.FINETUNE)) for spec in (workers(), workers(**finetune)))
    assert plain != shared
    assert template_of(job(workers(**finetune), Stage.FINETUNE, settings={"seed": 1})) == shared


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
    wanted = kept_s(spec.stages[Stage.FINETUNE].pod, spec.start_deadline_s)
    kept = build_job(OWNER, spec, a_request(Stage.FINETUNE), kept_s=wanted)["spec"]["ttlSecondsAfterFinished"]
    assert days * 86400 <= kept < min((days + 1) * 86400, 2**31)
