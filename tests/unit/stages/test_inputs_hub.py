"""A base model from a hub: what is downloaded, and which refusals name which field."""

from __future__ import annotations

import http.server
import json
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.stages.test_inputs_model import COMMIT, DOCUMENT, MODEL, make_model, name_pooling, put

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest
from embedding_stages.inputs.model import freeze
from embedding_stages.inputs.stage import work
from embedding_stages.inputs.store import Store
from embedding_stages.runner import run


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the model hub as one public, one gated and no other model need."""

    folder: Path
    requests: list[str]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        if "gated" in self.path and self.headers.get("Authorization") != "Bearer good":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if "broken" in self.path:
            return self._send(500, b"{}", {})
        if "team/tiny" not in self.path and "gated" not in self.path:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "/revision/" in self.path:
            if COMMIT not in self.path:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = sorted(path for path in self.folder.rglob("*") if path.is_file())
            names = [{"rfilename": path.relative_to(self.folder).as_posix()} for path in files]
            body = {"id": "team/tiny", "modelId": "team/tiny", "sha": COMMIT, "siblings": names, "tags": []}
            return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        content = (self.folder / self.path.split("?")[0].rpartition(f"{COMMIT}/")[2]).read_bytes()
        return self._send(200, content if with_body else b"", {"X-Repo-Commit": COMMIT, "ETag": '"e"'}, len(content))

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    pytest.importorskip("huggingface_hub")

    class Serving(Hub):
        folder = make_model(tmp_path / "hub")
        requests: list[str] = []  # noqa: RUF012 - one class a test

    (Serving.folder / "modeling.py").write_text("raise SystemExit")
    (Serving.folder / "pytorch_model.bin").write_text("pickle")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serving) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield Serving
        server.shutdown()


def inputs(tmp_path: Path, name: str = "team/tiny", revision: str = COMMIT, fingerprint: str = "f") -> dict[str, Any]:
    """Run the stage with a hub model and one document; its result and exit code."""
    corpus = tmp_path / "sources" / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "a.txt").write_text(DOCUMENT)
    settings = {
        "corpus": {"kind": "pvc", "path": "", "include": ["*.txt"], "minTextLength": 50, "limits": {}},
        "baseModel": {"name": name, "kind": "huggingFace", "path": "", "revision": revision, "prefixes": None,
                      "maxTokens": None},
        "labelledSet": None,
    }  # fmt: skip
    request = StageRequest(
        stage=Stage.INPUTS, fingerprint=fingerprint, attempt=1, revision=1, image="i", settings=settings, inputs={}
    )
    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path / "workspace"),
        "EFT_SOURCES": str(tmp_path / "sources"),
        "EFT_SECRETS": str(tmp_path / "secrets"),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(Stage.INPUTS, work, env)
    return {**json.loads((tmp_path / "log").read_text()), "exitCode": code}


def test_a_model_is_downloaded_without_code_and_pickles(tmp_path: Path, hub: type[Hub]) -> None:
    result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    ref = ArtefactRef(**result["artefacts"][Artefact.BASE_MODEL])
    assert {path.name for path in (tmp_path / "workspace" / ref.path).iterdir()} == {
        "config.json", "encoder.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    assert not any("modeling.py" in line or "pytorch_model" in line for line in hub.requests)


def test_a_module_in_a_folder_of_its_own_name_comes_along(tmp_path: Path, hub: type[Hub]) -> None:
    name_pooling(hub.folder)
    result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    downloaded = tmp_path / "workspace" / ArtefactRef(**result["artefacts"][Artefact.BASE_MODEL]).path
    assert (downloaded / "pool" / "config.json").is_file()
    kept, _ = freeze(MODEL, hub.folder, Store(tmp_path / "other"))
    assert kept.folder.name == downloaded.name, "copied or downloaded, it is the same"


def test_the_weights_of_a_dense_module_come_along(tmp_path: Path, hub: type[Hub]) -> None:
    kinds = (("Transformer", ""), ("Pooling", ""), ("Dense", "out"), ("Normalize", ""))
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (hub.folder / "modules.json").write_text(json.dumps(modules))
    put(hub.folder, "out/config.json", '{"in_features": 4, "out_features": 2, "bias": false}')
    header = json.dumps({"linear.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}).encode()
    (hub.folder / "out" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(32))
    result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    downloaded = tmp_path / "workspace" / ArtefactRef(**result["artefacts"][Artefact.BASE_MODEL]).path
    assert (downloaded / "out" / "model.safetensors").is_file()
    kept, description = freeze(MODEL, hub.folder, Store(tmp_path / "other"))
    assert kept.folder.name == downloaded.name, "copied or downloaded, it is the same"
    assert description.dimensions == (2,)


def test_a_commit_that_would_be_described_otherwise_today_is_downloaded_again(tmp_path: Path, hub: type[Hub]) -> None:
    """As when an earlier release did not know a prompt of it."""
    first = inputs(tmp_path)
    folder = tmp_path / "workspace" / ArtefactRef(**first["artefacts"][Artefact.BASE_MODEL]).path
    raw = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**raw, "prefixes": {"query": "old ", "passage": ""}}))
    [known] = (tmp_path / "workspace" / "inputs").glob("download-*.json")
    known.write_text(json.dumps({"folder": folder.name, "digest": digest_of_folder(folder)}))
    asked = len(hub.requests)
    assert inputs(tmp_path, fingerprint="other")["artefacts"] == first["artefacts"]
    assert len(hub.requests) > asked


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


UNUSABLE_ON_THE_HUB: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "only pickled weights": (lambda f: (f / "model.safetensors").unlink(), "BaseModelPickled", "convert them with"),
    "no weights": (
        lambda f: [(f / "model.safetensors").unlink(), (f / "pytorch_model.bin").unlink()],
        "BaseModelIncomplete",
        "add its weights",
    ),
    "an adapter's weights": (
        lambda f: [
            (f / "model.safetensors").rename(f / "adapter_model.safetensors"),
            (f / "pytorch_model.bin").unlink(),
        ],
        "BaseModelIncomplete",
        "add its weights",
    ),
    "adapters alone": (
        lambda f: [
            (f / "model.safetensors").rename(f / "adapter_model.safetensors"),
            (f / "pytorch_model.bin").unlink(),
            (f / "config.json").rename(f / "adapter_config.json"),
        ],
        "BaseModelIncomplete",
        "merge them into their base model with peft",
    ),
    "another architecture": (lambda f: rewrite_config(f, model_type="t5"), "BaseModelUnsupported", "docs/models.md"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "BaseModelIncomplete", "tokenizer.json"),
}


@pytest.mark.parametrize("name", UNUSABLE_ON_THE_HUB)
def test_no_weights_are_fetched_of_a_model_that_cannot_be_used(tmp_path: Path, hub: type[Hub], name: str) -> None:
    change, reason, said = UNUSABLE_ON_THE_HUB[name]
    change(hub.folder)
    result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, reason, "spec.baseModel.name"), result
    assert said in result["message"]
    assert not any("safetensors" in line or ".bin" in line for line in hub.requests)


def test_a_commit_is_downloaded_once(tmp_path: Path, hub: type[Hub]) -> None:
    first = inputs(tmp_path)
    asked = len(hub.requests)
    assert inputs(tmp_path, fingerprint="other")["artefacts"] == first["artefacts"]
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("name", "revision", "code", "reason", "field"),
    [
        ("team/nothing", COMMIT, 10, "BaseModelNotFound", "spec.baseModel.name"),
        ("no such/na me", COMMIT, 10, "BaseModelNotFound", "spec.baseModel.name"),
        ("team/tiny", "f" * 40, 10, "BaseModelNotFound", "spec.baseModel.source.huggingFace.revision"),
        ("team/gated", COMMIT, 10, "BaseModelForbidden", "spec.baseModel.source.huggingFace.tokenSecretRef"),
        ("team/broken", COMMIT, 20, "HubUnreachable", "spec.baseModel.source.huggingFace"),
    ],
)
def test_what_the_hub_refuses_names_the_field(
    tmp_path: Path, hub: type[Hub], name: str, revision: str, code: int, reason: str, field: str
) -> None:
    result = inputs(tmp_path, name, revision)
    assert (result["exitCode"], result["reason"], result["field"]) == (code, reason, field)


def test_a_token_opens_a_gated_model_and_is_not_printed(
    tmp_path: Path, hub: type[Hub], capfd: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secrets" / "huggingface"
    secret.mkdir(parents=True)
    (secret / "token").write_text("good\n")
    assert inputs(tmp_path, "team/gated")["exitCode"] == 0
    output = capfd.readouterr()
    assert "good" not in output.out + output.err


def test_a_hub_that_is_not_there_is_tried_again(
    tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"]) == (20, "HubUnreachable")
    for other in ("spec.baseModel.source.pvc, image", "HF_ENDPOINT", "HTTPS_PROXY"):
        assert other in result["message"], "where there is no way to the hub"
