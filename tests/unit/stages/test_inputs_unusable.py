"""A base model that cannot be used, as people bring it: field, fault and cure are told before any other stage runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from unit.stages.test_inputs_model import MODEL, make_model

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.errors import BadInput
from embedding_stages.inputs.model import check, warnings_about

Change = Callable[[Path], object]
PATH = "spec.baseModel.source.pvc.path"


def pickled(*names: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).write_bytes(b"\x80\x04")

    return change


def with_modules(*types: str) -> Change:
    paths = ("", "1_Pooling", "2_More", "3_More")
    modules = [{"idx": at, "name": str(at), "path": paths[at], "type": name} for at, name in enumerate(types)]

    def change(folder: Path) -> None:
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')

    return change


def adapters_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")


def with_words(number: int) -> Change:
    words = {("[PAD]", "[UNK]")[at] if at < 2 else f"w{at}": at for at in range(number)}
    return lambda folder: Tokenizer(models.WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))


OLD, NEW = "sentence_transformers.models", "sentence_transformers.base.modules.transformer"
# change, settings, reason, field, what is wrong, the cure
UNUSABLE: dict[str, tuple[Change, dict[str, Any], str, str, str, str]] = {
    "a folder of pickles alone": (
        pickled("pytorch_model.bin", "training_args.bin"), {}, "BaseModelPickled", PATH,
        "only pickled weights (pytorch_model.bin)", "save_pretrained(..., safe_serialization=True)",
    ),
    "shards of pickles": (
        pickled("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"), {}, "BaseModelPickled", PATH,
        "only pickled weights (pytorch_model-00001", "convert them",
    ),
    "a checkpoint of a trainer": (
        pickled("model.pt", "optimizer.pt"), {}, "BaseModelPickled", PATH, "only pickled weights", "convert them",
    ),
    "adapters without the model that they belong to": (
        adapters_alone, {}, "BaseModelIncomplete", PATH,
        "the model is adapters alone (adapter_config.json)", "merge them into their base model with peft",
    ),
    "a tokenizer of another model, with more tokens": (
        with_words(30), {}, "BaseModelDamaged", PATH, "has 30 tokens, the embedding table 8 rows",
        "resize the table (resize_token_embeddings) or take the tokenizer of these weights",
    ),
    "more tokens a text than the model has positions": (
        lambda _: None, {"max_tokens": 65}, "MaxTokensTooLarge", "spec.baseModel.maxTokens",
        "65 tokens a text were asked for, and the model has 64 positions", "give at most so many",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(), {}, "BaseModelIncomplete", PATH,
        "has no tokenizer.json", "save it with its fast tokenizer",
    ),
    "a slow tokenizer alone": (
        lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"), {}, "BaseModelIncomplete", PATH,
        "has no tokenizer.json", "use_fast=True",
    ),
    "a module that nothing here computes": (
        with_modules(f"{OLD}.Transformer", f"{OLD}.Pooling", f"{OLD}.WeightedLayerPooling"), {},
        "BaseModelUnsupported", "spec.baseModel.source.pvc.path",
        "its module WeightedLayerPooling (modules.json)", "Transformer, Pooling, ",
    ),
    "a module of the model's own code that is called like a known one": (
        with_modules("custom_st.Transformer", f"{OLD}.Pooling"), {},
        "BaseModelUnsupported", PATH, "its module custom_st.Transformer (modules.json)", "Transformer, Pooling, ",
    ),
    "two towers": (
        with_modules(f"{OLD}.Router"), {}, "BaseModelUnsupported", PATH, "its module Router", "Transformer, Pooling, ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_field_fault_and_cure_are_told(tmp_path: Path, name: str) -> None:
    change, settings, reason, field, fault, cure = UNUSABLE[name]
    source = make_model(tmp_path / "model")
    change(source)
    with pytest.raises(BadInput) as caught:
        check(replace(MODEL, **settings), source)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert fault in caught.value.message
    assert cure in caught.value.message


@pytest.mark.parametrize(
    "types",
    [
        [f"{OLD}.Transformer", f"{OLD}.Pooling", f"{OLD}.Normalize"],
        [f"{NEW}.Transformer", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"],
    ],
)
def test_modules_are_known_in_every_release_s_form(tmp_path: Path, types: list[str]) -> None:
    source = make_model(tmp_path / "model")
    with_modules(*types)(source)
    check(MODEL, source)


@pytest.mark.parametrize(("tokens", "rows", "warned"), [(8, 8, False), (30_000, 30_522, False), (500, 30_522, True)])
def test_a_table_of_many_more_rows_is_told(tmp_path: Path, tokens: int, rows: int, *, warned: bool) -> None:
    source = make_model(tmp_path / "model", vocabulary=rows)
    with_words(tokens)(source)
    description = EncoderDescription(
        architecture="bert", prefixes={"query": "", "passage": ""}, max_tokens=64, hidden_size=4, dimensions=(4,)
    )
    found = warnings_about(MODEL, source, description)
    assert [f"has {tokens} tokens, the embedding table {rows} rows" in said for said in found] == [True] * warned
