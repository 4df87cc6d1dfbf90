"""Does the server take the model, and what runs it the manifest? Known before anything is trained. Pure.

What an image of NVIDIA's takes is in the table of contract/nim.py; of an image that is not there nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_operator.resource.api import SecretRef, Spec, SpecError
from embedding_operator.resource.frozen import mapping
from embedding_operator.resource.images import floats
from embedding_operator.resource.status import TAKEN, Status
from embedding_stages.contract import Stage
from embedding_stages.contract.servers import SERVERS, ServerProfile, choose_profile, taken_by

_OTHERS = "take another image, another baseModel, or backend torch in spec.stages.deploy.backend"


def as_verified(raw: Mapping[str, Any], status: Status) -> tuple[Mapping[str, Any], str]:
    """(the manifest as it is to be read, what to warn of).

    An earlier release may have known a generation for an image of which this one knows none. What serves was verified
    as that one, so it goes on as it for as long as the manifest says the same.
    """
    stages = mapping(raw.get("stages"))
    deploy = mapping(stages.get("deploy"))
    backends, image = mapping(deploy.get("backend")), str(deploy.get("image") or "")
    if not image or len(backends) != 1:
        return raw, ""
    (backend, said), *_ = backends.items()
    known = [item for item in SERVERS if item.backend == backend]
    verified = _verified_as(status, backend, image)
    if not known or verified is None or "generation" in mapping(said):
        return raw, ""
    try:
        choose_profile(backend, None, image)
    except LookupError as error:
        release = verified or known[0].release
        field = f"spec.stages.deploy.backend.{backend}.generation"
        read = {**deploy, "backend": {backend: {**mapping(said), "generation": release}}}
        return {**raw, "stages": {**stages, "deploy": read}}, f"{field}: what serves goes on as {release!r}; {error}"
    return raw, ""


def _verified_as(status: Status, backend: str, image: str) -> str | None:
    """The generation that an image was verified as, empty where it had none; None: nobody has verified it.

    Of what serves now, or did when the revision began: until another one serves, this is what the revision goes by.
    """
    entry, taken = status.stage(Stage.DEPLOY), status.resolved.get(TAKEN)
    if entry.fingerprint == status.served.active_fingerprint != "" and entry.image == image:
        return str(_settled(status).get("generation", ""))
    if isinstance(taken, list | tuple) and [*taken[:1], *taken[2:3]] == [backend, image]:
        return str(taken[1])
    settled = _settled(status)  # a release that did not note it has begun the revision
    if taken is None and status.served.active_revision and settled.get("backend") == backend:
        return str(settled.get("generation", "")) if settled.get("image") == image else None
    return None


def taken_before(status: Status) -> list[Any] | None:
    """What is known to go together, to be compared with `_together`: None where the revision is not what serves."""
    if not status.served.active_fingerprint or status.served.active_revision != status.revision:
        return None
    deploy, encoder = _settled(status), mapping(status.stage(Stage.INPUTS).details.get("encoder"))
    image = status.stage(Stage.DEPLOY).image
    return [deploy.get("backend", ""), deploy.get("generation", ""), image, *_kind(encoder)]


def _settled(status: Status) -> Mapping[str, Any]:
    return mapping(mapping(status.resolved.get("stages")).get("deploy"))


def _kind(encoder: Mapping[str, Any]) -> tuple[str, int]:
    """(family, vector size; 0 where nobody says)."""
    sizes = encoder.get("dimensions") or (0,)
    return str(encoder.get("architecture") or ""), int(sizes[0])


def _together(spec: Spec, encoder: Mapping[str, Any]) -> list[Any]:
    profile = spec.deploy.profile
    release = profile.release if profile.since else ""
    return [spec.deploy.backend, release, spec.stages[Stage.DEPLOY].pod.image, *_kind(encoder)]


def check_takes(spec: Spec, encoder: Mapping[str, Any], before: object = None) -> None:
    """`encoder` is what `inputs` says of the base model; fine-tuning keeps it. Raises SpecError.

    `before`: what went together in a revision that served, whatever this release knows of it.
    """
    profile, image = spec.deploy.profile, spec.stages[Stage.DEPLOY].pod.image
    family, sizes = str(encoder.get("architecture") or ""), encoder.get("dimensions") or ()
    if not family or before == _together(spec, encoder):
        return
    if family in profile.not_taken:
        raise SpecError("spec.stages.deploy.backend", f"{profile.backend} does not know {family} models; {_OTHERS}")
    taken = taken_by(profile, image)
    if taken is None:
        return
    size = int(sizes[0]) if sizes else taken.vector_size
    if (family, size) != (taken.family, taken.vector_size):
        only = (
            f"{taken.family} models with vectors of {taken.vector_size}" if taken.family else "models of its own kind"
        )
        raise SpecError(
            "spec.stages.deploy.image",
            f"{image} serves {only} alone, and {spec.base_model} is a {family} model with vectors of {size}; {_OTHERS}",
        )


def check_nim_service(image: str, profile: ServerProfile, key: SecretRef | None) -> None:
    """What the NIM Operator's NIMService has no place for. Raises SpecError."""
    if floats(image):
        raise SpecError("spec.stages.deploy.image", "must have a tag or digest: the NIM Operator wants one")
    if key is not None and key.key != profile.key_variable:
        raise SpecError(
            f"{key.field}.key", f"must be {profile.key_variable}, the key that the NIM Operator reads; name it so there"
        )
