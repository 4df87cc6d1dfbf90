"""The endpoint of a language model, as the manifest names it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from embedding_operator.resource.api import ConfigMapRef, SecretRef, SpecError
from embedding_operator.resource.references import BUNDLE, parse_bundle, parse_secret
from embedding_stages import contract
from embedding_stages.contract import canonical_json

_ITS_OWN: Final = ("model", "messages", "stream")  # what the stage itself says in each request
_MOST_CHARACTERS: Final = 4096  # of all parameters as JSON: they stand in each request, and in the status
_BESIDE: Final = {"judge": contract.SECRET_JUDGE, "embedding": contract.SECRET_EMBEDDING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What the stage is told, and what its pod mounts, by purpose."""

    settings: Mapping[str, Any]
    keys: Mapping[str, SecretRef]
    authorities: Mapping[str, ConfigMapRef]


def parse_endpoint(raw: Mapping[str, Any], field: str) -> Endpoint:
    """`raw` is the section of a provider that asks a language model. Raises SpecError."""
    writer = _one(raw, field, contract.SECRET_OPENAI)
    found = {name: _beside(raw, field, name, purpose) for name, purpose in _BESIDE.items()}
    others = {name: other for name, other in found.items() if other is not None}
    return Endpoint(
        settings={**writer.settings, **{name: dict(other.settings) for name, other in others.items()}},
        keys=_joined(writer.keys, *(other.keys for other in others.values())),
        authorities=_joined(writer.authorities, *(other.authorities for other in others.values())),
    )


def _beside(raw: Mapping[str, Any], field: str, name: str, purpose: str) -> Endpoint | None:
    """Another model, at the writer's address or at one of its own."""
    section = raw.get(name)
    if section is None:
        return None
    if not section.get("baseURL"):
        for own in ("apiKeySecretRef", BUNDLE):
            if section.get(own):
                raise SpecError(
                    f"{field}.{name}.{own}",
                    f"belongs to an address; give {field}.{name}.baseURL, or remove it where the model is asked at "
                    f"{field}.baseURL",
                )
    if not section.get("model"):
        raise SpecError(f"{field}.{name}.model", "must name the model at its endpoint")
    return _one(section, f"{field}.{name}", purpose, has_address=bool(section.get("baseURL")))


def _one(raw: Mapping[str, Any], field: str, purpose: str, *, has_address: bool = True) -> Endpoint:
    settings: dict[str, Any] = {"baseURL": _base_url(raw, field)} if has_address else {}
    settings["model"] = str(raw.get("model", ""))
    # What a later release added is part of the settings where it is said: other work keeps its identity.
    parameters, omitted = _parameters(raw, field)
    if parameters:
        settings["parameters"] = parameters
    if omitted:
        settings["omitParameters"] = omitted
    key = parse_secret(raw["apiKeySecretRef"], f"{field}.apiKeySecretRef") if raw.get("apiKeySecretRef") else None
    bundle = parse_bundle(raw, field)
    return Endpoint(
        settings=settings,
        keys={} if key is None else {purpose: key},
        authorities={} if bundle is None else {purpose: bundle},
    )


_Ref = TypeVar("_Ref")


def _joined(*by_purpose: Mapping[str, _Ref]) -> dict[str, _Ref]:
    return {purpose: ref for refs in by_purpose for purpose, ref in refs.items()}


def _base_url(raw: Mapping[str, Any], field: str) -> str:
    url = str(raw.get("baseURL", ""))
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{field}.baseURL", "must start with http:// or https://")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SpecError(f"{field}.baseURL", "is no URL; check its brackets and its port") from error
    if "@" in parts.netloc:
        raise SpecError(
            f"{field}.baseURL",
            "must not hold a user or a password, which everybody reads who reads the resource; remove them, and put a "
            f"key into the Secret of {field}.apiKeySecretRef",
        )
    return url


def _parameters(raw: Mapping[str, Any], field: str) -> tuple[dict[str, Any], list[str]]:
    """What is sent beside or for the stage's own parameters, and what is not sent: also what is null."""
    given = raw.get("parameters") or {}
    if not isinstance(given, Mapping):
        raise SpecError(f"{field}.parameters", "must be an object of request parameters, such as {max_tokens: 8192}")
    omitted = {str(name) for name in raw.get("omitParameters") or ()} | {
        str(name) for name, value in given.items() if value is None
    }
    parameters = {str(name): value for name, value in given.items() if value is not None}
    for name in _ITS_OWN:
        if name in parameters:
            cure = f"remove it, {field}.model names the model" if name == "model" else "remove it"
            raise SpecError(f"{field}.parameters.{name}", f"is said by the stage itself; {cure}")
        if name in omitted:
            raise SpecError(f"{field}.omitParameters", f"{name} cannot be left out; remove it")
    if both := omitted & parameters.keys():
        raise SpecError(
            f"{field}.omitParameters",
            f"{', '.join(sorted(both))} cannot be left out and be in parameters; remove one of the two",
        )
    if len(canonical_json(parameters)) > _MOST_CHARACTERS:
        raise SpecError(f"{field}.parameters", f"has more than {_MOST_CHARACTERS} characters as JSON; shorten it")
    return parameters, sorted(omitted)
