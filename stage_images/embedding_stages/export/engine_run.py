"""An engine's answers, to be compared with the checkpoint's. See `export.engine` for what was never run here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from embedding_stages.errors import StageError
from embedding_stages.export.engine import ENGINE, LEAST_TOKENS
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, EMBEDDINGS, INPUT_IDS
from embedding_stages.export.parity import Ids, ModelFolder
from embedding_stages.vectors import Vectors

_INT64: Final = torch.int64


class EngineEncoder(ModelFolder):
    """A model folder's engine under TensorRT, on the GPU that it was built on."""

    def __init__(self, folder: Path) -> None:
        """Raises StageError `EngineNotRead`."""
        import tensorrt

        super().__init__(folder)
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        engine = runtime.deserialize_cuda_engine((folder / ENGINE).read_bytes())
        if engine is None:
            raise StageError("EngineNotRead", "TensorRT does not read the engine that it has just built")
        self._runtime, self._engine = runtime, engine  # they have to outlive the context
        self._context = engine.create_execution_context()

    def _run(self, ids: Ids, mask: Ids, sizes: Ids) -> Vectors:
        short = max(0, LEAST_TOKENS - ids.shape[1])
        padded = [np.pad(array, ((0, 0), (0, short))) for array in (ids, mask)]
        names = (INPUT_IDS, ATTENTION_MASK, DIMENSIONS)
        given = {
            name: torch.from_numpy(array).to("cuda", _INT64).contiguous()
            for name, array in zip(names, (*padded, sizes), strict=True)
        }
        for name, tensor in given.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        found = torch.empty((len(ids), self.description.vector_size), dtype=torch.float32, device="cuda")
        self._context.set_tensor_address(EMBEDDINGS, found.data_ptr())
        stream = torch.cuda.current_stream()
        if not bool(self._context.execute_async_v3(stream.cuda_stream)):
            raise StageError("EngineFailed", f"the engine does not compute a batch of shape {tuple(ids.shape)}")
        stream.synchronize()
        return np.asarray(found[:, : int(sizes[0])].cpu().numpy(), dtype=np.float32)
