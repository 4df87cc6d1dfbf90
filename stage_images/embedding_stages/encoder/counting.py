"""How many tokens a model reads of a text. Needs `tokenizers`, neither numpy nor torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from embedding_stages.encoder.description import EncoderDescription, description_of
from embedding_stages.encoder.tokenizer_file import read_tokenizer

_TEXTS_A_CALL: Final = 1024  # bounds the memory that the library's own result objects take


class TokenCounter:
    """Counts the tokens of passages, without the length limit: what is over it is never read."""

    def __init__(self, tokenizer: Any, description: EncoderDescription) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._prefix = description.prefixes["passage"]
        self.most = description.max_tokens  # of a passage with its prefix and special tokens
        self.room = self.most - self.whole([""])[0]  # for the passage's own

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From a model folder. Raises BadInput `ModelDamaged` and what `description_of` raises."""
        description = description_of(folder)
        return cls(read_tokenizer(folder), description)

    def whole(self, passages: Sequence[str]) -> list[int]:
        """Tokens of each passage as the model gets it: with the prefix and special tokens."""
        return list(self._count([self._prefix + text for text in passages], special=True))

    def parts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of pieces of passages, by themselves."""
        return list(self._count(texts, special=False))

    def _count(self, texts: Sequence[str], *, special: bool) -> Iterator[int]:
        for start in range(0, len(texts), _TEXTS_A_CALL):
            part = list(texts[start : start + _TEXTS_A_CALL])
            yield from map(len, self._tokenizer.encode_batch_fast(part, add_special_tokens=special))
