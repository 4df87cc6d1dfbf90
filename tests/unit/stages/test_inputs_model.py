"""The base model: what is copied, what is refused, and the download from a hub."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.errors import BadInput
from embedding_stages.inputs.model import BaseModel, folder_of, freeze
from embedding_stages.inputs.store import Store

MODEL = BaseModel(name="tiny", kind="pvc")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = ("[PAD]", "[UNK]", "What", "does", "the", "Der", "a", "text")
DOCUMENT = "A document that is long enough to be used, because it has more than fifty characters."


def make_model(folder: Path, *, vocabulary: int = 8, hidden: int = 4, fill: int = 0) -> Path:
    """The smallest folder that passes for a BERT: one tensor, no code that could load it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "bert", "hidden_size": hidden, "vocab_size": vocabulary, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    size = vocabulary * hidden * 4
    name = "embeddings.word_embeddings.weight"
    header = json.dumps({name: {"dtype": "F32", "shape": [vocabulary, hidden], "data_offsets": [0, size]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes([fill]) * size)
    return folder


def test_what_a_model_needs_is_copied_and_nothing_else(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    for name in ("modeling.py", "pytorch_model.bin", "README.md", "encoder.json", "LICENSE"):
        (source / name).write_text("{}")
    kept, description = freeze(MODEL, source, Store(tmp_path / "workspace"))
    folder = kept.folder
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "1_Pooling/config.json",
        "LICENSE",
        "config.json",
        "encoder.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert EncoderDescription.load(folder) == description
    assert folder.stat().st_mode & 0o777 == 0o775
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o664


def test_an_equal_model_is_not_copied_again_and_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    source, store = make_model(tmp_path / "model"), Store(tmp_path / "workspace")
    folder = freeze(MODEL, source, store)[0].folder
    inode = (folder / "model.safetensors").stat().st_ino
    assert freeze(MODEL, source, store)[0].folder == folder
    assert (folder / "model.safetensors").stat().st_ino == inode
    (folder / "config.json").write_text("damaged")
    assert freeze(MODEL, source, store)[0].folder == folder
    assert "bert" in (folder / "config.json").read_text()
    (folder / "link").symlink_to("/etc/hostname")
    assert freeze(MODEL, source, store)[0].folder == folder
    assert not (folder / "link").is_symlink()
    assert [path.name for path in store.root.iterdir()] == [folder.name], "no drafts are left behind"


def test_settings_that_change_the_encoder_change_the_folder(tmp_path: Path) -> None:
    source, store = make_model(tmp_path / "model"), Store(tmp_path / "workspace")
    plain, _ = freeze(MODEL, source, store)
    other, description = freeze(BaseModel(name="tiny", kind="pvc", max_tokens=16), source, store)
    assert plain.folder != other.folder
    assert description.max_tokens == 16


def put(folder: Path, name: str, content: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)


def name_pooling(folder: Path) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path}
               for kind, path in (("Transformer", ""), ("Pooling", "pool"), ("Normalize", "2_Normalize"))]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    put(folder, "pool/config.json", '{"pooling_mode_mean_tokens": true}')


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder of documents": (lambda f: [path.unlink() for path in f.iterdir()], "BaseModelIncomplete"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "BaseModelIncomplete"),
    "pickled weights": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "BaseModelPickled"),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 100), "BaseModelDamaged"),
    "an unknown architecture": (
        lambda f: (f / "config.json").write_text('{"model_type": "t5"}'), "BaseModelUnsupported",
    ),
    "a link to a configuration": (
        lambda f: [(f / "config.json").unlink(), (f / "config.json").symlink_to("/etc/hostname")], "BaseModelUnsafe",
    ),
    "a link to a module of another name": (
        lambda f: [name_pooling(f), shutil.move(f / "pool", f / "p"), (f / "pool").symlink_to("p")],
        "BaseModelUnsafe",
    ),
    "a link to the list of modules": (lambda f: (f / "modules.json").symlink_to("config.json"), "BaseModelUnsafe"),
    "a link to weights": (
        lambda f: [shutil.move(f / "model.safetensors", f / "w"), (f / "model.safetensors").symlink_to("w")],
        "BaseModelUnsafe",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_unusable_model_is_refused_with_its_field(tmp_path: Path, name: str) -> None:
    change, reason = REFUSED[name]
    source = make_model(tmp_path / "model")
    change(source)
    with pytest.raises(BadInput) as caught:
        freeze(MODEL, source, Store(tmp_path / "workspace"))
    assert (caught.value.reason, caught.value.field) == (reason, "spec.baseModel.source.pvc.path")


@pytest.mark.parametrize(
    ("kind", "path", "field"),
    [
        ("pvc", "no/such", "spec.baseModel.source.pvc.path"),
        ("pvc", "../model", "spec.baseModel.source.pvc.path"),
        ("pvc", "model/config.json", "spec.baseModel.source.pvc.path"),
    ],
)
def test_a_path_without_a_model_is_named(tmp_path: Path, kind: str, path: str, field: str) -> None:
    make_model(tmp_path / "mount" / "model")
    with pytest.raises(BadInput) as caught:
        folder_of(BaseModel(name="tiny", kind=kind, path=path), tmp_path / "mount")
    assert (caught.value.reason, caught.value.field) == ("BaseModelNotFound", field)


def test_of_an_image_the_folder_itself_is_mounted(tmp_path: Path) -> None:
    model = BaseModel(name="tiny", kind="image", path="/models/tiny")
    assert folder_of(model, make_model(tmp_path / "mount")) == tmp_path / "mount"
