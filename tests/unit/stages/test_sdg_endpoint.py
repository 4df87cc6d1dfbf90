"""Where an LLM endpoint is and whom it is trusted by: queries in its address, keys, certificates of an authority."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.stages.authority import trust, with_tls
from unit.stages.llm_endpoint import FIELD, KEY, Endpoint, Reply, good, sdg, serving

pytestmark = pytest.mark.filterwarnings("error")
QUERY = "?api-version=2024-10-21"


def test_the_path_goes_before_the_query(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    url = endpoint.url.replace("/v1", "/openai/deployments/m") + QUERY
    assert sdg(tmp_path, url)[0] == 0
    assert set(endpoint.paths) == {f"/openai/deployments/m/chat/completions{QUERY}"}


def test_azure_gets_the_key_in_its_own_header(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    asked = endpoint.do_POST

    def answer(handler: Endpoint) -> None:
        seen.append(handler.headers.get("api-key"))
        asked(handler)

    def reply(body: dict[str, object], number: int) -> Reply:
        return good(body, number) if seen[-1] == KEY else (401, {}, {})

    monkeypatch.setattr(endpoint, "do_POST", answer)
    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    assert sdg(tmp_path, endpoint.url + QUERY)[0] == 0
    assert endpoint.keys == [f"Bearer {KEY}", None, None], "never both"
    code, result, _ = sdg(tmp_path / "other", endpoint.url)
    assert (code, result["reason"]) == (10, "LLMUnauthorized"), "another endpoint is not asked so"


@pytest.mark.parametrize("url", ["http://me:hunter2@127.0.0.1:1/v1", "http://me@127.0.0.1:1/v1"])
def test_a_url_with_a_password_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    code, result, _ = sdg(tmp_path, url)
    assert (code, result["reason"], result["field"]) == (10, "LLMEndpointInvalid", f"{FIELD}.baseURL")
    assert "hunter2" not in str(result)


def test_a_query_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_stages.sdg.openai_client._LONGEST_WAIT_S", 0.01)
    code, result, _ = sdg(tmp_path, "http://127.0.0.1:1/v1?key=hunter2")
    assert (code, result["reason"]) == (20, "LLMUnreachable")
    assert "hunter2" not in str(result)


@pytest.mark.parametrize("beside", ["", "# of the company\n"])
def test_a_private_authority_is_trusted_where_the_manifest_names_it(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    trust(tmp_path, "openai", beside + (authority / "ca.crt").read_text())
    with serving(monkeypatch, with_tls(authority, "server")) as endpoint:
        code, result, pairs = sdg(tmp_path, endpoint.url, documents=3)
    assert (code, len(pairs)) == (0, 3), result


def test_a_certificate_that_is_its_own_authority_can_be_trusted(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(tmp_path, "openai", (authority / "server.crt").read_text())
    with serving(monkeypatch, with_tls(authority, "server")) as endpoint:
        assert sdg(tmp_path, endpoint.url)[0] == 0


def test_an_authority_that_nobody_knows_names_the_cure_at_once(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, with_tls(authority, "server")) as endpoint:
        code, result, _ = sdg(tmp_path, endpoint.url)
    assert (code, result["reason"], result["field"]) == (10, "LLMCertificateUntrusted", f"{FIELD}.caBundle")
    assert "ConfigMap" in result["message"]
    assert endpoint.bodies == []


def test_a_certificate_of_another_host_names_the_address(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(tmp_path, "openai", (authority / "ca.crt").read_text())
    with serving(monkeypatch, with_tls(authority, "elsewhere")) as endpoint:
        code, result, _ = sdg(tmp_path, endpoint.url)
    assert (code, result["reason"], result["field"]) == (10, "LLMCertificateUntrusted", f"{FIELD}.baseURL")


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_said_so(tmp_path: Path, text: str) -> None:
    trust(tmp_path, "openai", text)
    code, result, _ = sdg(tmp_path, "https://127.0.0.1:1/v1")
    assert (code, result["reason"], result["field"]) == (10, "CABundleInvalid", f"{FIELD}.caBundle")
