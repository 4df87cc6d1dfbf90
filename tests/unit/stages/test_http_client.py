"""The client of both endpoints: what is sent again and when, and what never leaves it."""

from __future__ import annotations

import http.client
from typing import Any

import pytest
from unit.stages.test_verify_client import Reply, scripted

from embedding_stages.http_client import (
    Answer,
    HttpClient,
    NoAnswerError,
    Retries,
    joined,
    make_opener,
    may_pass,
    needs_no_proxy,
)

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
KEY = "sk-very-secret"
RETRIES = Retries(tries=3, first_wait_s=1.0, longest_wait_s=60.0)


def client(url: str, *, proxies: bool = False, most_bytes: int = 1000, waits: list[float] | None = None) -> HttpClient:
    told = [] if waits is None else waits
    return HttpClient(
        base_url=url, timeout_s=5.0, most_bytes=most_bytes, wait=told.append, key=KEY, now=lambda: NOW,
        opener=make_opener(proxies=proxies),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "passing"),
    [(200, False), (307, False), (400, False), (401, False), (404, False), (408, True), (409, True), (425, True),
     (429, True), (500, True), (501, False), (502, True), (503, True), (504, True), (505, False), (529, True)],
)  # fmt: skip
def test_statuses_that_may_pass(status: int, passing: bool) -> None:
    assert may_pass(status) is passing


WAITS: dict[str, tuple[str | None, int, float]] = {
    "the first wait": (None, 0, 1.0),
    "it doubles": (None, 3, 8.0),
    "up to a limit": (None, 10, 60.0),
    "the server wants more": ("7", 0, 7.0),
    "the server wants less": ("0", 2, 4.0),
    "the server wants too much": ("86400", 0, 60.0),
    "a date": ("Sun, 06 Nov 1994 08:49:57 GMT", 0, 20.0),
    "a date that is past": ("Sun, 06 Nov 1994 08:00:00 GMT", 0, 1.0),
    "a date that no clock has": (f"Sun, 06 Nov 1994 08:49:57 +{'9' * 17}", 0, 1.0),
    "neither": ("soon", 0, 1.0),
    "no number": ("nan", 0, 1.0),
    "no end": ("inf", 0, 60.0),
}


@pytest.mark.parametrize("name", WAITS)
def test_how_long_is_waited(name: str) -> None:
    told, attempt, expected = WAITS[name]
    answer = Answer(status=429, body=b"", headers={} if told is None else {"Retry-After": told})
    assert RETRIES.wait_s(attempt, answer, NOW) == expected
    assert RETRIES.wait_s(attempt, None, NOW) == min(60.0, 2.0**attempt)


def test_the_last_answer_comes_back_and_says_how_often_it_was_asked_for() -> None:
    waits: list[float] = []
    with scripted(lambda _, __, number: (503, {"number": number})) as url:
        answer = client(url, waits=waits).request("POST", "/x", {}, retries=RETRIES)
    assert (answer.status, answer.json, answer.sent_again, waits) == (503, {"number": 2}, 2, [1.0, 2.0])


def test_a_wait_can_end_it() -> None:
    def stop(_: float) -> None:
        raise InterruptedError

    with scripted(lambda *_: (503, {})) as url, pytest.raises(InterruptedError):
        HttpClient(base_url=url, timeout_s=5.0, most_bytes=9, wait=stop, opener=make_opener(proxies=False)).request(
            "GET", "/", retries=RETRIES
        )


def test_a_connection_that_breaks_is_tried_again_and_named() -> None:
    waits: list[float] = []
    with scripted(lambda *_: b"") as url, pytest.raises(NoAnswerError, match=r"^(RemoteDisconnected|ConnectionReset)"):
        client(url, waits=waits).request("GET", "/x", retries=RETRIES)
    assert waits == [1.0, 2.0]


LOST = {
    "before a byte of it": b"Content-Length: 9\r\n\r\n",
    "within it": b'Content-Length: 9\r\n\r\n{"a"',
    "before its last byte, where it looks whole": b"Content-Length: 3\r\n\r\n12",
    "within a chunk": b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"a"',
    "before the last chunk": b"Transfer-Encoding: chunked\r\n\r\n2\r\n12\r\n",
}


@pytest.mark.parametrize("name", LOST)
def test_a_connection_that_is_lost_within_an_answer_is_tried_again_and_named(name: str) -> None:
    begun, received = b"HTTP/1.1 200 OK\r\n" + LOST[name], list[Answer]()
    with scripted(lambda _, __, number: begun if number < 2 else (200, 123)) as url:
        answer = client(url).request("GET", "/x", retries=RETRIES)
    assert (answer.json, answer.sent_again) == (123, 2)
    with scripted(lambda *_: begun) as url:
        with pytest.raises(NoAnswerError, match=r"^IncompleteRead"):
            client(url).request("GET", "/x", retries=RETRIES)
        with pytest.raises(http.client.IncompleteRead):
            client(url).send("GET", "/x", received=received.append)
    assert received == [], "nothing is written down"


def test_a_refusal_is_one_though_its_text_is_lost() -> None:
    with scripted(lambda *_: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\nno") as url:
        assert client(url).send("GET", "/x").status == 400


def test_the_key_is_masked_in_what_the_server_says() -> None:
    with scripted(lambda *_: (400, {"error": f"bad key {KEY}"})) as url:
        answer = client(url).send("POST", "/x", {})
    assert KEY not in str(answer)
    assert "bad key ***" in str(answer)


def test_a_key_that_is_a_word_of_the_answer_changes_nothing_in_it() -> None:
    with scripted(lambda *_: (200, {"token": 11})) as url:
        for key in ("token", "1"):
            answer = HttpClient(
                base_url=url, timeout_s=5.0, most_bytes=99, wait=[].append, key=key, opener=make_opener(proxies=False)
            ).send("POST", "/x", {})
            assert answer.json == {"token": 11}
            assert key not in str(answer).removeprefix("HTTP 200 ")


def test_redirects_are_answers() -> None:
    paths: list[str] = []

    def reply(path: str, *_: Any) -> Reply:
        paths.append(path)
        return 307, {}

    with scripted(reply) as url:
        assert client(url).send("GET", "/x").status == 307
    assert paths == ["/x"]


def test_a_redirect_to_no_address_is_an_answer_too() -> None:
    raw = b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n"
    with scripted(lambda *_: raw) as url:
        assert client(url).send("GET", "/x").status == 302


@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_answer_is_cut(status: int) -> None:
    with scripted(lambda *_: (status, "x" * 200)) as url:
        answer = client(url, most_bytes=100).send("GET", "/x")
    assert (len(answer.body), answer.is_cut) == (100, True)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        _ = answer.json


@pytest.mark.parametrize("proxies", [False, True])
def test_proxies_of_the_environment_are_used_only_when_wanted(proxies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda *_: (200, "proxy")) as proxy, scripted(lambda *_: (200, "server")) as url:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        answer = client(url, proxies=proxies).send("GET", "/x")
    assert answer.json == ("proxy" if proxies else "server")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://a/v1", "http://a/v1/chat/completions"),
        ("http://a:8000/v1/", "http://a:8000/v1/chat/completions"),
        ("http://a", "http://a/chat/completions"),
        ("http://a/chat/completions", "http://a/chat/completions"),
        ("http://a/m?api-version=1", "http://a/m/chat/completions?api-version=1"),
        ("http://a?x=1&y=/v1", "http://a/chat/completions?x=1&y=/v1"),
        ("http://a/m/?x=1", "http://a/m/chat/completions?x=1"),
        ("http://[::1]:80/v1#there", "http://[::1]:80/v1/chat/completions"),
    ],
)
def test_a_path_is_put_behind_that_of_the_base(base: str, expected: str) -> None:
    assert joined(base, "/chat/completions") == expected


def test_without_a_path_a_base_stays_as_it_is() -> None:
    assert joined("http://a/v1/embeddings", "") == "http://a/v1/embeddings"


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3:8000", "localhost, 10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3/8", True),
        ("[fd00::1]:8000", "fd00::/8", True),
        ("10.1.2.3", "fd00::/8", False),
        ("llm.ai.svc", "10.0.0.0/8 *.svc", True),
        ("LLM.ai.SVC:80", "*.svc", True),
        ("svc", "*.svc", False),
        ("llm.example", "a,*", True),
        ("llm.example", "", False),
        ("llm.example", "10.0.0.0/8,not a network/9,example.org", False),
    ],
)
def test_networks_and_patterns_that_need_no_proxy(host: str, no_proxy: str, direct: bool) -> None:
    assert needs_no_proxy(host, no_proxy) is direct


@pytest.mark.parametrize("no_proxy", ["127.0.0.0/8", "localhost,127.0.0.1", "127.0.0.1/32,example.org"])
def test_a_network_of_no_proxy_is_reached_without_it(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with scripted(lambda _, __, number: (200, {"number": number})) as url:
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert client(url, proxies=True).send("POST", "/x", {}).status == 200
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
        with pytest.raises(OSError, match="refused"):
            client(url, proxies=True).send("POST", "/x", {})
