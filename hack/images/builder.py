"""Build images with buildah, or with Docker where its engine answers."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from target import docker_answers, with_docker
from tools import ImagesError, cache_home, run, run_long

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SECRETS = "/run/secrets"
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "timeout", "proxy")


def require() -> None:
    if with_docker():
        if not docker_answers():
            raise ImagesError("kind needs Docker, and no engine answers")
        return
    missing = [name for name in ("buildah", "mmdebstrap") if not shutil.which(name)]
    if missing:
        raise ImagesError(f"building without Docker needs {' and '.join(missing)}: apt-get install buildah mmdebstrap")
    if os.geteuid() != 0:
        raise ImagesError("building with buildah and mmdebstrap needs root")


def exists(reference: str) -> bool:
    command = ["docker", "image", "inspect"] if with_docker() else ["buildah", "inspect", "--type", "image"]
    return subprocess.run([*command, reference], capture_output=True, check=False).returncode == 0


def tag(reference: str, another: str) -> None:
    run(["docker" if with_docker() else "buildah", "tag", reference, another])


def build(name: str, reference: str, containerfile: Path, context: Path, *, base: str | None) -> None:
    """Build one image. How this machine reaches the package index travels as build secrets, so
    that neither its certificates nor its settings end up in a layer."""
    with tempfile.TemporaryDirectory(dir=cache_home(), prefix="secrets-") as scratch:
        command = ["docker", "build"] if with_docker() else _buildah()
        command += ["--file", str(containerfile), "--tag", reference, *_secrets(Path(scratch))]
        if base is not None:
            command += ["--build-arg", f"BASE_IMAGE={base}"]
        run_long(f"build {name}", [*command, str(context)])


def _buildah() -> list[str]:
    # Isolation by chroot shares the machine's network and needs no runtime of its own.
    return [
        "buildah",
        "build",
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--layers",
        "--pull-never",
        "--format",
        "oci",
    ]


def _secrets(folder: Path) -> list[str]:
    certificates = Path(os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or CERTIFICATES)
    settings = {key: value for key in PIP_SETTINGS if (value := _pip_setting(key))}
    options: list[str] = []
    if certificates.is_file():
        settings["cert"] = f"{SECRETS}/ca.crt"
        options += ["--secret", f"id=ca.crt,src={certificates}"]
    config = configparser.RawConfigParser()
    config["global"] = settings
    target = folder / "pip.conf"
    with target.open("w") as file:
        config.write(file)
    return [*options, "--secret", f"id=pip.conf,src={target}"]


def _pip_setting(key: str) -> str:
    """A setting of this machine's pip, from its environment or its configuration files."""
    variable = os.environ.get("PIP_" + key.upper().replace("-", "_"))
    return variable or run([sys.executable, "-m", "pip", "config", "get", f"global.{key}"], check=False).strip()
