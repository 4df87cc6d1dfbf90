"""Texts to token ids, the same way in every stage and in serving. Needs `tokenizers` and numpy, not torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedding_stages.encoder.configuration import read_object
from embedding_stages.encoder.description import ROLES, EncoderDescription, Role
from embedding_stages.encoder.tokenizer_file import read_tokenizer

Ids = NDArray[np.int64]
_TEXTS_A_CALL = 2048  # bounds the memory that the library's own result objects take
MAX_TEXT_CHARACTERS = 1 << 20  # read of a text at once: the library's result takes 150 bytes a character
_AMPLE = 32  # characters a token that are read first: words of most scripts have fewer than ten
_GROWTH = 4  # of what is read where that gave too few tokens
_SPARE_TOKENS = 64  # beyond the limit: however a cut word falls apart, it does not change the tokens that are kept


class TextTokenizer:
    """The model's fast tokenizer with the role's prefix and the description's length limit applied.

    Truncation and padding that tokenizer.json itself asks for are ignored: they vary between exporters.
    """

    def __init__(self, tokenizer: Any, description: EncoderDescription, pad_id: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=description.max_tokens)
        self._tokenizer = tokenizer
        self._limit = description.max_tokens
        self._prefixes = dict(description.prefixes)
        self.pad_id = pad_id

    @classmethod
    def load(cls, folder: Path, description: EncoderDescription) -> TextTokenizer:
        """From tokenizer.json and config.json of a model folder. Raises BadInput `ModelDamaged`."""
        tokenizer = read_tokenizer(folder)
        pad_id = read_object(folder / "config.json", required=True).get("pad_token_id")
        return cls(tokenizer, description, pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0)

    def encode(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Token ids of each text, special tokens included, at most `max_tokens` and at least one.

        Of a long text only as much is read as its first `max_tokens` need. A text without any token becomes one padding
        token that counts, so that its vector is finite.
        """
        if role not in ROLES:
            raise ValueError(f"role is {role!r}, expected one of {ROLES}")
        prefix = self._prefixes[role]
        rows: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS_A_CALL):
            part = [self._readable(prefix + text) for text in texts[start : start + _TEXTS_A_CALL]]
            rows.extend(encoding.ids or [self.pad_id] for encoding in self._tokenizer.encode_batch(part))
        return rows

    def _readable(self, text: str) -> str:
        """As much of its beginning as its first `max_tokens` need."""
        if len(text) <= _AMPLE * self._limit:
            return text
        return ample_part(text, self._limit, self._count)

    def _count(self, text: str) -> int:
        """Tokens, with the special ones of each piece that was cut off."""
        encoding = self._tokenizer.encode(text)
        return len(encoding.ids) + sum(len(more.ids) for more in encoding.overflowing)

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
        """(input_ids, attention_mask), both int64 (batch, longest row), padded on the right."""
        return pad_rows(rows, self.pad_id)


def ample_part(text: str, limit: int, count: Callable[[str], int], *, from_end: bool = False) -> str:
    """A beginning of `text` (or an end) that has clearly more than `limit` tokens, cut between words if there are any.

    `count` tells the tokens of a text. Where no part of MAX_TEXT_CHARACTERS has so many, it is that part, or the text.
    """
    size = _AMPLE * limit
    while size < min(len(text), MAX_TEXT_CHARACTERS):
        part = _part(text, size, from_end=from_end)
        if count(part) > limit + _SPARE_TOKENS:
            return part
        size *= _GROWTH
    return _part(text, MAX_TEXT_CHARACTERS, from_end=from_end)


def _part(text: str, size: int, *, from_end: bool) -> str:
    if len(text) <= size:
        return text
    half = size // 2
    if from_end:
        part = text[-size:]
        blank = part.find(" ", 0, half)
        return part[blank:] if blank > 0 else part
    part = text[:size]
    blank = part.rfind(" ", half)
    return part[:blank] if blank > 0 else part


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Ids, Ids]:
    """(ids, mask), both int64 (rows, longest row); the mask is 1 on tokens and 0 on padding."""
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
