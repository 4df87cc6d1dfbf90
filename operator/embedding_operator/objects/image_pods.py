"""What a kubelet says of the images in the pod that tries them (manifests/image_check.py). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from embedding_operator.objects.manifests.image_check import CONTAINER_PREFIX
from embedding_operator.objects.pods import time_of
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, IMAGES_ANNOTATION

_NOT_LOOKED_AT: Final = frozenset({"ContainerCreating", "PodInitializing", ""})
_NEVER_STARTED: Final = "ContainerStatusUnknown"  # as which a kubelet ends what it has nothing to say of


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePod:
    """`images` are all that it tries; of those the kubelet has told of, `came` are there and `waits` are not."""

    name: str
    created: datetime
    deleting: bool
    over: bool  # nothing of it changes any more
    images: tuple[str, ...]
    came: frozenset[str] = frozenset()
    waits: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # image -> the kubelet's reason and words


def view_image_pod(raw: Mapping[str, Any]) -> ImagePod | None:
    """None for any other pod."""
    meta, status = raw["metadata"], raw.get("status") or {}
    if IMAGE_CHECK_LABEL not in (meta.get("labels") or {}):
        return None
    images = _images(meta)
    came, waits = set[str](), dict[str, tuple[str, str]]()
    for item in status.get("containerStatuses") or ():
        image = _of_container(item["name"], images)
        state = item.get("state") or {}
        waiting = state.get("waiting") or {}
        if image is None:  # somebody else's container
            continue
        if waiting:
            waits |= {image: (str(waiting.get("reason", "")), str(waiting.get("message", "")))}
        elif "running" in state or (state.get("terminated") or {}).get("reason", _NEVER_STARTED) != _NEVER_STARTED:
            came.add(image)
    return ImagePod(
        name=meta["name"],
        created=time_of(meta),
        deleting="deletionTimestamp" in meta,
        over=status.get("phase") in ("Succeeded", "Failed"),
        images=images,
        came=frozenset(came),
        waits={image: said for image, said in waits.items() if said[0] not in _NOT_LOOKED_AT},
    )


def _images(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Empty where somebody made something else of the annotation."""
    try:
        found = json.loads((meta.get("annotations") or {}).get(IMAGES_ANNOTATION, "[]"))
    except ValueError:
        return ()
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()


def _of_container(name: str, images: tuple[str, ...]) -> str | None:
    number = name.removeprefix(CONTAINER_PREFIX)
    known = name.startswith(CONTAINER_PREFIX) and number.isdigit() and int(number) < len(images)
    return images[int(number)] if known else None
