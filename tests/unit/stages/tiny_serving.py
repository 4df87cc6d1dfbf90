"""A serving folder whose vectors can be worked out by hand, a server on it, and a client."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from aiohttp import web
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.serve.app import Endpoint
from embedding_stages.serve.server import load_model

HIDDEN = 8
MAX_TOKENS = 12
TOPICS = [f"topic{number}" for number in range(20)]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "passage", ":", "is", "this", "model", "ready", "?", *TOPICS]
PREFIXES = {"query": "query: ", "passage": "passage: "}


def make_serving_folder(
    folder: Path,
    *,
    seed: int = 0,
    dimensions_shape: Sequence[int | str] | None = ("batch",),
    prefixes: dict[str, str] | None = None,
    broken_word: str | None = None,
) -> Path:
    """model.onnx is the scaled mean of one random vector a word; `broken_word` has NaN."""
    folder.mkdir(parents=True)
    table = np.random.default_rng(seed).normal(size=(len(WORDS), HIDDEN)).astype(np.float32)
    table[:7] *= 0.05  # prefixes and special tokens shall not drown the words
    if broken_word is not None:
        table[WORDS.index(broken_word)] = np.nan
    onnx.save(_graph(table, dimensions_shape), folder / "model.onnx")
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    EncoderDescription(
        architecture="bert",
        prefixes=PREFIXES if prefixes is None else prefixes,
        max_tokens=MAX_TOKENS,
        hidden_size=HIDDEN,
        dimensions=(HIDDEN, 4),
    ).save(folder)
    return folder


def _graph(table: np.ndarray[Any, Any], dimensions_shape: Sequence[int | str] | None) -> Any:
    make, integer = helper.make_node, TensorProto.INT64
    constants = {"table": table, "minus1": [-1], "zero": [0], "one": [1], "two": [2], "hidden": [HIDDEN]}
    nodes = [
        make("Gather", ["table", "input_ids"], ["words"]),
        make("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["weights", "two"], ["column"]),
        make("Mul", ["words", "column"], ["masked"]),
        make("ReduceSum", ["masked", "one"], ["mean"], keepdims=0),
        make("Reshape", ["dimensions" if dimensions_shape is not None else "hidden", "minus1"], ["sizes"]),
        make("ReduceMax", ["sizes"], ["width"], keepdims=1),
        make("Slice", ["mean", "zero", "width", "one"], ["cut"]),
        make("ReduceL2", ["cut"], ["length"], axes=[1], keepdims=1),
        make("Div", ["cut", "length"], ["embeddings"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, integer, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")
    ]
    if dimensions_shape is not None:
        inputs.append(helper.make_tensor_value_info("dimensions", integer, list(dimensions_shape)))
    outputs = [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", "width"])]
    weights = [
        numpy_helper.from_array(np.array(value, dtype=None if name == "table" else np.int64), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


Middleware = Callable[[web.Request, Callable[[web.Request], Any]], Any]


@contextmanager
def serving(
    folder: Path | None, *, name: str = "tiny", endpoint: Endpoint | None = None, front: Middleware | None = None
) -> Iterator[str]:
    """A server in a thread; the value is its URL. Without a folder it never becomes ready. `front` may change
    requests and answers.
    """
    served = endpoint or Endpoint(name)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        runner = served.runner(finish_seconds=10, front=[] if front is None else [web.middleware(front)])
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        if folder is not None and served.loaded is None:
            served.start(load_model(folder))
        return runner, runner.addresses[0][1]

    async def stop(runner: web.AppRunner) -> None:
        await runner.cleanup()
        await served.stop()
        await loop.shutdown_default_executor()

    try:
        runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(stop(runner), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def call(
    url: str, body: Any = None, *, raw: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """(status, body) of a GET, or of a POST when there is something to send."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    return status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()
