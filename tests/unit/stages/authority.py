"""A private authority, servers with certificates that it signed, and the bundle as a pod mounts it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

SIGNED = {  # whom the certificate is for, and the days that it is good for
    "server": ("IP:127.0.0.1", 2),
    "elsewhere": ("DNS:server.example", 2),
    "expired": ("IP:127.0.0.1", -1),
}


def make_authority(folder: Path) -> None:
    """ca.crt, and the certificates `SIGNED`, all of server.key."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["-subj", "/CN=Private Authority", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2"]
    _openssl(folder, "req", "-x509", *key, *made)
    _openssl(folder, "req", *key, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    for name, (address, days) in SIGNED.items():
        (folder / "ext").write_text(f"subjectAltName={address}\n")
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days), "-extfile", "ext"]
        _openssl(folder, "x509", "-req", "-in", "server.csr", *signed, "-out", f"{name}.crt")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def with_tls(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / "server.key")
    return context


def trust(tmp_path: Path, purpose: str, text: str) -> None:
    """As the pod mounts the ConfigMap's key."""
    folder = tmp_path / "authorities" / purpose
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text(text)
