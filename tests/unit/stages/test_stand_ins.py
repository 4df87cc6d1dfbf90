"""What the operator makes starts in a strict stand-in of each server that is not the project's own, and verify passes.

The stand-ins (tests/stand_ins) are written from the makers' documentation and know nothing of the operator's table.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_ins.front import Front
from stand_ins.started import BAKED_CONFIG, BAKED_NAME, NIMS, Refused, Started, start_nim, start_vllm
from unit.operator.test_serving_manifests import pod
from unit.stages.test_evaluate_set import write
from unit.stages.test_verify_stage import K_VALUES, verify
from unit.stages.tiny_models import make_bert
from unit.stages.tiny_serving import call, make_serving_folder

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import ExitCode
from embedding_stages.contract.servers import SERVERS, profile_named
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.evaluate.metrics import measure
from embedding_stages.evaluate.report import Uplift, build_report, save_report
from embedding_stages.serve.open_model import open_model
from embedding_stages.serve.server import log

Raw = dict[str, Any]
IMAGE = "mirror.example/embedding-nim"
BASE = "tiny"  # baseModel.name of `a_spec`
DEPLOY: dict[str, Raw] = {  # by name of the profile
    "nim-1": {"image": f"{IMAGE}:1.13.0", "backend": {"nim": {}}},
    "nim-2": {"image": f"{IMAGE}:2.0.0", "backend": {"nim": {}}},
    "nim-2.2": {"image": f"{IMAGE}:2.2.2", "backend": {"nim": {}}},
    "nim-2.4": {"image": f"{IMAGE}:2.4.0", "backend": {"nim": {}}},
    "vllm": {"image": "vllm:1", "backend": {"vllm": {}}},
}
QUERIES = 4  # so few that chance explains what a random model finds with the roles exchanged
STAND_IN = {"nim-2": "nim-2.0"}  # where it has another name


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A graph as export writes it, and a checkpoint as finetune does; neither has the same prefix for both roles."""
    folder = tmp_path_factory.mktemp("models")
    graph = make_serving_folder(folder / "graph")
    encoder = PaddedEncoder.load(make_bert(folder / "base"), device="cpu")
    encoder.description = replace(encoder.description, prefixes={"query": "query: ", "passage": "passage: "})
    encoder.save(folder / "checkpoint")
    return {"graph": graph, "checkpoint": folder / "checkpoint"}


def container(kind: str, **more: Any) -> tuple[dict[str, str], list[str]]:
    """(variables, arguments behind the program) of the server's container as the operator makes it."""
    server = pod({**DEPLOY[kind], **more})["containers"][0]
    env = {item["name"]: str(item.get("value", "from a Secret")) for item in server["env"]}
    return env, [*server.get("command", [])[1:], *server.get("args", [])]


def baked(kind: str, folder: Path) -> dict[str, str]:
    """What the image is made for: a model of the very architecture, and in the image under its base model's name."""
    config = json.loads((folder / "config.json").read_text()) if "graph" not in folder.name else {"hidden_size": 8}
    numbers = {key: config[key] for key in ("hidden_size", "num_hidden_layers") if key in config}
    return {BAKED_NAME: BASE, BAKED_CONFIG: json.dumps(numbers)}


def start(kind: str, root: Path, env: Mapping[str, str], arguments: list[str]) -> Started:
    if kind == "vllm":
        return start_vllm(arguments, env, root)
    return start_nim(STAND_IN.get(kind, kind), env, root)


def mounted(kind: str, root: Path, models: Mapping[str, Path]) -> Path:
    """The model where the operator mounts it."""
    mount = next(item for item in pod(DEPLOY[kind])["containers"][0]["volumeMounts"] if item["name"] == "workspace")
    folder = root / str(mount["mountPath"]).lstrip("/")
    shutil.copytree(models["checkpoint" if profile_named(kind).serves_checkpoint else "graph"], folder)
    return folder


@contextmanager
def running(started: Started) -> Iterator[str]:
    loop, front = asyncio.new_event_loop(), Front(started)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(front.start("127.0.0.1", 0), loop).result(60)
        yield f"http://127.0.0.1:{front.port}"
    finally:
        asyncio.run_coroutine_threadsafe(front.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def evaluated(workspace: Path) -> None:
    """An evaluation set, and the report of evaluating exactly the model in `workspace`."""
    random = np.random.default_rng(3)
    words = [f"topic{n}" for n in range(20)] if (workspace / "model/model.onnx").is_file() else _keys()
    texts = [" ".join(random.choice(words, size=3)) for _ in range(30)]
    texts[0] = " ".join(words * 4)  # longer than the model reads: it is cut, there and here
    corpus = [{"_id": f"p{at}", "text": text} for at, text in enumerate(texts)]
    queries = [{"_id": f"q{at}", "text": " ".join(text.split()[:2])} for at, text in enumerate(texts[:QUERIES])]
    write(
        workspace / "set",
        corpus,
        queries,
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\tp{n}\t1\n" for n in range(QUERIES)),
    )
    model, found = open_model(workspace / "model", log), load_evaluation_set(workspace / "set")
    size = model.description.vector_size
    sides = [model.vectors(model.reader.read(texts, role, "END"), size)
             for texts, role in ((found.queries, "query"), (found.passages, "passage"))]  # fmt: skip
    scores = measure(found, sides[0], sides[1], K_VALUES)
    digests = {"evaluationSet": digest_of_folder(workspace / "set")}
    (workspace / "report").mkdir()
    report = build_report(
        found, {"base": scores, "fineTuned": scores}, Uplift(0.0, None), K_VALUES, digests, precision="float32"
    )
    save_report(workspace / "report", report)


def _keys() -> list[str]:
    return [f"key{n}" for n in range(8)] + [f"noise{n}" for n in range(20)]


def test_each_server_that_is_not_ours_has_a_stand_in() -> None:
    foreign = {item.name for item in SERVERS if item.default_image is None and item.run_by == "Deployment"}
    assert foreign == DEPLOY.keys()
    assert {STAND_IN.get(kind, kind) for kind in DEPLOY} - {"vllm"} == NIMS.keys()


@pytest.mark.parametrize("kind", DEPLOY)
def test_what_the_operator_makes_starts_and_is_measured_as_it_was_evaluated(
    kind: str, tmp_path: Path, models: Mapping[str, Path]
) -> None:
    folder = mounted(kind, tmp_path / "root", models)
    shutil.copytree(folder, tmp_path / "model")
    evaluated(tmp_path)
    env, arguments = container(kind)
    started = start(kind, tmp_path / "root", env | baked(kind, tmp_path / "model"), arguments)
    assert started.port == profile_named(kind).port
    with running(started) as url:
        code, result = verify(tmp_path, url, server=kind, model=BASE)
        health = [call(f"{url}{path}")[0] for path in (profile_named(kind).ready_path, profile_named(kind).live_path)]
    assert code == ExitCode.DONE, result.message
    assert result.counts["changedQueries"] == 0
    assert health == [200, 200]


@pytest.mark.parametrize("kind", DEPLOY)
def test_it_announces_the_name_that_clients_are_told(kind: str, tmp_path: Path, models: Mapping[str, Path]) -> None:
    mounted(kind, tmp_path, models)
    env, arguments = container(kind, modelName="handbook")
    assert start(kind, tmp_path, env | baked(kind, models["checkpoint"]) | ({BAKED_CONFIG: "{}"}), arguments).names == (
        "handbook",
    )


@pytest.mark.parametrize(
    ("kind", "other"), [(a, b) for a in DEPLOY for b in DEPLOY if "nim" in a and "nim" in b and a != b]
)
def test_another_generations_words_are_refused(
    kind: str, other: str, tmp_path: Path, models: Mapping[str, Path]
) -> None:
    """Except that 2.4 takes 2.2's variables; then the engine's model has to be one that the image has."""
    folder = mounted(kind, tmp_path, models)
    env, _ = container(other, modelName="handbook")
    env = {name: str(folder) if name.endswith(("_PATH", "CUSTOM_MODEL")) else value for name, value in env.items()}
    started: Started | None = None
    try:
        started = start(kind, Path("/"), env | {BAKED_NAME: BASE}, [])
    except Refused:
        assert (kind, other) != ("nim-2.2", "nim-2.4")
        return
    assert started is not None
    assert (kind, other) == ("nim-2.2", "nim-2.4")


@pytest.mark.parametrize("kind", [kind for kind in DEPLOY if kind != "vllm"])
@pytest.mark.parametrize("fault", ["another architecture", "the other layout", "no tokenizer"])
def test_a_folder_that_the_image_does_not_take_ends_it(
    kind: str, fault: str, tmp_path: Path, models: Mapping[str, Path]
) -> None:
    folder = mounted(kind, tmp_path, models)
    env, arguments = container(kind)
    env |= baked(kind, models["checkpoint" if profile_named(kind).serves_checkpoint else "graph"])
    if fault == "another architecture":
        env[BAKED_CONFIG] = json.dumps({"hidden_size": 2048})
    elif fault == "the other layout":
        shutil.rmtree(folder)
        shutil.copytree(models["graph" if profile_named(kind).serves_checkpoint else "checkpoint"], folder)
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink(missing_ok=True)
    with pytest.raises(Refused):
        start(kind, tmp_path, env, arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: [x if x != "--runner" else "--task" for x in a], "--task"),
        (lambda a: [*a, "--override-pooler-config", "{}"], "unrecognized arguments: --override-pooler-config"),
        (lambda a: [*a[:2], *a[4:]], "generate text"),  # without --runner pooling
        (lambda a: [*a, "--pooling", "mean"], "unrecognized"),
    ],
)
def test_vllm_knows_its_flags(change: Any, words: str, tmp_path: Path, models: Mapping[str, Path]) -> None:
    mounted("vllm", tmp_path, models)
    env, arguments = container("vllm")
    start_vllm(arguments, env, tmp_path)
    with pytest.raises(Refused, match=words):
        start_vllm(change(arguments), env, tmp_path)


def test_vllm_on_a_cpu_wants_a_size_or_all_the_memory(tmp_path: Path, models: Mapping[str, Path]) -> None:
    mounted("vllm", tmp_path, models)
    env, arguments = container("vllm")
    start_vllm(arguments, env, tmp_path)
    without = {name: value for name, value in env.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
    with pytest.raises(Refused, match="less than desired CPU memory utilization"):
        start_vllm(arguments, without, tmp_path)
    start_vllm([*arguments, "--gpu-memory-utilization", "0.2"], without, tmp_path)


def test_vllm_pools_as_the_checkpoint_says(tmp_path: Path, models: Mapping[str, Path]) -> None:
    """Without the file it would take the last token; and of several flags the first that is true."""
    folder = mounted("vllm", tmp_path, models)
    env, arguments = container("vllm")
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    assert [name for name, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens"]
    (folder / "modules.json").unlink()
    with pytest.raises(Refused, match=r"modules\.json"):
        start_vllm(arguments, env, tmp_path)


def test_vllm_refuses_a_long_text_that_nobody_asks_it_to_cut(tmp_path: Path, models: Mapping[str, Path]) -> None:
    mounted("vllm", tmp_path, models)
    env, arguments = container("vllm")
    long = {"model": BASE, "input": " ".join(_keys() * 9)}
    with running(start_vllm(arguments, env, tmp_path)) as url:
        assert call(f"{url}/v1/embeddings", long)[0] == 400
        assert call(f"{url}/v1/embeddings", long | dict(profile_named("vllm").request_fields))[0] == 200
