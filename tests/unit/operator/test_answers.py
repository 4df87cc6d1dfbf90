"""What an answer of the API server says besides its body."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from embedding_operator.cluster.answers import error_of, must_be_ours, says_absent, server_ahead_s
from embedding_operator.cluster.errors import (
    ClusterError,
    Conflict,
    DeletionStuck,
    Forbidden,
    ForeignObject,
    NotYetGone,
    Rejected,
    Unavailable,
)
from embedding_operator.resource.api import KIND

NOW = datetime(2026, 1, 1, 12, 0, 0, 900000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Thu, 01 Jan 2026 12:00:00 GMT", 0),  # the same second
        ("Thu, 01 Jan 2026 11:59:59 GMT", 0),  # the answer was on its way
        ("Thu, 01 Jan 2026 12:01:00 GMT", 59.1),
        ("Thu, 01 Jan 2026 11:00:00 GMT", -3600.9),
        ("", None),
        ("yesterday", None),
        ("Thu, 01 Jan 2026 12:01:00", None),  # no zone: not as HTTP writes it
    ],
)
def test_the_servers_clock_is_the_one_that_deadlines_are_told_by(date: str, ahead: float | None) -> None:
    assert server_ahead_s(date, NOW) == pytest.approx(ahead)


GONE = b'{"kind": "Status", "reason": "NotFound", "message": "jobs a not found"}'
NO_NAMESPACE = b'{"kind": "Status", "reason": "NotFound", "message": "namespaces a not found"}'
PAGE = b"<html>404 Not Found</html>"


@pytest.mark.parametrize(
    ("data", "absent"),
    [(GONE, True), (PAGE, False), (b"404 page not found", False), (b"{}", False), (b"[]", False), (b"", False)],
)
def test_only_the_api_server_says_that_there_is_no_such_object(data: bytes, absent: bool) -> None:
    assert says_absent(data) is absent


@pytest.mark.parametrize(
    ("verb", "data", "error"),
    [
        ("get", GONE, Rejected),
        ("get", PAGE, Unavailable),
        ("delete", PAGE, Unavailable),
        ("update", GONE, Conflict),
        ("patch", GONE, Conflict),
        ("patch", NO_NAMESPACE, Rejected),
        ("create", NO_NAMESPACE, Rejected),
    ],
)
def test_what_404_means(verb: str, data: bytes, error: type[ClusterError]) -> None:
    """What was read and is gone is read again: nobody refused anything."""
    assert type(error_of(404, verb, ("Job", "n", "a"), {}, data)) is error


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Rejected),
        (401, Unavailable),
        (403, Forbidden),
        (408, Unavailable),
        (409, Conflict),
        (413, Rejected),
        (422, Rejected),
        (429, Unavailable),
        (500, Unavailable),
        (504, Unavailable),
        (520, Unavailable),
    ],
)
def test_what_other_answers_mean(status: int, error: type[ClusterError]) -> None:
    """What says nothing of the object, or of a right, may be otherwise when it is asked again."""
    assert type(error_of(status, "create", ("Job", "n", "a"), {}, b'{"message": "no"}')) is error


def test_a_token_that_is_not_accepted_is_told_as_one() -> None:
    """An API server that starts, or cannot ask who it is, says so to the right token too."""
    said = str(error_of(401, "get", ("Lease", "n", "a"), {}, b'{"kind": "Status", "message": "Unauthorized"}'))
    assert said == "cannot get Lease n/a: the API server does not accept the operator's token: Unauthorized"
    refused = b'{"kind": "Status", "message": "admission webhook \\"team\\" denied the request: who are you?"}'
    assert type(error_of(401, "create", ("Job", "n", "a"), {}, refused)) is Forbidden


MINE = [{"kind": KIND, "name": "a", "uid": "mine"}]
THEIRS: list[dict[str, Any]] = []
OF_BEFORE = [{"kind": KIND, "name": "a", "uid": "of before"}]


@pytest.mark.parametrize(
    ("owners", "deleted_s", "finalizers", "error"),
    [
        (MINE, None, [], None),
        (MINE, 20, ["x/y"], None),
        (MINE, 40, ["x/y"], DeletionStuck),
        (MINE, 40, ["foregroundDeletion"], None),
        (MINE, 400, ["foregroundDeletion"], DeletionStuck),
        (THEIRS, None, [], ForeignObject),
        (THEIRS, 20, ["x/y"], NotYetGone),
        (THEIRS, 40, ["x/y"], DeletionStuck),
        (THEIRS, 40, [], NotYetGone),
        (OF_BEFORE, None, [], NotYetGone),
        (OF_BEFORE, 40, ["foregroundDeletion"], NotYetGone),
        (OF_BEFORE, 40, ["foregroundDeletion", "x/y"], DeletionStuck),
    ],
)
def test_whose_an_object_is_and_whether_it_goes(
    owners: list[dict[str, Any]], deleted_s: int | None, finalizers: list[str], error: type[Exception] | None
) -> None:
    meta: dict[str, Any] = {"name": "b", "namespace": "n", "ownerReferences": owners, "finalizers": finalizers}
    if deleted_s is not None:
        meta["deletionTimestamp"] = f"{NOW - timedelta(seconds=deleted_s):%Y-%m-%dT%H:%M:%SZ}"
    wanted = {"metadata": {"ownerReferences": MINE}}
    if error is None:
        must_be_ours("Service", wanted, {"metadata": meta}, NOW)
        return
    with pytest.raises(error) as refused:
        must_be_ours("Service", wanted, {"metadata": meta}, NOW)
    assert error is not DeletionStuck or finalizers[-1] in str(refused.value)
