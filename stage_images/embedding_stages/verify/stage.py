"""The verify stage: the endpoint, evaluationSet, evalReport and servingModel in, verifyReport out.

Metrics: served (as evaluate's). Counts: queries, passages, invalidVectors (vectors that came back unfit, the
ones that a retry mended included), retries (requests sent again), changedQueries (whose headline metric or
recall differs from the evaluated model's). Details:

- artefactDigest (of the mounted folder, computed here), serverDigest (the server's own word, null where it has none);
- dimension;
- rate: how fast the passages were embedded (passagesPerSecond, and where the server counts tokens tokensPerPassage and
  tokensPerSecond);
- canaryCosine: the least cosine of a canary to what the evaluated model gave it; null when eval did not say, or the
  server refuses one;
- what the endpoint was asked wrongly (see negatives), nothing for a set without queries: sample (queries, ndcg@10 in
  their right role), roleSwap (ndcg@10, symmetric), wrongPrefix (sent, ndcg@10; null where there is none), truncated
  (dimension, answer, ndcg@10 where the answer is sliced, unlistedRefused; null for a model of one size).

Roles that are swapped stop the stage, the other wrong questions are reported. Whether the metrics are within tolerance
is the operator's decision, not this stage's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import SCHEMA, Artefact, StageResult
from embedding_stages.contract.canaries import CANARIES, texts_of
from embedding_stages.contract.servers import ONNX, ServerProfile, profile_named
from embedding_stages.contract.settings import Verify
from embedding_stages.encoder.description import ROLES, EncoderDescription
from embedding_stages.errors import BadInput, StageError, Stopped, settings_of
from embedding_stages.evaluate.canaries import least_cosine
from embedding_stages.evaluate.evaluation_set import EvaluationSet, load_evaluation_set
from embedding_stages.evaluate.metrics import Scores, k_values_of, measure
from embedding_stages.evaluate.report import FINE_TUNED, changed_queries, load_report, per_query, save_report
from embedding_stages.runner import StageContext
from embedding_stages.verify.client import EndpointClient
from embedding_stages.verify.negatives import Measured, ask_wrongly, texts_sent
from embedding_stages.verify.vectors import EndpointVectors, Pace

_FIELD = "spec.stages.deploy"
READY_S = 120.0  # how long to wait for an endpoint that does not answer yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """NVIDIA embed recipe: batches of 32, 60 s a request."""

    url: str
    server: ServerProfile  # the onnx server's when absent: what every server was asked before
    model: str
    expected_digest: str
    k_values: tuple[int, ...]
    batch_size: int
    timeout_s: float

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Settings:
        """Raises BadInput `SettingInvalid`."""
        asked = settings_of(Verify, raw)
        return cls(
            url=_text(raw, "url"),
            server=_profile(raw),
            model=_text(raw, "model"),
            expected_digest=_text(raw, "expectedDigest"),
            k_values=k_values_of(asked.kValues, field="spec.evaluation.kValues"),
            batch_size=asked.batchSize,
            timeout_s=asked.requestTimeoutSeconds,
        )


def work(context: StageContext) -> StageResult:
    """Identity first, because it is cheap and decides most; then quality and that it can be lost; then identity."""
    settings = Settings.of(context.settings)
    evaluation_set = load_evaluation_set(context.input(Artefact.EVALUATION_SET), may_be_empty=True)
    evaluated = _comparable_report(context)
    artefact_digest, description = check_artefact(context, settings.expected_digest)
    client = EndpointClient(settings.url, timeout_s=settings.timeout_s, profile=settings.server)
    client.wait_ready(READY_S, context.stop_if_asked)
    server_digest = check_server(client, settings)
    check_name(client, settings)
    endpoint = _endpoint_vectors(context, settings, client, description, evaluation_set)
    began = context.clock()
    passages = endpoint.embed(evaluation_set.passages, "passage")
    rate = endpoint.rate(context.clock() - began)
    cosine = _canary_cosine(context, endpoint, evaluated)
    scores, negatives = Scores({}, {}), dict[str, Any]()
    if evaluation_set.queries:
        queries = endpoint.embed(evaluation_set.queries, "query")
        scores = measure(evaluation_set, queries, passages, settings.k_values)
        wrongly = ask_wrongly(endpoint, Measured.of(evaluation_set, queries, passages), description)
        wrongly.check_roles()
        negatives = dict(wrongly.details)
    check_server(client, settings)
    before, after = evaluated["perQuery"][FINE_TUNED], per_query(scores, settings.k_values)
    changed = changed_queries(before, after)
    counts = {
        "queries": len(evaluation_set.queries),
        "passages": len(evaluation_set.passages),
        "invalidVectors": endpoint.invalid,
        "retries": endpoint.retries,
        "changedQueries": len(changed),
    }
    details = {
        "artefactDigest": artefact_digest,
        "serverDigest": server_digest,
        "dimension": description.vector_size,
        "rate": rate,
        "canaryCosine": cosine,
        **negatives,
    }
    metrics = {"served": dict(scores.means)}
    report = {
        "schema": SCHEMA,
        "kValues": list(settings.k_values),
        "url": settings.url,
        "model": settings.model,
        **counts,
        **details,
        "metrics": metrics,
        "changed": {query: {FINE_TUNED: before.get(query), "served": after.get(query)} for query in changed},
        "perQuery": {"served": after},
    }
    save_report(context.folder(Artefact.VERIFY_REPORT), report)
    return context.result(metrics=metrics, counts=counts, details=details)


def _canary_cosine(context: StageContext, endpoint: EndpointVectors, evaluated: Mapping[str, Any]) -> float | None:
    """None where eval did not say, and for a server that refuses a canary: it cuts no text, and one is long."""
    try:
        answered = {role: endpoint.embed(texts_of(role), role) for role in ROLES}
    except Stopped as error:
        if error.reason != "EndpointRefused":
            raise
        context.log("the server refuses a canary", cause=error.message)
        return None
    return least_cosine(evaluated.get("canaries") or {}, answered)


def check_artefact(context: StageContext, expected: str) -> tuple[str, EncoderDescription]:
    """(digest of the mounted serving model, what it is). Raises Stopped `ArtefactMismatch`.

    Read from disk here and not through `context.input`, which would call a swapped model a damaged input.
    """
    ref = context.request.inputs.get(Artefact.SERVING_MODEL)
    if ref is None:
        raise StageError("ArtefactMissing", f"stage verify was started without its input {Artefact.SERVING_MODEL}")
    folder: Path = context.workspace.root / ref.path
    if not folder.is_dir():
        raise Stopped("ArtefactMissing", f"the serving model is gone from the workspace: {ref.path}")
    try:
        actual = digest_of_folder(folder)
    except StageError as error:
        raise Stopped(error.reason, error.message) from error
    if actual != expected:
        raise Stopped(
            "ArtefactMismatch",
            f"the mounted serving model has digest {actual}, this revision was evaluated with {expected}: "
            "the endpoint must not be trusted; run the export stage again",
        )
    return actual, EncoderDescription.load(folder)


def check_server(client: EndpointClient, settings: Settings) -> str | None:
    """The digest that the server reports, None when it reports none. Raises Stopped `ArtefactMismatch`."""
    digest = client.artefact_digest()
    if digest is not None and digest != settings.expected_digest:
        raise Stopped(
            "ArtefactMismatch",
            f"the server at {settings.url} says it serves {digest}, this revision was evaluated with "
            f"{settings.expected_digest}: restart the Deployment so that it loads the artefact",
        )
    return digest


def check_name(client: EndpointClient, settings: Settings) -> None:
    """Raises Stopped `ModelNameUnknown` when clients could not ask for the model by the name that they are told."""
    names = client.announced()
    if names and settings.model not in names:
        raise Stopped(
            "ModelNameUnknown",
            f"the server at {settings.url} announces {', '.join(names[:5])}, clients are told {settings.model!r}: set "
            "it to a name that the server announces",
            field=f"{_FIELD}.modelName",
        )


def _endpoint_vectors(
    context: StageContext,
    settings: Settings,
    client: EndpointClient,
    description: EncoderDescription,
    evaluation_set: EvaluationSet,
) -> EndpointVectors:
    prefixes = {role: settings.server.text_prefix(role, description.prefixes) for role in ROLES}
    queries = len(evaluation_set.queries)
    texts = len(evaluation_set.passages) + queries + len(CANARIES) + texts_sent(queries, prefixes)
    return EndpointVectors(
        client=client,
        model=settings.model,
        dimension=description.vector_size,
        prefixes=prefixes,
        pace=Pace(settings.batch_size),
        between=context.stop_if_asked,
        progress=lambda done: context.progress(done, texts),
        on_slow=lambda allowed: context.log(
            "the server is slow: one smaller request at a time",
            batchSize=allowed.texts,
            timeoutSeconds=settings.timeout_s * allowed.patience,
        ),
    )


def _comparable_report(context: StageContext) -> dict[str, Any]:
    """The evaluation's report, of this very evaluation set. Raises StageError `EvaluationReportInvalid`."""
    report = load_report(context.input(Artefact.EVAL_REPORT))
    theirs = report.get("digests", {}).get(Artefact.EVALUATION_SET)
    ours = context.request.inputs[Artefact.EVALUATION_SET].digest
    if theirs != ours:
        raise StageError(
            "EvaluationReportInvalid", f"the report is about evaluation set {theirs}, not {ours}; run eval again"
        )
    return report


def _profile(raw: Mapping[str, Any]) -> ServerProfile:
    try:
        return profile_named(str(raw.get("server") or ONNX.name))
    except LookupError as error:
        raise BadInput("SettingInvalid", f"server: {error}", field=f"{_FIELD}.backend") from error


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise BadInput("SettingInvalid", f"{key} is {value!r}, expected a text", field=f"{_FIELD}.{key}")
    return value
