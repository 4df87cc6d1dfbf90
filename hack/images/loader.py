"""Move built images into the cluster, each layer once.

All images go as one OCI archive through a pipe into containerd, without a copy on the disk.
Layers that containerd has already, such as those of the base image, are not sent again.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import registry
import target
from catalogue import ROOT
from layers import Storage, StoredImage, stored_image
from tools import ImagesError, ProgressPump, require_free, run, run_long, say

LOCALKUBE = [sys.executable, str(ROOT / "hack" / "localkube")]
NAMESPACE = "k8s.io"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
NAME_ANNOTATION = "io.containerd.image.name"


def load(references: list[str]) -> None:
    """By the way that the chosen cluster has for it."""
    if target.cluster() == target.GIVEN:
        registry.push(references)
    elif target.cluster() == target.KIND:
        for reference in references:
            run_long(f"load {reference}", [*target.CLUSTER, "load", reference])
    else:
        _load_into_containerd(references)


def _load_into_containerd(references: list[str]) -> None:
    socket = containerd_socket()
    present = set(ctr(socket, "images", "ls", "-q").split())
    missing = [reference for reference in references if reference not in present]
    if not missing:
        say("every image is loaded already")
        return
    storage, images = Storage(), [stored_image(reference) for reference in missing]
    known = set(ctr(socket, "content", "ls", "-q").split())
    wanted = sorted({layer for image in images for layer in image.layers} - known)
    size = sum(storage.size(layer) for layer in wanted)
    # Content and its unpacked snapshot lie side by side.
    for folder in (socket.parent, node_disk()):
        require_free(folder, 2 * size / 1e9 + 2, "loading images", "`python3 hack/images prune` removes old ones")
    say(f"loading {len(missing)} images, {len(wanted)} new layers of {size / 1e6:.0f} MB")
    _send(socket, images, storage, wanted)
    present = set(ctr(socket, "images", "ls", "-q").split())
    lost = [reference for reference in missing if reference not in present]
    if lost:
        raise ImagesError(f"containerd took the stream but does not list {' '.join(lost)}")


def containerd_socket() -> Path:
    socket = Path(run([*LOCALKUBE, "socket"]).strip())
    if not socket.is_socket():
        raise ImagesError("localkube does not run: start it with `python3 hack/localkube up`")
    return socket


def node_disk() -> Path:
    """The file system that containerd keeps images in; its file on the machine's own disk is sparse."""
    return Path(run([*LOCALKUBE, "disk"]).strip())


def ctr(socket: Path, *arguments: str) -> str:
    return run(["ctr", "--address", socket, "--namespace", NAMESPACE, *arguments])


def _send(socket: Path, images: list[StoredImage], storage: Storage, layers: list[str]) -> None:
    command = ["ctr", "--address", str(socket), "--namespace", NAMESPACE, "images", "import", "--digests=false", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if process.stdin is None or process.stderr is None:
        raise ImagesError("ctr gave no pipes")
    pump = ProgressPump("import into containerd")
    pump.start()
    try:
        with tarfile.open(fileobj=process.stdin, mode="w|", bufsize=1 << 20) as stream:
            _write(stream, images, storage, layers, pump)
        process.stdin.close()
    except BrokenPipeError:
        say("containerd closed the stream early")
    said = process.stderr.read().decode("utf-8", "replace")
    code = process.wait()
    pump.ended.set()
    if code != 0:
        raise ImagesError(f"ctr images import failed with exit code {code}: {said.strip()[-2000:]}")


def _write(
    stream: tarfile.TarFile, images: list[StoredImage], storage: Storage, layers: list[str], pump: ProgressPump
) -> None:
    for layer in layers:
        member = tarfile.TarInfo(f"blobs/sha256/{layer.removeprefix('sha256:')}")
        member.size = storage.size(layer)
        with storage.open(layer) as content:
            stream.addfile(member, content)
        pump.bytes += member.size
    index: list[dict[str, object]] = []
    for image in images:
        digest = "sha256:" + hashlib.sha256(image.manifest).hexdigest()
        for name, blob in ((image.config_digest, image.config), (digest, image.manifest)):
            _add(stream, f"blobs/sha256/{name.removeprefix('sha256:')}", blob)
        named = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": len(image.manifest)}
        index.append({**named, "annotations": {NAME_ANNOTATION: image.reference}})
    _add(stream, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _add(stream, "index.json", json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": index}).encode())


def _add(stream: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    stream.addfile(member, io.BytesIO(content))
