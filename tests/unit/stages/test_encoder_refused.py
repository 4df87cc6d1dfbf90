"""Which model folders are refused as a base model, and what is said of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from unit.stages.model_folders import MAX, MEAN, NAMED_POOLING, Change, edit, models, of_type, several, write

from embedding_stages.encoder.description import describe_model
from embedding_stages.errors import BadInput

__all__ = ["models"]

NESTED = "[" * 100_000 + "]" * 100_000


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
