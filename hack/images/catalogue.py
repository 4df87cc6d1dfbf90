"""Which images there are, what each is made of, and the name that follows from that."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "localhost/embedding-operator"
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".mypy_cache", ".ruff_cache")


@dataclass(frozen=True)
class Image:
    """An image of the project; `sources` are all the files that its Containerfile copies."""

    name: str
    base: str
    containerfile: str
    sources: tuple[str, ...]
    for_tests: bool = False  # nothing else uses it

    @property
    def files(self) -> tuple[str, ...]:
        """All that it is made of, beside its base: files and folders of the repository."""
        return (self.containerfile, *self.sources)

    @property
    def is_stage(self) -> bool:
        """Whether the operator starts it, so that the chart has to name it."""
        return self.containerfile.startswith("stage_images/")


# Of layers that only some who build an image want.
FURTHER_LOCKS: dict[str, tuple[str, ...]] = {"export": ("tensorrt.lock",), "prep": ("faiss-gpu.lock",)}


def _stage(name: str, base: str) -> Image:
    folder = f"stage_images/{name}"
    lock = (f"{folder}/requirements.lock", *(f"{folder}/{further}" for further in FURTHER_LOCKS.get(name, ())))
    torch = ("stage_images/torch.lock",) if base == "base-torch" else ()
    return Image(name, base, f"{folder}/Containerfile", (*lock, *torch, "stage_images/embedding_stages"))


CONTRACT = ("stage_images/embedding_stages/__init__.py", "stage_images/embedding_stages/contract")
IMAGES = (
    Image(
        "operator",
        "base-python",
        "operator/Containerfile",
        ("operator/requirements.lock", "operator/embedding_operator", *CONTRACT),
    ),
    _stage("sdg", "base-python"),
    _stage("serve", "base-python"),
    _stage("prep", "base-torch"),
    _stage("finetune", "base-torch"),
    _stage("evaluate", "base-torch"),
    _stage("export", "base-torch"),
    _stage("serve-torch", "base-torch"),
    Image(
        "demo-model",
        "base-python",
        "hack/images/demo-model/Containerfile",
        ("hack/images/demo-model/requirements.lock",),
    ),
    Image(
        "demo-corpus",
        "base-python",
        "hack/images/demo-corpus/Containerfile",
        ("hack/images/demo-corpus/make_corpus.py",),
    ),
    Image(
        "pgvector",
        "base-python",
        "hack/images/pgvector/Containerfile",
        ("hack/images/pgvector/serve.sh",),
        for_tests=True,
    ),
    Image(  # of servers that are not the project's own, for the end-to-end tests
        "stand-ins",
        "base-torch",
        "hack/images/stand-ins/Containerfile",
        (
            "stage_images/torch.lock",
            "stage_images/serve-torch/requirements.lock",
            "stage_images/serve/requirements.lock",
            "stage_images/embedding_stages",
            "tests/stand_ins",
        ),
        for_tests=True,
    ),
)
STAGES = tuple(image.name for image in IMAGES if image.is_stage)
PUBLISHED = ("operator", *STAGES)  # what the chart names


def gather(names: Iterable[str], folder: Path) -> None:
    """Copy what an image is made of into a build context, so that what is hashed is what is built."""
    for name in names:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=IGNORED, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def content_hash(folder: Path, *extra: str) -> str:
    """A short hash of every file below a folder, and of some words more."""
    digest = hashlib.sha256("\0".join(extra).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"\0{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
