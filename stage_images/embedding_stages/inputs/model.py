"""The base model: what a stage needs of its folder, described, hashed and copied. No code and no pickle is taken."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.artefacts import Described, describe, digest_of_files, sha256_file
from embedding_stages.contract import ENCODER_FILE, Artefact
from embedding_stages.encoder.configuration import read_object
from embedding_stages.encoder.description import EncoderDescription, check_tensors, describe_configuration
from embedding_stages.encoder.linear_layers import check_targets
from embedding_stages.encoder.modules import MODULES_FILE, module_folders
from embedding_stages.encoder.prompts import unused_prompts
from embedding_stages.encoder.safetensors_check import INDEX_FILE, SINGLE_FILE, check_weights, weight_files
from embedding_stages.encoder.vocabulary import rows_without_tokens
from embedding_stages.errors import BadInput, printable
from embedding_stages.inputs import safe_files
from embedding_stages.inputs.safe_files import NotRegularError
from embedding_stages.inputs.soundness import check_files, try_tokenizer
from embedding_stages.inputs.store import Store

FIELD: Final = "spec.baseModel"
# Beside the weights: configuration, tokenizer, sentence-transformers' module folders, licence.
_WANTED = re.compile(
    r"[^/]+\.(?:json|txt)|tokenizer\.model|[^/]*sentencepiece[^/]*\.model|spiece\.model"
    r"|[0-9]+_[A-Za-z]+/config\.json|(?:LICEN[CS]E|NOTICE)(?:\.md)?",
    re.IGNORECASE,
)
_MAX_SMALL_FILE_BYTES = 256 << 20  # of a tokenizer.json; the largest known ones have 35 MB
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The manifest's spec.baseModel, resolved."""

    name: str
    kind: str  # pvc, image or huggingFace
    path: str = ""
    revision: str | None = None
    prefixes: Mapping[str, str] | None = None
    max_tokens: int | None = None
    training: Mapping[str, Any] | None = None  # what finetune asks of it: matryoshka, loraTargets

    @classmethod
    def of(cls, raw: Mapping[str, Any], training: Mapping[str, Any] | None = None) -> BaseModel:
        return cls(
            name=str(raw["name"]),
            kind=str(raw["kind"]),
            path=str(raw.get("path") or ""),
            revision=raw.get("revision"),
            prefixes=raw.get("prefixes"),
            max_tokens=raw.get("maxTokens"),
            training=training,
        )

    @property
    def source_field(self) -> str:
        """The manifest's field that says where the model is."""
        return f"{FIELD}.name" if self.kind == "huggingFace" else f"{FIELD}.source.{self.kind}.path"


def folder_of(model: BaseModel, mount: Path) -> Path:
    """The mounted model folder. Raises BadInput `BaseModelNotFound`."""
    if not mount.is_dir():
        raise BadInput("BaseModelNotFound", "the base model's source is not mounted", field=model.source_field)
    # An image's folder is mounted itself; of a volume a folder may be named.
    path = model.path if model.kind == "pvc" else ""
    with _permitted(model):
        return safe_files.sub_folder(mount, path, reason="BaseModelNotFound", field=model.source_field)


def is_wanted(path: str) -> bool:
    """Whether a file of a model is taken, weights aside."""
    return _WANTED.fullmatch(path) is not None and path not in (ENCODER_FILE, INDEX_FILE)


def freeze(model: BaseModel, folder: Path, store: Store) -> tuple[Described, EncoderDescription]:
    """Copy the model into the store, unless it is there, with its description as encoder.json.

    Each file of the source is hashed once, and so is each file of the store: what the source holds today decides
    which folder is taken, and a folder that was damaged since is replaced.

    Raises BadInput `BaseModel...` (see `describe_model`), `MaxTokensTooLarge`, `MatryoshkaTooLarge`,
    `LoraTargetUnknown`; Transient `SourceChanged`.
    """
    small, weights, description = check(model, folder)
    with store.draft(Artefact.BASE_MODEL) as draft:
        for name in small:
            _copy(folder, name, draft / name)
        description.save(draft)
        files = describe(draft)
        for name in weights:
            path = folder / name
            files[name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        found = store.find(Artefact.BASE_MODEL, files)
        if found is None:
            for name in weights:
                _copy(folder, name, draft / name)
            found = store.keep(Artefact.BASE_MODEL, draft, expected=digest_of_files(files))
    return found, description


def check(model: BaseModel, folder: Path) -> tuple[list[str], list[str], EncoderDescription]:
    """Names of the small files and of the weights to take, and what the model is. Reads no weights: quick.

    Raises BadInput like `freeze`.
    """
    with _permitted(model), as_base_model(model):  # opens every file that is taken
        small, weights = _small_files(model, folder), _weights(model, folder)
        description = check_small_files(model, folder, small)
        weights += _dense_weights(model, folder, description)
        check_tensors(folder, description)
        targets = (model.training or {}).get("loraTargets")
        if targets:
            check_targets(check_weights(folder, field=model.source_field), description.family, targets)
    return small, weights, description


def check_small_files(model: BaseModel, folder: Path, names: Iterable[str]) -> EncoderDescription:
    """What can be said before the weights are there. Raises BadInput like `freeze`, of the reasons without `Base`, or
    `MatryoshkaTooLarge`: what finetune could not do is told before it asks for a GPU.
    """
    check_files(folder, names)
    description = describe_configuration(folder, prefixes=model.prefixes, max_tokens=model.max_tokens)
    description.offering((model.training or {}).get("matryoshka") or ())
    try_tokenizer(folder, description)
    return description


def warnings_about(model: BaseModel, folder: Path, description: EncoderDescription) -> list[str]:
    """What may be wrong with a model that can be used, for people."""
    config = read_object(folder / "config.json")
    found = rows_without_tokens(folder, description.family.vocabulary(config))
    if model.prefixes is not None:  # the manifest says what is right
        return found
    return [*unused_prompts(folder, config, model.name, description.prefixes), *found]


def _permitted(model: BaseModel) -> AbstractContextManager[None]:
    return safe_files.permitted("the model", reason="BaseModelForbidden", field=model.source_field)


def _small_files(model: BaseModel, folder: Path) -> list[str]:
    """Names relative to `folder` of all files to take, weights aside."""
    names: list[str] = []
    modules = {f"{name}/config.json" for name in _module_folders(model, folder)}
    there = [folder / name for name in modules if (folder / name).is_file()]  # Normalize has none
    paths = {*folder.iterdir(), *folder.glob("[0-9]*_*/config.json"), *there}
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        if not is_wanted(name) and name not in modules:
            continue
        _check_plain(model, folder, name)
        if path.stat().st_size > _MAX_SMALL_FILE_BYTES:
            raise BadInput("BaseModelDamaged", f"{name} is larger than any known one", field=model.source_field)
        names.append(name)
    return names


def _module_folders(model: BaseModel, folder: Path) -> list[str]:
    if not (folder / MODULES_FILE).exists():
        return []
    _check_plain(model, folder, MODULES_FILE)
    return module_folders(folder)


def _weights(model: BaseModel, folder: Path) -> list[str]:
    """Names of the weight files, and of their index when there are several."""
    with as_base_model(model):
        names = [path.name for path in weight_files(folder, field=model.source_field)]
    if names != [SINGLE_FILE]:
        names.append(INDEX_FILE)
    for name in names:
        _check_plain(model, folder, name)
    return names


def _dense_weights(model: BaseModel, folder: Path, description: EncoderDescription) -> list[str]:
    """Names of the weight files of the Dense modules, as far as they are there: `check_tensors` refuses what lacks."""
    names = [f"{layer.folder}/{SINGLE_FILE}" for layer in description.dense]
    found = [name for name in names if (folder / name).exists()]
    for name in found:
        _check_plain(model, folder, name)
    return found


def _check_plain(model: BaseModel, folder: Path, name: str) -> None:
    try:
        with safe_files.open_file(folder, name):
            pass
    except NotRegularError as error:
        raise BadInput(
            "BaseModelUnsafe",
            f"{printable(name)} is a link or no regular file; put a copy without links there (cp -rL)",
            field=model.source_field,
        ) from error


def _copy(root: Path, name: str, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with safe_files.open_file(root, name) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream, _COPY_BYTES)


@contextmanager
def as_base_model(model: BaseModel) -> Iterator[None]:
    """`ModelIncomplete` and its like are `BaseModelIncomplete` here, with the field that says where the model is."""
    try:
        yield
    except BadInput as error:
        reason = f"Base{error.reason}" if error.reason.startswith("Model") else error.reason
        field = model.source_field if error.field == FIELD else error.field
        raise BadInput(reason, error.message, field=field) from error
