"""An image that a kubelet cannot pull, in words of the manifest. Pure."""

from __future__ import annotations

import re
from typing import Final

from embedding_operator.objects.manifests.serving import CHECK_CONTAINER
from embedding_operator.objects.manifests.sources import COPY_PREFIX
from embedding_operator.resource.api import Spec
from embedding_stages.contract import Stage

IMAGE_PULL_FAILED: Final = "ImagePullFailed"
IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
SERVER_FIELD: Final = f"spec.stages.{Stage.DEPLOY}.image"
CHECK_FIELD: Final = "the check of the model before the server"  # whose image no field of the manifest names
_PAUSE: Final = re.compile(r'^Back-off pulling image "[^"]*"(?:: (?:\w+: )?)?')
# What a registry says of an image that is not there, or that these credentials may not pull. It says the same to each.
_LASTS: Final = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|access denied|resource is denied|denied: "
    r"|unauthorized|authentication required|authorization failed|403 Forbidden|invalid reference|no match for platform",
    re.IGNORECASE,
)


def cause_of(text: str) -> str:
    """The cause alone: the kubelet says it, and its pause before it tries again, in turns. Empty where there is none:
    kubelets before 1.31 say no more of a pause than that there is one.
    """
    return _PAUSE.sub("", text)


def lasts(reason: str, cause: str) -> bool:
    """Whether the registry goes on refusing until somebody acts; else it may only be away."""
    return reason == "InvalidImageName" or _LASTS.search(cause) is not None


def cure_of(field: str, *, own: bool) -> str:
    """`own`: the manifest names the image; else it is a default of the operator's."""
    if own:
        return "correct the reference"
    value = "stageImages.serve" if field == CHECK_FIELD else "stageImages"
    here = f"the server's image in {SERVER_FIELD}" if field == CHECK_FIELD else f"the right one in {field}"
    # What waits, and a server, keep what was chosen for them: an upgrade restarts nothing.
    return f"it is the operator's default image: correct registry, tag or {value} of its chart, and here name {here}"


def cannot_be_pulled(*images: tuple[str, str, bool]) -> str:
    """One message for all; of each (fields that name it, cause, whether the manifest names it)."""
    told = (
        f"{field}: the image cannot be pulled: {cause or 'the kubelet does not say why'}; {cure_of(field, own=own)}"
        for field, cause, own in images
    )
    return f"{'; '.join(told)}, or name a pull secret in spec.imagePullSecrets"


def not_pulled(container: str, text: str, spec: Spec, stage: Stage) -> str:
    """Of a container that waits for its image, by the field that names it. `text` is the kubelet's."""
    source = spec.sources.get(container.removeprefix(COPY_PREFIX))
    if container.startswith(COPY_PREFIX) and source is not None:
        return cannot_be_pulled((f"{source.field}.reference", cause_of(text), True))
    if container == CHECK_CONTAINER:
        return cannot_be_pulled((CHECK_FIELD, cause_of(text), False))
    return cannot_be_pulled((f"spec.stages.{stage}.image", cause_of(text), spec.stages[stage].pod.own_image))
