"""Certificates and kubeconfigs, made with the openssl command."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import settings
from shell import run, write_if_changed

DAYS = "3650"
# RFC 5280 asks for these, and clients that verify strictly (Python 3.13's default) refuse certificates without.
AUTHORITY_EXTENSIONS = (
    "basicConstraints=critical,CA:TRUE",
    "keyUsage=critical,digitalSignature,keyCertSign,cRLSign",
    "subjectKeyIdentifier=hash",
)
LEAF_EXTENSIONS = (
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature",
    "extendedKeyUsage=clientAuth,serverAuth",
    "subjectKeyIdentifier=hash",
    "authorityKeyIdentifier=keyid",
)


@dataclass(frozen=True)
class Identity:
    """One certificate: who it names and which addresses it may answer on."""

    name: str
    subject: str
    names: tuple[str, ...] = ("DNS:localhost", "IP:127.0.0.1")


ADMIN = Identity("admin", "/O=system:masters/CN=admin")
API_SERVER_NAMES = (
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{settings.CLUSTER_DOMAIN}",
    "IP:127.0.0.1",
    f"IP:{settings.API_SERVICE_ADDRESS}",
    f"IP:{settings.NODE_ADDRESS}",
)
API_SERVER = Identity("apiserver", "/CN=kube-apiserver", API_SERVER_NAMES)
CONTROLLER_MANAGER = Identity("controller-manager", "/CN=system:kube-controller-manager")
SCHEDULER = Identity("scheduler", "/CN=system:kube-scheduler")
PROXY = Identity("proxy", "/CN=system:kube-proxy")
PROVISIONER = Identity("provisioner", "/CN=localkube:provisioner")
# The store holds every Secret: on loopback, too, it talks to nobody but the API server.
ETCD = Identity("etcd", "/CN=etcd")
ETCD_CLIENT = Identity("etcd-client", "/CN=kube-apiserver-etcd-client")


def kubelet(place: settings.Place) -> Identity:
    """The kubelet's certificate must name the node's address, or logs and exec fail."""
    # The files of the first node have had this name since there was only one.
    name = "kubelet" if place == settings.FIRST else f"kubelet-{place.name}"
    names = (f"DNS:{place.name}", "DNS:localhost", "IP:127.0.0.1", f"IP:{place.address}")
    return Identity(name, f"/O=system:nodes/CN=system:node:{place.name}", names)


KUBELET = kubelet(settings.FIRST)
CLUSTER = (ADMIN, API_SERVER, ETCD, ETCD_CLIENT, CONTROLLER_MANAGER, SCHEDULER, PROXY, PROVISIONER, KUBELET)
CONTROL_PLANE = (ADMIN, API_SERVER, ETCD, ETCD_CLIENT)


@dataclass(frozen=True)
class Pki:
    """A certificate authority, a key for service account tokens and a set of certificates."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def authority_key(self) -> Path:
        return self.folder / "ca.key"

    @property
    def token_key(self) -> Path:
        return self.folder / "sa.key"

    def certificate(self, identity: Identity) -> Path:
        return self.folder / f"{identity.name}.crt"

    def key(self, identity: Identity) -> Path:
        return self.folder / f"{identity.name}.key"

    def ensure(self, identities: tuple[Identity, ...]) -> None:
        """Make whatever is missing. Other identities than before get new certificates of the same authority,
        because pods that run go on trusting the one that they began with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with _stamp(self.folder / "authority.stamp", AUTHORITY_EXTENSIONS) as current:
            if not current:
                (self.folder / "stamp").unlink(missing_ok=True)
                self._found_authority()
        with _stamp(self.folder / "stamp", (identities, LEAF_EXTENSIONS)) as current:
            for identity in () if current else identities:
                self.issue(identity)

    def _found_authority(self) -> None:
        _new_key(self.authority_key)
        _new_key(self.token_key)
        authority = ["openssl", "req", "-x509", "-new", "-days", DAYS, "-subj", "/CN=localkube-ca"]
        # An empty configuration, or Debian's own adds the same extensions a second time.
        extensions = [part for line in AUTHORITY_EXTENSIONS for part in ("-addext", line)]
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as empty:
            empty.write("[req]\ndistinguished_name=name\n[name]\n")
            empty.flush()
            command = [*authority, "-config", empty.name, *extensions]
            run([*command, "-key", self.authority_key, "-out", self.authority])

    def issue(self, identity: Identity) -> None:
        """Make a new key and certificate; `ensure` has made the authority."""
        key = self.key(identity)
        _new_key(key)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            request, extensions = Path(scratch, "request"), Path(scratch, "extensions")
            run(["openssl", "req", "-new", "-key", key, "-subj", identity.subject, "-out", request])
            extensions.write_text("\n".join([*LEAF_EXTENSIONS, f"subjectAltName={','.join(identity.names)}", ""]))
            authority = ["-CA", str(self.authority), "-CAkey", str(self.authority_key), "-CAcreateserial"]
            sign = ["openssl", "x509", "-req", "-in", str(request), "-days", DAYS, "-extfile", str(extensions)]
            run([*sign, *authority, "-out", self.certificate(identity)])

    def write_kubeconfig(self, path: Path, identity: Identity, server: str) -> None:
        """A kubeconfig that stands alone, as tools inside containers need it; JSON is YAML too."""
        cluster = {"server": server, "certificate-authority-data": _base64(self.authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "localkube", "cluster": cluster}],
            "users": [
                {
                    "name": identity.name,
                    "user": {
                        "client-certificate-data": _base64(self.certificate(identity)),
                        "client-key-data": _base64(self.key(identity)),
                    },
                }
            ],
            "contexts": [{"name": "localkube", "context": {"cluster": "localkube", "user": identity.name}}],
            "current-context": "localkube",
        }
        write_if_changed(path, json.dumps(config, indent=1) + "\n", mode=0o600)


@contextlib.contextmanager
def _stamp(path: Path, wanted: object) -> Iterator[bool]:
    """Says whether what is to be made here was made so already. The stamp is written last: an interrupted run
    starts over."""
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()
    current = path.exists() and path.read_text() == digest
    if not current:
        path.unlink(missing_ok=True)
    yield current
    path.write_text(digest)


def _new_key(path: Path) -> None:
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path])
    path.chmod(0o600)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
