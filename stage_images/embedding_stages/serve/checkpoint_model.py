"""A checkpoint under PyTorch: the encoder that evaluation used, over packs on a GPU that can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from embedding_stages.contract.servers import MAX_TEXTS
from embedding_stages.encoder.load import AnyEncoder, load_encoder
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.serve.model import PADDED_AREA, Limits, Log, Runtime
from embedding_stages.serve.texts import TextReader
from embedding_stages.vectors import Vectors

if TYPE_CHECKING:
    from embedding_stages.encoder.packed.small import SmallPacks

# One tile of rows for each of a Hopper GPU's 132 processors: half of what bulk embedding takes at a time, because
# whoever comes next waits for it (55 ms for 1.2 billion parameters).
_PACK_TOKENS: Final = 132 * 128
_PACKED: Final = Limits(rows=MAX_TEXTS, tokens=_PACK_TOKENS, padding=float("inf"), under_way=2)
_PADDED_ON_GPU: Final = Limits(rows=128, under_way=2)


class CheckpointModel:
    """A checkpoint's folder: model.safetensors, tokenizer.json, config.json, encoder.json."""

    def __init__(self, folder: Path, log: Log) -> None:
        """On a GPU in bfloat16 when there is one, else on the CPU. Raises BadInput (see `load_encoder`)."""
        self._encoder: AnyEncoder = load_encoder(folder, log=log)
        self.description = self._encoder.description
        self.query_map = self._encoder.query_map
        self.reader = TextReader(folder, self.description)
        self._small: SmallPacks | None = None
        if not isinstance(self._encoder, PaddedEncoder):
            from embedding_stages.encoder.packed.small import SmallPacks  # Triton need not be there to pad

            self._small = SmallPacks(self._encoder)
            self.limits = _PACKED
        else:
            self.limits = Limits(area=PADDED_AREA) if self._encoder.device.type == "cpu" else _PADDED_ON_GPU

    @property
    def runtime(self) -> Runtime:
        device = self._encoder.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        how = "padded" if isinstance(self._encoder, PaddedEncoder) else "packed"
        return Runtime(name="torch", version=torch.__version__, providers=[f"{name}, {how}"])

    def vectors(self, rows: Sequence[Sequence[int]], dimensions: int) -> Vectors:
        """Token ids of n texts -> float32 (n, dimensions) of length 1; in halves when memory is short."""
        with torch.inference_mode():
            found = self._forward(rows)
            if found.shape[1] > dimensions:
                found = torch.nn.functional.normalize(found[:, :dimensions], p=2.0, dim=-1)
            return np.asarray(found.cpu().numpy(), dtype=np.float32)

    def _forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        encoder = self._encoder
        try:
            if isinstance(encoder, PaddedEncoder):
                return encoder.vectors(rows)
            texts = Ragged.of(rows)
            found = self._small.vectors(texts) if self._small is not None else None
            return encoder.vectors(encoder.send(encoder.pack(texts, range(len(rows))))) if found is None else found
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        torch.cuda.empty_cache()  # not in the handler: its traceback holds what did not fit
        half = len(rows) // 2
        return torch.cat([self._forward(rows[:half]), self._forward(rows[half:])])
