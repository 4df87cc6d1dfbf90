"""What each kind of server expects and does: one profile for each, in one table. Standard library only.

The operator renders a server's container from its profile, and the verify stage measures the server by it. A further
kind of server is one more entry of SERVERS, its place in the manifest's schema, and its image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from embedding_stages.contract import ENV_VECTOR_SPACE, SERVED_MODEL_PATH

Serves = Literal["graph", "checkpoint"]  # the ONNX graph that export writes, or finetune's folder itself
Precision = Literal["float32", "bfloat16"]

# Variables of NVIDIA's NIM for text embeddings. Our own servers honour them too (see serve/settings.py).
MODEL_VARIABLES: Final = ("NIM_CUSTOM_MODEL", "NIM_MODEL_PATH")  # of generation 1 and 2; each refuses the other's
NAME_VARIABLE: Final = "NIM_SERVED_MODEL_NAME"
PORT_VARIABLE: Final = "NIM_HTTP_API_PORT"
CACHE_VARIABLE: Final = "NIM_CACHE_PATH"
NGC_KEY_VARIABLE: Final = "NGC_API_KEY"

EMBEDDINGS_PATH: Final = "/v1/embeddings"
MAX_TEXTS: Final = 2048  # a request to the project's own servers, as of OpenAI's API
MAX_BODY_BYTES: Final = 32 << 20
_OWN_LIMITS: Final = {"texts": MAX_TEXTS, "bytes": MAX_BODY_BYTES}

VECTOR_SPACE_HEADER: Final = "X-Vector-Space"  # of requests: what a client expects; of answers: what it got
TOKEN_IDS_HEADER: Final = "X-Token-Ids"  # of requests: whose vocabulary the token ids of `input` are of
OWN_TOKEN_IDS: Final = "own"  # the served model's


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProfile:
    """One kind of server. Texts of `command`, `arguments` and `variables` may hold {path}, {model}, {port}, {cache}."""

    name: str  # what the verify stage is told
    backend: str  # key of spec.stages.deploy.backend
    serves: Serves
    default_image: str | None  # key among the operator's default images; None: the manifest must name an image
    generation: int = 1  # backend.<backend>.generation
    needs_gpu: bool = False  # one GPU unless the manifest says otherwise; without: the default image uses none
    runs_on_cpu: bool = True  # whether it serves without a GPU, where the manifest says 0
    cpu: str = "100m"  # requested when the manifest says nothing
    memory: str = "256Mi"
    gpu_precision: Precision = "float32"  # what it computes in on a GPU; see `precision`

    model_path: str = SERVED_MODEL_PATH
    cache_path: str = "/opt/nim/.cache"
    port: int = 8000
    read_only_root: bool = True
    command: tuple[str, ...] = ()  # empty: the image's own
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    key_variable: str | None = None  # the variable of the licence key, backend.<backend>.ngcKeySecretRef
    # The variable with the vector space's name, of a server that answers 409 to who expects another one. It is not
    # among `variables`, which pods of every release have. None: the server ignores what a client expects.
    space_variable: str | None = None

    ready_path: str = "/v1/health/ready"
    live_path: str = "/v1/health/live"
    metadata_path: str | None = "/v1/metadata"  # where a server may say which artefact it serves
    input_types: tuple[str, ...] = ("query", "passage")  # words of input_type; empty: clients put the prefixes
    maps_queries: bool = False  # whether it serves what finetune.side query trained: a map for one role alone
    limits: Mapping[str, int] = field(default_factory=dict)  # of a request, where they are known
    request_fields: Mapping[str, Any] = field(default_factory=lambda: {"truncate": "END"})  # sent with every request

    @property
    def serves_checkpoint(self) -> bool:
        """Such a server needs no export."""
        return self.serves == "checkpoint"

    def precision(self, *, gpu: bool) -> Precision:
        """What the server computes in, so that the evaluation can compute in the same.

        Every server computes in float32 on a CPU. For a server that is not the project's own float32 is also the
        reference on a GPU: whatever it rounds to, float32 is at most that rounding away.
        """
        return self.gpu_precision if gpu else "float32"

    def fill(self, text: str, *, model: str) -> str:
        """`text` of this profile with its places filled in; `model` is the name that clients use."""
        return text.format(path=self.model_path, model=model, port=self.port, cache=self.cache_path)

    def request_body(self, role: str) -> dict[str, Any]:
        """What a request says besides texts and model. `role` is query or passage."""
        return {**({"input_type": role} if role in self.input_types else {}), **self.request_fields}

    def text_prefix(self, role: str, prefixes: Mapping[str, str]) -> str:
        """What a client puts before a text; a server that is told the role does it itself."""
        return "" if role in self.input_types else prefixes.get(role, "")

    def client_contract(self, encoder: Mapping[str, Any]) -> dict[str, Any]:
        """What clients must know: how this server is asked, and what `encoder` (encoder.json) says of the model."""
        told = {
            "prefixes": "prefixes",
            "dimensions": "dimensions",
            "normalized": "normalized",
            "maxTokens": "max_tokens",
            "pooling": "pooling",
        }
        model = {name: encoder[key] for name, key in told.items() if key in encoder}
        beside = {
            name: dict(said)
            for name, said in (("requestFields", self.request_fields), ("requestLimits", self.limits))
            if said
        }
        return {"path": EMBEDDINGS_PATH, "inputTypes": list(self.input_types), **beside, **model}


def _nim_variables(model_variable: str) -> Mapping[str, str]:
    return {model_variable: "{path}", PORT_VARIABLE: "{port}", NAME_VARIABLE: "{model}", CACHE_VARIABLE: "{cache}"}


ONNX: Final = ServerProfile(
    name="onnx",
    backend="onnx",
    serves="graph",
    default_image="deploy",
    variables=_nim_variables(MODEL_VARIABLES[0]),
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
    variables=_nim_variables(MODEL_VARIABLES[0]),
    space_variable=ENV_VECTOR_SPACE,
    maps_queries=True,
    limits=_OWN_LIMITS,
)
NIM_1: Final = ServerProfile(
    name="nim-1",
    backend="nim",
    serves="graph",
    default_image=None,
    needs_gpu=True,
    runs_on_cpu=False,
    read_only_root=False,
    variables=_nim_variables(MODEL_VARIABLES[0]),
    key_variable=NGC_KEY_VARIABLE,
)
NIM_2: Final = ServerProfile(
    name="nim-2",
    backend="nim",
    generation=2,
    serves="checkpoint",
    default_image=None,
    needs_gpu=True,
    runs_on_cpu=False,
    read_only_root=False,
    model_path="/opt/nim/model",
    variables=_nim_variables(MODEL_VARIABLES[1]),
    key_variable=NGC_KEY_VARIABLE,
)
SERVERS: tuple[ServerProfile, ...] = (ONNX, TORCH, NIM_1, NIM_2)

# Names that spec.stages.deploy.env may not give, whatever the backend: an edit of the backend must not clash.
RESERVED_VARIABLES: Final = frozenset(
    {name for item in SERVERS for name in item.variables} | {item.key_variable for item in SERVERS if item.key_variable}
)


def backends() -> tuple[str, ...]:
    """Keys of spec.stages.deploy.backend, the default first."""
    return tuple(dict.fromkeys(item.backend for item in SERVERS))


def find_profile(backend: str, generation: int = 1) -> ServerProfile:
    """Raises LookupError when no profile has this backend and generation."""
    for item in SERVERS:
        if (item.backend, item.generation) == (backend, generation):
            return item
    raise LookupError(f"no server profile for backend {backend}, generation {generation}")


def profile_named(name: str) -> ServerProfile:
    """Raises LookupError when there is no such profile."""
    for item in SERVERS:
        if item.name == name:
            return item
    raise LookupError(f"no server profile is named {name!r}; there are {', '.join(item.name for item in SERVERS)}")
