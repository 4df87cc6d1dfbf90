"""A TensorRT engine of an exported graph, built on the GPU that it is for.

The network is strongly typed: every number has the type that the graph says, float32 islands included, which both
TensorRT 10 and 11 do alike. An engine runs on GPUs of its own kind under its own version of TensorRT alone, so both
stand beside it, in engine.json, and are part of the artefact's digest.

Written against the API of TensorRT 10.13, checked by its type stubs; never run where this project is made, which has
no TensorRT.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from onnx import helper

from embedding_stages.errors import BadInput, StageError
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, INPUT_IDS
from embedding_stages.export.operators import faults_of

if TYPE_CHECKING:
    import tensorrt

ENGINE: Final = "model.plan"
IDENTITY: Final = "engine.json"
BATCHES: Final = (1, 16, 64)  # least, fastest, most texts of a batch
LEAST_TOKENS, FASTEST_TOKENS = 3, 128
_WORKSPACE_SHARE: Final = 0.5  # of the GPU's free memory for what the builder tries
_FIELD: Final = "spec.stages.export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What an engine is bound to."""

    gpu: str  # its name, such as NVIDIA H200
    compute_capability: str  # such as 9.0
    tensorrt: str  # the version

    def to_json(self) -> dict[str, str]:
        """As engine.json and the result have it."""
        return {"gpu": self.gpu, "computeCapability": self.compute_capability, "tensorrt": self.tensorrt}


def engine_machine() -> Machine:
    """This machine. Raises BadInput `TensorRTMissing` or `GpuMissing`."""
    try:
        import tensorrt

        version = str(tensorrt.__version__)
    except (ImportError, AttributeError, OSError) as error:  # type stubs alone make a package without anything in it
        raise BadInput(
            "TensorRTMissing",
            "this image has no TensorRT; build stage_images/export with --build-arg TENSORRT=1 and name that image, or "
            f"set {_FIELD}.format to onnx",
            field=f"{_FIELD}.image",
        ) from error
    if not torch.cuda.is_available():
        raise BadInput(
            "GpuMissing",
            "TensorRT builds an engine on the GPU that it is for, and this pod sees none; give nvidia.com/gpu: 1, or "
            f"set {_FIELD}.format to onnx",
            field=f"{_FIELD}.resources.limits",
        )
    major, minor = torch.cuda.get_device_capability()
    return Machine(gpu=torch.cuda.get_device_name(), compute_capability=f"{major}.{minor}", tensorrt=version)


def profile_of(max_tokens: int) -> dict[str, tuple[tuple[int, ...], ...]]:
    """By input, the least, the fastest and the largest shape."""
    lengths = (min(LEAST_TOKENS, max_tokens), min(FASTEST_TOKENS, max_tokens), max_tokens)
    texts = tuple(zip(BATCHES, lengths, strict=True))
    return {INPUT_IDS: texts, ATTENTION_MASK: texts, DIMENSIONS: tuple((count,) for count in BATCHES)}


def of_full_width(model: Any) -> Any:
    """An onnx.ModelProto whose embeddings have every column, zeros beyond the size that a text asks for.

    In the exported graph the width of the output is a number that it computes from an input's values, which TensorRT
    can only do for inputs of a fixed shape.
    """
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        width = makers.get(node.input[2]) if node.op_type == "Slice" else None
        if width is not None and width.op_type == "ReduceMax":
            node.CopyFrom(helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))
    kept = [node for node in model.graph.node if node.op_type != "ReduceMax"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def engine_graph(folder: Path) -> Any:
    """What TensorRT is given: an onnx.ModelProto whose large weights lie in `folder`.

    Raises BadInput `OperatorUnsupported`.
    """
    model = of_full_width(onnx.load(str(folder / "model.onnx"), load_external_data=False))
    faults = faults_of(model)
    if faults:
        raise BadInput(
            "OperatorUnsupported",
            f"TensorRT cannot read the graph: {'; '.join(faults[:3])}; set it to onnx",
            field=f"{_FIELD}.format",
        )
    return model


def build_engine(folder: Path, machine: Machine, max_tokens: int, workspace: Path) -> Mapping[str, Any]:
    """Write `model.plan` and `engine.json` beside model.onnx, and return what the latter says.

    The timing cache lies in the workspace: a second build for the same machine takes a fraction of the first.
    Raises BadInput `OperatorUnsupported` or `EngineNotBuilt`, StageError `EngineNotBuilt` where the builder fails.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(tensorrt.OnnxParser(network, logger), folder)
    config = builder.create_builder_config()
    free, _ = torch.cuda.mem_get_info()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, int(free * _WORKSPACE_SHARE))
    profile = builder.create_optimization_profile()
    for name, shapes in profile_of(max_tokens).items():
        profile.set_shape(name, *(tensorrt.Dims(list(shape)) for shape in shapes))
    config.add_optimization_profile(profile)
    cache = workspace / "caches" / f"tensorrt-{machine.tensorrt}-{machine.compute_capability}.timing"
    timings = config.create_timing_cache(cache.read_bytes() if cache.is_file() else b"")
    config.set_timing_cache(timings, ignore_mismatch=False)
    (folder / ENGINE).write_bytes(_bytes(builder.build_serialized_network(network, config)))
    _keep(config.get_timing_cache(), cache)
    identity = {**machine.to_json(), "profile": profile_of(max_tokens), "graph": "model.onnx", "engine": ENGINE}
    (folder / IDENTITY).write_text(json.dumps(identity, indent=1, sort_keys=True) + "\n")
    return machine.to_json()


def _bytes(plan: tensorrt.IHostMemory | None) -> bytes:
    if plan is None:
        raise StageError("EngineNotBuilt", "TensorRT built no engine; its reason stands in the log above")
    return bytes(memoryview(plan))


def _parse(parser: tensorrt.OnnxParser, folder: Path) -> None:
    model = engine_graph(folder)
    if not bool(parser.parse(model.SerializeToString(), str(folder / "model.onnx"))):
        message = "TensorRT cannot read the graph; its reason stands in the log above; set it to onnx"
        raise BadInput("EngineNotBuilt", message, field=f"{_FIELD}.format")


def _keep(timings: tensorrt.ITimingCache, path: Path) -> None:
    """Written beside and renamed: two stages may build at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_bytes(memoryview(timings.serialize()))
    beside.replace(path)
