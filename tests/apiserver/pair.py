"""Two operators on one Lease, and what each of them has written by the API server's own account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apiserver.api import Api, until
from apiserver.chart import install
from apiserver.process import Operator

HOME = "operator-pair"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases/embedding-operator"


def two_accounts(api: Api) -> tuple[str, str]:
    """ServiceAccounts that the API server's audit log tells apart, both with rights on one Lease."""
    first = install(api, namespace=HOME)
    second = install(api, "--set", "fullnameOverride=second", namespace=HOME)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "embedding-operator-lease"}
    subject = {"kind": "ServiceAccount", "name": "second", "namespace": HOME}
    meta = {"name": "both", "namespace": HOME}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta}
    api.apply({**binding, "roleRef": role, "subjects": [subject]})
    return first, second


@contextmanager
def started(api: Api, accounts: tuple[str, str]) -> Iterator[tuple[Operator, Operator]]:
    """The first leads, the second is a standby."""
    api.send("DELETE", LEASE)
    first, second = (Operator(api, account, lease=HOME) for account in accounts)
    try:
        first.start()
        until("a leader", first.leads)
        second.start()
        until("a standby", lambda: "standby: " in second.said() and second.alive())
        yield first, second
    finally:
        for operator in (first, second):
            operator.kill()


def writes(api: Api, operator: Operator) -> list[dict[str, Any]]:
    """Events of the audit log; renewals of the Lease, and what was refused, left out."""
    lines = (api.folder / "audit.log").read_text().splitlines()
    events = [json.loads(line) for line in lines if operator.account in line]
    return [
        event
        for event in events
        if event["user"]["username"] == operator.account
        and event["objectRef"]["resource"] != "leases"
        and event["responseStatus"]["code"] < 400
    ]
