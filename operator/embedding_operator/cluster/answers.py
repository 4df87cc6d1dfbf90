"""What the API server's answers mean: errors, whose an object is, and what time it is there. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from embedding_operator.cluster.errors import (
    ClusterError,
    Conflict,
    DeletionStuck,
    Forbidden,
    ForeignObject,
    NotTried,
    NotYetGone,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from embedding_operator.objects.deletion import deleted_at, stuck_deletion
from embedding_operator.objects.nim_services import NIM_SERVICE
from embedding_operator.resource.api import KIND

# Rights on pods and Secrets are asked for by the preflight alone; one that is missing otherwise is missing later too.
_NO_DRY_RUN: Final = ("does not support dry run", 'cannot create resource "pods"', 'cannot get resource "secrets"')
NO_NIM_OPERATOR: Final = (
    "spec.stages.deploy.backend.nimService: the CRD nimservices.apps.nvidia.com is not installed; install NVIDIA's NIM "
    "Operator, or take backend nim"
)
# By an admission webhook or policy, which may choose any code for its refusal.
_DENIED: Final = re.compile(r"denied (the )?request|is forbidden:")
_SAME_TIME_S: Final = 2  # a header has whole seconds, and the answer was on its way


def server_ahead_s(date: str, now: datetime) -> float | None:
    """How far the clock of a `Date` header is ahead of ours; 0 within its error, None when it says nothing."""
    try:
        ahead = (parsedate_to_datetime(date) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return ahead if abs(ahead) > _SAME_TIME_S else 0.0


def must_be_ours(kind: str, wanted: Mapping[str, Any], existing: Mapping[str, Any], now: datetime) -> None:
    """Raises ForeignObject, NotYetGone or DeletionStuck where `existing` cannot become what is `wanted`."""

    def uids(raw: Mapping[str, Any]) -> set[str]:
        return {ref["uid"] for ref in raw["metadata"].get("ownerReferences") or ()}

    meta = existing["metadata"]
    where = ("adopt", kind, meta["namespace"], meta["name"])
    if stuck := stuck_deletion(deleted_at(meta), meta.get("finalizers") or (), now):
        raise DeletionStuck(*where, f"{stuck}, or make a resource of another name")
    if uids(wanted) & uids(existing):
        return
    names = {ref["name"] for ref in wanted["metadata"]["ownerReferences"]}
    owners = meta.get("ownerReferences") or ()
    if "deletionTimestamp" in meta or any(ref.get("kind") == KIND and ref.get("name") in names for ref in owners):
        raise NotYetGone(*where, "it belongs to a resource of this name that was deleted, and will be removed")
    cure = "rename this resource, or remove that object"
    if kind == "PersistentVolumeClaim":  # its data goes with it
        cure = (
            f"name it in spec.storage.existingClaim ({meta['name']}) to keep what is in it and work beside that, or "
            "rename this resource; removing the claim deletes its data"
        )
    raise ForeignObject(*where, f"it exists and belongs to somebody else; {cure}")


def dry_run_error(error: ClusterError) -> ClusterError:
    """What a refused dry run means: a quota is waited for when its time comes, and who cannot ask learns nothing."""
    cannot_ask = isinstance(error, Unavailable) and not isinstance(error, QuotaExceeded)
    if cannot_ask or any(words in error.detail for words in _NO_DRY_RUN):
        return NotTried(error.verb, error.kind, error.namespace, error.name, error.detail)
    return error


def misses_owner(manifest: Mapping[str, Any], detail: str) -> bool:
    """Whether a refusal says that what the object belongs to does not exist."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    return any(f'"{owner["name"]}" not found' in detail for owner in owners)


def error_of(
    status: int, verb: str, where: tuple[str, str, str], headers: Mapping[str, str], data: bytes
) -> ClusterError:
    try:
        detail = str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        detail = data[:200].decode(errors="replace")
    match status:
        case _ if status < 400:
            location = headers.get("Location", "nowhere")
            return Unavailable(verb, *where, f"answer {status} redirects to {location}: it is not the API server's")
        case 409:
            return Conflict(verb, *where, detail)
        case 403 if "exceeded quota" in detail:
            return QuotaExceeded(verb, *where, detail, 15)
        case 401 if not _DENIED.search(detail):
            return Unavailable(verb, *where, f"the API server does not accept the operator's token: {detail}")
        case 401 | 403:
            return Forbidden(verb, *where, detail)
        case 404 if where[0] == NIM_SERVICE and "namespaces" not in detail:
            return Rejected(verb, *where, NO_NIM_OPERATOR)
        case 404 if verb in ("get", "delete") and not says_absent(data):
            return Unavailable(verb, *where, f"the answer 404 is not the API server's: {detail}")
        case 404 if verb in ("patch", "update") and "namespaces" not in detail:
            return Conflict(verb, *where, detail)  # removed since it was read
        case _ if status in (408, 429) or status >= 500:
            return Unavailable(verb, *where, detail, _seconds(headers.get("Retry-After", "")))
        case _:
            return Rejected(verb, *where, detail)


def says_absent(data: bytes) -> bool:
    """Whether an answer 404 is the API server's word that there is no such object, and not a proxy's of its own."""
    return _status(data).get("reason") == "NotFound"


def is_status(data: bytes) -> bool:
    """Whether an error is told in the API server's form, and not in a proxy's."""
    return bool(_status(data))


def _status(data: bytes) -> dict[str, Any]:
    """Empty where it is none."""
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) and body.get("kind") == "Status" else {}


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0
