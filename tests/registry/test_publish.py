"""`make images REGISTRY=...` against a registry on this machine: what was pushed is what comes back, under the names
that the chart expects. `make test-registry`; it needs Go, and what builds images.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAME = "operator"
TAG = "0.1.0-of-a-test"
WORDS = "what lies in the image"
BUILT = f"localhost/embedding-operator-test/{NAME}:{os.getpid()}"
TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
# As hack/images does it, with an image that is built in a second.
PUSH = """
import json, sys
from pathlib import Path
sys.path.insert(0, "hack/images")
import builder, publish, target
target.choose(target.GIVEN)
builder.require()
folder = Path(sys.argv[2])
builder.build("test", sys.argv[1], folder / "Containerfile", folder, base=None)
print(json.dumps(publish.push({"operator": sys.argv[1]}, publish.names())))
"""
FORGET = """
import sys
sys.path.insert(0, "hack/images")
import target
from tools import run
target.choose(target.GIVEN)
for reference in sys.argv[1:]:
    run(["docker" if target.with_docker() else "buildah", "rmi", reference], check=False)
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """Host and port. It keeps everything in memory, and listens on the loopback alone."""
    program = subprocess.run([ROOT / "hack" / "registry.sh"], stdout=subprocess.PIPE, text=True, check=True)
    with subprocess.Popen([program.stdout.strip(), "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        port = re.search(r"serving on port (\d+)", line)
        try:
            assert port is not None, line
            yield f"127.0.0.1:{port[1]}"
        finally:
            process.terminate()


def python(code: str, *arguments: str, registry: str) -> str:
    env = {**os.environ, "REGISTRY": f"{registry}/team", "VERSION": TAG}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(url: str) -> tuple[bytes, str]:
    """The body, and the digest that the registry says it has."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": TYPES}), timeout=30) as answer:
        return answer.read(), answer.headers.get("Docker-Content-Digest", "")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(base: str, item: dict[str, Any]) -> bytes:
    data, _ = get(f"{base}/blobs/{item['digest']}")
    assert (digest(data), len(data)) == (item["digest"], item["size"])
    return data


def expected_by_the_chart(registry: str) -> str:
    """The operator's image, as the chart names it with `--set registry=...,tag=...`."""
    return f"{registry}/team/embedding-operator/{NAME}:{TAG}"


def test_what_is_pushed_comes_back_unchanged(registry: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text('FROM scratch\nCOPY words /words\nENTRYPOINT ["/words"]\n')
    (tmp_path / "words").write_text(WORDS)
    pushed: dict[str, str] = {}
    try:
        pushed = json.loads(python(PUSH, BUILT, str(tmp_path), registry=registry))
        assert pushed == {NAME: expected_by_the_chart(registry)}
        repository, _, version = pushed[NAME].removeprefix(f"{registry}/").rpartition(":")
        base = f"http://{registry}/v2/{repository}"

        body, said = get(f"{base}/manifests/{version}")
        assert digest(body) == said
        manifest = json.loads(body)
        assert get(f"{base}/manifests/{said}")[0] == body

        config = json.loads(blob(base, manifest["config"]))
        assert config["config"]["Entrypoint"] == ["/words"]
        layers = [blob(base, item) for item in manifest["layers"]]
        whole = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in layers]
        assert [digest(data) for data in whole] == config["rootfs"]["diff_ids"]
        with tarfile.open(fileobj=io.BytesIO(whole[-1])) as tar:
            words = tar.extractfile("words")
            assert words is not None
            assert words.read().decode() == WORDS

        again = json.loads(python(PUSH, BUILT, str(tmp_path), registry=registry))
        assert again == pushed
        assert get(f"{base}/manifests/{version}")[1] == said
    finally:
        python(FORGET, BUILT, *pushed.values(), registry=registry)
