"""Peers compiled from their Go modules; their CRDs and webhooks are read from the same modules at run time."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.scale.lab import say


@dataclass(frozen=True)
class Source:
    name: str
    module: str
    version: str
    package: str  # within the module

    @property
    def program(self) -> Path:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        return cache / "embedding-operator/bench-peers" / f"{self.name}-{self.version}"


JOBSET: Final = Source("jobset", "sigs.k8s.io/jobset", "v0.10.1", ".")
ARGO: Final = Source("argo", "github.com/argoproj/argo-workflows/v3", "v3.7.0", "./cmd/workflow-controller")


class NotBuilt(Exception):
    """Why a peer takes no part."""


def folder_of(source: Source) -> Path:
    """The module's files, fetched where they are not there yet."""
    done = _go("mod", "download", "-json", f"{source.module}@{source.version}", folder=Path("/"))
    return Path(json.loads(done)["Dir"])


def build(source: Source) -> Path:
    """Minutes the first time; Go keeps what is compiled, so an interrupted build goes on where it was."""
    if not source.program.exists():
        say(f"building {source.name} {source.version}")
        source.program.parent.mkdir(parents=True, exist_ok=True)
        new = source.program.with_suffix(".new")
        _go("build", "-trimpath", "-ldflags", "-s -w", "-o", str(new), source.package, folder=folder_of(source))
        new.rename(source.program)
    return source.program


def _go(*arguments: str, folder: Path) -> str:
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    try:
        done = subprocess.run(["go", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotBuilt("there is no Go on this machine") from error
    if done.returncode:
        raise NotBuilt(f"go {arguments[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout
