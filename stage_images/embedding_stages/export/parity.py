"""Whether the exported file answers what the checkpoint's encoder answers; a query map follows both, and is no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from embedding_stages.encoder.description import EncoderDescription, Role
from embedding_stages.encoder.hardware import usable_cpus
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, EMBEDDINGS, INPUT_IDS
from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.lines import FormatError
from embedding_stages.vectors import Vectors

SAMPLE_TEXTS = 64  # passages, and as many queries
_TEXTS_A_SIZE = 8  # texts that are asked for in each smaller dimension
_BATCH = 8
_LONG = 512  # tokens: a batch holds no more attention scores than a full one of such texts, or one text alone
Rows = list[list[int]]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parity:
    """The worst over all texts, roles and dimensions."""

    min_cosine: float
    max_abs_diff: float
    texts: int


class Exported(Protocol):
    """What is compared with the checkpoint."""

    def embed(self, texts: Sequence[str], *, role: Role, dimensions: int | None = None) -> Vectors:
        """float32 (len(texts), dimensions or vector size), of length 1."""


class ModelFolder:
    """What the readers of an exported folder share: description, tokenizer, batches."""

    def __init__(self, folder: Path) -> None:
        self.description = EncoderDescription.load(folder)
        self._tokenizer = TextTokenizer.load(folder, self.description)

    def embed(self, texts: Sequence[str], *, role: Role, dimensions: int | None = None) -> Vectors:
        """See `Exported`."""
        size = dimensions or self.description.vector_size

        def run(rows: Rows) -> Vectors:
            ids, mask = self._tokenizer.pad(rows)
            return self._run(ids, mask, np.full(len(ids), size, dtype=np.int64))

        return _in_batches(self._tokenizer.encode(texts, role), run)

    def _run(self, ids: Ids, mask: Ids, sizes: Ids) -> Vectors:
        """int64 ids and mask (batch, tokens), sizes (batch,), all of one value -> float32 (batch, that value)."""
        raise NotImplementedError


class OnnxEncoder(ModelFolder):
    """A model folder under ONNX Runtime on the CPU."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cpus()
        options.log_severity_level = 3  # errors
        model = str(folder / "model.onnx")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        super().__init__(folder)

    def _run(self, ids: Ids, mask: Ids, sizes: Ids) -> Vectors:
        feed = {INPUT_IDS: ids, ATTENTION_MASK: mask, DIMENSIONS: sizes}
        found: Vectors = self._session.run([EMBEDDINGS], feed)[0]
        return found


def sample_texts(evaluation_set: Path | None, description: EncoderDescription) -> dict[Role, list[str]]:
    """Up to 64 passages and 64 queries of an evaluation set (BEIR), and short texts that often go wrong.

    Raises BadInput `EvaluationSetInvalid`.
    """
    edge_cases = [
        "",
        "a",
        "Hello, world!",
        "多语言文本嵌入模型。",
        "نص عربي قصير",
        "छोटा हिंदी पाठ",
        "naïve café, straße, 12.5 %, e = mc²",
        "🚀🔥 ok",
        "length limit " * description.max_tokens,
    ]
    texts: dict[Role, list[str]] = {"query": list(edge_cases), "passage": list(edge_cases)}
    if evaluation_set is not None:
        reader = BeirReader.of(evaluation_set, may_be_empty=True)  # a frozen set may have lost every query
        try:
            texts["passage"].extend(passage.full_text for passage in islice(reader.passages(), SAMPLE_TEXTS))
            texts["query"].extend(query.text for query in islice(reader.queries(), SAMPLE_TEXTS))
        except FormatError as error:
            raise BadInput("EvaluationSetInvalid", f"evaluation set: {error}", field="spec.evaluation.beir") from error
    return texts


def measure_parity(checkpoint: PaddedEncoder, exported: Exported, texts: dict[Role, list[str]]) -> Parity:
    """Compare vectors of length 1: cosine and largest difference of a component."""
    worst_cosine, worst_difference = 1.0, 0.0
    full, *smaller = checkpoint.description.dimensions
    for role, some in texts.items():
        expected = checkpoint_vectors(checkpoint, some, role)
        for size, count in ((full, len(some)), *((size, _TEXTS_A_SIZE) for size in smaller)):
            wanted = _cut(expected[:count], size)
            got = exported.embed(some[:count], role=role, dimensions=size)
            if got.shape != wanted.shape or not np.isfinite(got).all():
                return Parity(min_cosine=-1.0, max_abs_diff=float("inf"), texts=sum(map(len, texts.values())))
            worst_cosine = min(worst_cosine, float(_cosines(wanted, got).min()))
            worst_difference = max(worst_difference, float(np.abs(wanted - got).max()))
    return Parity(worst_cosine, worst_difference, sum(len(some) for some in texts.values()))


def checkpoint_vectors(checkpoint: PaddedEncoder, texts: Sequence[str], role: Role) -> Vectors:
    """float32 (len(texts), vector size) of length 1; a query map is not applied."""
    return _in_batches(checkpoint.tokenizer.encode(texts, role), lambda rows: _vectors_of(checkpoint, rows))


def batches_of(lengths: Sequence[int]) -> list[list[int]]:
    """Positions in batches, longest first. The graph keeps a score for each two tokens of a padded row: at 8,192
    tokens and 32 heads that is 8.6 GB a text, so a long one runs alone.
    """
    batches: list[list[int]] = []
    width = 0
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        count = len(batches[-1]) + 1 if batches else 0
        if not batches or count > _BATCH or count * width**2 > _BATCH * _LONG**2:
            batches.append([])
            width = lengths[at]
        batches[-1].append(at)
    return batches


def _in_batches(rows: Rows, run: Callable[[Rows], Vectors]) -> Vectors:
    """What `run` gives for all rows, in their order."""
    batches = batches_of([len(row) for row in rows])
    found = np.concatenate([run([rows[at] for at in batch]) for batch in batches])
    result = np.empty_like(found)
    result[[at for batch in batches for at in batch]] = found
    return result


def _vectors_of(checkpoint: PaddedEncoder, rows: Rows) -> Vectors:
    with torch.inference_mode():
        return np.asarray(checkpoint.vectors(rows).cpu().numpy(), dtype=np.float32)


def _cut(vectors: Vectors, size: int) -> Vectors:
    """The first `size` columns, scaled to length 1 again (Matryoshka)."""
    cut = vectors[:, :size]
    length = np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return np.asarray(cut / length, dtype=np.float32)


def _cosines(left: Vectors, right: Vectors) -> Vectors:
    a, b = left.astype(np.float64), right.astype(np.float64)
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(length, 1e-12), dtype=np.float32)
