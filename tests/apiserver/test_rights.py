"""What the chart's ServiceAccount may do: its work and nothing else."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from apiserver.api import Api
from apiserver.chart import install, render

EFT = "embeddingfinetunes.embedding-operator.dev"
# Every call that the operator makes: see cluster.py, and the watches in handlers.py.
RIGHTS: dict[str, str] = {
    EFT: "get list watch",
    f"{EFT}/status": "update",
    f"{EFT}/finalizers": "update",
    "jobs.batch": "get list watch create patch delete",
    "deployments.apps": "get list watch create patch delete",
    "nimservices.apps.nvidia.com": "get list create patch delete",
    "workloads.kueue.x-k8s.io": "list patch",
    "services": "get list watch create patch delete",
    "persistentvolumeclaims": "get list watch create patch",
    "configmaps": "get create patch delete",
    "pods": "list watch create delete",
    "pods/log": "get",
    "events": "list create",
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
STRANGERS = (
    "secrets",
    "nodes",
    "namespaces",
    "serviceaccounts",
    "serviceaccounts/token",
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "pods/ephemeralcontainers",
    "pods/eviction",
    "persistentvolumes",
    "jobs.batch/status",
    "cronjobs.batch",
    "deployments.apps/scale",
    "daemonsets.apps",
    "leases.coordination.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "*",
    "*.*",
)
ELSEWHERE = "elsewhere"


def _allowed(api: Api, user: str, namespace: str, kinds: tuple[str, ...], object_name: str = "") -> dict[str, str]:
    """What of the verbs each kind may be used with, asked of the API server itself."""
    found: dict[str, list[str]] = {}
    for kind, verb in itertools.product(kinds, VERBS):
        full, _, subresource = kind.partition("/")
        name, _, group = full.partition(".")
        attributes = {
            "verb": verb,
            "resource": name,
            "group": group,
            "subresource": subresource,
            "namespace": namespace,
            "name": object_name,
        }
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}", "system:authenticated"]
        review: dict[str, Any] = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }
        if api.make("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]:
            found.setdefault(kind, []).append(verb)
    return {kind: " ".join(sorted(verbs)) for kind, verbs in found.items()}


def _sorted(rights: dict[str, str]) -> dict[str, str]:
    return {kind: " ".join(sorted(verbs.split())) for kind, verbs in rights.items()}


@pytest.fixture(scope="module")
def everywhere(api: Api) -> str:
    return install(api, namespace="rights-cluster")


@pytest.fixture(scope="module")
def one_namespace(api: Api) -> str:
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "watched"}})
    return install(
        api, "--set", "watchNamespaces={watched}", "--set", "fullnameOverride=narrow", namespace="rights-one"
    )


def test_across_the_cluster_it_may_do_its_work_and_nothing_else(api: Api, everywhere: str) -> None:
    assert _allowed(api, everywhere, ELSEWHERE, (*RIGHTS, *STRANGERS)) == _sorted(RIGHTS)


def test_in_a_chosen_namespace_it_may_do_the_same(api: Api, one_namespace: str) -> None:
    assert _allowed(api, one_namespace, "watched", (*RIGHTS, *STRANGERS)) == _sorted(RIGHTS)


def test_with_chosen_namespaces_it_may_do_nothing_elsewhere(api: Api, one_namespace: str) -> None:
    assert _allowed(api, one_namespace, ELSEWHERE, tuple(RIGHTS)) == {}


def test_it_may_not_act_for_others(api: Api, everywhere: str) -> None:
    for what in ("users", "groups", "serviceaccounts"):
        done = api.attempt("auth", "can-i", "impersonate", what, "--as", everywhere)
        assert done.stdout.strip() == "no"


def test_chosen_namespaces_get_roles_and_the_cluster_gets_nothing(api: Api) -> None:
    objects = render(api, "--set", "watchNamespaces={a,b}")
    assert not [item for item in objects if item["kind"].startswith("ClusterRole")]
    roles = sorted(item["metadata"]["namespace"] for item in objects if item["kind"] == "Role")
    assert roles == ["a", "b", "embedding-operator"], "the last is the Lease's"


def test_no_rule_has_a_wildcard_or_names_a_secret(api: Api) -> None:
    for arguments in ((), ("--set", "watchNamespaces={a}")):
        rules = [item["rules"] for item in render(api, *arguments) if item["kind"] in ("Role", "ClusterRole")]
        assert rules
        assert "*" not in json.dumps(rules)
        assert "secret" not in json.dumps(rules)


ALL = "get list watch create update patch delete deletecollection"
PEOPLE = {"edit": ALL, "view": "get list watch"}


@pytest.mark.parametrize("role", PEOPLE)
def test_who_may_edit_or_view_a_namespace_may_do_so_with_its_resources(api: Api, role: str) -> None:
    (found,) = (item for item in render(api) if item["metadata"]["name"] == f"embedding-operator-{role}")
    assert found["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
    rights = {(rule["apiGroups"][0], name): rule["verbs"] for rule in found["rules"] for name in rule["resources"]}
    scale = ("embedding-operator.dev", "embeddingfinetunes/scale")
    assert rights.pop(scale)[0] == "get"
    assert rights == {("embedding-operator.dev", "embeddingfinetunes"): PEOPLE[role].split()}


LEASE = {"leases.coordination.k8s.io": "create get update"}


def test_it_may_hold_its_own_lease_and_no_other(api: Api, everywhere: str) -> None:
    def allowed(name: str) -> dict[str, str]:
        return _allowed(api, everywhere, "rights-cluster", tuple(LEASE), name)

    assert allowed("embedding-operator") == _sorted(LEASE)
    assert allowed("another") == {"leases.coordination.k8s.io": "create"}, "a create has no name to be asked for"
