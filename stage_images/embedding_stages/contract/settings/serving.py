"""The stages from the evaluation to the server, and how every pod is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedding_stages.contract.declare import Table, setting
from embedding_stages.contract.settings.common import (
    BATCH,
    DEFAULT_GATE_METRICS,
    DEFAULT_K_VALUES,
    JOINED,
    METRIC,
    METRIC_FORM,
    QUEUE,
    QUEUE_FORM,
)

STOP, FALL_BACK = "Stop", "FallBack"
TENSORRT: Final = "tensorrt"  # a format of the export
NO_QUANTIZATION: Final = "none"
# Least cosine between a text's vectors before and after, by what the numbers of the products are.
QUANTIZED_COSINE: Final[Mapping[str, float]] = {"fp8": 0.97, "int8": 0.9}
BF16: Final = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval(Table):
    FIELD = "spec.stages.eval"

    kValues: tuple[int, ...] = setting(DEFAULT_K_VALUES, low=1, fewest=1, says="spec.evaluation.kValues.", told=True)
    batchSize: int = setting(128, **BATCH, says="Texts that a model embeds at once.")
    precision: str | None = setting(
        None,
        choices=("float32", "bfloat16"),
        says="What the server computes in; as the machine likes when absent.",
        told=True,
    )
    gateMetrics: tuple[str, ...] = setting(
        DEFAULT_GATE_METRICS,
        since=JOINED,
        pattern=METRIC,
        form=METRIC_FORM,
        says="spec.gates.metrics.",
        told=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Table):
    FIELD = "spec.stages.export"

    format: str = setting(
        "onnx",
        since=JOINED,
        choices=("onnx", TENSORRT),
        says="A graph in ONNX, or that and beside it an engine of TensorRT for the GPU that the stage then asks for.",
    )
    precision: str = setting(
        "fp32",
        choices=("fp32", "fp16", BF16),
        says="Number format of the exported weights. ONNX Runtime has no bf16 on CPUs.",
    )
    quantization: str = setting(
        NO_QUANTIZATION,
        since=JOINED,
        choices=(NO_QUANTIZATION, "int8", "fp8"),
        says="Number format of the weights and inputs of the layers' products, calibrated on passages of the training "
        "set; what else there is stays in precision.",
    )
    onParityFail: str = setting(
        STOP,
        since=JOINED,
        choices=(STOP, FALL_BACK),
        says="When the exported model answers too differently from the checkpoint: Stop, or FallBack to no "
        "quantization, and then to fp32.",
    )
    minCosine: float | None = setting(
        None,
        since=JOINED,
        low=0,
        high=1,
        says="Least cosine between a text's vectors of checkpoint and export. When absent 0.9999 for fp32, 0.999 for "
        "fp16 and bf16, 0.97 for fp8, 0.9 for int8.",
    )
    maxNdcgDrop: float = setting(
        0.01,
        since=JOINED,
        low=0,
        high=1,
        says="How far NDCG@10 may fall below the checkpoint's, absolute, on a part of the evaluation set; measured "
        "for bf16 and with quantization.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(Table):
    FIELD = "spec.stages.deploy"

    modelName: str | None = setting(
        None, shortest=1, longest=253, says="The model's name for clients; baseModel.name when absent."
    )
    replicas: int | None = setting(
        None,
        low=1,
        high=100,
        says="Pods of the server. When absent 1 at first, and then as many as its Deployment is scaled to.",
    )
    strategy: str | None = setting(
        None,
        choices=("Recreate", "BlueGreen", "Shadow"),
        says="A new revision is verified beside the old one (BlueGreen), in its place (Recreate), or beside it until "
        "acknowledged (Shadow); Recreate when absent and on a GPU, else BlueGreen.",
    )
    acknowledgedVectorSpace: str = setting(
        "",
        since=JOINED,
        longest=64,
        pattern="^([0-9a-f]{16})?$",
        form="a vector space of 16 hexadecimal digits in quotes, such as '3f9c0a1b2d4e5f60', or empty",
        says="With strategy Shadow: the vector space that the index holds now (status.served.candidateVectorSpace). "
        "Clients are moved to the revision that has it.",
    )
    drainSeconds: int = setting(
        30,
        since=JOINED,
        low=0,
        high=86_400,
        says="How long the server that clients have left goes on answering, seconds.",
    )
    pinRevision: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=2**31 - 1,
        says="Serve this revision again, from its artefacts; nothing is trained. "
        "status.history lists what can be pinned.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify(Table):
    FIELD = "spec.stages.verify"

    kValues: tuple[int, ...] = setting(DEFAULT_K_VALUES, low=1, fewest=1, says="spec.evaluation.kValues.", told=True)
    batchSize: int = setting(32, low=1, says="Texts a request.", told=True)
    requestTimeoutSeconds: int = setting(
        60, low=1, says="How long one request to the endpoint may take, seconds.", told=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicy(Table):
    FIELD = "spec.runPolicy"

    startDeadlineSeconds: int = setting(
        1800, low=10, high=604_800, says="A stage whose pod has not started by then fails, seconds."
    )
    activeDeadlineSeconds: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=31_536_000,
        says="Time that the pods of a revision's stages may run altogether, seconds; then the stage that runs is "
        "stopped. Waiting and suspension do not count. No limit when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Table):
    """What a revision's run may use."""

    FIELD = "spec.limits"

    gpuSeconds: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1_000_000_000,
        says="GPUs that a stage's pod has, times the seconds that it runs, over all attempts and stages of the "
        "revision. No limit when absent.",
    )
    llmTokens: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1_000_000_000_000,
        says="Tokens that language models are asked and answer in the revision's run. No limit when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention(Table):
    """How long what has ended is kept."""

    FIELD = "spec.retention"

    succeededSeconds: int | None = setting(
        None,
        since=JOINED,
        low=0,
        high=31_536_000,
        says="How long the Job of a stage that succeeded is kept, seconds; a day or longer when absent.",
    )
    failedSeconds: int | None = setting(
        None,
        since=JOINED,
        low=0,
        high=31_536_000,
        says="How long the Job of an attempt that failed is kept, seconds, once its stage has ended; a day or longer "
        "when absent.",
    )
    revisions: int = setting(
        8, since=JOINED, low=1, high=16, says="How many revisions that were Ready can be pinned (status.history)."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling(Table):
    FIELD = "spec.scheduling"

    queueName: str | None = setting(
        None,
        since=JOINED,
        pattern=QUEUE,
        form=QUEUE_FORM,
        shortest=1,
        longest=63,
        says="Kueue's LocalQueue, in this namespace, that admits the Job of each stage; none when absent.",
    )
    priorityClass: str | None = setting(
        None,
        since=JOINED,
        pattern=QUEUE,
        form=QUEUE_FORM,
        shortest=1,
        longest=63,
        says="Kueue's WorkloadPriorityClass of what goes through the queue; it says nothing of the pods' own priority.",
    )
    serving: bool = setting(
        False,
        since=JOINED,
        says="Whether the server's Deployment goes through the queue too.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Table):
    """How every stage's pod is run; the time differs from stage to stage."""

    FIELD = "spec.stages"

    timeoutSeconds: int | None = setting(
        None, low=1, high=2_592_000, says="The stage fails when it runs longer, seconds."
    )
    retries: int = setting(
        3, low=0, high=20, says="Further attempts after a transient failure. Preemption and drains never count."
    )
