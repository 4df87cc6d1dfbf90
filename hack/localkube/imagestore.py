"""Images in containerd: ours made without any builder, other people's imported."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import settings
from binaries import Binaries
from settings import State
from shell import LocalkubeError, run, say

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def ctr(state: State, *arguments: str | Path, check: bool = True) -> str:
    base = ("ctr", "--address", str(state.containerd_socket), "--namespace", settings.CONTAINERD_NAMESPACE)
    return run([*base, *arguments], check=check).stdout


def names(state: State) -> list[str]:
    listed = ctr(state, "images", "ls", "-q").split()
    return sorted(name for name in listed if not name.startswith("sha256:") and "@sha256:" not in name)


def load(state: State, archives: Sequence[Path]) -> None:
    for archive in archives:
        if not archive.is_file():
            raise LocalkubeError(f"no such image archive: {archive}")
        before = set(names(state))
        ctr(state, "images", "import", "--digests=false", archive)
        for name in sorted(set(names(state)) - before):
            say(f"loaded {name}")


@dataclass(frozen=True)
class StaticImage:
    """An image of one static program and nothing else."""

    name: str
    program: Path
    entry: str
    arguments: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """Named after the content, so that an image which is there already is the right one."""
        parts = (digest_of(self.program), self.entry, *self.arguments)
        return f"localhost/localkube/{self.name}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

    def ensure(self, state: State) -> str:
        reference = self.reference
        if reference not in names(state):
            archive = state.run / f"{self.name}.tar"
            try:
                self._write(archive, reference)
                ctr(state, "images", "import", archive)
            finally:
                archive.unlink(missing_ok=True)
        return reference

    def _write(self, archive: Path, reference: str) -> None:
        layer = _layer(self.program, self.entry)
        architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": [f"/{self.entry}", *self.arguments], "User": "65532:65532"},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _descriptor(CONFIG_TYPE, config),
                "layers": [_descriptor(LAYER_TYPE, layer)],
            }
        )
        named = _descriptor(MANIFEST_TYPE, manifest)
        named["annotations"] = {"io.containerd.image.name": reference}
        index = _json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [named]})
        with tarfile.open(archive, "w") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", index)
            for blob in (layer, config, manifest):
                _add(tar, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)


def pause_image(binaries: Binaries) -> StaticImage:
    return StaticImage("pause", binaries.pause, "pause")


def digest_of(program: Path) -> str:
    """The digest of a program; the cache folder it lies in is named after its sources."""
    stat = program.stat()
    stamp = program.with_name(f".{program.name}.digest")
    key = f"{stat.st_size} {stat.st_mtime_ns} "
    if stamp.exists() and stamp.read_text().startswith(key):
        return stamp.read_text().removeprefix(key)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    stamp.write_text(key + digest)
    return digest


def _layer(program: Path, entry: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, entry, program.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
