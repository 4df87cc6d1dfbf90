"""References of images, as the container runtimes read them. Pure.

Whether a registry has an image is known once a kubelet pulls it; what is no reference at all is known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from embedding_operator.resource.api import Spec, SpecError
from embedding_stages.contract import Stage

_HOST: Final = "[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?/"
_NAME: Final = "[a-z0-9]+([._-]*[/._-][a-z0-9]+)*"
_TAG: Final = ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST: Final = "@[a-z0-9+._-]+:[0-9a-fA-F]{32,}"
REFERENCE: Final = f"^({_HOST})?{_NAME}({_TAG})?({_DIGEST})?$"
FORM: Final = "an image, such as registry.example/team/name:1.0, in small letters and without https://"
_NAMED: Final = re.compile(f"({_TAG}|{_DIGEST})$")


def is_reference(text: str) -> bool:
    """Whether a runtime would try to pull it."""
    return re.fullmatch(REFERENCE, text) is not None


def images_of(spec: Spec) -> Iterator[tuple[Stage, str, str]]:
    """(stage that takes it, field, reference) of each image that the manifest names."""
    for stage, item in spec.stages.items():
        if item.pod.own_image:
            yield stage, f"spec.stages.{stage}.image", item.pod.image
    for source in spec.sources.values():
        if source.kind == "image":
            yield Stage.INPUTS, f"{source.field}.reference", source.name


def check_images(spec: Spec) -> None:
    """Raises SpecError that names the field."""
    for _, field, image in images_of(spec):
        if not is_reference(image):
            raise SpecError(field, f"{image!r} must be {FORM}")


def floats(text: str) -> bool:
    """Whether it has neither tag nor digest: then it is what `latest` happens to be when a pod starts."""
    return _NAMED.search(text) is None
