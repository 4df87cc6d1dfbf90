"""What a stand-in makes of its container: variables, command line and folder. Written from the makers' documentation.

It knows nothing of the operator's table, so that a mistake there is found here. `Refused` is an exit with a message, as
of a container that crash-loops. NVIDIA: the pages environment-variables, fine-tuned-models and model-artifacts of 1.13,
2.0.0, 2.2.0 and 2.4; the embed recipe's deploy.py; NeMo Platform's page on deploying NIMs. vLLM: `vllm serve --help`,
the pages on pooling models.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

BAKED_NAME: Final = "STAND_IN_NAME"  # the model's id in the image
BAKED_CONFIG: Final = "STAND_IN_CONFIG"  # JSON: numbers of config.json that the image's engine is made for
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer_config.json")


class Refused(Exception):
    """The container ends with these words."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """What the server serves, once it has started."""

    folder: Path
    names: tuple[str, ...]  # what /v1/models announces and requests may ask for
    port: int
    needs_input_type: bool  # a request has to say query or passage, and the server puts the prefix
    health: tuple[str, ...]
    metadata: Mapping[str, Any] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Nim:
    """The dialect of one generation."""

    model: str  # variable of the folder
    name: str  # variable of the served name
    engine_name: str = ""  # variable of the engine's model
    several_models: bool = False  # whether the engine's name chooses among the image's models
    port: str = ""  # variable of the port alone
    bind: str = ""  # variable of host:port
    cache: str = ""  # variable of the folder to write in
    cache_path: str
    graph: bool = False  # a folder with an ONNX graph or an engine, else a checkpoint
    refused: frozenset[str]  # names with which its configuration is not valid


_ENGINE = {"NIM_ENGINE_MODEL_PATH", "NIM_ENGINE_MODEL_NAME"}
NIMS: Final = {
    "nim-1": Nim(
        model="NIM_CUSTOM_MODEL",
        name="NIM_SERVED_MODEL_NAME",
        port="NIM_HTTP_API_PORT",
        cache="NIM_CACHE_PATH",
        cache_path="/opt/nim/.cache",
        graph=True,
        refused=frozenset(_ENGINE | {"NIM_MODEL_PATH"}),
    ),
    "nim-2.0": Nim(
        model="NIM_MODEL_PATH",
        name="NIM_SERVED_MODEL_NAME",
        bind="NIM_BIND_ADDR",
        cache="NIM_CACHE_PATH",
        cache_path="/opt/nim/.cache",
        refused=frozenset(_ENGINE | {"NIM_CUSTOM_MODEL"}),
    ),
    "nim-2.2": Nim(
        model="NIM_ENGINE_MODEL_PATH",
        name="NIM_SERVER_SERVED_MODEL_NAME",
        engine_name="NIM_ENGINE_MODEL_NAME",
        bind="NIM_SERVER_BIND_ADDR",
        cache_path="/opt/cache",
        refused=frozenset(
            {"NIM_CUSTOM_MODEL", "NIM_MODEL_NAME", "NIM_MODEL_PATH", "NIM_BIND_ADDR", "NIM_SERVED_MODEL_NAME"}
        ),
    ),
    "nim-2.4": Nim(
        model="NIM_ENGINE_MODEL_PATH",
        name="NIM_SERVER_SERVED_MODEL_NAME",
        engine_name="NIM_ENGINE_MODEL_NAME",
        several_models=True,
        bind="NIM_SERVER_BIND_ADDR",
        cache_path="/opt/cache",
        refused=frozenset(
            {"NIM_CUSTOM_MODEL", "NIM_MODEL_NAME", "NIM_MODEL_PATH", "NIM_BIND_ADDR", "NIM_SERVED_MODEL_NAME"}
        ),
    ),
}


def start_nim(kind: str, env: Mapping[str, str], root: Path = Path("/")) -> Started:
    """`root` is what paths in the container lie below. Raises Refused."""
    nim, baked = NIMS[kind], env.get(BAKED_NAME) or "nvidia/baked-in"
    for name in sorted(nim.refused & env.keys()):
        raise Refused(f"configuration validation failed: {name} is not supported by this release")
    if not env.get(nim.model):
        raise Refused(f"{nim.model} is not set, and the model cannot be downloaded here")
    folder = _below(root, env[nim.model])
    (_check_graph if nim.graph else _check_checkpoint)(folder, json.loads(env.get(BAKED_CONFIG) or "{}"))
    engine = env.get(nim.engine_name, "") if nim.engine_name else ""
    if nim.several_models and engine != baked:
        raise Refused(f"{nim.engine_name} is {engine!r}, this image has {baked}")
    _write(_below(root, env.get(nim.cache) or nim.cache_path if nim.cache else nim.cache_path))
    return Started(
        folder=folder,
        names=(env.get(nim.name) or (engine if not nim.several_models else "") or baked,),
        port=_port(env.get(nim.port, ""), env.get(nim.bind, "")),
        needs_input_type=True,
        health=("/v1/health/live", "/v1/health/ready"),
        metadata={"assetInfo": [], "licenseInfo": {}, "modelInfo": [{"shortName": baked}], "version": kind},
    )


def _port(port: str, bind: str) -> int:
    if bind and ":" not in bind:
        raise Refused(f"the listen address {bind!r} is not host:port")
    return int(port or bind.rpartition(":")[2] or 8000)


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _write(folder: Path) -> None:
    """Kernels that were compiled, or engines that were built."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernels").write_text("compiled")
    except OSError as error:
        raise Refused(f"the cache cannot be written: {error}") from error


def _check_graph(folder: Path, baked: Mapping[str, Any]) -> None:
    found = [path.name for kind in ("onnx", "plan", "engine") for path in folder.glob(f"*.{kind}")]
    if len(found) != 1:
        raise Refused(f"{folder} holds {found or 'no model'}, expected one .onnx, .plan or .engine")
    if not (folder / _TOKENIZERS[0]).is_file():
        raise Refused(f"{folder} holds no {_TOKENIZERS[0]}")
    if found[0].endswith(".onnx"):
        from onnxruntime import InferenceSession  # only the dialect with a graph needs it

        session = InferenceSession(str(folder / found[0]), providers=["CPUExecutionProvider"])
        names = {item.name for item in session.get_inputs()}
        if not {"input_ids", "attention_mask"} <= names:
            raise Refused(f"the graph's inputs are {sorted(names)}, expected input_ids and attention_mask")
        wanted = int(baked.get("hidden_size", 0))
        if wanted and (size := _vector_size(session, wanted)) != wanted:
            raise Refused(f"the graph gives vectors of {size}, this image serves {wanted}")


def _vector_size(session: Any, wanted: int) -> int:
    """Of one text of three tokens, with whole vectors asked for."""
    asked = {item.name: np.ones((1, 3), np.int64) for item in session.get_inputs() if item.name != "dimensions"}
    if len(asked) < len(session.get_inputs()):
        asked["dimensions"] = np.array([wanted], np.int64)
    size: int = session.run(None, asked)[0].shape[-1]
    return size


def _check_checkpoint(folder: Path, baked: Mapping[str, Any]) -> None:
    config = _config(folder)
    for key, wanted in baked.items():
        if config.get(key) != wanted:
            raise Refused(f"unsupported architecture: config.json {key} is {config.get(key)!r}, expected {wanted!r}")


def _config(folder: Path) -> Mapping[str, Any]:
    if not (folder / "config.json").is_file():
        raise Refused(f"{folder} holds no config.json")
    if not any(folder.glob("*.safetensors")):
        raise Refused(f"{folder} holds no *.safetensors")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise Refused(f"{folder} holds no tokenizer")
    found: Mapping[str, Any] = json.loads((folder / "config.json").read_text())
    return found


# Of the page on embedding models: what is pooled by vLLM itself, and what `--convert embed` makes an embedder of.
_VLLM: Final = frozenset(
    {"BertModel", "Gemma3TextModel", "LlamaBidirectionalModel", "LlamaModel", "MistralModel", "ModernBertModel"}
    | {"Qwen2Model", "Qwen3Model", "RobertaModel", "XLMRobertaModel", "Ministral3Model"}
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"vllm serve: {message}")


def _vllm_arguments() -> argparse.ArgumentParser:
    parser = _Parser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("serve", choices=["serve"])
    parser.add_argument("model_tag")
    parser.add_argument("--runner", choices=["auto", "generate", "pooling", "draft"], default="auto")
    parser.add_argument("--convert", choices=["auto", "none", "embed", "classify"], default="auto")
    parser.add_argument("--pooler-config", type=json.loads)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--gpu-memory-utilization", type=float)
    return parser


def start_vllm(command: Sequence[str], env: Mapping[str, str], root: Path = Path("/")) -> Started:
    """`command` is what stands behind `vllm`. Raises Refused."""
    asked = _vllm_arguments().parse_args(list(command))
    folder = _below(root, asked.model_tag)
    config = _config(folder)
    architectures = config.get("architectures") or []
    if not _VLLM & set(architectures):
        raise Refused(f"model architectures {architectures} are not supported for now")
    if asked.runner != "pooling" or asked.convert == "none":
        raise Refused("the model is served to generate text: /v1/embeddings does not exist")
    if asked.pooler_config is None and not (folder / "modules.json").is_file():
        raise Refused("the checkpoint has no modules.json: the last token would be taken, whatever it was trained for")
    if asked.max_model_len and asked.max_model_len > config.get("max_position_embeddings", asked.max_model_len):
        raise Refused("max_model_len is larger than max_position_embeddings of config.json")
    if not env.get("VLLM_CPU_KVCACHE_SPACE") and asked.gpu_memory_utilization is None:  # the stand-in has no GPU
        raise Refused("Available memory is less than desired CPU memory utilization (0.92)")
    _write(_below(root, env.get("VLLM_CACHE_ROOT") or "/root/.cache/vllm"))
    return Started(
        folder=folder,
        names=tuple(asked.served_model_name or [asked.model_tag]),
        port=asked.port,
        needs_input_type=False,
        health=("/health",),
    )
