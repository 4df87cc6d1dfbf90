"""How much of the passages lies behind the place where the model cuts them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from embedding_stages.encoder.counting import TokenCounter

MANY: Final = 0.1  # share of the passages that are cut, above which the stage warns
_AT_ONCE: Final = 10_000  # passages between two looks at whether to stop


@dataclass(frozen=True, slots=True)
class Unread:
    """Passages and tokens, with prefix and special tokens."""

    passages: int
    cut: int
    tokens: int
    never_read: int

    @property
    def share(self) -> float:
        """Of all tokens, those that no stage and no server reads."""
        return self.never_read / self.tokens if self.tokens else 0.0

    @property
    def is_much(self) -> bool:
        return self.cut > MANY * self.passages

    def warning(self, most: int) -> str:
        return (
            f"{self.cut} of {self.passages} passages are longer than maxTokens {most}, and {100 * self.share:.0f} % of "
            "all tokens are never read: set stages.sdg.passages: fit, or raise baseModel.maxTokens"
        )


def count_unread(texts: Sequence[str], counter: TokenCounter, between: Callable[[], None]) -> Unread:
    """Tokenize all passages; `between` is called now and then."""
    passages = cut = tokens = never_read = 0
    for start in range(0, len(texts), _AT_ONCE):
        between()
        for count in counter.whole(texts[start : start + _AT_ONCE]):
            passages += 1
            tokens += count
            cut += count > counter.most
            never_read += max(0, count - counter.most)
    return Unread(passages, cut, tokens, never_read)
