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
from unit.stages.tiny_models import make_bert, make_llama, make_mpnet, make_roberta

from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.encoder.description import EncoderDescription, describe_model
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.inputs.soundness import try_tokenizer

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    makers = {"bert": make_bert, "roberta": make_roberta, "mpnet": make_mpnet, "llama": make_llama}
    return {name: make(root / name) for name, make in makers.items()}


def edit(name: str, **changes: Any) -> Change:
    """Change keys of a JSON file; a key set to None stays as null."""

    def apply(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        raw = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(raw | changes))

    return apply


def write(name: str, content: object) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    return apply


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


def of_type(kind: str, path: str) -> dict[str, str]:
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


def several(*changes: Change) -> Change:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


NAMED_POOLING = write(
    "modules.json", [of_type("Transformer", ""), of_type("Pooling", "pool"), of_type("Normalize", "")]
)
NESTED = "[" * 100_000 + "]" * 100_000
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
MAX = {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}


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


def added(content: str, number: int) -> Change:
    """A token beside the model's own, as `tokenizer.add_tokens` writes it."""

    def apply(folder: Path) -> None:
        token = {"id": number, "content": content, "special": False, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": True}  # fmt: skip
        edit("tokenizer.json", added_tokens=[token])(folder)

    return apply


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


REFUSED: list[tuple[str, str, Change, str]] = [
    ("another architecture", "bert", edit("config.json", model_type="t5"), "BaseModelUnsupported"),
    ("a causal Llama", "llama", edit("config.json", model_type="llama", architectures=[]), "BaseModelUnsupported"),
    ("a BERT decoder", "bert", edit("config.json", is_decoder=True), "BaseModelUnsupported"),
    ("a padding token that is none", "roberta", edit("config.json", pad_token_id=None), "ModelDamaged"),
    ("fewer positions than padding takes", "roberta", edit("config.json", max_position_embeddings=2), "ModelDamaged"),
    ("other buckets", "mpnet", edit("config.json", relative_attention_num_buckets=64), "BaseModelUnsupported"),
    (
        "positions that one kind of layer stretches",
        "llama",
        edit("config.json", rope_parameters={"a": {"rope_type": "default"}, "b": {"rope_type": "dynamic"}}),
        "BaseModelUnsupported",
    ),
    ("relative positions", "bert", edit("config.json", position_embedding_type="relative_key"), "BaseModelUnsupported"),
    ("an unknown activation", "bert", edit("config.json", hidden_act="mish"), "BaseModelUnsupported"),
    ("quantized weights", "bert", edit("config.json", quantization_config={"bits": 4}), "BaseModelUnsupported"),
    ("pooling by the last token", "llama", edit("config.json", pooling="last"), "BaseModelUnsupported"),
    ("dynamic positions", "llama", edit("config.json", rope_scaling={"rope_type": "dynamic"}), "BaseModelUnsupported"),
    (
        "pooling by the largest",
        "bert",
        edit("1_Pooling/config.json", pooling_mode_max_tokens=True),
        "BaseModelUnsupported",
    ),
    (
        "a dense module",
        "bert",
        write("modules.json", [{"type": "sentence_transformers.models.Dense"}]),
        "BaseModelUnsupported",
    ),
    ("no config", "bert", lambda folder: (folder / "config.json").unlink(), "ModelIncomplete"),
    ("no fast tokenizer", "bert", lambda folder: (folder / "tokenizer.json").unlink(), "ModelIncomplete"),
    ("no weights", "bert", lambda folder: (folder / "model.safetensors").unlink(), "ModelIncomplete"),
    (
        "pickled weights only",
        "bert",
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "ModelPickled",
    ),
    ("a config that is no JSON", "bert", write("config.json", "{"), "ModelDamaged"),
    ("a config that nests too deep", "bert", write("config.json", NESTED), "ModelDamaged"),
    ("modules that nest too deep", "bert", write("modules.json", NESTED), "ModelDamaged"),
    ("a tokenizer that nests too deep", "bert", write("tokenizer.json", NESTED), "ModelDamaged"),
    (
        "a shard index that nests too deep",
        "bert",
        lambda folder: [shard(folder, "x"), write("model.safetensors.index.json", NESTED)(folder)],
        "ModelDamaged",
    ),
    ("a config that is a list", "bert", write("config.json", []), "ModelDamaged"),
    ("a hidden size of text", "bert", edit("config.json", hidden_size="32"), "ModelDamaged"),
    ("a size to cut to that is none", "bert", edit("config.json", matryoshka_dimensions=[8, "x"]), "ModelDamaged"),
    ("a table of another shape", "bert", edit("config.json", vocab_size=7), "ModelDamaged"),
    ("a table of more tokens", "bert", edit("config.json", vocab_size=10**6), "ModelDamaged"),
    ("a token beyond the table", "bert", added("PRODUCTX", 10**4), "ModelDamaged"),
    ("padding beyond the table", "bert", edit("config.json", pad_token_id=10**4), "ModelDamaged"),
    ("a table of fewer positions", "bert", edit("config.json", max_position_embeddings=64), "ModelDamaged"),
    ("layers that the weights lack", "bert", edit("config.json", num_hidden_layers=3), "ModelIncomplete"),
    ("a pointer for a tokenizer", "bert", write("tokenizer.json", POINTER), "ModelDamaged"),
    ("a pointer for a config", "bert", write("config.json", POINTER), "ModelDamaged"),
    ("a pointer for weights", "bert", write("model.safetensors", POINTER), "ModelDamaged"),
    ("a pointer for a module's config", "bert", write("1_Pooling/config.json", POINTER), "ModelDamaged"),
    ("a cut tokenizer", "bert", lambda folder: cut(folder / "tokenizer.json"), "ModelDamaged"),
    ("a tokenizer without tokens", "bert", write("tokenizer.json", {"model": {"vocab": {}}}), "ModelDamaged"),
    ("a tokenizer without a model", "bert", write("tokenizer.json", {}), "ModelDamaged"),
    ("a cut vocab.txt", "bert", write("vocab.txt", "[PAD]\n[UNK]\n"), "ModelDamaged"),
    ("modules that are no list", "bert", write("modules.json", {}), "ModelDamaged"),
    ("a pooling that is not there", "bert", NAMED_POOLING, "ModelIncomplete"),
    (
        "a pooling by the largest in a folder of another name",
        "bert",
        several(NAMED_POOLING, write("pool/config.json", MAX), write("1_Pooling/config.json", MEAN)),
        "BaseModelUnsupported",
    ),
    ("modules outside the folder", "bert", write("modules.json", [of_type("Pooling", "../x")]), "BaseModelUnsupported"),
    ("weights in a folder", "bert", write("modules.json", [of_type("Transformer", "0_T")]), "BaseModelUnsupported"),
    (
        "a pooling that leaves prompts out",
        "llama",
        write("1_Pooling/config.json", {**MEAN, "include_prompt": False}),
        "BaseModelUnsupported",
    ),
    (
        "small letters, which its tokenizer does not make",
        "llama",
        edit("sentence_bert_config.json", do_lower_case=True),
        "BaseModelUnsupported",
    ),
    ("a cut weight file", "bert", lambda folder: cut(folder / "model.safetensors"), "ModelDamaged"),
    ("a shard outside the folder", "bert", lambda folder: shard(folder, "../x.safetensors"), "ModelDamaged"),
    ("a missing shard", "bert", lambda folder: shard(folder, "x.safetensors"), "ModelIncomplete"),
]


@pytest.mark.parametrize("named", [1, True, None, "LlamaBidirectionalModel", [None]])
def test_a_model_is_recognised_whatever_names_its_classes(
    named: object, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["llama"], tmp_path / "model"))
    edit("config.json", architectures=named)(folder)
    assert describe_model(folder, prefixes=None, max_tokens=None).architecture == "llama_bidirectional"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def shard(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))


@pytest.mark.parametrize(("sentence", "kind", "change", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_base_model_is_refused_for(
    sentence: str, kind: str, change: Change, reason: str, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models[kind], tmp_path / "model"))
    change(folder)
    with pytest.raises(BadInput) as caught:
        describe_model(folder, prefixes=None, max_tokens=None)
    assert caught.value.reason == reason
    assert caught.value.field.startswith("spec.baseModel")


def shown(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        describe_model(folder, prefixes=None, max_tokens=None)
    return caught.value.message


@pytest.mark.parametrize(
    ("sentence", "change", "said"),
    [
        ("both sizes", added("PRODUCTX", 10**4), "10001 tokens, the embedding table 145 rows: 'PRODUCTX'"),
        ("the file and the command", write("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer"),
        (
            "the poolings that can be used",
            write("1_Pooling/config.json", MAX),
            "mean or first-token (CLS) pooling can be",
        ),
        (
            "the nearest family and a model",
            edit("config.json", model_type="nomic_bert"),
            "such as BAAI/bge-base-en-v1.5",
        ),
        ("a family of its own kind", edit("config.json", model_type="x", rms_norm_eps=1e-6), "is bidirectional Llama"),
        (
            "where the models are listed",
            edit("config.json", model_type="t5"),
            "docs/models.md lists the models that can",
        ),
        ("what was cut", write("vocab.txt", "[PAD]\n"), "vocab.txt has 1 tokens, tokenizer.json 145"),
    ],
)
def test_a_refusal_names(sentence: str, change: Change, said: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["bert"], tmp_path / "model"))
    change(folder)
    assert said in shown(folder)


def test_more_tokens_than_positions_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(BadInput) as caught:
        describe_model(models["bert"], prefixes=None, max_tokens=49)
    assert caught.value.reason == "MaxTokensTooLarge"


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
