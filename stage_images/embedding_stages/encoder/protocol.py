"""What every encoder promises, whichever way it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embedding_stages.encoder.description import EncoderDescription, Role
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.vectors import Vectors

if TYPE_CHECKING:
    import torch


class Encoder(Protocol):
    """Texts to vectors: over padded batches (`model.PaddedEncoder`) or packs (`packed.encoder.PackedEncoder`).

    Trainers and the server also call what only one of the two has, so they ask which one they got.
    """

    description: EncoderDescription
    tokenizer: TextTokenizer
    query_map: QueryMap | None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def batched(self) -> bool:
        """Whether `batch_size` says how many texts `embed` computes at once.

        An encoder that is not batched makes its portions smaller by itself when memory is short.
        """
        ...

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Vectors:
        """float32 (len(texts), hidden) of length 1, row i for text i; the role's prefix is put before each text, and
        queries' vectors go through the map of a model that has one.

        `progress` gets (texts done, all texts). Raises torch.OutOfMemoryError when `batch_size` texts, or one text of
        an encoder that is not batched, do not fit the accelerator; what `progress` raises.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write a model folder, with encoder.json, that `load_encoder`, transformers and sentence-transformers load."""
        ...
