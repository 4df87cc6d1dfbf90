"""NIM by its table of generations: which one an image is of, what it is told, and which models its image takes."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import a_spec
from unit.operator.test_serving_manifests import env

from embedding_operator.resource.api import SpecError
from embedding_operator.resource.served import check_takes
from embedding_stages.contract.servers import version_of

NVCR = "nvcr.io/nim/nvidia/llama-nemotron-embed-1b-v2"


def nim(image: str, said: Any = None, **more: Any) -> dict[str, Any]:
    return {"image": image, "backend": {"nim": {} if said is None else {"generation": said}}, **more}


@pytest.mark.parametrize(
    ("image", "said", "release"),
    [
        (f"{NVCR}:1.13.0", None, "1"),
        (f"{NVCR}:1.10.1", "auto", "1"),
        (f"{NVCR}:2.0", None, "2.0"),
        (f"{NVCR}:2.0.1", "auto", "2.0"),
        (f"{NVCR}:2.1.0", None, "2.2"),
        (f"{NVCR}:2.2.2@sha256:{'a' * 64}", None, "2.2"),
        (f"{NVCR}:2.3.0-pb1", None, "2.2"),
        (f"{NVCR}:v2.4", None, "2.4"),
        ("localhost:5000/nim:2.11.0", None, "2.4"),
        # What says no version is of the first, as it always was.
        ("localhost:5000/nim", None, "1"),
        (f"{NVCR}:latest", None, "1"),
        (f"{NVCR}:20260801", None, "1"),
        (f"{NVCR}@sha256:{'a' * 64}", None, "1"),
        (f"{NVCR}:2ab17c", None, "1"),
        # The manifest's word counts more than the tag.
        (f"{NVCR}:2.2.0", 1, "1"),
        (f"{NVCR}:2.2.0", 2, "2.0"),
        (f"{NVCR}:2.2.0", "2.0", "2.0"),
        (f"{NVCR}:latest", "2.4", "2.4"),
        (f"{NVCR}:3.0", "2.4", "2.4"),
    ],
)
def test_an_image_is_of_a_generation(image: str, said: Any, release: str) -> None:
    assert a_spec(stages={"deploy": nim(image, said)}).deploy.profile.release == release


@pytest.mark.parametrize(
    ("image", "said", "words"),
    [
        (f"{NVCR}:3.0.1", None, "version 3.0.1 is of no generation"),
        (f"{NVCR}:2", None, "version 2 is of no generation"),
        (f"{NVCR}:latest", "auto", "has no version there"),
        (f"{NVCR}:2.4", 4, "4 is not known"),
        (f"{NVCR}:2.4", "2.3", "'2.3' is not known"),
        (f"{NVCR}:2.4", True, "True is not known"),
    ],
)
def test_what_is_of_none_is_refused_with_those_there_are(image: str, said: Any, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        a_spec(stages={"deploy": nim(image, said)})
    assert caught.value.field == "spec.stages.deploy.backend.nim.generation"
    assert words in str(caught.value)
    assert "'1' or '2.0' or '2.2' or '2.4'" in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "told"),
    [
        ("1.13.0", {"NIM_CUSTOM_MODEL": "/opt/nim/custom_model", "NIM_HTTP_API_PORT": "8000",
                    "NIM_SERVED_MODEL_NAME": "handbook", "NIM_CACHE_PATH": "/opt/nim/.cache"}),
        ("2.0.0", {"NIM_MODEL_PATH": "/opt/nim/model", "NIM_HTTP_API_PORT": "8000",
                   "NIM_SERVED_MODEL_NAME": "handbook", "NIM_CACHE_PATH": "/opt/nim/.cache"}),
        ("2.2.2", {"NIM_ENGINE_MODEL_PATH": "/model", "NIM_ENGINE_MODEL_NAME": "handbook",
                   "NIM_SERVER_BIND_ADDR": "0.0.0.0:8000", "NIM_SERVER_SERVED_MODEL_NAME": "handbook"}),
        ("2.4.0", {"NIM_ENGINE_MODEL_PATH": "/model", "NIM_ENGINE_MODEL_NAME": "tiny",
                   "NIM_SERVER_BIND_ADDR": "0.0.0.0:8000", "NIM_SERVER_SERVED_MODEL_NAME": "handbook"}),
    ],
)  # fmt: skip
def test_each_is_told_in_its_own_words(tag: str, told: dict[str, str]) -> None:
    assert env(nim(f"{NVCR}:{tag}", modelName="handbook")) == told


@pytest.mark.parametrize("tag", ["2.2.0", "2.4.0"])
@pytest.mark.parametrize("name", ["NIM_MODEL_NAME", "NIM_BIND_ADDR", "NIM_MODEL_PROFILE", "NIM_MODEL_PATH"])
def test_a_variable_of_another_generation_is_refused_before_the_server_refuses_it(tag: str, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        a_spec(stages={"deploy": nim(f"{NVCR}:{tag}", env=[{"name": name, "value": "x"}])})
    assert caught.value.field == "spec.stages.deploy.env"
    assert name in str(caught.value)


def test_a_variable_that_the_generation_has_is_the_users() -> None:
    deploy = nim(f"{NVCR}:1.13.0", env=[{"name": "NIM_MODEL_PROFILE", "value": "onnx"}])
    assert env(deploy)["NIM_MODEL_PROFILE"] == "onnx"


LLAMA = {"architecture": "llama_bidirectional", "dimensions": [2048, 1024]}
BERT = {"architecture": "bert", "dimensions": [384]}


@pytest.mark.parametrize(
    ("deploy", "encoder"),
    [
        (nim(f"{NVCR}:2.4.0"), LLAMA),
        (nim("mirror.example/nim:2.4.0"), BERT),  # nobody knows what it takes
        ({"image": "llama-nemotron-embed-1b-v2:1", "backend": {"vllm": {}}}, BERT),  # no NIM
        ({"image": "vllm:1", "backend": {"vllm": {}}}, LLAMA),
        ({}, {"architecture": "mpnet", "dimensions": [768]}),
        (nim(f"{NVCR}:2.4.0"), {}),  # an earlier release's `inputs` did not tell
    ],
)
def test_a_server_that_takes_the_model_is_accepted(deploy: Any, encoder: Any) -> None:
    check_takes(a_spec(stages={"deploy": deploy}), encoder)


@pytest.mark.parametrize(
    ("deploy", "encoder", "field", "words"),
    [
        (nim(f"{NVCR}:2.4.0"), BERT, "spec.stages.deploy.image", "models with vectors of 2048 alone"),
        (nim(f"{NVCR}:1.13.0"), {**LLAMA, "dimensions": [4096]}, "spec.stages.deploy.image", "vectors of 4096"),
        (nim("nvcr.io/x/llama-nemotron-embed-vl-1b-v2:2.0"), LLAMA, "spec.stages.deploy.image", "its own kind alone"),
        ({"image": "vllm:1", "backend": {"vllm": {}}}, {"architecture": "mpnet"},
         "spec.stages.deploy.backend", "does not know mpnet models"),
    ],
)  # fmt: skip
def test_one_that_does_not_is_refused_with_the_cure(deploy: Any, encoder: Any, field: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_takes(a_spec(stages={"deploy": deploy}), encoder)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "take another image, another baseModel, or backend torch" in str(caught.value)


@pytest.mark.parametrize(
    ("image", "version"),
    [("a:1", (1,)), ("a:v2.4.1-rc1", (2, 4, 1)), ("a:24.06-py3", (24, 6)), ("r:5000/a", ()), ("a@sha256:12", ())],
)
def test_a_tag_begins_with_a_version(image: str, version: tuple[int, ...]) -> None:
    assert version_of(image) == version
