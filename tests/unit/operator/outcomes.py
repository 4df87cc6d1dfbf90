"""A spec, what stages of it say at their end, and how the tests of outcomes ask for a failure."""

from __future__ import annotations

from unit.operator.builders import a_result, a_spec

from embedding_operator.decide.outcome import Failure, outcome_of
from embedding_operator.objects.views import JobView

SPEC = a_spec(corpus={"source": {"image": {"reference": "docs:1", "path": "/docs"}}})
SAID = a_result(artefacts={}, reason="Because", message="it is so", field="spec.corpus")
INTERRUPTED = a_result(artefacts={}, reason="Interrupted", field="spec.corpus")  # what a stage says that was killed


def failure_of(job: JobView) -> Failure:
    outcome = outcome_of(job, SPEC)
    assert isinstance(outcome, Failure)
    return outcome
