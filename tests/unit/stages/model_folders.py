"""Folders of tiny models, and changes of their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stages.tiny_models import make_bert, make_llama, make_mpnet, make_roberta

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    makers = {"bert": make_bert, "roberta": make_roberta, "mpnet": make_mpnet, "llama": make_llama}
    return {name: make(root / name) for name, make in makers.items()}


def edit(name: str, **changes: Any) -> Change:
    """Change keys of a JSON file; a key set to None stays as null."""

    def apply(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        raw = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(raw | changes))

    return apply


def write(name: str, content: object) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    return apply


def of_type(kind: str, path: str) -> dict[str, str]:
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


def several(*changes: Change) -> Change:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


NAMED_POOLING = write(
    "modules.json", [of_type("Transformer", ""), of_type("Pooling", "pool"), of_type("Normalize", "")]
)
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
MAX = {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
