"""The encoder as a torch module: texts to vectors of length 1, the same in every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from embedding_stages.encoder.backbone import Backbone, load_backbone, save_backbone
from embedding_stages.encoder.dense_head import DenseHead
from embedding_stages.encoder.description import EncoderDescription, Role, description_of
from embedding_stages.encoder.hardware import usable_cpus
from embedding_stages.encoder.pooling import POOLINGS, Pooling
from embedding_stages.encoder.publish import publish
from embedding_stages.encoder.query_map import QueryMap, as_role
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.vectors import Vectors

# Padded tokens of a pass for each thread of a CPU: what a layer writes then stays in the thread's own cache, and a pass
# over longer batches takes a quarter more time.
_TOKENS_A_THREAD: Final = 768


class PaddedEncoder:
    """The `Encoder` over padded batches: a description, a tokenizer and a backbone.

    `vectors` is what the trainer differentiates: before the query map, where there is one.
    """

    batched: Final = True

    def __init__(
        self,
        description: EncoderDescription,
        tokenizer: TextTokenizer,
        backbone: Backbone,
        source: Path,
        query_map: QueryMap | None = None,
    ) -> None:
        self.description = description
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.query_map = query_map
        self._source = source

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> PaddedEncoder:
        """From a model folder: an artefact with encoder.json, or a plain Hugging Face folder.

        By default on the GPU in bfloat16 when there is one, else on the CPU in float32 with as many threads
        as the container may use. Raises BadInput (see `describe_model`).
        """
        folder = Path(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype is None:
            dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        if device == "cpu":
            torch.set_num_threads(usable_cpus())
        description = description_of(folder)
        dense = description.dense
        backbone = load_backbone(folder, description.family, device=device, dtype=dtype, dense=dense)
        tokenizer, query_map = TextTokenizer.load(folder, description), QueryMap.load(folder, description)
        return cls(description, tokenizer, backbone, folder, query_map)

    @property
    def module(self) -> torch.nn.Module:
        return self.backbone.module

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def vectors(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Token ids of n texts -> float32 (n, vector size) of length 1, in one forward pass, differentiable."""
        ids, mask = (torch.from_numpy(array).to(self.device) for array in self.tokenizer.pad(rows))
        states = self.backbone.hidden_states(ids, mask)
        return pool(states, mask, self.description.pooling, self.backbone.dense)

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Vectors:
        """See `Encoder.embed`. A text that comes again is computed once; `progress` counts distinct texts."""
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows = self.tokenizer.encode(list(place), role)
        # Longest first: when memory is short it shows at once.
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        result = np.zeros((len(rows), self.description.vector_size), dtype=np.float32)
        with torch.inference_mode():
            done = 0
            for chosen in _passes(order, [len(row) for row in rows], batch_size, self._tokens_a_pass()):
                result[chosen] = self.vectors([rows[index] for index in chosen]).cpu().numpy()
                done += len(chosen)
                if progress is not None:
                    progress(done, len(order))
        if len(place) < len(texts):
            result = result[[place[text] for text in texts]]
        return as_role(result, role, self.query_map)

    def _tokens_a_pass(self) -> int | None:
        return _TOKENS_A_THREAD * torch.get_num_threads() if self.device.type == "cpu" else None

    def save(self, folder: Path) -> None:
        """See `Encoder.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_backbone(self.backbone, folder)
        publish(self.description, self.query_map, self._source, folder)


def _passes(order: Sequence[int], lengths: Sequence[int], texts: int, tokens: int | None) -> Iterator[list[int]]:
    """Cut `order`, the longest text first: at most `texts` each and, padded, `tokens`, but at least one text."""
    start = 0
    while start < len(order):
        most = texts if tokens is None else min(texts, max(1, tokens // lengths[order[start]]))
        yield list(order[start : start + most])
        start += most


def pool(
    states: torch.Tensor, mask: torch.Tensor, pooling: Pooling = "mean", dense: DenseHead | None = None
) -> torch.Tensor:
    """One vector a text, of length 1, in float32 (n, hidden), or of the size that the Dense modules make.

    `states` (n, tokens, hidden), `mask` int64 (n, tokens), padding on the right. The mean is the NVIDIA embed
    recipe's, profile llama: pooling avg, l2_normalize.
    """
    with torch.autocast(states.device.type, enabled=False):
        vectors = POOLINGS[pooling].padded(states.float(), mask)
        return torch.nn.functional.normalize(vectors if dense is None else dense(vectors), p=2.0, dim=-1)
