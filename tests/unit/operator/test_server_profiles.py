"""What each kind of server expects stands in one table; everything else asks the table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from unit.operator.builders import a_spec
from unit.operator.test_serving_manifests import BACKENDS, pod

from embedding_operator.resource.api import SpecError
from embedding_stages.contract import Stage, servers
from embedding_stages.contract.servers import NIM_1, ONNX, RESERVED_VARIABLES, SERVERS, TORCH, VLLM, ServerProfile

ROOT = Path(__file__).parents[3]
GOLDEN = json.loads((Path(__file__).parent / "golden/servers.json").read_text())
# A server of somebody else's, with words of its own; it says nothing of the model's digest.
PLAIN = ServerProfile(
    name="plain",
    backend="plain",
    serves="checkpoint",
    default_image=None,
    needs_gpu=True,
    runs_on_cpu=False,
    model_path="/model",
    command=("plain", "serve", "{path}"),
    arguments=("--name", "{model}", "--port", "{port}", "--like", "{base}"),
    variables={"PLAIN_HOME": "{cache}"},
    ready_path="/health",
    live_path="/health",
    metadata_path=None,
    input_types=(),
    request_fields={},
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_servers_container_is_what_it_always_was(backend: str) -> None:
    assert json.dumps(pod(BACKENDS[backend])["containers"][0], sort_keys=True) == json.dumps(
        GOLDEN[backend], sort_keys=True
    )


@pytest.mark.parametrize(
    ("backend", "profile"), [("onnx", "onnx"), ("torch", "torch"), ("nim 1", "nim-1"), ("nim 2", "nim-2")]
)
def test_a_manifest_names_a_profile(backend: str, profile: str) -> None:
    assert a_spec(stages={"deploy": BACKENDS[backend]}).deploy.profile.name == profile


def test_names_of_profiles_are_unique() -> None:
    assert len({item.name for item in SERVERS}) == len({(item.backend, item.generation) for item in SERVERS}) == 10
    assert len({(item.backend, item.release) for item in SERVERS}) == 10


def test_no_other_module_knows_a_backend_by_name() -> None:
    named = re.compile(
        r"""["'](nim|onnx|torch|vllm|nimService)["']\s*[,:=)]|[!=]=\s*["'](nim|onnx|torch|vllm|nimService)["']|["']NIM_[A-Z]|NGC_API_KEY"""
    )
    places = [ROOT / "operator/embedding_operator", *(ROOT / "stage_images/embedding_stages" / x for x in ("verify",))]
    places.append(ROOT / "stage_images/embedding_stages/serve/settings.py")
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    found = [f"{path.name}: {match[0]}" for path in files for match in named.finditer(path.read_text())]
    assert found == []


def test_one_more_backend_is_one_more_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SERVERS", (*SERVERS, PLAIN))
    deploy = {"backend": {"plain": {}}, "image": "plain:1", "modelName": "handbook {x}"}
    spec = a_spec(stages={"deploy": deploy})
    assert spec.deploy.serves_checkpoint
    assert spec.stages[Stage.DEPLOY].pod.resources["limits"] == {"nvidia.com/gpu": "1"}
    server = pod(deploy)["containers"][0]
    assert server["command"] == ["plain", "serve", "/model"]
    assert server["args"] == ["--name", "handbook {x}", "--port", "8000", "--like", "tiny"]
    assert [item["name"] for item in server["env"]] == ["PLAIN_HOME"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/health"


def test_a_server_without_an_image_of_ours_needs_one_in_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SERVERS", (*SERVERS, PLAIN))
    with pytest.raises(SpecError) as caught:
        a_spec(stages={"deploy": {"backend": {"plain": {}}}})
    assert caught.value.field == "spec.stages.deploy.image"


@pytest.mark.parametrize(
    ("deploy", "field"),
    [
        ({"backend": {"nim": {"generation": 3}}, "image": "x"}, "spec.stages.deploy.backend.nim.generation"),
        ({"backend": {"onnx": {"generation": 2}}}, "spec.stages.deploy.backend.onnx.generation"),
    ],
)
def test_a_generation_that_no_profile_has_is_refused(deploy: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        a_spec(stages={"deploy": deploy})
    assert caught.value.field == field


def test_every_variable_of_every_profile_is_reserved() -> None:
    for profile in SERVERS:
        assert profile.variables.keys() <= RESERVED_VARIABLES
        assert profile.key_variable in {None, *RESERVED_VARIABLES}


def test_what_a_request_says_besides_the_texts() -> None:
    assert NIM_1.request_body("query") == {"input_type": "query", "truncate": "END"}
    assert PLAIN.request_body("query") == {}
    assert VLLM.request_body("passage") == {"truncate_prompt_tokens": -1}


def test_texts_get_their_prefix_from_whoever_knows_the_role() -> None:
    """A server that is told the role puts the prefix there itself."""
    prefixes = {"query": "query: ", "passage": ""}
    assert ONNX.text_prefix("query", prefixes) == ""
    assert PLAIN.text_prefix("query", prefixes) == VLLM.text_prefix("query", prefixes) == "query: "


@pytest.mark.parametrize(
    ("profile", "gpu", "precision"),
    [
        (ONNX, False, "float32"),
        (ONNX, True, "float32"),
        (NIM_1, True, "float32"),
        (TORCH, True, "bfloat16"),
        (TORCH, False, "float32"),
    ],
)
def test_each_server_computes_in_a_precision_of_its_own(profile: ServerProfile, gpu: bool, precision: str) -> None:
    assert profile.precision(gpu=gpu) == precision
