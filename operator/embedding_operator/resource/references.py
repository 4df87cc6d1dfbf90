"""What a manifest refers to in its own namespace: files, keys of Secrets, certificates in ConfigMaps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedding_operator.resource.api import ConfigMapRef, SecretRef, Source, SpecError, one_of

# The root of a container, and what the container runtime mounts below it.
_NOT_OF_AN_IMAGE: Final = frozenset({"", "proc", "sys", "dev"})
BUNDLE: Final = "caBundle"
_BUNDLE_KEY: Final = "ca.crt"


def parse_source(raw: Mapping[str, Any], kinds: Sequence[str], field: str) -> Source:
    """A typed reference. Paths stay inside their volume or image."""
    kind = one_of(raw, kinds, field)
    body: Mapping[str, Any] = raw[kind]
    name = {"pvc": "claimName", "configMap": "name", "image": "reference", "huggingFace": ""}[kind]
    if name and not body.get(name):
        raise SpecError(f"{field}.{kind}.{name}", "must not be empty")
    path = str(body.get("path", ""))
    if ".." in path.split("/"):
        raise SpecError(f"{field}.{kind}.path", "must not contain '..'")
    if kind == "image" and _first_folder(path) in _NOT_OF_AN_IMAGE:
        raise SpecError(
            f"{field}.image.path",
            f"{path!r} must name a folder of the image, such as /model: the folder is copied whole, and with the root "
            "come /proc, /sys and /dev, which hold more than any disk",
        )
    token = None
    if body.get("tokenSecretRef"):
        token = parse_secret(body["tokenSecretRef"], f"{field}.{kind}.tokenSecretRef")
    return Source(
        kind=kind,
        name=str(body.get(name, "")) if name else "",
        path=path,
        field=f"{field}.{kind}",
        token=token,
        authorities=parse_bundle(body, f"{field}.{kind}"),
        revision=str(body.get("revision", "")),
        pull_policy=str(body.get("pullPolicy", "IfNotPresent")),
    )


def _first_folder(path: str) -> str:
    """The first step of a path from the root; empty for the root itself."""
    return next((part for part in path.split("/") if part not in ("", ".")), "")


def parse_secret(raw: Mapping[str, Any], field: str) -> SecretRef:
    """A Secret's name and key; never a namespace."""
    if not raw.get("name") or not raw.get("key"):
        raise SpecError(field, "needs name and key")
    return SecretRef(name=str(raw["name"]), key=str(raw["key"]), field=field)


def parse_bundle(raw: Mapping[str, Any], field: str) -> ConfigMapRef | None:
    """The certificates of authorities that the section `raw` names, if it does. Raises SpecError."""
    bundle = raw.get(BUNDLE)
    if not bundle:
        return None
    if not bundle.get("name"):
        raise SpecError(f"{field}.{BUNDLE}", "needs the name of a ConfigMap")
    return ConfigMapRef(name=str(bundle["name"]), key=str(bundle.get("key") or _BUNDLE_KEY), field=f"{field}.{BUNDLE}")
