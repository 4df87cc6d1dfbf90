"""The pod that tries images, what a kubelet says of it, and which of that lasts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from unit.operator.builders import IMAGES, OWNER, a_manifest

from embedding_operator.decide.pulling import cannot_be_pulled, cause_of, lasts
from embedding_operator.objects.image_pods import view_image_pod
from embedding_operator.objects.manifests.image_check import build_image_check
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, IMAGES_ANNOTATION, OWNER_UID_LABEL
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Stage

REF = "registry.test/mine:1"
RESOLVE = f'failed to pull and unpack image "{REF}": failed to resolve reference "{REF}": '
# In the words of containerd, CRI-O and Docker: whether somebody has to act.
SAID: dict[str, tuple[str, bool]] = {
    "no such tag": (f"{RESOLVE}{REF}: not found", True),
    "no such repository": (
        f"{RESOLVE}pull access denied, repository does not exist or may require authorization",
        True,
    ),
    "no password": (f"{RESOLVE}failed to authorize: failed to fetch anonymous token: 401 Unauthorized", True),
    "a wrong password": (f"{RESOLVE}unexpected status from HEAD request to https://r/v2/x: 403 Forbidden", True),
    "CRI-O, no such tag": (f"reading manifest 1 in {REF}: manifest unknown", True),
    "CRI-O, no password": ("reading manifest 1: unauthorized: authentication required", True),
    "CRI-O, no right": ("reading manifest 1: requested access to the resource is denied", True),
    "Docker, no such repository": ("pull access denied for mine, repository does not exist", True),
    "another architecture": (f"{RESOLVE}no match for platform in manifest: not found", True),
    "too many requests": (f"{RESOLVE}unexpected status from HEAD request: 429 Too Many Requests", False),
    "a registry that is ill": (f"{RESOLVE}unexpected status from HEAD request: 503 Service Unavailable", False),
    "a registry that is away": (f"{RESOLVE}dial tcp 10.0.0.1:443: connect: connection refused", False),
    "a name that is not known now": (f"{RESOLVE}dial tcp: lookup registry.test: i/o timeout", False),
    "a pause without its cause": ("", False),
}


@pytest.mark.parametrize("row", SAID)
def test_it_is_told_what_lasts_from_what_may_pass(row: str) -> None:
    cause, forever = SAID[row]
    assert lasts("ErrImagePull", cause) is forever
    assert cause_of(f'Back-off pulling image "{REF}": ErrImagePull: {cause}') == cause
    assert cause_of(f'Back-off pulling image "{REF}"') == ""
    assert lasts("InvalidImageName", cause)


def test_several_images_are_told_with_one_cure_of_the_secret() -> None:
    told = cannot_be_pulled(("spec.stages.eval.image", "not found", False), ("spec.stages.deploy.image", "", True))
    assert told == (
        "spec.stages.eval.image: the image cannot be pulled: not found; it is the operator's default image: correct "
        "registry, tag or stageImages of its chart, and here name the right one in spec.stages.eval.image; "
        "spec.stages.deploy.image: the image cannot be pulled: the kubelet does not say why; correct the reference, or "
        "name a pull secret in spec.imagePullSecrets"
    )


def a_check(*stages: Stage, **sections: Any) -> dict[str, Any]:
    spec = parse_spec(a_manifest(**sections), IMAGES)
    return build_image_check(OWNER, spec, 3, [REF, "other"], stages, longest_s=60)


def test_the_pod_asks_for_little_and_is_that_of_its_resource() -> None:
    pod = a_check(Stage.FINETUNE, imagePullSecrets=[{"name": "pull"}])
    meta, spec = pod["metadata"], pod["spec"]
    assert meta["labels"][OWNER_UID_LABEL] == OWNER.uid
    assert meta["ownerReferences"][0]["uid"] == OWNER.uid
    assert len(meta["name"]) <= 63
    assert [item["image"] for item in spec["containers"]] == [REF, "other"]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert (spec["restartPolicy"], spec["activeDeadlineSeconds"]) == ("Never", 60)
    for container in spec["containers"]:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in json.dumps(spec["affinity"])


TAINT, SPOT = {"key": "gpu", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}
PLACES: dict[str, tuple[dict[str, Any], dict[str, str] | None, list[Any] | None]] = {
    "nowhere": ({}, None, None),
    "where the GPUs are": (
        {"finetune": {"nodeSelector": {"gpu": "h100"}, "tolerations": [TAINT]}},
        {"gpu": "h100"},
        [TAINT],
    ),
    "what they share": (
        {
            "finetune": {"nodeSelector": {"gpu": "h100", "zone": "a"}, "tolerations": [TAINT, SPOT]},
            "eval": {"nodeSelector": {"gpu": "l4", "zone": "a"}, "tolerations": [TAINT]},
        },
        {"zone": "a"},
        [TAINT],
    ),
    "not where a stage without a GPU is": (
        {"finetune": {"nodeSelector": {"gpu": "h100"}}, "export": {"nodeSelector": {"cpu": "large"}}},
        {"gpu": "h100"},
        None,
    ),
}


@pytest.mark.parametrize("row", PLACES)
def test_it_goes_where_the_stages_that_ask_for_a_gpu_go(row: str) -> None:
    stages, selector, tolerations = PLACES[row]
    spec = a_check(Stage.PREP, Stage.FINETUNE, Stage.EVAL, Stage.EXPORT, stages=stages)["spec"]
    assert (spec.get("nodeSelector"), spec.get("tolerations")) == (selector, tolerations)


def state(**kind: Any) -> dict[str, Any]:
    return {"name": "image-0", "state": kind}


STATES: dict[str, tuple[dict[str, Any], bool, bool]] = {  # came, waits
    "not looked at": (state(waiting={"reason": "ContainerCreating"}), False, False),
    "behind a mesh's container": (state(waiting={"reason": "PodInitializing"}), False, False),
    "not pulled": (state(waiting={"reason": "ErrImagePull", "message": "not found"}), False, True),
    "pulled, and does not start": (
        state(waiting={"reason": "CreateContainerError", "message": "no user"}),
        False,
        True,
    ),
    "runs": (state(running={}), True, False),
    "ended": (state(terminated={"reason": "Completed", "exitCode": 0}), True, False),
    "has no such program": (state(terminated={"reason": "StartError", "exitCode": 128}), True, False),
    "ended unseen": (state(terminated={"reason": "ContainerStatusUnknown", "exitCode": 137}), False, False),
    "somebody else's": ({"name": "istio-proxy", "state": {"running": {}}}, False, False),
    "a number too high": ({"name": "image-7", "state": {"running": {}}}, False, False),
}


@pytest.mark.parametrize("row", STATES)
def test_what_a_kubelet_says_of_an_image(row: str) -> None:
    item, came, waits = STATES[row]
    pod = a_check(Stage.FINETUNE)
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    view = view_image_pod({**pod, "status": {"phase": "Pending", "containerStatuses": [item]}})
    assert view is not None
    assert (view.images, view.over) == ((REF, "other"), False)
    assert (view.came == {REF}, set(view.waits) == {REF}) == (came, waits)


@pytest.mark.parametrize("text", ["{", "{}", "7", '[1, {"a": 2}]'])
def test_an_annotation_that_somebody_changed_names_no_image(text: str) -> None:
    meta = {
        "name": "x",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {IMAGE_CHECK_LABEL: "1"},
        "annotations": {IMAGES_ANNOTATION: text},
    }
    view = view_image_pod({"metadata": meta, "status": {"containerStatuses": [state(running={})]}})
    assert view is not None
    assert (view.images, view.came) == ((), frozenset())
    assert view_image_pod({"metadata": {**meta, "labels": {}}}) is None
