"""Texts to token ids, under the three truncation rules of NIM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from embedding_stages.encoder.description import EncoderDescription, Role
from embedding_stages.encoder.tokens import MAX_TEXT_CHARACTERS, TextTokenizer, ample_part
from embedding_stages.serve.requests import RequestError, Truncate

Rows = list[list[int]]
_MOST_IDS = 1 << 32  # the library takes no greater ones


class TextReader:
    """Two copies of one tokenizer: the stages' own, which cuts at the end, and one that never cuts."""

    def __init__(self, folder: Path, description: EncoderDescription) -> None:
        self._cutting = TextTokenizer.load(folder, description)
        self._whole: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._whole.no_padding()
        self._whole.no_truncation()
        self._description = description

    @property
    def pad_id(self) -> int:
        return self._cutting.pad_id

    def spell(self, ids: list[int]) -> str:
        """The text of token ids of this vocabulary, special tokens left out. Raises ValueError: an id that it lacks.

        A text rather than the ids, so that prefix, special tokens and truncation are those of every other text.
        """
        unknown = next((number for number in ids if not 0 <= number < _MOST_IDS or self._lacks(number)), None)
        if unknown is not None:
            raise ValueError(f"this model's vocabulary has no token {unknown}; it made none of these ids, send texts")
        if self._whole.decoder is None and not isinstance(self._whole.model, WordLevel):
            raise ValueError("this model's tokenizer.json does not say how its tokens are put together; send texts")
        return str(self._whole.decode(ids, skip_special_tokens=True))

    def _lacks(self, number: int) -> bool:
        return self._whole.id_to_token(number) is None

    def read(self, texts: Sequence[str], role: Role, truncate: Truncate) -> Rows:
        """Token ids a text, special tokens included, each row 1..max_tokens long.

        Raises RequestError 400 for a text that is too long and may not be cut.
        """
        rows: Rows = []
        for part in _slices(texts):
            if truncate == "END":
                rows.extend(self._cutting.encode(part, role))
            else:
                rows.extend(self._read_whole(part, role, truncate, len(rows)))
        return rows

    def _read_whole(self, texts: Sequence[str], role: Role, truncate: Truncate, first: int) -> Rows:
        """`first`: the number of the first text in its request."""
        prefix, limit = self._description.prefixes[role], self._description.max_tokens
        parts = [self._enough(prefix, text, from_end=truncate == "START") for text in texts]
        encodings = self._whole.encode_batch([prefix + part for part in parts])
        rows: Rows = []
        for index, (text, part, encoding) in enumerate(zip(texts, parts, encodings, strict=True), start=first):
            if truncate == "NONE" and (len(part) < len(text) or len(encoding.ids) > limit):
                raise _too_long(index, len(encoding.ids), limit, whole=len(part) == len(text))
            if len(encoding.ids) <= limit:
                rows.append(encoding.ids or [self.pad_id])
            else:
                tail = part[_first_kept(encoding.offsets, len(prefix), len(encoding.ids) - limit) :]
                rows.extend(self._cutting.encode([tail], role))
        return rows

    def _enough(self, prefix: str, text: str, *, from_end: bool) -> str:
        """The text, or a beginning or an end of it that has clearly more tokens than the model takes."""
        limit = self._description.max_tokens
        return ample_part(text, limit, lambda part: len(self._whole.encode(prefix + part).ids), from_end=from_end)


def _too_long(index: int, tokens: int, limit: int, *, whole: bool) -> RequestError:
    """Why a text that may not be cut is refused, of which `tokens` were found in what was read of it."""
    if tokens <= limit:
        return RequestError(
            422,
            f"input {index} has few tokens and more than {MAX_TEXT_CHARACTERS} characters; send shorter texts",
            param="input",
            code="too_long",
        )
    number = f"{tokens}" if whole else f"more than {limit}"
    return RequestError(
        400,
        f"input {index} has {number} tokens with its prefix, this model takes {limit}; send truncate END or START "
        '(of the client openai: extra_body={"truncate": "END"}), or shorter texts',
        param="input",
        code="context_length_exceeded",
    )


def _slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts, of no more characters together than one may have: bounds the library's result objects."""
    start = size = 0
    for at, text in enumerate(texts):
        if at > start and size + len(text) > MAX_TEXT_CHARACTERS:
            yield texts[start:at]
            start, size = at, 0
        size += len(text)
    if texts:
        yield texts[start:]


def _first_kept(offsets: Sequence[tuple[int, int]], prefix: int, excess: int) -> int:
    """Where in the text (in characters, the prefix not counted) to begin so that `excess` tokens go.

    `offsets` are [begin, end) in prefix and text together; special tokens have empty ones. The prefix stays.
    """
    begins = [begin for begin, end in offsets if end > begin and begin >= prefix]
    return begins[min(excess, len(begins) - 1)] - prefix if begins else 0
