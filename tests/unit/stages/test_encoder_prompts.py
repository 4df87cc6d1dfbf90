"""Which prompts of a model's files are put before queries and passages, and which are told as not used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from unit.stages.model_folders import models, write

from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.prompts import unused_prompts

__all__ = ["models"]

PROMPTS: list[tuple[str, dict[str, Any], tuple[str, str] | None]] = [
    ("query and document", {"prompts": {"query": "Q ", "document": "D "}}, ("Q ", "D ")),
    ("passage before document", {"prompts": {"query": "Q ", "document": "D ", "passage": "P "}}, ("Q ", "P ")),
    ("a query's alone", {"prompts": {"query": "Q "}}, ("Q ", "")),
    ("a document's alone", {"prompts": {"document": "D "}}, ("", "D ")),
    ("search_query", {"prompts": {"search_query": "Q ", "search_document": "D "}}, ("Q ", "D ")),
    ("retrieval.query", {"prompts": {"retrieval.query": "Q ", "retrieval.passage": "D "}}, ("Q ", "D ")),
    ("Retrieval-query", {"prompts": {"Retrieval-query": "Q ", "Retrieval-document": "D "}}, ("Q ", "D ")),
    ("empty ones", {"prompts": {"query": "", "document": ""}}, ("", "")),
    ("a default", {"prompts": {"retrieval": "S "}, "default_prompt_name": "retrieval"}, ("S ", "S ")),
    ("a default beside a query's", {"prompts": {"x": "S ", "query": "Q "}, "default_prompt_name": "x"}, ("Q ", "S ")),
    ("a default that is a query's", {"prompts": {"query": "Q "}, "default_prompt_name": "query"}, ("Q ", "")),
    ("a default that is not there", {"prompts": {"x": "S "}, "default_prompt_name": "y"}, None),
    ("other tasks", {"prompts": {"clustering": "C "}}, None),
    ("null", {"prompts": None, "default_prompt_name": None}, None),
]


@pytest.mark.parametrize(("sentence", "content", "expected"), PROMPTS, ids=[row[0] for row in PROMPTS])
def test_prompts_of_sentence_transformers_become_prefixes(
    sentence: str, content: dict[str, Any], expected: tuple[str, str] | None, models: dict[str, Path], tmp_path: Path
) -> None:
    for kind, otherwise in (("bert", ("", "")), ("llama", ("query: ", "passage: "))):
        folder = Path(shutil.copytree(models[kind], tmp_path / kind))
        write("config_sentence_transformers.json", content)(folder)
        query, passage = expected or otherwise
        described = describe_model(folder, prefixes=None, max_tokens=None)
        assert described.prefixes == {"query": query, "passage": passage}


@pytest.mark.parametrize(
    ("sentence", "name", "content", "said"),
    [
        ("prompts of other tasks", "m", {"prompts": {"clustering": "C ", "sts": "S "}}, "('clustering', 'sts')"),
        ("a prompt as it is written", "m", {"prompts": {"Cluster-It": "C "}}, "('Cluster-It')"),
        ("empty ones beside another", "m", {"prompts": {"query": "", "document": "", "x": "S "}}, "not used ('x')"),
        ("a default", "m", {"prompts": {"x": "S "}, "default_prompt_name": "x"}, ""),
        ("prompts of other tasks beside a query's", "m", {"prompts": {"query": "Q ", "sts": "S "}}, ""),
        ("no prompts", "m", {}, ""),
        ("E5", "intfloat/e5-base-v2", {}, "spec.baseModel.prefixes"),
        ("E5 in capitals", "my-E5", {"prompts": {"query": "", "document": ""}}, "'query: ' and 'passage: '"),
        ("E5 with prompts", "e5", {"prompts": {"query": "query: ", "document": "passage: "}}, ""),
        ("a name with e5 in a word", "node5-base5", {}, ""),
    ],
)
def test_prompts_that_are_not_used_are_told(
    sentence: str, name: str, content: dict[str, Any], said: str, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["bert"], tmp_path / "model"))
    write("config_sentence_transformers.json", content)(folder)
    prefixes = describe_model(folder, prefixes=None, max_tokens=None).prefixes
    warnings = unused_prompts(folder, {}, name, prefixes)
    assert len(warnings) == bool(said)
    assert said in "".join(warnings)
