"""The encoder over packs, for a Llama on a CUDA device."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from embedding_stages.encoder.configuration import FIELD, for_library, for_saving
from embedding_stages.encoder.description import EncoderDescription, Role, description_of
from embedding_stages.encoder.model import copy_tokenizer
from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.device import DevicePack, send
from embedding_stages.encoder.packed.llama import PackedLlama
from embedding_stages.encoder.packed.packs import ROUND, Ints, Pack, Ragged, build_pack, consecutive
from embedding_stages.encoder.packed.shape import Shape
from embedding_stages.encoder.query_map import QueryMap, as_role
from embedding_stages.encoder.safetensors_check import SINGLE_FILE, check_weights, weight_files
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.vectors import Vectors

# Tokens of a pack when nothing is kept for a backward pass: two tiles for each of a Hopper GPU's 132 processors, so
# that no processor waits for the last tiles of a product.
EMBEDDING_BUDGET: Final = 2 * 132 * ops.ROWS_A_TILE
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
        model: PackedLlama,
        source: Path,
        prefix: str,
        disk_dtypes: Mapping[str, torch.dtype],
        query_map: QueryMap | None = None,
    ) -> None:
        self.description = description
        self.tokenizer = tokenizer
        self.model = model
        self.query_map = query_map
        self._disk_dtypes = disk_dtypes  # by name on disk: in which the weights came, and in which they are saved
        self._source = source
        self._prefix = prefix  # of the tensor names on disk
        self._budget = EMBEDDING_BUDGET

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
        shape = Shape.of(config, pooling=description.pooling, causal=description.family.causal)
        tensors, table_name = check_weights(folder, field=FIELD), description.family.table
        table = next((name for name in tensors if name.endswith(table_name)), None)
        if table is None:
            raise BadInput("ModelIncomplete", f"the weights hold no {table_name}", field=FIELD)
        prefix = table.removesuffix(table_name)
        model = PackedLlama(shape, *_rotary_tables(config, description.max_tokens), device=device, dtype=dtype)
        disk_dtypes = _fill(dict(model.on_disk()), folder, prefix)
        tokenizer, query_map = TextTokenizer.load(folder, description), QueryMap.load(folder, description)
        return cls(description, tokenizer, model, folder, prefix, disk_dtypes, query_map)

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
        """float32 (n, hidden) of length 1, differentiable; before the query map, where there is one."""
        return torch.nn.functional.normalize(self.model(pack), p=2.0, dim=-1)

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
        result = np.zeros((len(texts), self.description.hidden_size), dtype=np.float32) if out is None else out
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
        if any(dtype != flat.dtype for dtype in self._disk_dtypes.values()):
            _fill(dict(self.model.on_disk(master)), self._source, self._prefix)
        return master

    def save(self, folder: Path, flat: torch.Tensor | None = None) -> None:
        """Write a folder that this class, `PaddedEncoder` and transformers can load, in the dtypes the weights came in.

        `flat` holds the weights where they are more exact than the model's own (see `master_weights`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((self._source / "config.json").read_bytes())
        ours = {self._prefix + name: value for name, value in self.model.on_disk(flat)}
        sizes = Counter[torch.dtype]()
        for name, value in ours.items():
            sizes[self._disk_dtypes[name]] += value.numel()
        config = for_saving(config, str(sizes.most_common(1)[0][0]).removeprefix("torch."))
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        # Rounded where they are: a copy that has to round crosses in full precision and is rounded by the host.
        tensors = {name: value.to(self._disk_dtypes[name]).cpu().contiguous() for name, value in ours.items()}
        save_file(tensors | _others(self._source, set(ours)), folder / SINGLE_FILE, metadata={"format": "pt"})
        copy_tokenizer(self._source, folder)
        self.description.save(folder)
        if self.query_map is not None:
            self.query_map.save(folder)


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


def _rotary_tables(config: dict[str, Any], positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine, float32 (positions, head size / 2), with whatever scaling the configuration asks for.

    At least as many as a pack's filler has tokens.
    """
    rotary = LlamaRotaryEmbedding(LlamaConfig(**for_library(config)))
    angles = torch.outer(torch.arange(max(positions, ROUND)).float(), rotary.inv_freq.float())
    return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling


def _fill(views: Mapping[str, torch.Tensor], folder: Path, prefix: str) -> dict[str, torch.dtype]:
    """Read the weights from safetensors into `views`; the dtypes they have on disk. Raises BadInput."""
    wanted = {prefix + name: view for name, view in views.items()}
    dtypes: dict[str, torch.dtype] = {}
    for path in weight_files(folder, field=FIELD):
        with safe_open(path, framework="pt") as file:
            for name in wanted.keys() & set(file.keys()):
                tensor = file.get_tensor(name)
                view = wanted.pop(name)
                if tensor.shape != view.shape:
                    raise BadInput(
                        "ModelIncomplete",
                        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(view.shape)}",
                        field=FIELD,
                    )
                dtypes[name] = tensor.dtype
                view.copy_(tensor)
    if wanted:
        raise BadInput("ModelIncomplete", f"the weights lack {', '.join(sorted(wanted)[:3])}", field=FIELD)
    return dtypes


def _others(folder: Path, known: set[str]) -> dict[str, torch.Tensor]:
    """Tensors of the file that the encoder has no use for: saved unchanged."""
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(folder, field=FIELD):
        with safe_open(path, framework="pt") as file:
            found.update({name: file.get_tensor(name) for name in set(file.keys()) - known})
    return found
