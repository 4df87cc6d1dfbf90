"""What each kind of server expects and does: one profile for each, in one table. Standard library only.

The operator renders a server's container from its profile, and the verify stage measures the server by it. A further
kind of server is one more entry of SERVERS, its place in the manifest's schema, and its image.
"""

from __future__ import annotations

import re
from typing import Any, Final

from embedding_stages.contract import ENV_VECTOR_SPACE
from embedding_stages.contract.nim import (
    CUSTOM_MODEL,
    IMAGES,
    MODEL_PATH,
    NGC_KEY_VARIABLE,
    NIM_SERVICES,
    NIMS,
    Takes,
    first_variables,
)
from embedding_stages.contract.nim import NAME_VARIABLE as NAME_VARIABLE
from embedding_stages.contract.nim import NIM_1 as NIM_1
from embedding_stages.contract.nim import PORT_VARIABLE as PORT_VARIABLE
from embedding_stages.contract.server_profile import EMBEDDINGS_PATH as EMBEDDINGS_PATH
from embedding_stages.contract.server_profile import Precision as Precision
from embedding_stages.contract.server_profile import ServerProfile as ServerProfile
from embedding_stages.contract.server_profile import Version

MODEL_VARIABLES: Final = (CUSTOM_MODEL, MODEL_PATH)  # of a NIM's that the project's own servers honour
MAX_TEXTS: Final = 2048  # a request to the project's own servers, as of OpenAI's API
MAX_BODY_BYTES: Final = 32 << 20
_OWN_LIMITS: Final = {"texts": MAX_TEXTS, "bytes": MAX_BODY_BYTES}

VECTOR_SPACE_HEADER: Final = "X-Vector-Space"  # of requests: what a client expects; of answers: what it got
TOKEN_IDS_HEADER: Final = "X-Token-Ids"  # of requests: whose vocabulary the token ids of `input` are of
OWN_TOKEN_IDS: Final = "own"  # the served model's

AUTO: Final = "auto"  # as a generation: the one that the image's tag tells
_HIGHEST: Final = 99  # beyond it a tag is a date
_TAG: Final = re.compile(r":v?(\d+(?:\.\d+)*)(?:[-+_][^:/]*)?$")

ONNX: Final = ServerProfile(
    name="onnx",
    backend="onnx",
    serves="graph",
    default_image="deploy",
    variables=first_variables(CUSTOM_MODEL),
    space_variable=ENV_VECTOR_SPACE,
    maps_queries=True,
    limits=_OWN_LIMITS,
)
TORCH: Final = ServerProfile(
    name="torch",
    backend="torch",
    serves="checkpoint",
    default_image="deploy.torch",
    needs_gpu=True,
    cpu="500m",
    memory="2Gi",
    gpu_precision="bfloat16",
    variables=first_variables(CUSTOM_MODEL),
    space_variable=ENV_VECTOR_SPACE,
    maps_queries=True,
    limits=_OWN_LIMITS,
)
# It reads pooling, length and sizes from the checkpoint's own modules.json, sentence_bert_config.json and config.json.
# Its /v1/embeddings knows no input_type, so clients put the prefixes; -1 cuts a text where the model ends. On a CPU it
# wants 92 % of the node's memory, or of the container's limit, for itself at start, and ends where other programs have
# more than the rest. With a size in GiB for keys and values it takes that; a GPU asks not.
# HOME, because on a GPU it imports FlashInfer, which makes a folder there: of a user without a name that is /.
VLLM: Final = ServerProfile(
    name="vllm",
    backend="vllm",
    serves="checkpoint",
    default_image=None,
    needs_gpu=True,
    cpu="500m",
    memory="4Gi",
    model_path="/model",
    cache_path="/cache",
    read_only_root=False,
    command=("vllm", "serve", "{path}"),
    arguments=("--runner", "pooling", "--convert", "embed", "--served-model-name", "{model}", "--port", "{port}"),
    defaults={
        "HOME": "{cache}",
        "VLLM_CACHE_ROOT": "{cache}/vllm",
        "TRITON_CACHE_DIR": "{cache}/triton",
        "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    },
    ready_path="/health",
    live_path="/health",
    metadata_path=None,
    input_types=(),
    request_fields={"truncate_prompt_tokens": -1},
    not_taken=("mpnet",),
)
SERVERS: tuple[ServerProfile, ...] = (ONNX, TORCH, *NIMS, *NIM_SERVICES, VLLM)

# Names that spec.stages.deploy.env may not give, whatever the backend: an edit of the backend must not clash.
RESERVED_VARIABLES: Final = frozenset(
    {name for item in SERVERS for name in item.variables} | {item.key_variable for item in SERVERS if item.key_variable}
)


def backends() -> tuple[str, ...]:
    """Keys of spec.stages.deploy.backend, the default first."""
    return tuple(dict.fromkeys(item.backend for item in SERVERS))


def choose_profile(backend: str, said: Any, image: str) -> ServerProfile:
    """The server of a backend. `said` is the manifest's generation: its name, its number, `auto`, or None.

    Without a word the tag of `image` decides, and the first generation where the tag has no version. Raises
    LookupError, whose text is the cure.
    """
    known = [item for item in SERVERS if item.backend == backend]
    if said not in (None, AUTO):
        for item in known:
            if str(said) in (item.release, item.release.removesuffix(".0")):
                return item
        raise LookupError(f"{said!r} is not known; remove it, or give {_named(known)}")
    if len(known) == 1 and said is None:
        return known[0]
    version = version_of(image)
    for item in known:
        if version and item.is_of(version):
            return item
    if said is None and not version:  # a digest, or a name such as latest
        return known[0]
    if not version:
        raise LookupError(f"auto reads the image's tag, and {image!r} has no version there; give {_named(known)}")
    number = ".".join(map(str, version))
    raise LookupError(
        f"an image of version {number} is of no generation that is known; take an image of another version, or say "
        f"which generation it is like: {_named(known)}"
    )


def version_of(image: str) -> Version:
    """The version that an image's tag begins with; empty where it has none. 2 tells less than 2.4."""
    found = _TAG.search(image.partition("@")[0])
    version = tuple(map(int, found[1].split("."))) if found else ()
    return () if version and version[0] > _HIGHEST else version


def _named(known: list[ServerProfile]) -> str:
    return " or ".join(f"'{item.release}'" for item in known)


def taken_by(profile: ServerProfile, image: str) -> Takes | None:
    """The models that the image takes; None where nobody said."""
    if profile.key_variable != NGC_KEY_VARIABLE:
        return None
    repository = image.partition("@")[0]
    return IMAGES.get(repository.rpartition("/")[2].partition(":")[0])


def profile_named(name: str) -> ServerProfile:
    """Raises LookupError when there is no such profile."""
    for item in SERVERS:
        if item.name == name:
            return item
    raise LookupError(f"no server profile is named {name!r}; there are {', '.join(item.name for item in SERVERS)}")
