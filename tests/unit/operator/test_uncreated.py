"""What the API server says of a pod that it does not make, and what the manifest's author is told to change."""

from __future__ import annotations

import re

import pytest
from unit.operator.builders import a_job
from unit.operator.waits import SPEC, event

from embedding_operator.decide.uncreated import cure_of, lasts
from embedding_operator.decide.waiting import explain_waits
from embedding_stages.contract import Stage

OF = "spec.stages.prep"
ABOVE = "spec.containers[0].resources.requests: Invalid value: "
LIMIT_RANGE = 'Error creating: pods "a" is forbidden: '
LASTING: dict[str, tuple[str, tuple[str, ...]]] = {  # row -> words, and what the cure says
    "a LimitRange gives less than is asked for": (
        f'Error creating: Pod "a" is invalid: {ABOVE}"2Gi": must be less than or equal to memory limit of 512Mi',
        (f"set {OF}.resources.limits.memory to 2Gi or more", f"lower {OF}.resources.requests.memory", "512Mi"),
    ),
    "two resources at a time": (
        (
            f'Error creating: Pod "a" is invalid: [{ABOVE}"500m": must be less than or equal to cpu limit of 200m, '
            f'{ABOVE}"2Gi": must be less than or equal to memory limit of 512Mi]'
        ),
        (f"{OF}.resources.limits.cpu to 500m or more", f"{OF}.resources.limits.memory to 2Gi or more"),
    ),
    "a container that runs before": (
        (
            'Error creating: Pod "a" is invalid: spec.initContainers[1].resources.requests: Invalid value: "2Gi": '
            "must be less than or equal to memory limit of 512Mi"
        ),
        (f"set {OF}.resources.limits.memory to 2Gi or more",),
    ),
    "a Job whose template says so": (
        (
            'Job.batch "a" is invalid: spec.template.spec.containers[0].resources.requests: Invalid value: "3": '
            "must be less than or equal to cpu limit of 2"
        ),
        (f"set {OF}.resources.limits.cpu to 3 or more",),
    ),
    "a maximum": (
        f"{LIMIT_RANGE}maximum memory usage per Container is 1Gi, but limit is 2Gi",
        (f"set {OF}.resources.limits.memory to at most 1Gi",),
    ),
    "a maximum of requests, and a minimum": (
        (
            f"{LIMIT_RANGE}[maximum cpu usage per Container is 1500m, but request is 2, minimum memory usage per Pod "
            "is 128Mi, but request is 64Mi]"
        ),
        (f"{OF}.resources.requests.cpu to at most 1500m", f"{OF}.resources.requests.memory to at least 128Mi"),
    ),
    "a maximum, and nothing said": (
        f"{LIMIT_RANGE}maximum cpu usage per Container is 1.  No limit is specified",
        (f"set {OF}.resources.limits.cpu to at most 1,",),
    ),
    "a ratio": (
        f"{LIMIT_RANGE}memory max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        (f"let {OF}.resources.limits.memory be at most 2 times {OF}.resources.requests.memory",),
    ),
    "a PriorityClass": (
        f"{LIMIT_RANGE}no PriorityClass with name high was found",
        (f"{OF}.priorityClassName: PriorityClass 'high' does not exist; create it or correct the field",),
    ),
    "a RuntimeClass": (
        f'{LIMIT_RANGE}pod rejected: RuntimeClass "nvidia" not found',
        (f"{OF}.runtimeClassName: RuntimeClass 'nvidia' does not exist; create it or correct the field",),
    ),
    "a toleration": (
        'Job.batch "a" is invalid: spec.template.spec.tolerations[0].effect: Invalid value: "x": must be NoExecute',
        (f"correct {OF}.tolerations[0].effect",),
    ),
    "a resource without a name": (
        'Pod "a" is invalid: spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": not a standard one',
        (f"correct {OF}.resources.limits.gpu",),
    ),
    "a quota of limits": (
        f"{LIMIT_RANGE}failed quota: q: must specify limits.cpu for: copy-model,stage,tools; limits.memory for: stage",
        (f"give limits.cpu, limits.memory in {OF}.resources",),
    ),
    "a mesh's container": (
        f"{LIMIT_RANGE}failed quota: team: must specify limits.cpu for: istio-proxy",
        ("container istio-proxy is not the operator's",),
    ),
    "a user of OpenShift's": (
        f"{LIMIT_RANGE}unable to validate against any security context constraint: [provider restricted-v2: ...]",
        ("install the operator's chart with openshift: true",),
    ),
    "a webhook that says no": ('admission webhook "x" denied the request: not on a Friday', ()),
    "a policy": (f'{LIMIT_RANGE}violates PodSecurity "restricted"', ()),
}


@pytest.mark.parametrize("row", LASTING)
def test_what_is_refused_for_good_is_false_with_field_and_cure(row: str) -> None:
    words, cures = LASTING[row]
    wait = explain_waits(a_job(Stage.PREP, pods=()), {"uid-job": event("FailedCreate", words)}, SPEC)
    assert (wait.reason, wait.broken) == ("PodCreationFailed", True)
    for cure in cures:
        assert cure in wait.message
    # Each attempt of the Job's controller is about a pod of another name, and the condition stays as it is.
    assert wait.message.endswith(re.sub('pods "[^"]*"', "the pod", words))
    assert bool(cures) == bool(cure_of(words, Stage.PREP))


@pytest.mark.parametrize(
    "words",
    [
        'failed calling webhook "x": connection refused',
        'Internal error occurred: failed calling webhook "x": is forbidden',
        f"{LIMIT_RANGE}status unknown for quota: team, resources: limits.cpu",
        f'{LIMIT_RANGE}error looking up service account a/default: serviceaccount "default" not found',
    ],
)
def test_what_passes_by_itself_is_waited_for(words: str) -> None:
    assert not lasts(words)


def test_somebody_elses_container_is_not_cured_by_the_manifest() -> None:
    words = f'Pod "a" is invalid: {ABOVE}"2Gi": must be less than or equal to memory limit of 1Gi'
    assert cure_of(words.replace("containers[0]", "containers[1]"), Stage.PREP) == ""
