"""A checkpoint's folder as others read it: sentence-transformers gives our vectors, servers find their fields."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from packaging.version import Version
from sentence_transformers import SentenceTransformer
from unit.stages import rounding
from unit.stages.tiny_models import MAKERS, make_bert, make_llama

from embedding_stages.encoder.card import Training, write_card
from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.pooling import POOLINGS
from embedding_stages.encoder.publish import publish
from embedding_stages.encoder.query_map import QueryMap

TEXTS = ["the key1 of noise2", "ask3", "noise1 noise2 noise3 noise4 noise5 key7 key8 a of the", "noise9 " * 60]
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
PREFIXES = {"query": "ask1 ", "passage": "key1 "}
# transformers reads `is_causal` of every decoder from here on; before, a Llama is read as a causal one.
HONOURS_IS_CAUSAL = Version(transformers.__version__) >= Version("5.2")
FAMILIES = [name for name in MAKERS if name == "bert" or HONOURS_IS_CAUSAL]


def saved(folder: Path, name: str = "bert", prefixes: Mapping[str, str] | None = None) -> tuple[PaddedEncoder, Path]:
    base = MAKERS[name](folder / "base")
    encoder = PaddedEncoder.load(base, device="cpu")
    if prefixes is not None:
        described = replace(encoder.description, prefixes=prefixes)
        described.save(base)
        encoder = PaddedEncoder.load(base, device="cpu")
    encoder.save(folder / "checkpoint")
    return encoder, folder / "checkpoint"


def opened(folder: Path) -> SentenceTransformer:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # the form of the files is not one that goes
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)


@pytest.mark.parametrize("prefixes", [None, PREFIXES, {"query": "", "passage": ""}])
@pytest.mark.parametrize("name", FAMILIES)
def test_sentence_transformers_gives_the_same_vectors(
    tmp_path: Path, name: str, prefixes: Mapping[str, str] | None
) -> None:
    encoder, folder = saved(tmp_path, name, prefixes)
    model = opened(folder)
    assert model.max_seq_length == encoder.description.max_tokens
    assert model.similarity_fn_name == "cosine"
    ours = {role: encoder.embed(TEXTS, role=role) for role in ("query", "passage")}
    within = rounding.of_vectors(CONFIG, ours["query"])
    np.testing.assert_allclose(model.encode_query(TEXTS), ours["query"], rtol=0, atol=within)
    np.testing.assert_allclose(model.encode_document(TEXTS), ours["passage"], rtol=0, atol=within)
    np.testing.assert_allclose(model.encode(TEXTS, prompt_name="passage"), ours["passage"], rtol=0, atol=within)


def test_a_query_map_travels(tmp_path: Path) -> None:
    encoder, folder = saved(tmp_path, prefixes=PREFIXES)
    weight = np.eye(32, dtype=np.float32) + np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32) / 8
    query_map = QueryMap(weight)
    publish(replace(encoder.description, query_map=True), query_map, tmp_path / "base", folder)
    model = opened(folder)
    queries, passages = (encoder.embed(TEXTS, role=role) for role in ("query", "passage"))
    within = rounding.of_vectors(CONFIG, queries)
    np.testing.assert_allclose(model.encode_query(TEXTS), query_map.apply(queries), rtol=0, atol=4 * within)
    np.testing.assert_allclose(model.encode_document(TEXTS), passages, rtol=0, atol=within)
    assert PaddedEncoder.load(folder, device="cpu").query_map is not None


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", MAKERS)
def test_every_reader_finds_the_pooling(tmp_path: Path, name: str) -> None:
    """By the rules of servers: the legacy names of the modules, and the first flag of the pooling that is true."""
    encoder, folder = saved(tmp_path, name)
    modules = read(folder / "modules.json")
    kinds = ["Transformer", "Pooling", *("Dense" for _ in encoder.description.dense), "Normalize"]
    assert [module["type"] for module in modules] == [f"sentence_transformers.models.{kind}" for kind in kinds]
    pooling = read(folder / modules[1]["path"] / "config.json")
    true = [key for key, value in pooling.items() if value is True]
    assert true == [POOLINGS[encoder.description.pooling].module_flag]
    assert "pooling_mode" not in pooling, "older releases take flags alone"
    assert pooling["word_embedding_dimension"] == encoder.description.hidden_size
    texts = read(folder / "sentence_bert_config.json")
    assert texts == {"max_seq_length": encoder.description.max_tokens, "do_lower_case": False}
    prompts = read(folder / "config_sentence_transformers.json")["prompts"]
    prefixes = encoder.description.prefixes
    assert prompts == {**prefixes, "document": prefixes["passage"]}
    assert describe_model(folder, prefixes=None, max_tokens=None) == encoder.description, "a base model again"


@pytest.mark.parametrize(("sizes", "said"), [((), None), ((16, 8), [8, 16, 32])])
def test_sizes_that_vectors_may_be_cut_to_travel(sizes: tuple[int, ...], said: object, tmp_path: Path) -> None:
    """Servers refuse a size that config.json does not list."""
    encoder = PaddedEncoder.load(make_bert(tmp_path / "base"), device="cpu")
    encoder.description = encoder.description.offering(sizes)
    encoder.save(tmp_path / "checkpoint")
    assert read(tmp_path / "checkpoint" / "config.json").get("matryoshka_dimensions") == said
    again = describe_model(tmp_path / "checkpoint", prefixes=None, max_tokens=None)
    assert again.dimensions == (32, *sizes)


def test_a_bidirectional_llama_says_so_without_code(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "llama_bidirectional")
    config = read(folder / "config.json")
    expected = {"model_type": "llama", "is_causal": False, "pooling": "avg"}  # vLLM wants the pooling here too
    assert {key: config[key] for key in expected} == expected
    assert config["architectures"] == ["LlamaBidirectionalModel"]
    assert "auto_map" not in config
    assert "needs transformers 5.2 or later" in (folder / "README.md").read_text()


def test_all_of_a_tokenizer_and_the_licence_travel(tmp_path: Path) -> None:
    base = make_bert(tmp_path / "base")
    for name in ("LICENSE", "NOTICE", "merges.txt", "sentencepiece.bpe.model"):
        (base / name).write_text(f"\n  {name} of the base\nmore\n")
    PaddedEncoder.load(base, device="cpu").save(tmp_path / "checkpoint")
    for name in ("LICENSE", "NOTICE", "merges.txt", "sentencepiece.bpe.model", "tokenizer_config.json"):
        assert (tmp_path / "checkpoint" / name).read_bytes() == (base / name).read_bytes()
    assert "in `LICENSE`: LICENSE of the base" in (tmp_path / "checkpoint" / "README.md").read_text()


def test_the_card_tells_where_the_model_is_from(tmp_path: Path) -> None:
    encoder, folder = saved(tmp_path, prefixes={"query": "a|`b\n", "passage": ""})
    before = (folder / "README.md").read_bytes()
    training = Training(
        base="acme/base", revision="0123abc", questions=2365, training_set="sha256:ff", how="all weights"
    )
    write_card(folder, encoder.description, training)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    for said in (
        'base_model: "acme/base"', "# acme/base, fine-tuned", "`acme/base` at revision `0123abc`",
        "on 2365 questions", "training set `sha256:ff`", "whose files hold none",
        "| before queries | `\"a\\|'b\\n\"` |", "| before passages | nothing |", "| dimensions | 32 |",
    ):  # fmt: skip
        assert said in card
    encoder.save(folder)
    assert (folder / "README.md").read_bytes() == before, "the same bytes for the same model"


def test_both_published_layouts_of_llama_are_read_alike(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    encoder = PaddedEncoder.load(base, device="cpu")
    encoder.save(tmp_path / "checkpoint")
    again = PaddedEncoder.load(tmp_path / "checkpoint", device="cpu")
    np.testing.assert_array_equal(again.embed(TEXTS, role="query"), encoder.embed(TEXTS, role="query"))


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("modernbert", ("global_rope_theta", "local_rope_theta")),
        ("gemma3_text", ("rope_theta", "rope_local_base_freq")),
    ],
)
def test_transformers_4_finds_the_angles_of_each_kind_of_layer(
    tmp_path: Path, name: str, bases: tuple[str, str]
) -> None:
    """Of a base model that version 5 saved, which writes them where version 4 does not look."""
    base = MAKERS[name](tmp_path / "base")
    config = {key: value for key, value in read(base / "config.json").items() if key not in bases}
    angles = {"full_attention": {"rope_theta": 8e4}, "sliding_attention": {"rope_theta": 2e4}}
    (base / "config.json").write_text(json.dumps(config | {"rope_parameters": angles}))
    encoder = PaddedEncoder.load(base, device="cpu")
    encoder.save(tmp_path / "checkpoint")
    saved_config = read(tmp_path / "checkpoint" / "config.json")
    assert [saved_config[key] for key in bases] == [8e4, 2e4]
    again = PaddedEncoder.load(tmp_path / "checkpoint", device="cpu")
    np.testing.assert_array_equal(again.embed(TEXTS, role="query"), encoder.embed(TEXTS, role="query"))
