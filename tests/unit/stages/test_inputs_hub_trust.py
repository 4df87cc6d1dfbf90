"""Whom a hub's certificate is trusted by: a mirror, or a proxy that reads along, has one of the company's own."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from unit.stages.authority import trust, with_tls
from unit.stages.model_hub import Hub, inputs, serving_hub
from unit.stages.test_inputs_model import COMMIT

from embedding_stages.inputs import hugging_face

FIELD = "spec.baseModel.source.huggingFace"
BUNDLE = f"{FIELD}.caBundle"
MIRROR = "spec.stages.inputs.env[name=HF_ENDPOINT]"


@pytest.mark.parametrize("certificate", ["ca.crt", "server.crt"])
def test_a_private_authority_is_trusted_where_the_manifest_names_it(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch, certificate: str
) -> None:
    trust(tmp_path, "huggingface", "# of the company\n" + (authority / certificate).read_text())
    with serving_hub(tmp_path, monkeypatch, with_tls(authority, "server")) as hub:
        assert inputs(tmp_path)["exitCode"] == 0
    assert any("model.safetensors" in line for line in hub.requests)


class _OfRequest(Exception):
    def __init__(self, request: object) -> None:
        super().__init__("no answer")
        self.request = request


def test_a_certificate_of_an_earlier_try_is_not_what_the_last_one_came_of() -> None:
    """The library tries again while it handles the error before."""
    refused = ssl.SSLCertVerificationError("refused")
    first = _OfRequest("first")
    first.__cause__ = refused
    assert hugging_face.trust.certificate_fault(first) is refused
    away = ConnectionRefusedError("away")
    away.__context__ = first
    last = _OfRequest("last")
    last.__cause__ = away
    assert hugging_face.trust.certificate_fault(last) is None


def test_it_is_trusted_beside_the_systems_and_for_the_download_alone(authority: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    seen: list[Any] = []
    own = hub.get_session()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: seen.append("the system's"))
        with hugging_face._trusting(authority / "ca.crt"):
            within = hub.get_session()
            assert hub.constants.HF_HUB_DISABLE_XET, "which trusts others"
    assert seen == ["the system's"]
    assert within is not own
    assert (within.event_hooks, within.follow_redirects) == (own.event_hooks, own.follow_redirects)
    assert hub.get_session() is not within
    assert not hub.constants.HF_HUB_DISABLE_XET


def test_files_in_xet_come_by_the_same_requests(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Hub._send

    def with_xet(self: Hub, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        xet = {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"/api/models/team/tiny/xet-read-token/{COMMIT}"}
        sent(self, status, body, headers | xet, length)

    monkeypatch.setattr(Hub, "_send", with_xet)
    trust(tmp_path, "huggingface", (authority / "ca.crt").read_text())
    with serving_hub(tmp_path, monkeypatch, with_tls(authority, "server")) as hub:
        result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    assert not any("xet" in line for line in hub.requests)


@pytest.mark.parametrize("beside", [False, True], ids=["none", "another authority"])
def test_an_authority_that_nobody_knows_names_the_cure_at_once(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    if beside:
        trust(tmp_path, "huggingface", (authority / "elsewhere.crt").read_text())
    with serving_hub(tmp_path, monkeypatch, with_tls(authority, "server")) as hub:
        result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, "HubCertificateUntrusted", BUNDLE), result
    assert f"{BUNDLE}: {{name: NAME, key: ca.crt}}" in result["message"]
    assert "'127.0.0.1'" in result["message"], "whose certificate it is"
    assert hub.requests == []


def test_a_place_of_files_that_nobody_trusts_is_named_too(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list comes from the hub, the files from where it sends their requests: here, with other certificates."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    answered = Hub._answer
    with serving_hub(tmp_path / "files", monkeypatch, with_tls(authority, "server")) as files:
        elsewhere = os.environ["HF_ENDPOINT"].replace("127.0.0.1", "localhost")

        def redirected(self: Hub, *, with_body: bool) -> None:
            if "/resolve/" in self.path:
                return self._send(302, b"", {"Location": elsewhere + self.path, "X-Repo-Commit": COMMIT, "ETag": "e"})
            return answered(self, with_body=with_body)

        monkeypatch.setattr(Hub, "_answer", redirected)
        with serving_hub(tmp_path, monkeypatch):
            result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, "HubCertificateUntrusted", BUNDLE), result
    assert "'localhost'" in result["message"]
    assert files.requests == []


def test_a_certificate_of_another_host_names_the_address(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(tmp_path, "huggingface", (authority / "ca.crt").read_text())
    with serving_hub(tmp_path, monkeypatch, with_tls(authority, "elsewhere")):
        result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, "HubCertificateUntrusted", MIRROR), result


def test_a_certificate_that_is_out_of_date_is_tried_again(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(tmp_path, "huggingface", (authority / "ca.crt").read_text())
    with serving_hub(tmp_path, monkeypatch, with_tls(authority, "expired")):
        result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (20, "HubUnreachable", FIELD), result
    assert "certificate has expired" in result["message"]


@pytest.mark.parametrize("text", ["", "no certificate"])
def test_what_is_no_certificate_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    trust(tmp_path, "huggingface", text)
    with serving_hub(tmp_path, monkeypatch) as hub:
        result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, "CABundleInvalid", BUNDLE), result
    assert hub.requests == []
