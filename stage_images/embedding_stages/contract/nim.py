"""NVIDIA's NIM for text embeddings: one row for each of its generations, and the models that its images take.

Everything that is known of a generation stands here, as it is published; docs/servers.md tells where. No NVIDIA image
was run by this project. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from embedding_stages.contract.server_profile import ServerProfile

CUSTOM_MODEL: Final = "NIM_CUSTOM_MODEL"  # a folder with a graph, generation 1
MODEL_PATH: Final = "NIM_MODEL_PATH"  # a folder with a checkpoint, 2.0
ENGINE_MODEL_PATH: Final = "NIM_ENGINE_MODEL_PATH"  # the same, after 2.0
ENGINE_MODEL_NAME: Final = "NIM_ENGINE_MODEL_NAME"  # of an image that has one model its id; of one with several, which
NAME_VARIABLE: Final = "NIM_SERVED_MODEL_NAME"  # what /v1/models announces, up to 2.0
SERVER_NAME_VARIABLE: Final = "NIM_SERVER_SERVED_MODEL_NAME"  # the same, after 2.0
PORT_VARIABLE: Final = "NIM_HTTP_API_PORT"  # up to 2.0
BIND_VARIABLE: Final = "NIM_SERVER_BIND_ADDR"  # after 2.0: host:port
CACHE_VARIABLE: Final = "NIM_CACHE_PATH"  # up to 2.0; later ones write to /opt/cache
NGC_KEY_VARIABLE: Final = "NGC_API_KEY"

_RETIRED_IN_2: Final = (CUSTOM_MODEL, "NIM_TRITON_PERFORMANCE_MODE", "NIM_MODEL_PROFILE")
_RETIRED_AFTER_2_0: Final = (*_RETIRED_IN_2, MODEL_PATH, "NIM_MODEL_NAME", NAME_VARIABLE, "NIM_BIND_ADDR")
_BIND: Final = "0.0.0.0:{port}"


def first_variables(model_variable: str) -> Mapping[str, str]:
    """Of generation 1 and 2.0. The project's own servers read them too (serve/settings.py)."""
    return {model_variable: "{path}", PORT_VARIABLE: "{port}", NAME_VARIABLE: "{model}", CACHE_VARIABLE: "{cache}"}


def _later_variables(engine_model: str) -> Mapping[str, str]:
    return {
        ENGINE_MODEL_PATH: "{path}",
        ENGINE_MODEL_NAME: engine_model,
        BIND_VARIABLE: _BIND,
        SERVER_NAME_VARIABLE: "{model}",
    }


NIM_1: Final = ServerProfile(
    name="nim-1",
    backend="nim",
    release="1",
    since=(1,),
    until=(2,),
    serves="graph",
    default_image=None,
    needs_gpu=True,
    runs_on_cpu=False,
    read_only_root=False,
    variables=first_variables(CUSTOM_MODEL),
    retired=(MODEL_PATH, ENGINE_MODEL_PATH, ENGINE_MODEL_NAME),
    key_variable=NGC_KEY_VARIABLE,
)
NIM_2_0: Final = replace(
    NIM_1,
    name="nim-2",
    generation=2,
    release="2.0",
    since=(2, 0),
    until=(2, 1),
    serves="checkpoint",
    model_path="/opt/nim/model",
    variables=first_variables(MODEL_PATH),
    retired=(*_RETIRED_IN_2, ENGINE_MODEL_PATH, ENGINE_MODEL_NAME),
)
NIM_2_2: Final = replace(
    NIM_2_0,
    name="nim-2.2",
    generation=3,
    release="2.2",
    since=(2, 1),
    until=(2, 4),
    model_path="/model",
    cache_path="/opt/cache",
    variables=_later_variables("{model}"),
    retired=_RETIRED_AFTER_2_0,
)
NIM_2_4: Final = replace(
    NIM_2_2,
    name="nim-2.4",
    generation=4,
    release="2.4",
    since=(2, 4),
    until=(3,),
    variables=_later_variables("{base}"),  # its images have several models, and this one says which
)
NIMS: Final = (NIM_1, NIM_2_0, NIM_2_2, NIM_2_4)


# The same under NVIDIA's NIM Operator, which mounts the model where the image's label says: from 2.2.2 on at /model.
def _by_its_operator(profile: ServerProfile, **changes: Any) -> ServerProfile:
    name = profile.name.replace("nim", "nim-service", 1)
    return replace(profile, name=name, backend="nimService", run_by="NIMService", port_name="api", **changes)


NIM_SERVICES: Final = (
    _by_its_operator(NIM_1, model_path="/model-store", cache_path="/tmp/nim-cache"),
    _by_its_operator(NIM_2_2, since=(2, 2, 2)),
    _by_its_operator(NIM_2_4),
)


@dataclass(frozen=True, slots=True)
class Takes:
    """The architecture that an image of NVIDIA's has; a checkpoint or graph of another one does not run in it."""

    family: str  # as encoder.json says; empty: one that is not trained here
    vector_size: int


# By the last part of the repository's name, which mirrors keep. From the support matrices of 1.4 and 2.2.
_LLAMA: Final = Takes("llama_bidirectional", 2048)
IMAGES: Final[Mapping[str, Takes]] = {
    "llama-3.2-nv-embedqa-1b-v2": _LLAMA,
    "llama-nemotron-embed-1b-v2": _LLAMA,
    "llama-nemotron-embed-300m-v2": _LLAMA,
    "llama-3.2-nemoretriever-300m-embed-v2": _LLAMA,
    "nemotron-3-embed-1b": Takes("ministral3_bidirectional", 2048),
    "nv-embedqa-e5-v5": Takes("bert", 1024),
    "arctic-embed-l": Takes("bert", 1024),
    "bge-large-zh-v1.5": Takes("bert", 1024),
    "bge-m3": Takes("roberta", 1024),
    "nv-embedqa-mistral-7b-v2": Takes("", 4096),
    "llama-nemotron-embed-vl-1b-v2": Takes("", 2048),
}
