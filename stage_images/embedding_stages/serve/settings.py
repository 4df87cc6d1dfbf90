"""The server's settings, from NIM's own variables, so that one Deployment fits either image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedding_stages.contract import (
    ENV_TERMINATION_LOG,
    ENV_VECTOR_SPACE,
    TERMINATION_LOG_PATH,
    VECTOR_SPACE_NAME,
)
from embedding_stages.contract.servers import MAX_TEXTS, MODEL_VARIABLES, NAME_VARIABLE, ONNX, PORT_VARIABLE

MAX_BATCH_ROWS = 32  # through the model at once
MAX_WAITING_ROWS = 4 * MAX_TEXTS  # of all requests; beyond it they are told to come back


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`host` None binds every interface."""

    folder: Path
    model: str  # the name that requests give
    host: str | None
    port: int
    termination_log: Path
    drain_seconds: float  # after SIGTERM: how long clients may still find the way here
    finish_seconds: float  # after that: how long answers under way may take
    vector_space: str | None = None  # its name; None: nobody said

    @classmethod
    def of(cls, env: Mapping[str, str]) -> ServerSettings:
        """NIM's variables for the model's folder (of either generation), its name and the port; EFT_HOST,
        EFT_DRAIN_SECONDS and EFT_VECTOR_SPACE are this server's own. Raises ValueError.
        """
        space = env.get(ENV_VECTOR_SPACE) or None
        if space is not None and not re.fullmatch(VECTOR_SPACE_NAME, space):
            raise ValueError(f"{ENV_VECTOR_SPACE} is {space!r}, expected 16 digits of 0-9a-f")
        given = next((env[name] for name in MODEL_VARIABLES if env.get(name)), ONNX.model_path)
        folder = Path(given)
        return cls(
            folder=folder,
            model=env.get(NAME_VARIABLE) or folder.name,
            host=env.get("EFT_HOST") or None,
            port=int(env.get(PORT_VARIABLE) or ONNX.port),
            termination_log=Path(env.get(ENV_TERMINATION_LOG) or TERMINATION_LOG_PATH),
            drain_seconds=float(env.get("EFT_DRAIN_SECONDS") or 5),
            finish_seconds=20.0,
            vector_space=space,
        )
