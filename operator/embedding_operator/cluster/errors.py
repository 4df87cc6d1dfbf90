"""What can go wrong with the cluster, in the operator's words. `ApiException` never leaves `cluster.py`.

ClusterError               carries kind, namespace, name and what was tried
+-- Conflict               somebody wrote first: read again
+-- Forbidden              a permission is missing: the condition names verb and resource
+-- Rejected               the API server refuses the object: the manifest asks for the impossible
+-- Unavailable            overload, timeout, server error, token not accepted: try again later
|   +-- QuotaExceeded      the namespace has no room for it now
+-- NotYetGone             an object of our name is being removed, or belongs to a predecessor and will be
+-- NotTried               a dry run tells nothing: a webhook knows none, or a right is missing
+-- DeletionStuck          an object of our name was deleted and does not go
+-- ForeignObject          an object of our name belongs to somebody else; it is never touched
+-- NotLeader              another replica may lead by now: nothing is written
"""

from __future__ import annotations


class ClusterError(Exception):
    """An API call failed."""

    def __init__(self, verb: str, kind: str, namespace: str, name: str, detail: str) -> None:
        self.tried = f"cannot {verb} {kind} {namespace}/{name}"
        super().__init__(f"{self.tried}: {detail}")
        self.verb, self.kind, self.namespace, self.name, self.detail = verb, kind, namespace, name, detail


class Conflict(ClusterError):
    """409 on a write with a resourceVersion."""


class Forbidden(ClusterError):
    """403."""


class Rejected(ClusterError):
    """400, 413 or 422: the same request will never succeed."""


class Unavailable(ClusterError):
    """401, 408, 429, 5xx, or no answer: an API server that starts answers 401 to the right token."""

    def __init__(self, verb: str, kind: str, namespace: str, name: str, detail: str, retry_after_s: float = 0) -> None:
        super().__init__(verb, kind, namespace, name, detail)
        self.retry_after_s = retry_after_s


class QuotaExceeded(Unavailable):
    """403 of a ResourceQuota."""


class NotYetGone(ClusterError):
    """An object of the wanted name is of a deleted resource of the same name, or on its way out itself."""


class NotTried(ClusterError):
    """A dry run could not be made, which says nothing about the object."""


class DeletionStuck(ClusterError):
    """An object of the wanted name is being deleted, and something keeps it."""


class ForeignObject(ClusterError):
    """An object of the wanted name exists and is not ours."""


class NotLeader(ClusterError):
    """A write was asked for when the Lease was not surely ours any more. It was not sent."""
