"""What the operator's client tries out: what would be refused is told, and nothing is changed or read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.operator.connections import answering, connected, deaf

from embedding_operator.cluster.errors import ClusterError, Forbidden, ForeignObject, NotTried, QuotaExceeded, Rejected

__all__ = ["deaf"]  # the fixture


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (201, "", None),
        (409, "already exists", None),
        (422, "is invalid", Rejected),
        (403, "is forbidden: no PriorityClass with name high was found", Forbidden),
        (403, "is forbidden: exceeded quota: team", QuotaExceeded),
        (403, 'cannot create resource "pods" in API group "" in the namespace "n"', NotTried),
        (400, 'admission webhook "mesh" does not support dry run', NotTried),
        (500, 'failed calling webhook "mesh": connection refused', NotTried),
    ],
)
@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_a_dry_run_tells_what_would_be_refused_and_nothing_else(
    kind: str,
    status: int,
    words: str,
    error: type[ClusterError] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = json.dumps({"message": words}).encode()
    with answering(status, {}, body) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
        manifest = {"kind": kind, "metadata": {"namespace": "n", "name": "x"}}
        if error is None:
            it.try_out(manifest, within_s=15)
        else:
            with pytest.raises(error):
                it.try_out(manifest, within_s=15)
        assert asked[0].endswith("s?dryRun=All")


@pytest.mark.parametrize("kind", ["Job", "Service", "Secret"])
def test_a_dry_run_takes_no_longer_than_it_may(
    kind: str, deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(deaf, tmp_path, monkeypatch) as it, pytest.raises(NotTried):
        it.try_out({"kind": kind, "metadata": {"namespace": "n", "name": "x"}}, within_s=0.2)


def test_a_dry_run_of_what_is_applied_changes_nothing_and_sees_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"name": "x", "namespace": "n", "ownerReferences": [{"kind": "K", "name": "a", "uid": "1"}]}
    theirs = {**mine, "ownerReferences": []}
    for existing in (mine, theirs):
        body = json.dumps({"metadata": existing}).encode()
        with answering(200, {}, body) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
            if existing is mine:
                it.try_out({"kind": "Service", "metadata": mine}, within_s=15)
                assert "dryRun=All" in asked[1]
            else:
                with pytest.raises(ForeignObject):
                    it.try_out({"kind": "Service", "metadata": mine}, within_s=15)
                assert len(asked) == 1


_REASONS = {404: "NotFound", 403: "Forbidden"}


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [(200, "", None), (404, "not found", Rejected), (403, 'User "o" cannot get resource "secrets" in', NotTried)],
)
def test_a_secret_is_looked_for_and_never_read(
    status: int,
    words: str,
    error: type[ClusterError] | None,
    deaf: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []

    def send(method: str, path: str, *_: object, accept: str, **__: object) -> tuple[int, dict[str, str], bytes]:
        sent.append(f"{method} {path} {accept}")
        return status, {}, json.dumps({"kind": "Status", "reason": _REASONS.get(status), "message": words}).encode()

    secret = {"kind": "Secret", "metadata": {"namespace": "n", "name": "x"}}
    with connected(deaf, tmp_path, monkeypatch) as cluster:
        monkeypatch.setattr(cluster._http, "send", send)
        if error is None:
            cluster.try_out(secret, within_s=15)
        else:
            with pytest.raises(error):
                cluster.try_out(secret, within_s=15)
    assert len(sent) == 1
    assert sent[0].startswith("GET /api/v1/namespaces/n/secrets/x application/json;as=PartialObjectMetadata")
