"""Texts to token ids, the same way in every stage and in serving. Needs `tokenizers` and numpy, not torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedding_stages.encoder.configuration import FIELD
from embedding_stages.encoder.description import ROLES, EncoderDescription, Role
from embedding_stages.errors import BadInput

Ids = NDArray[np.int64]
_TEXTS_A_CALL = 2048  # bounds the memory that the library's own result objects take


class TextTokenizer:
    """The model's fast tokenizer with the role's prefix and the description's length limit applied.

    Truncation and padding that tokenizer.json itself asks for are ignored: they vary between exporters.
    """

    def __init__(self, tokenizer: Any, description: EncoderDescription, pad_id: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=description.max_tokens)
        self._tokenizer = tokenizer
        self._prefixes = dict(description.prefixes)
        self.pad_id = pad_id

    @classmethod
    def load(cls, folder: Path, description: EncoderDescription) -> TextTokenizer:
        """From tokenizer.json and config.json of a model folder. Raises BadInput `ModelDamaged`."""
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            pad_id = json.loads((folder / "config.json").read_bytes()).get("pad_token_id")
        except Exception as error:  # the library raises bare Exception for every fault of the file
            raise BadInput("ModelDamaged", f"tokenizer.json cannot be read: {error}", field=FIELD) from error
        return cls(tokenizer, description, pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0)

    def encode(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Token ids of each text, special tokens included, at most `max_tokens` and at least one.

        A text without any token becomes one padding token that counts, so that its vector is finite.
        """
        if role not in ROLES:
            raise ValueError(f"role is {role!r}, expected one of {ROLES}")
        prefix = self._prefixes[role]
        rows: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS_A_CALL):
            part = [prefix + text for text in texts[start : start + _TEXTS_A_CALL]]
            rows.extend(encoding.ids or [self.pad_id] for encoding in self._tokenizer.encode_batch(part))
        return rows

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
        """(input_ids, attention_mask), both int64 (batch, longest row), padded on the right."""
        return pad_rows(rows, self.pad_id)


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Ids, Ids]:
    """(ids, mask), both int64 (rows, longest row); the mask is 1 on tokens and 0 on padding."""
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
