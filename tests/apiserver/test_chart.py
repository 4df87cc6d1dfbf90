"""What the chart renders, and what it refuses to."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml
from apiserver.api import EFT, ROOT, Api, pod_of, resource
from apiserver.chart import CHART, KUBERNETES, operator_container, render, template, the, variables

from embedding_operator.cluster.election import Terms
from embedding_operator.probes import ALIVE, READY
from embedding_operator.settings import Settings

CRD = "embeddingfinetunes.embedding-operator.dev"
DIGEST = f"sha256:{'0' * 64}"

VALUES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "chosen namespaces": ("--set", "watchNamespaces={a,b}"),
    "everything said": (
        *("--set-string", "tag=20261117"),
        *(
            "--set",
            "registry=r.example/team/",
            "--set",
            f"image.digest={DIGEST}",
            "--set",
            "imagePullSecrets[0].name=pull",
        ),
        *("--set", "serviceAccount.name=me", "--set", "serviceAccount.annotations.a=b", "--set", "podLabels.a=b"),
        *("--set", "podAnnotations.a=b", "--set", "nodeSelector.a=b", "--set", "tolerations[0].operator=Exists"),
        *("--set-json", 'affinity={"nodeAffinity": {}}', "--set", "priorityClassName=high"),
        *("--set", "metrics.serviceMonitor=true", "--set", "metrics.serviceMonitorLabels.release=prometheus"),
        *("--set", "metrics.serverPodMonitor=true", "--set", "metrics.rules.enabled=true"),
        *("--set", "metrics.dashboard.enabled=true"),
        *("--set", "metrics.rules.labels.release=prometheus", "--set", "metrics.rules.runbookURL=https://r.example/a"),
    ),
    "one replica without a Lease": ("--set", "replicas=1", "--set", "leaderElection.enabled=false"),
    "none for now": ("--set", "replicas=0"),
    "the cluster's part left to somebody else": ("--set", "crds.install=false", "--set", "aggregatedRoles=false"),
}
MISTAKES: dict[str, tuple[str, str]] = {
    "a misspelt value": ("stageImage.sdg=x", "stageImage"),
    "a stage that there is not": ("stageImages.train=x", "train"),
    "a digest that is none": ("image.digest=latest", "digest"),
    "a tag within the repository's place": ("image.tag=a:b", "tag"),
    "a tag of all images that is none": ("tag=a/b", "tag"),
    "a tag that Helm takes for a number": ("tag=20261117", "tag"),
    "a namespace that cannot be": ("watchNamespaces={A}", "watchNamespaces"),
    "no work at a time": ("concurrency=0", "concurrency"),
    "an alert that there is not": ("metrics.rules.disabled={Nothing}", "disabled"),
    "metrics of no resource": ("metrics.maxResources=0", "maxResources"),
    "a level of no log": ("logLevel=loud", "logLevel"),
    "a format of no log": ("logFormat=xml", "logFormat"),
    "fewer replicas than none": ("replicas=-1", "replicas"),
    "replicas that know nothing of each other": ("leaderElection.enabled=false", "leaderElection.enabled=true"),
    "a Lease of no time": ("leaderElection.leaseDurationSeconds=0", "leaseDurationSeconds"),
    "a leader that stops after its Lease": ("leaderElection.renewDeadlineSeconds=15", "renewDeadlineSeconds"),
    "a leader that tries once": ("leaderElection.retryPeriodSeconds=6", "retryPeriodSeconds"),
    "a platform that there is not": ("openshift=maybe", "openshift"),
    "a text for a switch": ("crds.keep=please", "keep"),
}


@pytest.mark.parametrize("row", VALUES)
def test_helm_finds_nothing_wrong(api: Api, row: str) -> None:
    done = api.program("helm", "lint", "--strict", str(CHART), *KUBERNETES, *VALUES[row])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("row", VALUES)
def test_the_api_server_takes_all_of_it(api: Api, row: str) -> None:
    for namespace in ("a", "b"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    # A dry run creates nothing, so the objects have to go where a namespace is already.
    for item in render(api, *VALUES[row], namespace="default"):
        if not item["apiVersion"].startswith("monitoring.coreos.com/"):  # their CRDs are not here
            api.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=yaml.safe_dump(item))


@pytest.mark.parametrize("row", MISTAKES)
def test_a_wrong_value_is_refused(api: Api, row: str) -> None:
    setting, named = MISTAKES[row]
    done = template(api, "--set", setting)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_charts_crd_is_the_projects(api: Api) -> None:
    rendered = the("CustomResourceDefinition", render(api))
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == yaml.safe_load((ROOT / "crds" / f"{CRD}.yaml").read_text())


def test_the_check_for_a_forgotten_copy_of_the_crd_passes() -> None:
    done = subprocess.run([str(ROOT / "charts" / "sync.sh"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_a_crd_that_is_not_kept_goes_with_the_release(api: Api) -> None:
    rendered = the("CustomResourceDefinition", render(api, "--set", "crds.keep=false"))
    assert "annotations" not in rendered["metadata"]


def test_the_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project


def test_the_example_shown_in_catalogues_is_accepted(api: Api, scratch: str) -> None:
    notes = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    (example,) = yaml.safe_load(notes["artifacthub.io/crdsExamples"])
    assert api.objection(EFT.format(scratch), example) == ""
    (crd,) = yaml.safe_load(notes["artifacthub.io/crds"])
    assert crd["name"] == CRD


def test_the_operator_understands_its_environment(api: Api) -> None:
    arguments = ("--set", "watchNamespaces={a,b}", "--set", "concurrency=3", "--set", "resyncSeconds=60")
    container = operator_container(render(api, *arguments))
    settings = Settings.from_env(variables(container))
    assert (settings.watch_namespaces, settings.concurrency, settings.resync_s) == (("a", "b"), 3, 60)
    assert (settings.log_level, settings.log_format) == ("info", "json")
    told = variables(operator_container(render(api, "--set", "logLevel=warning", "--set", "logFormat=text")))
    assert (told["LOG_LEVEL"], told["LOG_FORMAT"]) == ("warning", "text")
    ports = {item["name"]: item["containerPort"] for item in container["ports"]}
    assert ports == {"metrics": settings.metrics_port, "health": settings.liveness_port}


@pytest.mark.parametrize(
    ("values", "most"),
    [((), 500), (("metrics.maxResources=7",), 7), (("metrics.perResource=false",), 0)],
    ids=["as it is", "fewer resources", "counts alone"],
)
def test_as_many_resources_have_metrics_as_the_chart_says(api: Api, values: tuple[str, ...], most: int) -> None:
    arguments = tuple(part for value in values for part in ("--set", value))
    found = variables(operator_container(render(api, *arguments)))
    assert Settings.from_env(found).metrics_resources == most


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ((), False),
        (("--set", "openshift=true"), True),
        (("--api-versions", "security.openshift.io/v1"), True),
        (("--api-versions", "security.openshift.io/v1", "--set", "openshift=false"), False),
    ],
)
def test_on_openshift_no_pod_names_its_user(api: Api, arguments: tuple[str, ...], given: bool) -> None:
    rendered = render(api, *arguments)
    assert Settings.from_env(variables(operator_container(rendered))).openshift is given
    security = the("Deployment", rendered)["spec"]["template"]["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert ("runAsUser" in security, "runAsGroup" in security) == (not given, not given)


@pytest.mark.parametrize("look", [True, False])
def test_secrets_are_looked_for_only_where_the_chart_says_so(api: Api, look: bool) -> None:
    rendered = render(api, "--set", f"preflight.secrets={str(look).lower()}")
    assert Settings.from_env(variables(operator_container(rendered))).look_for_secrets is look
    role = next(item for item in rendered if item["kind"] == "ClusterRole" and item["metadata"]["name"].endswith("or"))
    found = [rule["verbs"] for rule in role["rules"] if "secrets" in rule["resources"]]
    assert found == ([["get"]] if look else [])


@pytest.mark.parametrize("check", [True, False])
def test_images_are_tried_only_where_the_chart_says_so(api: Api, check: bool) -> None:
    rendered = render(api, "--set", f"preflight.images={str(check).lower()}")
    assert Settings.from_env(variables(operator_container(rendered))).check_images is check
    role = next(item for item in rendered if item["kind"] == "ClusterRole" and item["metadata"]["name"].endswith("or"))
    (found,) = [rule["verbs"] for rule in role["rules"] if "pods" in rule["resources"]]
    # A pod that was made before it was switched off is still to be removed.
    assert found == ["list", "watch", "create", "delete"]


def test_two_replicas_share_a_lease_and_survive_a_node(api: Api) -> None:
    rendered = render(api, release="team-a", namespace="home")
    spec = the("Deployment", rendered)["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, "the old one leads meanwhile"
    assert the("PodDisruptionBudget", rendered)["spec"]["maxUnavailable"] == 1
    labels = spec["template"]["metadata"]["labels"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    for selector in (
        the("PodDisruptionBudget", rendered)["spec"]["selector"],
        *(item["labelSelector"] for item in spread),
    ):
        assert selector["matchLabels"].items() <= labels.items()
    assert {item["whenUnsatisfiable"] for item in spread} == {"ScheduleAnyway"}, "one node is enough"
    environment = {**variables(operator_container(rendered)), "POD_NAMESPACE": "home", "POD_NAME": "pod-1"}
    settings = Settings.from_env(environment)
    assert settings.election == Terms()
    assert settings.lease == ("home", "team-a-embedding-operator")
    (role,) = (
        item
        for item in rendered
        if item["metadata"]["name"] == "team-a-embedding-operator-lease" and item["kind"] == "Role"
    )
    assert role["metadata"]["namespace"] == "home"
    assert {name for rule in role["rules"] for name in rule.get("resourceNames", ())} == {settings.lease[1]}


@pytest.mark.parametrize("election", ["true", "false"])
def test_a_roll_out_waits_for_a_replica_that_could_lead(api: Api, election: str) -> None:
    rendered = render(api, "--set", "replicas=1", "--set", f"leaderElection.enabled={election}")
    container = operator_container(rendered)
    port = next(str(item["containerPort"]) for item in container["ports"] if item["name"] == "health")
    assert port == variables(container)["LIVENESS_PORT"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: (item["path"], item["port"]) for name, item in asked.items()} == {
        "startup": (ALIVE, "health"),  # a first list that takes long is no reason for a restart
        "liveness": (ALIVE, "health"),
        "readiness": (READY, "health"),
    }


def test_without_an_election_there_is_one_operator_at_a_time(api: Api) -> None:
    rendered = render(api, "--set", "replicas=1", "--set", "leaderElection.enabled=false")
    spec = the("Deployment", rendered)["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert not [item for item in rendered if item["kind"] in ("PodDisruptionBudget", "Role", "RoleBinding")]
    assert Settings.from_env(variables(operator_container(rendered))).election is None


@pytest.mark.parametrize("row", VALUES)
def test_the_operators_pod_is_admitted_by_the_restricted_standard(api: Api, namespace: str, row: str) -> None:
    spec: dict[str, Any] = the("Deployment", render(api, *VALUES[row]))["spec"]["template"]
    # Neither is here to be looked up.
    spec["spec"] = {**spec["spec"], "serviceAccountName": "default", "priorityClassName": ""}
    assert api.objection(f"/api/v1/namespaces/{namespace}/pods", pod_of(spec, "operator", namespace)) == ""
    security = spec["spec"]["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"], "more than the standard asks for"


NAMES = {
    "embedding-operator": "embedding-operator",
    "team-a": "team-a-embedding-operator",
    "a" * 50: "a" * 50 + "-embe",
}


@pytest.mark.parametrize("release", NAMES)
def test_two_releases_do_not_share_names(api: Api, release: str) -> None:
    objects = render(api, "--set", "metrics.service=true", release=release)
    assert the("Deployment", objects)["metadata"]["name"] == NAMES[release]
    names = [item["metadata"]["name"] for item in objects if item["kind"] != "CustomResourceDefinition"]
    assert all(name.startswith(NAMES[release]) and len(name) <= 63 for name in names)


def test_a_release_is_installed_upgraded_and_removed_and_the_resources_stay(api: Api, namespace: str) -> None:
    def helm(*arguments: str) -> None:
        done = api.program("helm", *arguments, "--namespace", namespace)
        assert done.returncode == 0, done.stderr

    def operator() -> dict[str, Any]:
        (found,) = api.get("deployment", "r-embedding-operator", namespace)["spec"]["template"]["spec"]["containers"]
        return dict(found)

    api.make(EFT.format(namespace), resource(namespace))
    # The CRD of these tests was applied by kubectl.
    helm("install", "r", str(CHART), "--take-ownership")
    assert variables(operator())["CONCURRENCY"] == "8"
    helm("upgrade", "r", str(CHART), "--set", "concurrency=2", "--set", "metrics.service=true")
    assert variables(operator())["CONCURRENCY"] == "2"
    api.get("service", "r-embedding-operator-metrics", namespace)
    helm("uninstall", "r")
    assert api.attempt("get", "deployment", "r-embedding-operator", "-n", namespace).returncode != 0
    assert api.get("eft", "docs", namespace)["metadata"]["name"] == "docs"
