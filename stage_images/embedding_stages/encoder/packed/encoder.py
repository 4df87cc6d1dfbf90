"""The encoder over packs, on a CUDA device."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_stages.encoder.description import EncoderDescription, Role, description_of
from embedding_stages.encoder.packed import gates, ops
from embedding_stages.encoder.packed.base import PackedModel
from embedding_stages.encoder.packed.device import DevicePack, send
from embedding_stages.encoder.packed.files import ModelFiles
from embedding_stages.encoder.packed.packs import Ints, Pack, Ragged, build_pack, consecutive
from embedding_stages.encoder.publish import publish
from embedding_stages.encoder.query_map import QueryMap, as_role
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.vectors import Vectors

# Tokens of a pack when nothing is kept for a backward pass: two tiles for each of a Hopper GPU's 132 processors, so
# that no processor waits for the last tiles of a product.
EMBEDDING_BUDGET: Final = 2 * 132 * gates.ROWS_A_TILE
_FULL_HIDDEN: Final = 1024  # below this hidden size so many do not keep it busy for as long as their launches take
_FIRST_TEXTS: Final = 256  # tokenized before the accelerator has anything to do
_MOST_TEXTS: Final = 4096  # tokenized ahead, while the accelerator works on those before


class PackedEncoder:
    """The `Encoder` over packs: a description, a tokenizer and a packed model.

    Packs are cut by tokens; where one does not fit, `embed` cuts it in two and makes later ones smaller.
    """

    batched: Final = False

    def __init__(
        self,
        description: EncoderDescription,
        tokenizer: TextTokenizer,
        model: PackedModel,
        files: ModelFiles,
        query_map: QueryMap | None = None,
    ) -> None:
        self.description = description
        self.tokenizer = tokenizer
        self.model = model
        self.query_map = query_map
        self._files = files
        self._budget = EMBEDDING_BUDGET * max(1, _FULL_HIDDEN // description.hidden_size)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cuda", dtype: torch.dtype = torch.bfloat16) -> PackedEncoder:
        """From a model folder.

        Raises BadInput as `PaddedEncoder.load` does, ValueError when packs cannot run the model.
        """
        if device.startswith("cuda"):
            # Its choice of kernels for our shapes is a little faster than plain cuBLAS's (docs/benchmarks.md).
            torch.backends.cuda.preferred_blas_library("cublaslt")
        description = description_of(folder)
        config = json.loads((folder / "config.json").read_bytes())
        model = description.family.packed_model().of(config, description, device=device, dtype=dtype)
        files = ModelFiles.fill(model, folder, description)
        tokenizer, query_map = TextTokenizer.load(folder, description), QueryMap.load(folder, description)
        return cls(description, tokenizer, model, files, query_map)

    @property
    def device(self) -> torch.device:
        return self.model.flat.device

    def pack(self, texts: Ragged, rows: Sequence[int] | NDArray[np.int64]) -> Pack:
        """The texts `rows` of `texts` in one pack."""
        heads = self.model.shape.heads
        return build_pack(texts, rows, query_tile=heads.query_tile, key_tile=ops.KEY_TILE)

    def send(self, pack: Pack, extra: Sequence[Ints] = ()) -> DevicePack:
        """The pack, and further arrays, on the accelerator."""
        return send(pack, self.device, extra)

    def vectors(self, pack: DevicePack) -> torch.Tensor:
        """float32 (n, vector size) of length 1, differentiable; before the query map, where there is one."""
        return torch.nn.functional.normalize(self.model.head(self.model(pack)), p=2.0, dim=-1)

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        batch_size: int = 0,  # noqa: ARG002 - packs are cut by tokens
        progress: Callable[[int, int], None] | None = None,
        out: Vectors | None = None,
    ) -> Vectors:
        """See `Encoder.embed`; written to `out` when given (it may be a file's map).

        Texts are tokenized, and finished vectors copied away, while the accelerator works.
        """
        result = np.zeros((len(texts), self.description.vector_size), dtype=np.float32) if out is None else out
        if not len(texts):
            return result
        done = 0
        with ThreadPoolExecutor(1) as copier, torch.inference_mode():
            pending: list[Any] = []
            for vectors in self._batches(texts, role):
                pending.append(copier.submit(_copy_out, vectors, result[done : done + len(vectors[0])]))
                done += len(vectors[0])
                while len(pending) > 2:  # as many pinned buffers are under way at most
                    pending.pop(0).result()
                if progress is not None:
                    progress(done, len(texts))
            for copy in pending:
                copy.result()
        mapped = as_role(result, role, self.query_map)
        if mapped is not result:
            result[:] = mapped
        return result

    def _batches(self, texts: Sequence[str], role: Role) -> Iterator[tuple[torch.Tensor, torch.cuda.Event | None]]:
        """(vectors in pinned memory, event of their arrival), in the texts' order."""
        parts = list(_growing(texts))
        left = Ragged.of([])
        with ThreadPoolExecutor(1) as tokenizing:
            ahead = tokenizing.submit(self._ragged, parts[0], role)
            for number in range(len(parts)):
                rows = left.joined(ahead.result())
                if number + 1 < len(parts):
                    ahead = tokenizing.submit(self._ragged, parts[number + 1], role)
                left = yield from self._packs(rows, last=number + 1 == len(parts))

    def _packs(
        self, rows: Ragged, *, last: bool
    ) -> Generator[tuple[torch.Tensor, torch.cuda.Event | None], None, Ragged]:
        """The vectors of full packs; unless these are the `last` texts, returns those of a pack not yet full."""
        groups = consecutive(rows.lengths, self._budget)
        while groups[0 if last else 1 :]:
            group = groups.pop(0)
            try:
                vectors = self.vectors(self.send(self.pack(rows, group)))
            except torch.OutOfMemoryError:
                if len(group) == 1:
                    raise
            else:
                yield _start_copy(vectors)
                continue
            self._budget //= 2
            torch.cuda.empty_cache()  # not in the handler: its traceback holds what did not fit
            groups = [group[: len(group) // 2], group[len(group) // 2 :], *groups]
        return rows.after(int(groups[0][0])) if groups else Ragged.of([])

    def _ragged(self, texts: Sequence[str], role: Role) -> Ragged:
        return Ragged.of(self.tokenizer.encode(texts, role))

    def master_weights(self) -> torch.Tensor:
        """float32, laid out like the flat weights, as exact as the files are; the weights themselves if float32."""
        flat = self.model.flat
        if flat.dtype == torch.float32:
            return flat
        master = flat.float()
        if any(dtype != flat.dtype for dtype in self._files.dtypes.values()):
            self._files.read(self.model, master)
        return master

    def save(self, folder: Path, flat: torch.Tensor | None = None) -> None:
        """Write a folder that this class, `PaddedEncoder` and transformers can load, in the dtypes the weights came in.

        `flat` holds the weights where they are more exact than the model's own (see `master_weights`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._files.save(self.model, folder, flat)
        publish(self.description, self.query_map, self._files.folder, folder)


def _growing(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in parts, few first: the accelerator starts soon."""
    begin, count = 0, _FIRST_TEXTS
    while begin < len(texts):
        yield texts[begin : begin + count]
        begin, count = begin + count, min(2 * count, _MOST_TEXTS)


def _start_copy(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    if vectors.device.type != "cuda":
        return vectors, None
    pinned = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    pinned.copy_(vectors, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return pinned, arrived


def _copy_out(batch: tuple[torch.Tensor, torch.cuda.Event | None], target: Vectors) -> None:
    vectors, arrived = batch
    if arrived is not None:
        arrived.synchronize()
    target[:] = vectors.numpy()
