"""Does the server take the model, and what runs it the manifest? Known before anything is trained. Pure.

What an image of NVIDIA's takes is in the table of contract/nim.py; of an image that is not there nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_operator.resource.api import SecretRef, Spec, SpecError
from embedding_operator.resource.images import floats
from embedding_stages.contract import Stage
from embedding_stages.contract.servers import ServerProfile, taken_by

_OTHERS = "take another image, another baseModel, or backend torch in spec.stages.deploy.backend"


def check_takes(spec: Spec, encoder: Mapping[str, Any]) -> None:
    """`encoder` is what `inputs` says of the base model; fine-tuning keeps it. Raises SpecError."""
    profile, image = spec.deploy.profile, spec.stages[Stage.DEPLOY].pod.image
    family, sizes = str(encoder.get("architecture") or ""), encoder.get("dimensions") or ()
    if not family:
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
