"""Read images straight out of buildah's storage, layer by layer.

`buildah push` compresses every layer of every image each time, also those that the cluster has.
The storage keeps each layer unpacked and, beside it, the exact tar headers ("tar-split": JSON
lines of raw segments and file names), so that the very bytes of the layer can be put together
again. Whoever receives them checks the digest.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import ImagesError, run

FILE, SEGMENT = 1, 2
CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredImage:
    """Manifest and configuration of an image, as the bytes their digests are of."""

    reference: str
    manifest: bytes
    config: bytes

    @property
    def layers(self) -> list[str]:
        return [str(layer["digest"]) for layer in json.loads(self.manifest)["layers"]]

    @property
    def config_digest(self) -> str:
        return str(json.loads(self.manifest)["config"]["digest"])


def stored_image(reference: str) -> StoredImage:
    def inspect(field: str) -> bytes:
        text = run(["buildah", "inspect", "--type", "image", "--format", f"{{{{.{field}}}}}", reference])
        return text.removesuffix("\n").encode()

    return StoredImage(reference, inspect("Manifest"), inspect("Config"))


class Storage:
    """The layers of buildah's storage, found by digest."""

    def __init__(self) -> None:
        store: dict[str, Any] = json.loads(run(["buildah", "info"]))["store"]
        self.root, self.driver = Path(store["GraphRoot"]), str(store["GraphDriverName"])
        if self.driver != "overlay":
            raise ImagesError(
                f"buildah's storage driver is {self.driver}; set it to overlay in /etc/containers/storage.conf"
            )
        table = json.loads((self.root / "overlay-layers" / "layers.json").read_text())
        self.layers = {layer["diff-digest"]: layer for layer in table if "diff-digest" in layer}

    def size(self, digest: str) -> int:
        return int(self._layer(digest)["diff-size"])

    def open(self, digest: str) -> io.BufferedReader:
        return io.BufferedReader(_Chunks(self._read(str(self._layer(digest)["id"]))), CHUNK)

    def _layer(self, digest: str) -> dict[str, Any]:
        if digest not in self.layers:
            raise ImagesError(f"buildah's storage has no layer {digest}")
        layer: dict[str, Any] = self.layers[digest]
        return layer

    def _read(self, layer: str) -> Iterator[bytes]:
        files = self.root / "overlay" / layer / "diff"
        with gzip.open(self.root / "overlay-layers" / f"{layer}.tar-split.gz", "rt") as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["type"] == SEGMENT:
                    yield base64.b64decode(entry["payload"])
                elif entry["type"] == FILE and entry.get("size"):
                    yield from _content(files / _name(entry))


def _name(entry: dict[str, Any]) -> str:
    """Names that are not UTF-8 are kept apart, encoded."""
    if "name_raw" in entry:
        return base64.b64decode(entry["name_raw"]).decode("utf-8", "surrogateescape").lstrip("/")
    return str(entry["name"]).lstrip("/")


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


class _Chunks(io.RawIOBase):
    """An iterator of byte strings as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.rest = memoryview(chunk)
        taken = min(len(buffer), len(self.rest))
        buffer[:taken] = self.rest[:taken]
        self.rest = self.rest[taken:]
        return taken
