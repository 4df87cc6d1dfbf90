"""NVIDIA's NIM Operator, as far as its source says what it makes of a NIMService and how it tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.fake_cluster import NAMESPACE, FakeCluster

from embedding_operator.resource.labels import TEMPLATE_ANNOTATION

Raw = dict[str, Any]


class NimOperator:
    """What `World` is besides."""

    cluster: FakeCluster
    nim_operator: str  # runs | down | fails

    if TYPE_CHECKING:

        def _edit(self, raw: Raw, edit: Any) -> None: ...

    def _nim_service(self, raw: Raw) -> None:
        if self.nim_operator == "down":
            return
        if self.nim_operator == "fails":
            failed = {"type": "Failed", "status": "True", "reason": "PVCFailed", "message": "no such claim"}
            self._edit(raw, lambda it: it.update(status={"state": "Failed", "conditions": [failed]}))
            return
        name, wanted = raw["metadata"]["name"], deployment_of(raw)
        if ("Deployment", NAMESPACE, name) not in self.cluster.objects:
            self.cluster.add(service_of(raw))
            self.cluster.add(wanted)
        made = self.cluster.object("Deployment", name)
        self._edit(made, lambda it: it["metadata"].update(annotations=wanted["metadata"]["annotations"]))
        self._edit(made, lambda it: it["spec"].update(wanted["spec"]))
        counts, replicas = made.get("status", {}), raw["spec"]["replicas"]
        up_to_date = (
            counts.get("observedGeneration") == self.cluster.object("Deployment", name)["metadata"]["generation"]
        )
        ready = up_to_date and counts.get("updatedReplicas") == counts.get("availableReplicas") == replicas
        state = "Ready" if ready else "NotReady"
        self._edit(raw, lambda it: it.update(status={"state": state, "conditions": [_condition(ready)]}))


def _condition(ready: bool) -> Raw:
    return {"type": "Ready", "status": "True" if ready else "False", "reason": "Ready" if ready else "NotReady"}


def _belongs_to(raw: Raw) -> Raw:
    meta = raw["metadata"]
    reference = {"kind": "NIMService", "name": meta["name"], "uid": meta["uid"], "controller": True}
    labels = {"app.kubernetes.io/managed-by": "k8s-nim-operator", **raw["spec"]["labels"]}
    return {"name": meta["name"], "namespace": NAMESPACE, "labels": labels, "ownerReferences": [reference]}


def service_of(raw: Raw) -> Raw:
    spec = {
        "type": "ClusterIP",
        "selector": {"app": raw["metadata"]["name"]},
        "ports": [{"name": "api", "port": 8000, "targetPort": "api", "protocol": "TCP"}],
    }
    return {"kind": "Service", "metadata": _belongs_to(raw), "spec": spec}


def deployment_of(raw: Raw) -> Raw:
    """Labels and annotations of the NIMService's spec go to the Deployment and to its pods."""
    spec, name, meta = raw["spec"], raw["metadata"]["name"], _belongs_to(raw)
    mount = {"name": "model-store", "mountPath": "/model", "subPath": spec["storage"]["pvc"]["subPath"]}
    check = spec["initContainers"][0]
    pod = {
        "initContainers": [
            {
                "name": check["name"],
                "image": f"{check['image']['repository']}:{check['image']['tag']}",
                "command": check["command"],
                "volumeMounts": [mount],
            }
        ],
        "containers": [
            {
                "name": f"{name}-ctr",
                "image": f"{spec['image']['repository']}:{spec['image']['tag']}",
                "env": spec["env"],
                "ports": [{"name": "api", "containerPort": spec["expose"]["service"]["port"]}],
                "resources": spec["resources"],
                "volumeMounts": [mount],
            }
        ],
        "volumes": [{"name": "model-store", "persistentVolumeClaim": {"claimName": spec["storage"]["pvc"]["name"]}}],
    }
    return {
        "kind": "Deployment",
        "metadata": {**meta, "annotations": {TEMPLATE_ANNOTATION: spec["annotations"][TEMPLATE_ANNOTATION]}},
        "spec": {
            "replicas": spec["replicas"],
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0}},
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, **meta["labels"]}, "annotations": spec["annotations"]},
                "spec": pod,
            },
        },
    }
