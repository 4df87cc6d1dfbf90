"""A text that a library may look at so often and no more: a bound on work that is the same on every machine.

Nothing else stops a parser that runs in a thread of this process; a limit of time would read an answer on one machine
and not on a busier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

_COPIED: Final = 64  # characters that are copied in less time than one is looked at


class ReadTooOftenError(Exception):
    """More characters were looked at than the text allows."""


class CountedText(str):
    """A str that counts how often it is indexed, sliced or walked through, and its parts with it.

    A slice counts by its length as well, for it is copied. What else a str can do is not counted: it is quick, or gives
    a plain str.
    """

    __slots__ = ("_left",)
    _left: list[int]

    def __new__(cls, text: str, *, most: int) -> Self:
        """`most` characters may be looked at, in this text and in all texts that are made of it."""
        return cls._of(text, [most])

    @classmethod
    def _of(cls, text: str, left: list[int]) -> Self:
        made = str.__new__(cls, text)
        made._left = left
        return made

    def __getitem__(self, key: Any) -> str:
        found = str.__getitem__(self, key)
        self._count(1 + len(found) // _COPIED)
        return self._of(found, self._left) if isinstance(key, slice) else found

    def __iter__(self) -> Iterator[str]:
        for character in str.__iter__(self):
            self._count(1)
            yield character

    def __add__(self, other: str) -> str:
        return self._of(str.__add__(self, other), self._left)

    def __radd__(self, other: str) -> str:
        return self._of(str.__add__(other, self), self._left)

    def _count(self, characters: int) -> None:
        self._left[0] -= characters
        if self._left[0] < 0:
            raise ReadTooOftenError("the text was read too often")
