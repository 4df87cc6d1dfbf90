"""What would be refused late is refused at the start of a revision, once, and without a change to anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import (
    ClusterError,
    Forbidden,
    ForeignObject,
    NotTried,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

ABOVE = (
    'Job.batch "x" is invalid: spec.template.spec.containers[0].resources.requests: Invalid value: "3": must be less '
    "than or equal to cpu limit of 2"
)
REFUSED: dict[str, tuple[str, str, type[ClusterError], str, tuple[str, ...]]] = {
    "a request above a limit": (
        "Job",
        "-finetune-",
        Rejected,
        ABOVE,
        ("stage finetune: cannot try Job", "set spec.stages.finetune.resources.limits.cpu to 3 or more"),
    ),
    "a PriorityClass": (
        "Pod",
        "-finetune-",
        Forbidden,
        'pods "x" is forbidden: no PriorityClass with name high was found',
        ("spec.stages.finetune.priorityClassName: PriorityClass 'high' does not exist",),
    ),
    "a RuntimeClass of the server": (
        "Pod",
        f"{NAME}-00000000-dry-run",
        Forbidden,
        'pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found',
        ("stage deploy: ", "spec.stages.deploy.runtimeClassName: RuntimeClass 'nvidia' does not exist"),
    ),
    "a policy": ("Deployment", "", Forbidden, 'admission webhook "p" denied the request: no', ("stage deploy: ",)),
}


def tried(scene: Scene) -> list[str]:
    return [f"{call.kind} {call.name}" for call in scene.cluster.calls if call.verb == "try"]


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused_late_is_said_before_anything_runs(row: str) -> None:
    kind, name, error, words, said = REFUSED[row]
    scene = a_scene()
    scene.cluster.hook = refusing("try", kind, error, words, name)
    began = scene.clock.now
    scene.run(lambda scene: scene.condition("Validated") == "False Rejected")
    assert (scene.clock.now - began).total_seconds() < 30
    for part in said:
        assert part in scene.message("Validated")
    assert (scene.condition("Stalled"), scene.status.phase) == ("True Rejected", "Blocked")
    scene.settle(20)
    assert scene.cluster.created_jobs == []
    assert scene.events().count("Rejected") == 1
    scene.cluster.hook = lambda call, when: None  # it was created, or allowed
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


LLM = {"openAI": {"baseURL": "https://l.test/v1", "model": "j", "apiKeySecretRef": {"name": "llm", "key": "k"}}}


@pytest.mark.parametrize("may_look", [True, False])
def test_a_secret_of_a_later_stage_is_looked_for_where_that_is_allowed(may_look: bool) -> None:
    scene = a_scene(stages={"sdg": {"provider": LLM}})
    defaults = scene.operator.reconciler.defaults
    scene.operator.reconciler.defaults = replace(defaults, look_for_secrets=may_look)
    if not may_look:
        scene.settle(5)
        assert scene.condition("Validated") == "True Valid"
        assert not [item for item in tried(scene) if item.startswith("Secret")]
        return
    scene.run(lambda scene: scene.condition("Validated") == "False SecretMissing")
    assert "spec.stages.sdg.provider.openAI.apiKeySecretRef.name: it does not exist" in scene.message("Ready")
    assert scene.cluster.created_jobs == []
    scene.cluster.add({"kind": "Secret", "metadata": {"name": "llm", "namespace": NAMESPACE}})
    scene.run(lambda scene: scene.condition("Validated") == "True Valid")
    assert scene.cluster.created_jobs


def test_a_right_that_is_missing_is_named_as_one() -> None:
    scene = a_scene()
    words = 'deployments.apps "x" is forbidden: User "o" cannot patch resource "deployments" in API group "apps"'
    scene.cluster.hook = refusing("try", "Deployment", Forbidden, words)
    scene.run(lambda scene: scene.condition("Validated") == "False Forbidden")
    assert scene.cluster.created_jobs == []


def test_a_service_of_somebody_else_under_the_clients_name_is_said_before_anything_runs() -> None:
    scene = a_scene()
    meta = {"name": NAME, "namespace": NAMESPACE}
    scene.cluster.add({"kind": "Service", "metadata": meta, "spec": {"selector": {"app": "theirs"}}})
    scene.run(lambda scene: scene.condition("Validated") == "False ForeignObject")
    assert "rename this resource" in scene.message("Ready")
    assert scene.cluster.created_jobs == []


def test_it_is_made_once_a_revision() -> None:
    scene = a_scene().run(is_ready).settle(30)
    first = tried(scene)
    assert len(first) == len(set(first))
    assert {item.split()[0] for item in first} == {"Job", "Pod", "Service", "Deployment"}
    assert scene.status.preflight == {"revision": 1, "state": "Done"}
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready).settle(30)
    second = tried(scene)[len(first) :]
    assert not [item for item in second if "-inputs-" in item or "-sdg-" in item or "-prep-" in item]
    assert [item for item in second if "-finetune-" in item]
    assert [item for item in second if "-eval-" in item]
    assert scene.status.preflight["revision"] == 2


def test_an_edit_that_trains_nothing_tries_the_server_and_its_measurement() -> None:
    scene = a_scene().run(is_ready).settle(30)
    before = len(tried(scene))
    scene.edit(a_spec(stages={"deploy": {"replicas": 2}}))
    scene.run(is_ready)
    assert all("-verify-" in item or "-00000000" in item or item == f"Service {NAME}" for item in tried(scene)[before:])


@pytest.mark.parametrize(
    ("error", "words", "untried"),
    [
        (NotTried, 'admission webhook "mesh" does not support dry run', True),
        (
            Forbidden,
            'is forbidden: error looking up service account a/default: serviceaccount "default" not found',
            True,
        ),
        (Forbidden, "is forbidden: status unknown for quota: team, resources: limits.cpu", True),
        (QuotaExceeded, "exceeded quota: team", False),
    ],
)
def test_what_a_dry_run_cannot_tell_stops_nothing(error: type[ClusterError], words: str, untried: bool) -> None:
    scene = a_scene()

    def hook(call: Call, when: str) -> None:
        if when == "before" and call.verb == "try" and call.kind in ("Pod", "Deployment"):
            raise error("create", call.kind, NAMESPACE, call.name, words)

    scene.cluster.hook = hook
    scene.run(is_ready)
    assert scene.condition("Validated") == "True Valid"
    preflight = scene.status.preflight
    assert preflight["state"] == "Done"
    assert (words in preflight.get("untried", "")) is untried


def test_a_policy_against_pods_that_belong_to_nothing_lets_it_through(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene()
    pods: list[Mapping[str, Any]] = []

    def policy(manifest: Mapping[str, Any], *, within_s: float) -> None:
        meta = manifest["metadata"]
        if manifest["kind"] == "Pod":
            pods.append(meta)
            if not [ref for ref in meta.get("ownerReferences", ()) if ref["controller"]]:
                raise Forbidden("create", "Pod", NAMESPACE, meta["name"], "admission webhook denied the request: naked")

    monkeypatch.setattr(scene.cluster, "try_out", policy)
    scene.run(is_ready)
    assert {ref["kind"] for meta in pods for ref in meta["ownerReferences"]} == {"Job", "ReplicaSet"}
    # Who says that the owner's deletion waits for the pod needs a right on the owner, which is not there.
    assert not [ref for meta in pods for ref in meta["ownerReferences"] if "blockOwnerDeletion" in ref]


@pytest.mark.parametrize("error", [Rejected, ForeignObject])
def test_a_refused_revision_leaves_what_serves(error: type[ClusterError]) -> None:
    scene = a_scene().run(is_ready).settle(30)
    scene.cluster.hook = refusing("try", "Deployment", error)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(lambda scene: scene.condition("Ready") == f"False {error.__name__}")
    assert scene.resource["status"]["served"]["url"]
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize("stage", [Stage.SDG, Stage.FINETUNE, Stage.VERIFY])
@pytest.mark.parametrize(
    "edit",
    [
        {"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}},
        {"finetune": {"epochs": 5}},
        {"deploy": {"modelName": "other"}},
        {"deploy": {"backend": {"torch": {}}}},
    ],
    ids=str,
)
def test_what_runs_is_not_ended_for_an_edit_that_is_refused(stage: Stage, edit: dict[str, Any]) -> None:
    scene = a_scene().running(stage)
    jobs, servers = (
        len(scene.cluster.created_jobs),
        [raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")],
    )
    scene.cluster.hook = refusing("try", "Deployment", Forbidden, 'admission webhook "p" denied the request: no')
    scene.edit(a_spec(stages=edit))
    scene.run(lambda scene: scene.condition("Validated").startswith("False")).settle(10)
    assert not [call for call in scene.cluster.calls if call.verb == "delete" and call.kind != "Pod"]
    scene.cluster.hook = lambda call, when: None
    scene.edit(a_spec())  # it is taken back
    scene.release()
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == jobs + len(PIPELINE) - len(order_up_to(stage)), "a Job was made twice"
    assert set(servers) <= {raw["metadata"]["name"] for raw in scene.cluster.find("Deployment")}


def order_up_to(stage: Stage) -> list[Stage]:
    stages = [item for item in Stage if item is not Stage.DEPLOY]
    return stages[: stages.index(stage) + 1]


def test_dry_runs_that_hang_take_half_a_minute_together() -> None:
    """Each of some twenty would wait for its own answer."""
    scene = a_scene()
    seconds = [0.0]
    scene.operator.reconciler.clock = lambda: seconds[0]

    def hang(call: Call, when: str) -> None:
        if when == "before" and call.verb == "try":
            seconds[0] += 15
            raise Unavailable("create", call.kind, NAMESPACE, call.name, "no answer")

    scene.cluster.hook = hang
    scene.run(is_ready)
    assert seconds[0] == 30
    assert "no answer" in scene.status.preflight["untried"]


def test_a_refused_server_takes_no_place_before_it_can_be_made() -> None:
    deploy = {"strategy": "Recreate"}
    scene = a_scene(stages={"deploy": deploy}).run(is_ready).settle(30)
    scene.cluster.hook = refusing("try", "Deployment", Forbidden, 'admission webhook "p" denied the request: no')
    scene.edit(a_spec(stages={"deploy": deploy | {"modelName": "other"}}))
    scene.run(lambda scene: scene.condition("Ready") == "False Rejected").settle(10)
    assert len(scene.cluster.find("Deployment")) == 1
    assert scene.resource["status"]["served"]["url"]
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)


@pytest.mark.parametrize(
    ("edit", "refused"),
    [
        ({"tolerance": {"atOne": "0.05"}}, ("Job", "Pod", "Deployment", "Service")),
        ({"verification": {"intervalSeconds": 3600}}, ("Job", "Pod", "Deployment", "Service")),
        ({"stages": {"finetune": {"retries": 5}}}, ("Job", "Pod", "Deployment", "Service")),
        ({"stages": {"deploy": {"nodeSelector": {"disk": "ssd"}}}}, ("Job",)),
        ({"stages": {"deploy": {"replicas": 2}}}, ("Job", "Pod", "Deployment", "Service")),
    ],
    ids=str,
)
def test_an_edit_is_not_refused_for_what_it_does_not_create(edit: dict[str, Any], refused: tuple[str, ...]) -> None:
    scene = a_scene().run(is_ready).settle(30)

    def hook(call: Call, when: str) -> None:
        if when == "before" and call.verb == "try" and call.kind in refused:
            raise Forbidden("create", call.kind, NAMESPACE, call.name, 'admission webhook "p" denied the request: no')

    scene.cluster.hook = hook
    scene.edit(a_spec(**edit))
    scene.run(is_ready)
    revision = 1 if "replicas" in str(edit) else 2  # scaling makes none
    assert scene.status.preflight == {"revision": revision, "state": "Done"}


def test_a_revision_that_is_suspended_is_tried_when_it_goes_on() -> None:
    scene = a_scene(suspend=True).settle(5)
    assert tried(scene) == []
    assert scene.status.preflight == {"revision": 1, "state": "Due"}
    scene.edit(a_spec())
    scene.run(is_ready)
    assert tried(scene)


def test_a_revision_that_began_before_there_were_preflights_goes_on_without() -> None:
    scene = a_scene().run(is_ready).settle(30)
    before = tried(scene)
    written = replace(scene.status, preflight={}).to_json()
    scene.cluster.change("EmbeddingFineTune", NAMESPACE, NAME, lambda raw: raw.update(status=written))
    scene.settle(10)
    assert tried(scene) == before
    assert is_ready(scene)


def test_an_api_server_that_is_away_is_reported_and_the_preflight_is_still_due() -> None:
    scene = a_scene()
    scene.cluster.hook = refusing("apply", "PersistentVolumeClaim", Unavailable)
    scene.run(lambda scene: scene.condition("Validated") == "Unknown ClusterUnavailable")
    assert scene.status.preflight["state"] == "Due"
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)
