"""Resolve the images' Python packages into lock files with hashes, from the extras of pyproject.toml."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from catalogue import ROOT, STAGES
from tools import ImagesError, run, say

OLDEST_PYTHON = "3.11"
TORCH = "stage_images/torch.lock"
FAISS_GPU = "stage_images/prep/faiss-gpu.lock"
# Only BEIR's evaluator is used; what its other parts want is left out.
UNUSED_OF_BEIR = ("sentence-transformers", "datasets")
# Nor does the quantization of graphs, alone of ModelOpt, import these.
UNUSED_OF_MODELOPT = ("ninja", "omegaconf", "pulp", "scipy", "setuptools")
# Data Designer imports these when a column asks for them: distributions, pictures, keys of tool servers. The stage's
# columns do not, and a test runs all of them without.
UNUSED_OF_DATA_DESIGNER = ("scipy", "pillow", "cryptography")
UNUSED = {"sdg": UNUSED_OF_DATA_DESIGNER, "export": UNUSED_OF_MODELOPT}
TENSORRT = "stage_images/export/tensorrt.lock"  # a layer for who builds it in; see the image's Containerfile
TENSORRT_VERSION = "10.13.3.9"
TENSORRT_PACKAGES = ("tensorrt-cu13", "tensorrt-cu13-libs", "tensorrt-cu13-bindings")


def locks() -> dict[str, str]:
    """Lock file -> extra of pyproject.toml."""
    found = {f"stage_images/{name}/requirements.lock": name for name in STAGES}
    return {**found, "operator/requirements.lock": "operator"}


def write(names: list[str]) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise ImagesError("locking needs uv: python3 -m pip install uv")
    with tempfile.TemporaryDirectory() as scratch:
        for target, extra in locks().items():
            if not names or extra in names:
                excluded = Path(scratch, f"{extra}.txt")
                unused = UNUSED.get(extra, UNUSED_OF_BEIR)
                excluded.write_text("".join(f"{name}\n" for name in ("torch", *unused)))
                arguments = ["pyproject.toml", "--extra", extra, "--excludes", str(excluded)]
                _resolve(uv, arguments, target)
        if not names or "torch" in names:
            wanted = Path(scratch, "torch.in")
            wanted.write_text("torch>=2.6\n")
            _resolve(uv, [str(wanted)], TORCH)
        if not names or "faiss-gpu" in names:
            wanted = Path(scratch, "faiss-gpu.in")
            wanted.write_text("faiss-gpu==1.15.1\n")
            numpy = Path(scratch, "numpy.txt")
            numpy.write_text("numpy\npackaging\n")  # of the image's own lock
            _resolve(uv, [str(wanted), "--excludes", str(numpy)], FAISS_GPU)
        if not names or "tensorrt" in names:
            wanted = Path(scratch, "tensorrt.in")
            wanted.write_text("".join(f"{name}=={TENSORRT_VERSION}\n" for name in TENSORRT_PACKAGES))
            _resolve(uv, [str(wanted), "--no-deps"], TENSORRT)
        if not names or "demo-model" in names:
            folder = "hack/images/demo-model"
            _resolve(uv, [f"{folder}/requirements.in", "--no-deps"], f"{folder}/requirements.lock")


def _resolve(uv: str, arguments: list[str], target: str) -> None:
    say(f"resolving {target}")
    options = [
        "--universal",
        "--python-version",
        OLDEST_PYTHON,
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--quiet",
    ]
    run([uv, "pip", "compile", *arguments, *options, "--output-file", target], cwd=ROOT)
