"""The operator's client when nobody answers, or what answers is no answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from unit.operator.connections import answering, connected, connections_to, deaf, port_of, silent

from embedding_operator.cluster import client as client_module
from embedding_operator.cluster import requests as requests_module
from embedding_operator.cluster.errors import ClusterError, Rejected, Unavailable

__all__ = ["deaf", "silent"]  # the fixtures


def test_a_log_that_does_not_come_is_given_up_before_other_requests_are(
    silent: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client_module._LOG_TIMEOUT_S < requests_module._TIMEOUT_S
    monkeypatch.setattr(client_module, "_LOG_TIMEOUT_S", 0.2)
    monkeypatch.setattr(requests_module, "_TIMEOUT_S", 3600.0)  # the test would not end
    with connected(port_of(silent), tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) is None


def test_a_log_is_that_of_the_stage_whatever_runs_beside_it(
    deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server refuses to choose among several containers."""
    sent: list[dict[str, str]] = []

    def send(
        method: str, path: str, query: dict[str, str], *_: object, **__: object
    ) -> tuple[int, dict[str, str], bytes]:
        sent.append(query)
        return 200, {}, b"line"

    with connected(deaf, tmp_path, monkeypatch) as cluster:
        monkeypatch.setattr(cluster._http, "send", send)
        assert cluster.log_tail("n", "pod", lines=5) == "line"
    assert sent[0]["container"] == "stage"


def test_a_log_from_nobody_is_none(deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(deaf, tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) is None


@pytest.mark.parametrize(("status", "text"), [(401, None), (429, None), (503, None), (403, ""), (404, "")])
def test_a_log_that_could_not_be_asked_for_now_is_asked_for_again(
    status: int, text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: nobody answered, so what a pod said last is not taken for nothing."""
    with answering(status, {}) as (port, _), connected(port, tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) == text


def test_a_request_that_was_sent_is_not_sent_again_behind_the_queues_back(
    silent: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "_TIMEOUT_S", 0.3)
    with connected(port_of(silent), tmp_path, monkeypatch) as cluster:
        connections_to(silent)  # of the client's own making
        with pytest.raises(Unavailable):
            cluster.get("Job", "n", "x")
        assert connections_to(silent) == 1


BUSY = b'{"kind": "Status", "message": "too many requests, please try again later"}'


@pytest.mark.parametrize("status", [413, 429, 503])
@pytest.mark.parametrize("verb", ["get", "create", "delete"])
def test_a_server_that_says_when_to_come_back_is_understood(
    status: int, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {
        "get": lambda cluster: cluster.get("Job", "n", "x"),
        "create": lambda cluster: cluster.create_job({"metadata": {"namespace": "n", "name": "x"}}),
        "delete": lambda cluster: cluster.delete("Job", "n", "x"),
    }
    with answering(status, {"Retry-After": "7"}, BUSY) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
        with pytest.raises(ClusterError, match="please try again later") as error:
            calls[verb](it)
        assert len(asked) == 1
    if status == 413:
        assert isinstance(error.value, Rejected)
    else:
        assert isinstance(error.value, Unavailable)
        assert error.value.retry_after_s == 7


@pytest.mark.parametrize("status", [301, 303, 307, 308])
def test_a_redirect_is_no_answer_and_the_token_is_not_sent_on(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, {"Location": "/elsewhere"}) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
        with pytest.raises(Unavailable, match=f"{status}.*/elsewhere"):
            it.get("Job", "n", "x")
        assert asked == ["/apis/batch/v1/namespaces/n/jobs/x"]


def test_an_answer_that_is_no_json_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's page with code 200."""
    with (
        answering(200, {}, b"<html>") as (port, _),
        connected(port, tmp_path, monkeypatch) as it,
        pytest.raises(Unavailable, match="no JSON"),
    ):
        it.get("Job", "n", "x")


def test_nobody_is_unavailable(deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(deaf, tmp_path, monkeypatch) as cluster, pytest.raises(Unavailable):
        cluster.get("Job", "n", "x")
