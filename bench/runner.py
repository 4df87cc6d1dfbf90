"""Runs contestants one after the other, each in a process of its own with a time limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RESULT_MARK: Final = "RESULT "
SHOWN_LINES: Final = 20  # of a failed contestant's output
BENCH: Final = Path(__file__).resolve().parent
ROOT: Final = BENCH.parent
_STAND_IN: Final = "flash_attn_stand_in"
_METADATA: Final = "Metadata-Version: 2.1\nName: flash_attn\nVersion: 2.8.3\n"
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "true",  # all of a machine's cores for whoever tokenizes in its loop
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """How to start one: its module, its arguments, which folders of packages it sees."""

    module: str
    arguments: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()  # folders of --wheels, the first wins
    stand_in: bool = False
    paths: tuple[Path, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """The folders of one run: checkpoints, unpacked wheels, the contestants' logs."""

    folder: Path
    sites: dict[str, Path]

    def checkpoint(self, model: str) -> Path:
        """The folder of the model's random checkpoint, written when it is first asked for."""
        folder, done = self.folder / f"checkpoint-{model}", self.folder / f"checkpoint-{model}.done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, "-P", "-m", "bench.checkpoint", str(folder), "--model", model]
            subprocess.run(command, check=True, env=_environment([ROOT]))
            done.touch()
        return folder


def open_workshop(folder: Path, *, wheels: Path | None) -> Workshop:
    """Install the wheels under `folder`; what is there already stays."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    sites = {} if wheels is None else {path.name: path for path in _install(wheels, folder / "sites")}
    stand_in = folder / _STAND_IN
    if not stand_in.exists():
        shutil.copytree(BENCH / _STAND_IN, stand_in, ignore=shutil.ignore_patterns("__pycache__"))
        _write_metadata(stand_in / "flash_attn-2.8.3.dist-info")
    sites[_STAND_IN] = stand_in
    return Workshop(folder=folder, sites=sites)


def run(
    contestant: Contestant, arguments: Sequence[str], *, name: str, model: str, workshop: Workshop, time_limit: float
) -> Row:
    """The contestant's result, or a row with `failed` (why) and `output` (its last lines)."""
    # A contestant that needs no wheels finds its packages in the interpreter, so an absent folder is no error here.
    sites = [workshop.sites[site] for site in contestant.wheels if site in workshop.sites]
    if contestant.stand_in:
        sites.append(workshop.sites[_STAND_IN])
    command = [sys.executable, "-P", "-m", contestant.module, *arguments, *contestant.arguments]
    command += ["--name", name, "--model", model, "--checkpoint", str(workshop.checkpoint(model))]
    command += ["--time-limit", f"{time_limit:.0f}"]
    log = workshop.folder / "logs" / f"{model}-{name}-{arguments[0]}-{time.monotonic_ns()}.log"
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment([*sites, ROOT, *contestant.paths]),
            cwd=workshop.folder,
            start_new_session=True,
        )
        failure = _wait(process, time_limit)
    row = _result(log.read_text(errors="replace").splitlines(), failure)
    return {"name": name, **row, "wall_s": round(time.monotonic() - started, 1)}


def _wait(process: subprocess.Popen[bytes], time_limit: float) -> str:
    """Why the process failed, or nothing; whatever it started ends with it."""
    try:
        code = process.wait(time_limit)
    except subprocess.TimeoutExpired:
        failure = f"stopped after {time_limit:.0f} s"
    except BaseException:
        _kill(process)
        raise
    else:
        return f"exit status {code}" if code else ""
    _kill(process)
    return failure


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _result(lines: list[str], failure: str) -> Row:
    found = [line for line in lines if line.startswith(RESULT_MARK)]
    if found:  # a result counts even where the interpreter stumbles on its way out
        return dict(json.loads(found[-1].removeprefix(RESULT_MARK)))
    return {"failed": failure or "no result", "output": lines[-SHOWN_LINES:]}


def _environment(paths: Sequence[Path]) -> dict[str, str]:
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.environ | _OFFLINE | {"PYTHONPATH": os.pathsep.join([*map(str, paths), *inherited])}


def _install(wheels: Path, target: Path) -> list[Path]:
    """One folder of packages for each folder of wheels: what one contestant needs must not reach another."""
    sites = []
    for folder in sorted(path for path in wheels.iterdir() if path.is_dir()):
        site = target / folder.name
        files = sorted(map(str, folder.glob("*.whl")))
        if files and not site.exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
            subprocess.run([*command, "--target", str(site), *files], check=True)
        sites.append(site)
    return sites


def _write_metadata(folder: Path) -> None:
    """What makes a folder count as an installed distribution of that name and version."""
    folder.mkdir()
    (folder / "METADATA").write_text(_METADATA)
    (folder / "top_level.txt").write_text("flash_attn\n")
    (folder / "RECORD").write_text(f"flash_attn/__init__.py,,\n{folder.name}/METADATA,,\n")
