"""Which model folders are accepted, and what is read from them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stages.model_folders import MAX, MEAN, NAMED_POOLING, Change, edit, models, several, write
from unit.stages.tiny_models import make_llama

from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.encoder.description import EncoderDescription, describe_model
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.inputs.soundness import try_tokenizer

__all__ = ["models"]


def test_a_bert_without_further_files_gets_no_prefixes_and_its_positions_as_limit(models: dict[str, Path]) -> None:
    described = describe_model(models["bert"], prefixes=None, max_tokens=None)
    assert described == EncoderDescription(
        architecture="bert",
        prefixes={"query": "", "passage": ""},
        max_tokens=48,
        hidden_size=32,
        dimensions=(32,),
    )


def test_a_bidirectional_llama_gets_the_recipes_prefixes(models: dict[str, Path]) -> None:
    described = describe_model(models["llama"], prefixes=None, max_tokens=None)
    assert described.architecture == "llama_bidirectional"
    assert described.prefixes == {"query": "query: ", "passage": "passage: "}
    assert described.dimensions == (32,)


def test_the_nemotron_width_offers_the_published_dimensions(tmp_path: Path) -> None:
    folder = make_llama(tmp_path, hidden_size=2048, intermediate_size=8, num_hidden_layers=1)
    described = describe_model(folder, prefixes=None, max_tokens=None)
    assert described.dimensions == (2048, 1024, 768, 512, 384)


def test_a_description_survives_its_file(models: dict[str, Path], tmp_path: Path) -> None:
    described = describe_model(models["llama"], prefixes={"query": "q: "}, max_tokens=20)
    described.save(tmp_path)
    assert EncoderDescription.load(tmp_path) == described
    assert described.prefixes == {"query": "q: ", "passage": ""}
    assert described.max_tokens == 20


@pytest.mark.parametrize(
    ("sentence", "content"),
    [
        ("a missing file", None),
        ("no JSON", "{"),
        ("an unknown architecture", json.dumps({"architecture": "gpt"})),
    ],
)
def test_an_encoder_file_is_refused_for(sentence: str, content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "encoder.json").write_text(content)
    with pytest.raises(BadInput) as caught:
        EncoderDescription.load(tmp_path)
    assert caught.value.reason == "EncoderDescriptionInvalid"


@pytest.mark.parametrize(
    ("sentence", "change", "expected"),
    [
        ("sentence-transformers' length limit", edit("sentence_bert_config.json", max_seq_length=24), 24),
        ("the tokenizer's length limit", edit("tokenizer_config.json", model_max_length=30), 30),
        ("an unlimited tokenizer", edit("tokenizer_config.json", model_max_length=10**30), 48),
    ],
)
def test_the_token_limit_follows(
    sentence: str, change: Change, expected: int, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["bert"], tmp_path / "model"))
    change(folder)
    assert describe_model(folder, prefixes=None, max_tokens=None).max_tokens == expected


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("a pooling in a folder of another name", several(NAMED_POOLING, write("pool/config.json", MEAN))),
        ("the folder that modules.json names, not the usual one",
         several(NAMED_POOLING, write("pool/config.json", MEAN), write("1_Pooling/config.json", MAX))),
        ("a pooling without modes", write("1_Pooling/config.json", {"word_embedding_dimension": 32})),
        ("a pooling without prompts, of a model without any",
         write("1_Pooling/config.json", {**MEAN, "include_prompt": False})),
        ("small letters, which the tokenizer makes", edit("sentence_bert_config.json", do_lower_case=True)),
    ],
)  # fmt: skip
def test_a_base_model_is_accepted_with(sentence: str, change: Change, models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["bert"], tmp_path / "model"))
    change(folder)
    assert describe_model(folder, prefixes=None, max_tokens=None).pooling == "mean"


@pytest.mark.parametrize("named", [1, True, None, "LlamaBidirectionalModel", [None]])
def test_a_model_is_recognised_whatever_names_its_classes(
    named: object, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["llama"], tmp_path / "model"))
    edit("config.json", architectures=named)(folder)
    assert describe_model(folder, prefixes=None, max_tokens=None).architecture == "llama_bidirectional"


READERS: list[tuple[str, Callable[[Path, EncoderDescription], object]]] = [
    ("tokenizer.json", TextTokenizer.load),
    ("config.json", TextTokenizer.load),
    ("tokenizer.json", lambda folder, _: TokenCounter.load(folder)),
    ("tokenizer.json", try_tokenizer),
    ("encoder.json", lambda folder, _: EncoderDescription.load(folder)),
]


@pytest.mark.parametrize(("name", "read"), READERS)
def test_a_volume_that_does_not_give_a_file_is_not_told_as_a_damaged_model(
    name: str, read: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(models["bert"], tmp_path / "model"))
    description = describe_model(folder, prefixes=None, max_tokens=None)
    description.save(folder)
    whole = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(OSError, match="Input/output error"):
        read(folder, description)
