"""Whether tokenizer.json belongs to the weights beside it. Standard library only; nothing is tokenized here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from embedding_stages.encoder.configuration import FIELD, Config, read_object
from embedding_stages.encoder.families import unsupported
from embedding_stages.encoder.modules import text_settings
from embedding_stages.errors import BadInput

TOKENIZER_FILE: Final = "tokenizer.json"
_SPARE_ROWS: Final = 2048  # of an embedding table, for no token


def check_vocabulary(folder: Path, config: Config, rows: int) -> None:
    """`rows` are those of the embedding table: every token's id must be below.

    Raises BadInput `ModelIncomplete`, `ModelDamaged`, `BaseModelUnsupported`.
    """
    if not (folder / TOKENIZER_FILE).is_file():
        raise BadInput(
            "ModelIncomplete",
            f"the model has no {TOKENIZER_FILE}; save it with its fast tokenizer (AutoTokenizer, use_fast=True)",
            field=FIELD,
        )
    tokenizer = read_object(folder / TOKENIZER_FILE)
    try:
        ids = dict(_ids(tokenizer))
    except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise BadInput(
            "ModelDamaged", f"{TOKENIZER_FILE} holds no tokens with their ids; fetch it again", field=FIELD
        ) from error
    _check_ids(ids, config, rows)
    if tokenizer["model"].get("type") == "WordPiece":
        _check_list(folder, len(tokenizer["model"]["vocab"]))
    if text_settings(folder).get("do_lower_case") and not _lowers(tokenizer.get("normalizer")):
        raise unsupported(
            "sentence-transformers lower-cases its texts (do_lower_case: true), its tokenizer does not; put "
            f"normalizers.Lowercase() into {TOKENIZER_FILE}, or set do_lower_case to false"
        )


def rows_without_tokens(folder: Path, rows: int) -> list[str]:
    """A warning where the embedding table has far more rows than tokenizer.json tokens, as another model's may.

    Tables are padded to multiples of some hundreds, and some have rows for tokens to come.
    """
    tokens = 1 + max(number for _, number in _ids(read_object(folder / TOKENIZER_FILE)))
    if rows - tokens <= max(_SPARE_ROWS, rows // 4):
        return []
    sizes = f"{TOKENIZER_FILE} has {tokens} tokens, the embedding table {rows} rows"
    return [f"{sizes}: see that it is the tokenizer of these weights"]


def _ids(tokenizer: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every token with its id: of the model's own, a list or an object, and the added ones."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):
        yield from ((str(entry[0]), number) for number, entry in enumerate(vocabulary))
    else:
        yield from ((str(token), int(number)) for token, number in vocabulary.items())
    yield from ((str(added["content"]), int(added["id"])) for added in tokenizer.get("added_tokens") or [])


def _check_ids(ids: Mapping[str, int], config: Config, rows: int) -> None:
    if not ids:
        raise BadInput("ModelDamaged", f"{TOKENIZER_FILE} has no tokens; fetch it again", field=FIELD)
    last = max(ids, key=lambda token: ids[token])
    if ids[last] >= rows:
        raise BadInput(
            "ModelDamaged",
            f"{TOKENIZER_FILE} has {ids[last] + 1} tokens, the embedding table {rows} rows: {last[:40]!a} has id "
            f"{ids[last]}; resize the table (resize_token_embeddings) or take the tokenizer of these weights",
            field=FIELD,
        )
    padding = config.get("pad_token_id")
    if isinstance(padding, int) and padding >= rows:
        raise BadInput(
            "ModelDamaged",
            f"config.json: pad_token_id is {padding}, the embedding table has {rows} rows; correct it",
            field=FIELD,
        )


def _check_list(folder: Path, tokens: int) -> None:
    """Other servers read vocab.txt: a token a line, in the order of the ids. One that was cut is shorter."""
    path = folder / "vocab.txt"
    if not path.is_file():
        return
    lines = len(path.read_bytes().splitlines())
    if lines < tokens:
        raise BadInput(
            "ModelDamaged",
            f"vocab.txt has {lines} tokens, {TOKENIZER_FILE} {tokens}: it was cut off; fetch it again",
            field=FIELD,
        )


def _lowers(normalizer: Any) -> bool:
    """Whether a normalizer of tokenizer.json makes small letters of capitals, by itself or in a sequence."""
    if not isinstance(normalizer, dict):
        return False
    if normalizer.get("type") == "Sequence":
        return any(_lowers(inner) for inner in normalizer.get("normalizers") or [])
    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True
