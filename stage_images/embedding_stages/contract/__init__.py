"""What the operator and the stage images agree on. Standard library only, imported by both sides.

A stage is one Job. It gets a `StageRequest` (JSON in one environment variable), does its work in the
workspace volume, and answers with an exit code and a `StageResult` (JSON, the container's termination
message). Progress is a log line that `progress_line` writes and `parse_progress` finds (progress.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

from embedding_stages.contract.canonical import canonical_json as canonical_json
from embedding_stages.contract.canonical import encodable as encodable
from embedding_stages.contract.canonical import fingerprint_of as fingerprint_of
from embedding_stages.contract.odd_values import check, holdable, number, read_json, whole
from embedding_stages.contract.progress import Progress as Progress
from embedding_stages.contract.progress import parse_progress as parse_progress
from embedding_stages.contract.progress import progress_line as progress_line

SCHEMA: Final = 1


class Stage(StrEnum):
    """Every step of the pipeline, in order. Users read these words in status, events, metrics and logs."""

    INPUTS = "inputs"  # freezes and hashes documents, base model and labelled set before anything is spent
    SDG = "sdg"  # synthetic questions
    PREP = "prep"  # split, hard negatives
    FINETUNE = "finetune"
    EVAL = "eval"  # BEIR, base against fine-tuned
    EXPORT = "export"  # ONNX
    DEPLOY = "deploy"  # a Deployment, not a Job
    VERIFY = "verify"  # the deployed endpoint against the evaluation


# The stages of data and training, and of the model that is served.
BEFORE_SERVING: Final = tuple(Stage)[: tuple(Stage).index(Stage.DEPLOY)]


class Artefact(StrEnum):
    """What stages hand to each other; each is a folder of the workspace with a digest."""

    CORPUS = "corpus"  # inputs: documents.jsonl {id, path, text}
    BASE_MODEL = "baseModel"  # inputs: a safetensors model folder with encoder.json
    LABELLED_SET = "labelledSet"  # inputs: the user's own BEIR set, when there is one
    PAIRS = "pairs"  # sdg: pairs.jsonl and chunks.jsonl
    TRAINING_SET = "trainingSet"  # prep: train.jsonl and passages.jsonl
    EVALUATION_SET = "evaluationSet"  # prep: BEIR: corpus.jsonl, queries.jsonl, qrels/test.tsv; documents.jsonl
    CHECKPOINT = "checkpoint"  # finetune: like BASE_MODEL, and where only queries' side was trained, their map
    EVAL_REPORT = "evalReport"  # eval: report.json with per-query scores
    SERVING_MODEL = "servingModel"  # export: model.onnx, tokenizer, encoder.json
    VERIFY_REPORT = "verifyReport"  # verify: report.json
    GUARD_SETS = "guardSets"  # inputs: one BEIR folder a guard of the manifest, by its name
    FROZEN_SET = "frozenSet"  # an input only: the EVALUATION_SET that an earlier revision was scored on
    ACTIVE_CHECKPOINT = "activeCheckpoint"  # an input only: the CHECKPOINT that serves now


class ExitCode(IntEnum):
    """What the operator should do about a stage that ended. Anything else is a bug: retried once."""

    DONE = 0
    BAD_INPUT = 10  # never retried before the spec changes; the result names the field and the cure
    TRANSIENT = 20  # retried with backoff
    OUT_OF_MEMORY = 30  # retried with half the micro-batch; the global batch stays
    STOPPED = 40  # a budget or a gate stopped it; the operator does the same to one whose run is over its limits


# Environment of a stage container. The paths have defaults; tests set them to temporary folders.
ENV_REQUEST: Final = "EFT_REQUEST"
ENV_WORKSPACE: Final = "EFT_WORKSPACE"
ENV_SOURCES: Final = "EFT_SOURCES"
ENV_SECRETS: Final = "EFT_SECRETS"
ENV_AUTHORITIES: Final = "EFT_AUTHORITIES"
ENV_TERMINATION_LOG: Final = "EFT_TERMINATION_LOG"
ENV_VECTOR_SPACE: Final = "EFT_VECTOR_SPACE"  # of a server: the name of its model's vector space (`vector_space_of`)

# Environment of a stage that runs on several accelerators; without them it is one process on one node.
ENV_NODES: Final = "EFT_NODES"  # pods of the Job
ENV_NODE_RANK: Final = "JOB_COMPLETION_INDEX"  # Kubernetes sets it in the pods of an Indexed Job; 0 when absent
ENV_PROCESSES: Final = "EFT_PROCESSES"  # worker processes on each node, one an accelerator
ENV_COORDINATOR: Final = "EFT_COORDINATOR"  # host:port where the pods of several nodes meet: the pod of index 0
ENV_PARALLELISM: Final = "EFT_PARALLELISM"  # a word of PARALLELISMS
PARALLELISMS: Final = ("DDP", "FSDP")  # replicas of the model, or its parameters and optimizer state in shards
COORDINATOR_PORT: Final = 29500

WORKSPACE_PATH: Final = "/workspace"
SOURCES_PATH: Final = "/sources"  # one sub-folder a source: corpus, model, beir
SECRETS_PATH: Final = (
    "/var/run/secrets/embedding-operator.dev"  # one sub-folder a purpose: openai, judge, embedding, huggingface
)
AUTHORITIES_PATH: Final = (
    "/etc/embedding-operator.dev/authorities"  # one sub-folder a purpose, named as the Secrets' are
)
TERMINATION_LOG_PATH: Final = "/dev/termination-log"
SERVED_MODEL_PATH: Final = "/opt/nim/custom_model"

SOURCE_CORPUS: Final = "corpus"
SOURCE_MODEL: Final = "model"
SOURCE_BEIR: Final = "beir"
SOURCE_GUARD: Final = "guard-"  # with the guard's place in the manifest: guard-0
SECRET_OPENAI: Final = "openai"
SECRET_JUDGE: Final = "judge"  # of the model that scores questions, where it has an endpoint of its own
SECRET_EMBEDDING: Final = "embedding"  # likewise, of the one that compares questions
SECRET_HUGGING_FACE: Final = "huggingface"
SECRET_FILE: Final = "token"  # every Secret key is mounted under this file name
AUTHORITIES_FILE: Final = "ca.crt"  # the same for certificates of authorities, which a ConfigMap holds

# Reasons of a transient failure that follow from something else: another pod's or worker's end, or SIGTERM.
INTERRUPTED: Final = "Interrupted"
PEER_LOST: Final = "PeerLost"

# The workspace is full or over its quota, or the node's own disk is: the result's field says which.
DISK_FULL: Final = "DiskFull"
SHARED_MEMORY_FULL: Final = "SharedMemoryFull"

LOOK: Final = "look"  # in the settings of inputs: a look at the sources beside a revision; see inputs/drift.py
MANIFEST_FILE: Final = "manifest.json"
ENCODER_FILE: Final = "encoder.json"
TERMINATION_MESSAGE_BYTES: Final = 4096

VECTOR_SPACE_NAME: Final = "[0-9a-f]{16}"  # a regular expression


def vector_space_of(checkpoint_digest: str) -> str:
    """The name of a vector space: 16 hex digits. Vectors of one space can be compared, those of two cannot.

    It follows the trained weights with their tokenizer, pooling and prefixes (all files of the checkpoint). A server of
    another kind, or another number format, answers in the same space; training anew makes a new one. Where queries'
    side alone was trained, the digest is the base model's, which made the vectors of passages.
    """
    return fingerprint_of({"vectorSpace": checkpoint_digest})[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtefactRef:
    """An artefact as the next stage finds it."""

    path: str  # relative to the workspace
    digest: str  # "sha256:<64 hex>", of the names, sizes and contents of its files

    def to_json(self) -> dict[str, str]:
        return {"path": self.path, "digest": self.digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """Everything a stage is told. `settings` holds resolved values: numbers are numbers, defaults filled in."""

    stage: Stage
    fingerprint: str  # names the artefact folder: <workspace>/<stage>/<fingerprint>/
    attempt: int
    revision: int
    image: str
    settings: Mapping[str, Any]
    inputs: Mapping[Artefact, ArtefactRef]
    base_model: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name and revision; no part of the work

    def to_json(self) -> str:
        return canonical_json(
            {
                "schema": SCHEMA,
                "stage": self.stage,
                "fingerprint": self.fingerprint,
                "attempt": self.attempt,
                "revision": self.revision,
                "image": self.image,
                "settings": dict(self.settings),
                "inputs": {name: ref.to_json() for name, ref in self.inputs.items()},
                **({"baseModel": dict(self.base_model)} if self.base_model else {}),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> StageRequest:
        """Raises ValueError when the text is not a request of this schema."""
        raw = _object(text, "stage request")
        try:
            return cls(
                stage=Stage(raw["stage"]),
                fingerprint=str(raw["fingerprint"]),
                attempt=int(raw["attempt"]),
                revision=int(raw["revision"]),
                image=str(raw["image"]),
                settings=dict(raw["settings"]),
                inputs=_refs(raw["inputs"]),
                base_model={str(key): str(value) for key, value in raw.get("baseModel", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"stage request lacks or mistypes {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage answers. On failure `reason`, `message` and, for bad input, `field` say what to do."""

    stage: Stage
    fingerprint: str
    reason: str = "Completed"  # CamelCase; the same word becomes the condition's reason
    message: str = ""
    field: str = ""  # the manifest's field at fault, for example spec.corpus.source.pvc
    artefacts: Mapping[Artefact, ArtefactRef] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = dataclasses.field(
        default_factory=dict
    )  # eval: {"base": {"ndcg@10": 0.5}, ...}
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)  # documents, skippedFiles, queries, ...
    details: Mapping[str, Any] = dataclasses.field(
        default_factory=dict
    )  # small and stage-specific, documented by the stage
    llm_tokens: int = 0  # that this attempt's process was answered and asked: what earlier attempts paid is theirs

    def to_json(self) -> str:
        """At most `TERMINATION_MESSAGE_BYTES` bytes: the message is shortened, results never are.

        Raises ValueError when the rest alone is too long: a longer text would be cut by the kubelet.
        """
        message = encodable(self.message)
        text = self._dump(message)
        excess = len(text.encode()) - TERMINATION_MESSAGE_BYTES
        if excess <= 0:
            return text
        # JSON escapes make a character up to 12 bytes long, so shorten until it fits.
        while message and len(self._dump(message + "…").encode()) > TERMINATION_MESSAGE_BYTES:
            message = message[: len(message) - max(1, len(message) // 16)]
        text = self._dump(message + "…")
        if len(text.encode()) > TERMINATION_MESSAGE_BYTES:
            raise ValueError(f"result of stage {self.stage} does not fit {TERMINATION_MESSAGE_BYTES} bytes")
        return text

    def _dump(self, message: str) -> str:
        return canonical_json(
            {
                "schema": SCHEMA,
                "stage": self.stage,
                "fingerprint": self.fingerprint,
                "reason": self.reason,
                "message": message,
                "field": self.field,
                "artefacts": {name: ref.to_json() for name, ref in self.artefacts.items()},
                "metrics": {kind: dict(values) for kind, values in self.metrics.items()},
                "counts": dict(self.counts),
                "details": dict(self.details),
                **({"llmTokens": self.llm_tokens} if self.llm_tokens else {}),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> StageResult:
        """Raises ValueError when the text is not a result of this schema, or says what no status could hold."""
        raw = _object(text, "stage result")
        check({key: value for key, value in raw.items() if key != "details"})
        try:
            return cls(
                stage=Stage(raw["stage"]),
                fingerprint=str(raw["fingerprint"]),
                reason=str(raw["reason"]),
                message=str(raw["message"]),
                field=str(raw["field"]),
                artefacts=_refs(raw["artefacts"]),
                metrics={k: {m: number(x) for m, x in v.items()} for k, v in raw["metrics"].items()},
                counts={k: whole(v) for k, v in raw["counts"].items()},
                details=holdable(dict(raw["details"])),
                llm_tokens=whole(raw.get("llmTokens", 0)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"stage result lacks or mistypes {error}") from error


def _object(text: str, what: str) -> dict[str, Any]:
    raw = read_json(text)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ValueError(f"not a {what} of schema {SCHEMA}")
    return raw


def _refs(raw: Mapping[str, Mapping[str, str]]) -> dict[Artefact, ArtefactRef]:
    return {Artefact(name): ArtefactRef(path=str(ref["path"]), digest=str(ref["digest"])) for name, ref in raw.items()}
