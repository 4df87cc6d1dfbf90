"""Every setting of a manifest that is a number, a decimal, a text or a list, declared once. Standard library only.

The operator's parser, the stages, the CRD's properties (crds/generate.py) and the tables of docs/resource.md are made
from it; CONTRIBUTING.md says how to add one. Defaults are those of the published recipe (NVIDIA NeMo embed
recipe, profile llama) unless a comment says why not. Names are those of the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedding_stages.contract import PARALLELISMS, Stage
from embedding_stages.contract.declare import Table, setting

_SEED_HIGH: Final = 2**32 - 1
_BATCH = {"low": 1, "high": 8192}
DEFAULT_K_VALUES: Final = (1, 5, 10, 100)
METRIC: Final = r"^(ndcg|recall|map|precision)@[1-9][0-9]{0,4}$"
_METRIC_FORM: Final = "ndcg, recall, map or precision and a cut-off, such as ndcg@10"
DEFAULT_GATE_METRICS: Final = ("ndcg@10", "recall@10")
_JOINED: Final = "0.2"  # the release that the settings joined in
QUESTION_KINDS: Final = ("rules", "title", "excerpt", "terms", "topic")
PRESETS: Final = ("recipe", "conservative", "auto")
SIDES: Final = ("both", "query")
QUERY_SIDE: Final = SIDES[1]
EVALUATION_QUERIES: Final = ("pairs", "withheld")
PASSAGES: Final = ("sentences", "fit")
FITTING: Final = PASSAGES[1]
DEFAULT_INCLUDE: Final = ("**/*.txt", "**/*.md", "**/*.text", "**/+([!.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel(Table):
    FIELD = "spec.baseModel"

    name: str = setting(
        shortest=1, longest=253, says="The model's name, for example nvidia/llama-nemotron-embed-1b-v2."
    )
    maxTokens: int | None = setting(
        None,
        low=8,
        high=8192,
        says="Longer texts are cut in every stage, and by the server where a request says truncate, tokens; "
        "at most 512 when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus(Table):
    FIELD = "spec.corpus"

    include: tuple[str, ...] = setting(
        DEFAULT_INCLUDE,
        most=32,
        shortest=1,
        longest=256,
        says="Globs of the files to read, by gitignore's rules from the root on; when absent .txt, .text, .md and "
        "names without a dot that are not hidden.",
    )
    minTextLength: int = setting(
        50, low=1, high=1_000_000, says="Shorter documents are skipped and counted, characters."
    )
    version: str = setting(
        "",
        longest=64,
        says="Change it when documents, model or labelled set changed in place: everything is looked at again.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Table):
    FIELD = "spec.evaluation"

    freeze: bool = setting(
        True,
        since=_JOINED,
        says="Score later revisions on the evaluation set of the first one that was Ready; false takes a new set.",
    )
    kValues: tuple[int, ...] = setting(
        DEFAULT_K_VALUES,
        low=1,
        high=10_000,
        fewest=1,
        most=16,
        says="Cut-offs of the metrics, in rising order and 10 among them.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard(Table):
    """A further labelled set on which the tuned model may not fall far behind the base model."""

    FIELD = "spec.evaluation.guards"

    name: str = setting(
        since=_JOINED,
        shortest=1,
        longest=32,
        pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        form="a-z, 0-9 and '-', with a letter or digit at both ends, such as general-2",
        says="Name of the set, in messages.",
    )
    maxRegression: float = setting(
        0.02, since=_JOINED, low=0, high=1, says="How far NDCG@10 may fall below the base model's, absolute."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates(Table):
    """What a revision must measure before it may be exported and served."""

    FIELD = "spec.gates"

    enabled: bool = setting(True, since=_JOINED, says="Whether a revision is judged before it is exported.")
    metrics: tuple[str, ...] = setting(
        DEFAULT_GATE_METRICS,
        since=_JOINED,
        fewest=1,
        most=4,
        longest=16,
        pattern=METRIC,
        form=_METRIC_FORM,
        says="Metrics that are judged; their cut-offs must be among evaluation.kValues.",
    )
    minRelativeUplift: float | None = setting(
        None,
        since=_JOINED,
        low=0,
        high=10,
        says="Least relative change of NDCG@10 against the base model. "
        "When absent 0, or what maxRegression.base allows where that is given.",
    )
    criterion: str = setting(
        "PointEstimate",
        since=_JOINED,
        choices=("PointEstimate", "NotInferior", "Better"),
        says="What has to be within the limits: the measured difference, or the lower end of its one-sided 95 % "
        "interval (NotInferior). Better: that end above 0.",
    )
    onFail: str = setting(
        "Stop",
        since=_JOINED,
        choices=("Stop", "Warn"),
        says="Stop: the revision is not exported and gets no traffic. Warn: it goes on, and its status says so.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxRegression(Table):
    """How far a metric may fall, absolute."""

    FIELD = "spec.gates.maxRegression"

    base: float = setting(0.0, since=_JOINED, low=0, high=1, says="Below the base model's, absolute.")
    active: float = setting(
        0.01, since=_JOINED, low=0, high=1, says="Below that of the revision that serves now, absolute."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdg(Table):
    FIELD = "spec.stages.sdg"

    pairsPerDocument: int = setting(7, low=1, high=100, says="Questions a document.")
    sentencesPerChunk: int = setting(5, low=1, high=100, says="Sentences a passage.")
    passages: str = setting(
        PASSAGES[0],
        since=_JOINED,
        choices=PASSAGES,
        says="sentences: sentencesPerChunk sentences each, however long. fit: at most so many, and no longer than "
        "baseModel.maxTokens, so that the model reads them whole.",
    )
    minTextLength: int = setting(50, low=1, says="Documents below this get no questions, characters.", told=True)
    questionKinds: tuple[str, ...] = setting(
        ("rules",),
        since=_JOINED,
        choices=QUESTION_KINDS,
        fewest=1,
        most=len(QUESTION_KINDS),
        says="Kinds of questions of provider extractive; all but excerpt with finetune.preset auto or conservative.",
    )
    seed: int = setting(42, low=0, high=_SEED_HIGH, says="Of every random choice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prep(Table):
    FIELD = "spec.stages.prep"

    qualityThreshold: float = setting(
        7.0, low=0, high=10, says="Lowest score of the judge, of 10, that is kept; questions without one pass."
    )
    evalFraction: float = setting(
        0.2, low=0.01, high=0.9, says="Share of the documents that is held out for the evaluation."
    )
    margin: float = setting(
        0.95, low=0.01, high=1, says="Hard negatives score below this share of the lowest positive's score."
    )
    hardNegatives: int = setting(5, low=1, high=100, says="Hard negatives mined a question.")
    evaluationQueries: str = setting(
        EVALUATION_QUERIES[0],
        since=_JOINED,
        choices=EVALUATION_QUERIES,
        says="What held-out documents are asked: their pairs, or sentences taken out of their passages (withheld: "
        "with finetune.preset auto or conservative and no LLM).",
    )
    maxTrainingQuestions: int | None = setting(
        None,
        since=_JOINED,
        low=1,
        high=100_000_000,
        says="So many questions train at most, drawn with the seed; all when absent, "
        "3072 with finetune.preset auto or conservative and no LLM.",
    )
    batchSize: int = setting(128, **_BATCH, says="Texts that the base model embeds at once.")
    scoreCandidates: bool = setting(
        False,
        since=_JOINED,
        says="Whether candidates are chosen and scored by the base model and BM25 together, as finetune.preset asks.",
        told=True,
    )
    seed: int = setting(42, low=0, high=_SEED_HIGH, says="Of every random choice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune(Table):
    FIELD = "spec.stages.finetune"

    preset: str = setting(
        PRESETS[0],
        since=_JOINED,
        choices=PRESETS,
        says="recipe: learns which passage a question is about. auto: learns the ranking of base model and BM25 "
        "together. conservative: as auto, in smaller steps.",
    )
    side: str = setting(
        SIDES[0],
        since=_JOINED,
        choices=SIDES,
        says="What moves: the whole model, or only what becomes of queries (query): passages keep the base model's "
        "vectors, so nothing is embedded again.",
    )
    epochs: int = setting(3, low=1, high=100, says="Passes over the training set.")
    globalBatchSize: int = setting(
        128, low=1, high=65536, says="Questions an optimizer step, scaled down for small sets."
    )
    microBatchSize: int = setting(
        4,
        low=1,
        high=65536,
        says="Questions a forward pass, halved when GPU memory runs out; without meaning for a Llama on a GPU.",
    )
    learningRate: float = setting(1e-5, low=1e-9, high=1, says="Learning rate at its peak.")
    weightDecay: float = setting(0.01, low=0, high=1, says="Weight decay of the optimizer.")
    warmupSteps: int = setting(5, low=0, high=1_000_000, says="Optimizer steps until the learning rate is at its peak.")
    temperature: float = setting(0.02, low=1e-4, high=10, says="Temperature of the loss.")
    negativesPerQuery: int = setting(
        4, low=1, high=100, says="Hard negatives used a question, at most stages.prep.hardNegatives."
    )
    checkpointEverySteps: int = setting(100, low=1, high=1_000_000, says="Optimizer steps between two resume points.")
    seed: int = setting(42, low=0, high=_SEED_HIGH, says="Of every random choice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers(Table):
    """How many share the training. That is scheduling: it is no part of the work's identity."""

    FIELD = "spec.stages.finetune"

    gpusPerNode: int | None = setting(
        None,
        low=0,
        high=16,
        says="GPUs on each node, one process a GPU; 0 for one process without. "
        "What resources.limits says, or 1, when absent.",
    )
    nodes: int = setting(
        1,
        low=1,
        high=64,
        says="Pods that share the training, at best one a node. Several need a workspace that several nodes mount.",
    )
    parallelism: str = setting(
        PARALLELISMS[0],
        choices=PARALLELISMS,
        says="With several GPUs: a copy of the model on each (DDP), or its parameters and "
        "optimizer state in shards (FSDP).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval(Table):
    FIELD = "spec.stages.eval"

    kValues: tuple[int, ...] = setting(DEFAULT_K_VALUES, low=1, fewest=1, says="spec.evaluation.kValues.", told=True)
    batchSize: int = setting(128, **_BATCH, says="Texts that a model embeds at once.")
    precision: str | None = setting(
        None,
        choices=("float32", "bfloat16"),
        says="What the server computes in; as the machine likes when absent.",
        told=True,
    )
    gateMetrics: tuple[str, ...] = setting(
        DEFAULT_GATE_METRICS,
        since=_JOINED,
        pattern=METRIC,
        form=_METRIC_FORM,
        says="spec.gates.metrics.",
        told=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Table):
    FIELD = "spec.stages.export"

    precision: str = setting("fp32", choices=("fp32", "fp16"), says="Number format of the exported weights.")


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
        since=_JOINED,
        longest=64,
        pattern="^([0-9a-f]{16})?$",
        form="a vector space of 16 hexadecimal digits in quotes, such as '3f9c0a1b2d4e5f60', or empty",
        says="With strategy Shadow: the vector space that the index holds now (status.served.candidateVectorSpace). "
        "Clients are moved to the revision that has it.",
    )
    drainSeconds: int = setting(
        30,
        since=_JOINED,
        low=0,
        high=86_400,
        says="How long the server that clients have left goes on answering, seconds.",
    )
    pinRevision: int | None = setting(
        None,
        since=_JOINED,
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
class Tolerance(Table):
    FIELD = "spec.tolerance"

    atOne: float | None = setting(
        None,
        low=0,
        high=1,
        says="At k below 5. When absent 0.01 where the evaluation computed in float32, 0.03 where in bfloat16.",
    )
    atFiveAndAbove: float | None = setting(
        None,
        low=0,
        high=1,
        says="At k of 5 and above. When absent 0.005 where the evaluation computed in float32, 0.01 where in bfloat16.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Table):
    """How what serves is watched after it was verified."""

    FIELD = "spec.verification"

    intervalSeconds: int | None = setting(
        None,
        since=_JOINED,
        low=60,
        high=604_800,
        says="How often the canaries of the contract are sent to what serves, seconds; never when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicy(Table):
    FIELD = "spec.runPolicy"

    startDeadlineSeconds: int = setting(
        1800, low=10, high=604_800, says="A stage whose pod has not started by then fails, seconds."
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


# What a stage's code is told. `inputs` gets sections of the manifest instead, `deploy` is a Deployment.
OF_STAGE: Final[Mapping[Stage, type[Table]]] = {
    Stage.SDG: Sdg,
    Stage.PREP: Prep,
    Stage.FINETUNE: Finetune,
    Stage.EVAL: Eval,
    Stage.EXPORT: Export,
    Stage.VERIFY: Verify,
}
