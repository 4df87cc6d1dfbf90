"""The sdg stage against the scripted endpoint, in this process or in one that can be killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripted_llm import Server
from unit.stages.llm_endpoint import KEY

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest
from embedding_stages.runner import run
from embedding_stages.sdg.ledger import FILE
from embedding_stages.sdg.stage import work

_ROOT = Path(__file__).parents[3]
_WRITES_S = 30.0  # at most, on a busy machine
PRICES = {"promptPerMillion": 2.0, "completionPerMillion": 8.0}
_WORDS = (
    *("turbine", "inlet", "valve", "pressure", "cooling", "harbour", "engine"),
    *("ledger", "sensor", "bridge", "panel", "filter", "motor", "signal"),
)


def documents(number: int, *, seed: int = 1) -> dict[str, str]:
    """Of very different lengths: one to forty sentences."""
    draw = random.Random(seed)
    found = {}
    for place in range(number):
        sentences = int(draw.paretovariate(0.9) * 3) % 40 + 1
        text = " ".join(
            f"The {draw.choice(_WORDS)} {place}-{n} of the {draw.choice(_WORDS)} feeds the {draw.choice(_WORDS)} "
            f"when the {draw.choice(_WORDS)} reads {draw.randint(10, 99)} degrees."
            for n in range(sentences)
        )
        found[f"d{place:04d}"] = text
    return found


def request_of(
    tmp_path: Path, url: str, texts: dict[str, str], *, endpoint: dict[str, Any] | None = None, **changes: Any
) -> dict[str, str]:
    """The environment of the stage's process."""
    folder = tmp_path / "inputs" / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": name, "path": f"{name}.txt", "text": text}) for name, text in texts.items()]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "secrets" / "openai").mkdir(parents=True, exist_ok=True)
    (tmp_path / "secrets" / "openai" / "token").write_text(KEY)
    provider = changes.pop("provider", "openAI")
    settings = {"provider": provider, "openAI": None, "pairsPerDocument": 7, "sentencesPerChunk": 5,
                "minTextLength": 50, "seed": 42, provider: {"baseURL": url, "model": "m", **(endpoint or {})},
                **changes}  # fmt: skip
    corpus = ArtefactRef(path="inputs/corpus", digest=digest_of_folder(folder))
    request = StageRequest(stage=Stage.SDG, fingerprint="f", attempt=1, revision=1, image="i",
                           settings=settings, inputs={Artefact.CORPUS: corpus})  # fmt: skip
    return {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path),
        "EFT_SECRETS": str(tmp_path / "secrets"),
        "EFT_AUTHORITIES": str(tmp_path / "authorities"),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }


def outcome_in(tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result and the pairs that a process has left."""
    pairs = tmp_path / "sdg" / "f" / "pairs" / "pairs.jsonl"
    found = [json.loads(line) for line in pairs.read_text().splitlines()] if pairs.exists() else []
    return json.loads((tmp_path / "log").read_text()), found


def scripted(
    tmp_path: Path, url: str, texts: dict[str, str], **changes: Any
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Exit code, result and pairs of the stage, run here."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    code = run(Stage.SDG, work, request_of(tmp_path, url, texts, **changes))
    return code, *outcome_in(tmp_path)


def designed(
    tmp_path: Path, server: Server, texts: dict[str, str], **changes: Any
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    return scripted(tmp_path, server.url, texts, provider="dataDesigner", **changes)


def started(env: dict[str, str], *, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """The stage in a process of its own."""
    found = filter(None, (str(_ROOT / "stage_images"), os.environ.get("PYTHONPATH")))
    path = {"PYTHONPATH": os.pathsep.join(found), "NO_PROXY": "*"}
    return subprocess.Popen([sys.executable, "-m", "embedding_stages.sdg"], env=os.environ | env | path, stdout=stdout)


def killed(
    process: subprocess.Popen[bytes], server: Server, answers: int, *, after: Callable[[], object] = lambda: None
) -> bool:
    """Kill it after so many more answers, and after what is done then; False when it was done before."""
    wanted = server.state.stats()["answered"] + answers
    while server.state.stats()["answered"] < wanted:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    after()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def killed_when_written(process: subprocess.Popen[bytes], server: Server, answers: int, workspace: Path) -> bool:
    """Kill it after so many more answers, all of which it has written down; False when it was done before."""

    def all_is_written() -> None:
        server.state.freeze()
        given, deadline = server.state.stats()["answered"], time.monotonic() + _WRITES_S
        while _written(workspace) < given and time.monotonic() < deadline:  # one that was lost is told by the caller
            time.sleep(0.005)

    found = killed(process, server, answers, after=all_is_written)
    if found:
        time.sleep(0.1)  # and the kernel hangs up
        server.state.may_answer.set()
    return found


def _written(workspace: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in workspace.rglob(FILE))
