"""Labels and annotations that a manifest puts on pods, and those by which the operator finds them."""

from __future__ import annotations

import pytest
from unit.operator.builders import FINGERPRINT, OWNER, Raw, a_ref, a_spec
from unit.operator.job_pods import JOBS, job

from embedding_operator.objects.manifests.job import template_of
from embedding_operator.objects.manifests.serving import build_deployment
from embedding_operator.resource.api import Spec, SpecError
from embedding_operator.resource.labels import GPUS_ANNOTATION
from embedding_stages.contract import Stage

NOTED: Raw = {"podLabels": {"team": "search"}, "podAnnotations": {"sidecar.istio.io/inject": "false"}}


def noted(stage: Stage, notes: Raw) -> Spec:
    provider = {"provider": {"extractive": {}}} if stage is Stage.SDG else {}
    return a_spec(stages={stage.value: {**provider, **notes}})


@pytest.mark.parametrize("stage", JOBS)
def test_a_stages_pods_have_them_and_no_others(stage: Stage) -> None:
    spec, other = noted(stage, NOTED), next(item for item in JOBS if item is not stage)
    meta, plain = (job(spec, item)["spec"]["template"]["metadata"] for item in (stage, other))
    ours = job(a_spec(), stage)["spec"]["template"]["metadata"].get("annotations", {})
    assert meta["annotations"] == {**ours, **NOTED["podAnnotations"]}
    assert ours.keys() <= {GPUS_ANNOTATION}
    assert meta["labels"] == {**job(a_spec(), stage)["metadata"]["labels"], "team": "search"}
    assert "team" not in plain["labels"]
    assert plain.get("annotations", {}).keys() <= {GPUS_ANNOTATION}
    assert "team" not in job(spec, stage)["metadata"]["labels"]


def test_a_servers_pods_have_them() -> None:
    built = build_deployment(OWNER, noted(Stage.DEPLOY, NOTED), FINGERPRINT, a_ref(), check_image="check:1")
    meta = built["spec"]["template"]["metadata"]
    assert meta["annotations"] == NOTED["podAnnotations"]
    assert meta["labels"].items() >= {"team": "search", **built["spec"]["selector"]["matchLabels"]}.items()


@pytest.mark.parametrize("name", ["podLabels", "podAnnotations"])
def test_a_job_that_waits_is_replaced_when_they_change(name: str) -> None:
    plain = template_of(job(a_spec(), Stage.PREP))
    assert template_of(job(noted(Stage.PREP, {name: {"a": "b"}}), Stage.PREP)) != plain
    assert template_of(job(noted(Stage.PREP, {name: {}}), Stage.PREP)) == plain


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({"podLabels": {"embedding-operator.dev/owner": "x"}}, "podLabels: 'embedding-operator.dev/owner' belongs"),
        ({"podLabels": {"embedding-operator.dev/of-mine": "x"}}, "podLabels: 'embedding-operator.dev/of-mine' belongs"),
        ({"podLabels": {"app.kubernetes.io/part-of": "x"}}, "'app.kubernetes.io/part-of' belongs"),
        ({"podLabels": {"app.kubernetes.io/managed-by": "x"}}, "'app.kubernetes.io/managed-by' belongs"),
        ({"podLabels": {"batch.kubernetes.io/job-name": "x"}}, "'batch.kubernetes.io/job-name' belongs"),
        ({"podLabels": {"pod-template-hash": "x"}}, "'pod-template-hash' belongs"),
        ({"podAnnotations": {"embedding-operator.dev/fingerprint": "x"}}, "podAnnotations: 'embedding-operator.dev/fi"),
        ({"podLabels": {"a b": "x"}}, "'a b' is no key"),
        ({"podLabels": {"/a": "x"}}, "'/a' is no key"),
        ({"podLabels": {"Team.Example/a": "x"}}, "'Team.Example/a' is no key"),
        ({"podAnnotations": {"a" * 64: "x"}}, "is no key"),
        ({"podLabels": {"why": "a text"}}, "the value 'a text' of 'why'"),
        ({"podLabels": {"why": "a" * 64}}, "of 'why' must have at most 63"),
    ],
)
def test_what_belongs_to_others_or_is_no_label_is_refused_by_name(notes: Raw, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        noted(Stage.DEPLOY, notes)
    assert str(refused.value).startswith("spec.stages.deploy.pod")
    assert said in str(refused.value)


@pytest.mark.parametrize("key", ["a", "team.example/cost-centre", "app.kubernetes.io/component", "kueue.x-k8s.io/x"])
def test_any_other_is_taken(key: str) -> None:
    assert noted(Stage.EVAL, {"podLabels": {key: ""}}).stages[Stage.EVAL].pod.pod_labels == {key: ""}
