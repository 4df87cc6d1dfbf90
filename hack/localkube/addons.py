"""What the cluster needs beside its processes: names, a default storage class, roles."""

from __future__ import annotations

from typing import Any

import settings
from api import Api, ApiError

NAMESPACE = "kube-system"
DNS_PORT = 1053  # Above 1023, so that the pod needs no privilege; the Service turns 53 into it.
LABELS = {"k8s-app": "kube-dns"}

COREFILE = f"""\
.:{DNS_PORT} {{
    errors
    health {{
        lameduck 2s
    }}
    ready
    kubernetes {settings.CLUSTER_DOMAIN} in-addr.arpa {{
        pods insecure
        ttl 5
    }}
    cache 5
    loop
    reload
    loadbalance
}}
"""


def apply_all(api: Api, dns_image: str) -> None:
    for manifest in (*_storage(), *_dns_access(), *_dns(dns_image)):
        api.apply(manifest)


def dns_ready(api: Api) -> bool:
    try:
        deployment = api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/coredns")
    except ApiError:
        return False
    status = deployment.get("status", {})
    current = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return bool(current and status.get("updatedReplicas") == 1 and status.get("availableReplicas") == 1)


def node_ready(api: Api, name: str = settings.NODE_NAME) -> bool:
    try:
        node = api.get(f"/api/v1/nodes/{name}")
    except ApiError:
        return False
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    # Until the controller manager has seen it, no pod is placed on a node.
    return ready and not any(taint["key"] == "node.kubernetes.io/not-ready" for taint in node["spec"].get("taints", []))


def remove_node(api: Api, name: str) -> None:
    """Delete a node whose kubelet has ended, and the pods that nobody can end any more."""
    pods = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")["items"]
    paths = [f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}" for pod in pods]
    for path in (*paths, f"/api/v1/nodes/{name}"):
        try:
            api.request("DELETE", f"{path}?gracePeriodSeconds=0")
        except ApiError as error:
            if error.status != 404:
                raise


def advertise(api: Api, resource: str, count: int) -> None:
    """Make the node offer (or, with 0, forget) an extended resource without any device."""
    pointer = resource.replace("~", "~0").replace("/", "~1")
    node = f"/api/v1/nodes/{settings.NODE_NAME}"
    status = api.get(node)["status"]
    patches: list[dict[str, Any]] = []
    for field in ("capacity", "allocatable"):
        path = f"/status/{field}/{pointer}"
        if count:
            patches.append({"op": "add", "path": path, "value": str(count)})
        elif resource in status.get(field, {}):
            patches.append({"op": "remove", "path": path})
    if patches:
        api.request("PATCH", f"{node}/status", patches, "application/json-patch+json")


def _storage() -> list[dict[str, Any]]:
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": settings.STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": settings.PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }
    user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "localkube:provisioner"}
    return [storage_class, _binding("localkube:provisioner", "system:persistent-volume-provisioner", user)]


def _binding(name: str, role: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


def _dns_access() -> list[dict[str, Any]]:
    reads = {"verbs": ["list", "watch"]}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], **reads},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], **reads},
        ],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "coredns", "namespace": NAMESPACE}}
    subject = {"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}
    return [account, role, _binding("system:coredns", "system:coredns", subject)]


def _dns(image: str) -> list[dict[str, Any]]:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": NAMESPACE},
        "data": {"Corefile": COREFILE},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": NAMESPACE, "labels": LABELS},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": _dns_pod(image)},
        },
    }
    ports = [
        {"name": "dns", "port": 53, "targetPort": DNS_PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": DNS_PORT, "protocol": "TCP"},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": LABELS},
        "spec": {"clusterIP": settings.DNS_ADDRESS, "selector": LABELS, "ports": ports},
    }
    return [config, service, deployment]


def _dns_pod(image: str) -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": DNS_PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": DNS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1, "timeoutSeconds": 2},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 5, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "40Mi"}, "limits": {"memory": "170Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    return {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
