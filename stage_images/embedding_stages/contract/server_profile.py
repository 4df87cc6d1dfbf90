"""What one kind of server expects and does. Standard library only; the kinds are in servers.py and nim.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from embedding_stages.contract import SERVED_MODEL_PATH

Serves = Literal["graph", "checkpoint"]  # the ONNX graph that export writes, or finetune's folder itself
Precision = Literal["float32", "bfloat16"]
RunBy = Literal["Deployment", "NIMService"]  # the kind of object that the operator makes
Version = tuple[int, ...]  # of an image's tag, as far as it is said

EMBEDDINGS_PATH: Final = "/v1/embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProfile:
    """One kind of server. Texts of `command`, `arguments` and `variables` may hold {path}, {model}, {base}, {port} and
    {cache}: the folder of the model, its name for clients, the base model's name, the port, a folder to write in.
    """

    name: str  # what the verify stage is told
    backend: str  # key of spec.stages.deploy.backend
    serves: Serves
    default_image: str | None  # key among the operator's default images; None: the manifest must name an image
    generation: int = 1  # number of the generation, where a backend has several; part of what is served
    release: str = "1"  # its name: backend.<backend>.generation
    since: Version = ()  # versions of images that are of this generation, from here
    until: Version = ()  # up to here, this one no more
    run_by: RunBy = "Deployment"
    port_name: str = "http"  # of the container's port
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
    defaults: Mapping[str, str] = field(default_factory=dict)  # variables that the manifest may give instead
    retired: tuple[str, ...] = ()  # variables with which this server does not start, or that another generation reads
    key_variable: str | None = None  # the variable of the licence key, backend.<backend>.ngcKeySecretRef
    # The variable with the vector space's name, of a server that answers 409 to who expects another one. It is not
    # among `variables`, which pods of every release have. None: the server ignores what a client expects.
    space_variable: str | None = None

    ready_path: str = "/v1/health/ready"
    live_path: str = "/v1/health/live"
    metadata_path: str | None = "/v1/metadata"  # where a server may say which artefact it serves
    models_path: str | None = "/v1/models"  # where it announces the names that clients may ask for
    input_types: tuple[str, ...] = ("query", "passage")  # words of input_type; empty: clients put the prefixes
    not_taken: tuple[str, ...] = ()  # model families that it does not know
    maps_queries: bool = False  # whether it serves what finetune.side query trained: a map for one role alone
    limits: Mapping[str, int] = field(default_factory=dict)  # of a request, where they are known
    request_fields: Mapping[str, Any] = field(default_factory=lambda: {"truncate": "END"})  # sent with every request

    @property
    def serves_checkpoint(self) -> bool:
        """Such a server needs no export."""
        return self.serves == "checkpoint"

    @property
    def said(self) -> str:
        """Backend and generation for people."""
        return f"{self.backend}, generation {self.release}" if self.since else self.backend

    def is_of(self, version: Version) -> bool:
        """Whether an image of this version is of this generation."""
        return bool(self.since) and self.since <= version < self.until

    def precision(self, *, gpu: bool) -> Precision:
        """What the server computes in, so that the evaluation can compute in the same.

        The project's own servers compute in float32 on a CPU. For a server that is not the project's own float32 is
        the reference everywhere: whatever it rounds to (vLLM to float16, on CPUs too), that is all the difference.
        """
        return self.gpu_precision if gpu else "float32"

    def fill(self, text: str, *, model: str, base: str) -> str:
        """`text` of this profile with its places filled in; `model` is the name that clients use."""
        return text.format(path=self.model_path, model=model, base=base, port=self.port, cache=self.cache_path)

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
