"""What a cluster's refusal means to the decision that is made again with it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
from embedding_operator.decide.decision import (
    Action,
    Apply,
    CreateJob,
    CreatePod,
    ForgetSuspension,
    Observed,
    Refusal,
    RefusalKind,
    TryOut,
    comes_first,
    ends_image_check,
    is_aside,
    leads_clients,
)
from embedding_operator.decide.uncreated import cure_of, lasts
from embedding_operator.resource.api import KIND


def refusal_of(error: ClusterError, action: Action, observed: Observed) -> Refusal:
    if not isinstance(action, TryOut):
        return _refusal(_kind_of(error, action, observed), error)
    refused = isinstance(error, Rejected | Forbidden)
    passes = isinstance(error, Forbidden) and not lasts(error.detail)
    untried = passes or isinstance(error, NotTried)
    kind: RefusalKind = "untried" if untried else _kind_of(error, action, observed)
    cure = cure_of(error.detail, action.stage) if refused else ""
    if action.field and kind == "refused":
        return Refusal(
            kind=kind,
            reason="SecretMissing",
            tried=f"stage {action.stage}: {error.tried}",
            detail=f"{action.field}: {error.detail} in this namespace; create it or correct the field",
            of_preflight=True,
        )
    return Refusal(
        kind=kind,
        # Admission says "forbidden" of an object, authorisation of the operator.
        reason=Rejected.__name__ if refused and " cannot " not in error.detail else type(error).__name__,
        tried=f"stage {action.stage}: {error.tried}",
        detail=f"{cure}: {error.detail}" if cure else error.detail,
        of_preflight=True,
    )


def unanswered(error: Unavailable | Conflict, tried: Sequence[Action]) -> Action:
    """The last of these actions, where the pass goes on without an answer to it. Raises the error where it does not,
    or where nobody answers whether the resource is as it was read.

    A conflict is answered by another pass; but a webhook may give one each time, and keep clients' Service away.
    """
    if not tried or error.kind == KIND or not (is_aside(tried[-1]) or comes_first(tried[-1])):
        raise error
    if isinstance(error, Conflict) and not leads_clients(tried[-1]):
        raise error
    return tried[-1]


def refusal_to_read(error: ClusterError) -> Refusal:
    """Of a pass that could not gather what it needs."""
    return _refusal("refused", error)


def _kind_of(error: ClusterError, action: Action, observed: Observed) -> RefusalKind:
    if isinstance(action, CreatePod) or ends_image_check(action):
        return "unchecked"
    if isinstance(action, ForgetSuspension):
        return "note"
    if isinstance(action, CreateJob) and action.aside:
        passes = isinstance(error, Unavailable) and not isinstance(error, QuotaExceeded)
        return "away" if passes else "look"
    claim = isinstance(action, Apply) and action.manifest["kind"] == "PersistentVolumeClaim"
    if claim and observed.workspace_exists and isinstance(error, Rejected | Forbidden | QuotaExceeded):
        return "claim"
    of_record = isinstance(action, Apply) and action.manifest["kind"] == "ConfigMap"
    if of_record and isinstance(error, Rejected | Forbidden | ForeignObject | DeletionStuck | QuotaExceeded):
        return "record"
    match error:
        case QuotaExceeded():
            return "quota"
        case NotYetGone() | Unavailable() | Conflict():
            return "late"
        case _:
            return "refused"


def _refusal(kind: RefusalKind, error: ClusterError) -> Refusal:
    return Refusal(kind=kind, reason=type(error).__name__, tried=error.tried, detail=error.detail)
