"""A base model that cannot work is refused here, in seconds, before anything is paid for. No torch, no weights read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from embedding_stages import git_lfs
from embedding_stages.contract import canonical_json
from embedding_stages.encoder.configuration import FIELD, read_json, read_object
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.tokenizer_file import read_tokenizer
from embedding_stages.encoder.vocabulary import TOKENIZER_FILE
from embedding_stages.errors import BadInput

# Of both prefixes as JSON: the stage's result holds them, and the kubelet cuts what is longer than 4096 bytes.
MOST_PREFIX_BYTES: Final = 1600
LEAST_TEXT_TOKENS: Final = 8  # that a prefix has to leave of the tokens that a text may have
# Ordinary texts of several scripts: a tokenizer need not know all of them, but not one of them is a sign.
_TEXTS: Final = (
    "What does the warranty cover in 2024?",
    "Der Vertrag gilt 12 Monate. Гарантия: 보증은 무엇을 보장합니까?",
    "a short text: 保証期間, ضمان, अवधि",
)
# Files that a stage or a server reads; what else is called .json may be anything.
_READ = re.compile(
    r"(?:config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|modules|generation_config"
    r"|config_sentence_transformers|sentence_[^/]+_config|[^/]+/config)\.json"
)
_LISTS = re.compile(r"vocab\.txt|merges\.txt|[^/]*\.model")


def check_files(folder: Path, names: Iterable[str]) -> None:
    """No file is a Git LFS pointer, and none was cut as far as its form shows it. Raises BadInput `ModelDamaged`."""
    for name in names:
        path = folder / name
        if git_lfs.is_pointer_file(path):
            raise BadInput("ModelDamaged", f"{name} {git_lfs.CURE}", field=FIELD)
        if _READ.fullmatch(name):
            read_json(path, name)
        elif _LISTS.fullmatch(name) and path.stat().st_size == 0:
            raise BadInput("ModelDamaged", f"{name} is empty; fetch it again", field=FIELD)


def try_tokenizer(folder: Path, description: EncoderDescription) -> None:
    """A few texts through tokenizer.json, by the library that all stages and servers use.

    Raises BadInput `ModelDamaged`, `PrefixTooLong`.
    """
    size = prefix_bytes(description)
    if size > MOST_PREFIX_BYTES:
        raise BadInput(
            "PrefixTooLong",
            f"the prefixes take {size} bytes, and the stage's result has room for {MOST_PREFIX_BYTES}; write shorter "
            f"ones in {FIELD}.prefixes",
            field=f"{FIELD}.prefixes",
        )
    tokenizer = read_tokenizer(folder)
    try:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        rows = [tokenizer.encode(text).ids for text in _TEXTS]
        plain = {number for text in _TEXTS for number in tokenizer.encode(text, add_special_tokens=False).ids}
        prefixes = {role: len(tokenizer.encode(text).ids) for role, text in description.prefixes.items() if text}
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise BadInput("ModelDamaged", f"{TOKENIZER_FILE} cannot be read: {error}", field=FIELD) from error
    _check_rows(folder, description, rows, plain)
    for role, tokens in prefixes.items():
        if tokens + LEAST_TEXT_TOKENS > description.max_tokens:
            raise BadInput(
                "PrefixTooLong",
                f"the {role} prefix takes {tokens} of the {description.max_tokens} tokens that a text may have, and "
                f"leaves fewer than {LEAST_TEXT_TOKENS}; raise {FIELD}.maxTokens or shorten {FIELD}.prefixes",
                field=f"{FIELD}.maxTokens",
            )


def prefix_bytes(description: EncoderDescription) -> int:
    """Of both prefixes as JSON."""
    return len(canonical_json(dict(description.prefixes)).encode())


def _check_rows(folder: Path, description: EncoderDescription, rows: list[list[int]], plain: set[int]) -> None:
    """`rows` are token ids of `_TEXTS`, `plain` all of them without special tokens."""
    table = description.family.vocabulary(read_object(folder / "config.json"))
    largest = max((number for row in rows for number in row), default=0)
    if largest >= table:
        what = f"gives a text the token {largest}, the embedding table has {table} rows"
    elif all(row == rows[0] for row in rows):
        what = "makes the same tokens of every text"
    elif plain <= _unknown(read_object(folder / TOKENIZER_FILE)):
        what = "knows no word and no character of ordinary texts"
    else:
        return
    raise BadInput("ModelDamaged", f"{TOKENIZER_FILE} {what}; take the one that belongs to the weights", field=FIELD)


def _unknown(tokenizer: Mapping[str, Any]) -> set[int]:
    """Ids of the token that stands for what the vocabulary lacks."""
    model: Mapping[str, Any] = tokenizer["model"]
    if isinstance(model.get("unk_id"), int):
        return {model["unk_id"]}
    vocabulary = model["vocab"]
    known = vocabulary if isinstance(vocabulary, dict) else {}
    return {known[name] for name in (model.get("unk_token"),) if name in known}
