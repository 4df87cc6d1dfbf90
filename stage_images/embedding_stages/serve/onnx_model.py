"""The exported graph under ONNX Runtime: rows of token ids to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.hardware import usable_cpus
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.encoder.tokens import pad_rows
from embedding_stages.errors import BadInput
from embedding_stages.serve.model import GRAPH_FILE, PADDED_AREA, Limits, Runtime
from embedding_stages.serve.texts import TextReader
from embedding_stages.vectors import Vectors

_INPUTS = {"input_ids", "attention_mask", "dimensions"}
_OUTPUT = "embeddings"


class OnnxModel:
    """A serving folder: model.onnx, tokenizer.json, config.json, encoder.json."""

    def __init__(self, folder: Path) -> None:
        """Raises BadInput `ServingModelInvalid`, `EncoderDescriptionInvalid`, `ModelIncomplete` or `ModelDamaged`."""
        self.description = EncoderDescription.load(folder)
        self.query_map = QueryMap.load(folder, self.description)
        self.reader = TextReader(folder, self.description)
        self.limits = Limits(area=PADDED_AREA)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cpus()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        offered = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in offered]
        try:
            self._session: Any = onnxruntime.InferenceSession(str(folder / GRAPH_FILE), options, providers=wanted)
        except Exception as error:  # the library has an exception class a cause and no common one
            raise BadInput("ServingModelInvalid", f"{GRAPH_FILE} cannot be loaded: {error}") from error
        shapes = {item.name: item.shape for item in self._session.get_inputs()}
        outputs = {item.name for item in self._session.get_outputs()}
        if not {"input_ids", "attention_mask"} <= shapes.keys() <= _INPUTS or _OUTPUT not in outputs:
            raise BadInput(
                "ServingModelInvalid",
                f"{GRAPH_FILE} has inputs {sorted(shapes)} and outputs {sorted(outputs)}, "
                f"expected {sorted(_INPUTS)} and {_OUTPUT}",
            )
        self._dimensions_shape: Sequence[Any] | None = shapes.get("dimensions")

    @property
    def runtime(self) -> Runtime:
        """With what really runs it, not what was asked for."""
        return Runtime(
            name="onnxruntime", version=onnxruntime.__version__, providers=list(self._session.get_providers())
        )

    def vectors(self, rows: Sequence[Sequence[int]], dimensions: int) -> Vectors:
        """Token ids of n texts -> float32 (n, dimensions) of length 1, in one run of the graph."""
        ids, mask = pad_rows(rows, self.reader.pad_id)
        feed: dict[str, NDArray[np.int64]] = {"input_ids": ids, "attention_mask": mask}
        if self._dimensions_shape is not None:
            feed["dimensions"] = _sizes(dimensions, len(rows), self._dimensions_shape)
        found: Vectors = np.asarray(self._session.run([_OUTPUT], feed)[0], dtype=np.float32)
        if found.shape[1] > dimensions:
            found = found[:, :dimensions]
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found


def _sizes(dimensions: int, rows: int, shape: Sequence[Any]) -> NDArray[np.int64]:
    """Exports differ: one size for the batch as a scalar or (1,), or one a row."""
    if not shape:
        return np.array(dimensions, dtype=np.int64)
    return np.full(1 if shape[0] == 1 else rows, dimensions, dtype=np.int64)
