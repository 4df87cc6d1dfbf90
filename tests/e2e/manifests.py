"""Small resources for the end-to-end tests: real documents, the real MiniLM, little of each."""

from __future__ import annotations

import copy
import pydoc
from typing import Any

from e2e.kube import NAMESPACE

MODULES = (
    "argparse",
    "calendar",
    "collections",
    "contextlib",
    "csv",
    "functools",
    "heapq",
    "pathlib",
    "shutil",
    "statistics",
)
_NO_GPU = {"resources": {"limits": {"nvidia.com/gpu": 0}}}


def documents() -> dict[str, Any]:
    """A ConfigMap with the documentation of some standard library modules, as pydoc prints it."""
    texts = {f"{name}.txt": pydoc.plain(pydoc.render_doc(name, renderer=pydoc.plaintext))[:9_000] for name in MODULES}
    return config_map("docs", texts)


def config_map(name: str, data: dict[str, str], binary: dict[str, str] | None = None) -> dict[str, Any]:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}
    return {**body, "binaryData": binary} if binary else body


def fine_tune(name: str, model_image: str, *, gpu: bool = False) -> dict[str, Any]:
    """A resource that trains in seconds."""
    stage = {} if gpu else copy.deepcopy(_NO_GPU)
    return {
        "apiVersion": "embedding-operator.dev/v1alpha1",
        "kind": "EmbeddingFineTune",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "baseModel": {
                "name": "sentence-transformers/all-MiniLM-L6-v2",
                "source": {"image": {"reference": model_image, "path": "/model"}},
                "maxTokens": 64,
            },
            "corpus": {"source": {"configMap": {"name": "docs"}}},
            "stages": {
                "sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 6},
                "prep": copy.deepcopy(stage),
                "finetune": {**copy.deepcopy(stage), "epochs": 1, "learningRate": "2e-5"},
                "eval": copy.deepcopy(stage),
                "export": copy.deepcopy(stage),
            },
            "gates": {"onFail": "Warn"},  # with a dozen questions chance decides; see test_path for one that stops
            "storage": {"size": "2Gi"},
        },
    }
