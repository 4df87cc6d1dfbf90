"""What the endpoint is asked wrongly on purpose: a measurement that cannot come out worse shows nothing.

Role swap: queries sent as passages. They must be found worse, or the model is symmetric: both roles have one prefix and
there is no query map, or the vectors are the same. Between the two lies a model whose prefixes make no difference on
these questions.

Wrong prefix: where clients put the prefix themselves, a query without any. A server that takes input_type puts a prefix
whatever it is sent, so the only wrong one that a client can cause there is the other role's: the role swap again.

Truncated: the fewest dimensions that the model lists, and a number of dimensions that it does not list. Where one batch
shows that the server cuts vectors and scales them, the passages' vectors are cut here.

Only queries are sent, at most `SAMPLE` of them, the same in every measurement; passages are never embedded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from embedding_stages.encoder.description import EncoderDescription, Role
from embedding_stages.errors import Stopped
from embedding_stages.evaluate.bootstrap import SEED
from embedding_stages.evaluate.comparison import compare
from embedding_stages.evaluate.dimensions import METRIC, SWEPT_K, cut
from embedding_stages.evaluate.evaluation_set import EvaluationSet
from embedding_stages.evaluate.metrics import Scores, measure
from embedding_stages.http_client import may_pass
from embedding_stages.vectors import Vectors
from embedding_stages.verify.vectors import EndpointVectors

SAMPLE: Final = 200  # queries; tells differences of 0.02 when the paired standard deviation is 0.11
# Rounding to half precision and the company in a batch move a vector by less; a prefix of one token moves it further.
SAME: Final = 0.9999  # cosine
# A swap counts as found better from here on, with the lower end of the one-sided 99 % interval: the stage cannot be
# told to go on, so a model whose prefixes make no difference may not be stopped for questions that changed sides by
# chance. With 95 % one in twenty such models was, with 10 to 30 questions.
BETTER: Final = 0.02
_LEVEL: Final = 0.99
_FEWEST: Final = 10  # queries; the interval of fewer is as good as none


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Queries in their right role beside all passages, as they were measured."""

    evaluation_set: EvaluationSet  # of these queries and all passages
    queries: Vectors
    passages: Vectors
    scores: Scores

    @classmethod
    def of(cls, whole: EvaluationSet, queries: Vectors, passages: Vectors) -> Measured:
        """At most `SAMPLE` of the queries, the same for the same set."""
        rows = sample_of(len(whole.queries))
        ids = tuple(whole.query_ids[row] for row in rows)
        part = replace(
            whole,
            query_ids=ids,
            queries=tuple(whole.queries[row] for row in rows),
            relevance={query: whole.relevance[query] for query in ids},
        )
        chosen = queries[rows]
        return cls(
            evaluation_set=part, queries=chosen, passages=passages, scores=measure(part, chosen, passages, SWEPT_K)
        )

    @property
    def texts(self) -> Sequence[str]:
        return self.evaluation_set.queries

    def with_queries(self, queries: Vectors) -> Scores:
        """The same questions, asked with other vectors."""
        return measure(self.evaluation_set, queries, self.passages, SWEPT_K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """What the wrong questions measured."""

    right: Scores  # of the same queries in their right role
    swapped: Scores
    details: Mapping[str, Any]  # for the stage's result: sample, roleSwap, wrongPrefix, truncated
    one_prefix: bool = False  # of both roles, so that none can be in the other's place

    def check_roles(self) -> None:
        """Raises Stopped `RolesSwapped` when queries sent as passages are surely found better.

        With one prefix they are sent without the query map: that the map finds less than the base model is what eval
        measures and the gates judge, no mistake of the server's or the manifest's.
        """
        if self.one_prefix:
            return
        before = [values[METRIC] for values in self.right.per_query.values()]
        after = [self.swapped.per_query[query][METRIC] for query in self.right.per_query]
        found = compare(before, after, level=_LEVEL)
        if len(before) < _FEWEST or found.lower <= BETTER:
            return
        raise Stopped(
            "RolesSwapped",
            f"the endpoint finds more when queries are sent as passages: {METRIC} {found.after:.5f}, sent as queries "
            f"{found.before:.5f} (one-sided 99 % interval of the difference from {found.lower:+.5f}, n={len(before)}): "
            "the prefixes of the two roles are swapped; exchange query and passage in spec.baseModel.prefixes, or "
            "leave them out for the model's own; where queries are of one kind with passages (questions that repeat "
            "questions), give both roles one prefix",
            field="spec.baseModel.prefixes",
        )


def sample_of(queries: int) -> list[int]:
    """Rows of the queries that are asked wrongly, in rising order."""
    if queries <= SAMPLE:
        return list(range(queries))
    chosen = np.random.default_rng(SEED).choice(queries, size=SAMPLE, replace=False)
    return sorted(int(row) for row in chosen)


def texts_sent(queries: int, prefixes: Mapping[Role, str]) -> int:
    """How many texts the wrong questions take, for progress; `prefixes` are those that clients put."""
    return min(queries, SAMPLE) * (2 if _bare_is_another(prefixes) else 1)


def ask_wrongly(endpoint: EndpointVectors, measured: Measured, description: EncoderDescription) -> Negatives:
    """Raises what `EndpointVectors.embed` does."""
    vectors = endpoint.embed(measured.texts, "passage")
    swapped = measured.with_queries(vectors)
    symmetric = description.symmetric or bool((_cosines(measured.queries, vectors) >= SAME).all())
    details = {
        "sample": {"queries": len(measured.texts), METRIC: measured.scores.means[METRIC]},
        "roleSwap": {METRIC: swapped.means[METRIC], "symmetric": symmetric},
        "wrongPrefix": _wrong_prefix(endpoint, measured, description, swapped),
        "truncated": _truncated(endpoint, measured, description.dimensions),
    }
    return Negatives(right=measured.scores, swapped=swapped, details=details, one_prefix=description.one_prefix)


def _wrong_prefix(
    endpoint: EndpointVectors, measured: Measured, description: EncoderDescription, swapped: Scores
) -> dict[str, Any] | None:
    """`sent`: noPrefix, or otherRole where that is the only wrong one; None where a client can send no wrong one."""
    if _bare_is_another(endpoint.prefixes):
        bare = measured.with_queries(endpoint.embed(measured.texts, "query", prefixed=False))
        return {"sent": "noPrefix", METRIC: bare.means[METRIC]}
    if description.one_prefix:
        return None
    return {"sent": "otherRole", METRIC: swapped.means[METRIC]}


def _bare_is_another(prefixes: Mapping[Role, str]) -> bool:
    """Whether a query without prefix is neither what clients send as a query nor what they send as a passage."""
    return bool(prefixes.get("query") and prefixes.get("passage"))


def _truncated(endpoint: EndpointVectors, measured: Measured, sizes: Sequence[int]) -> dict[str, Any] | None:
    """None for a model of one size. `answer`: sliced, refused, or other, which nothing was evaluated with."""
    if len(sizes) < 2:
        return None
    size = min(sizes)
    texts = measured.texts[: endpoint.pace.allows.texts]
    status, answered = endpoint.try_dimensions(texts, "query", size)
    unlisted = size - 1 or max(sizes) + 1
    refused = _refused(endpoint.try_dimensions(texts[:1], "query", unlisted)[0])
    said: dict[str, Any] = {"dimension": size, "unlistedRefused": refused}
    if not _sliced(answered, measured.queries, size):
        return {**said, "answer": "refused" if _refused(status) else "other"}
    short = measure(measured.evaluation_set, cut(measured.queries, size), cut(measured.passages, size), SWEPT_K)
    return {**said, "answer": "sliced", METRIC: short.means[METRIC]}


def _refused(status: int) -> bool:
    return 400 <= status < 500 and not may_pass(status)


def _sliced(answered: Sequence[Vectors | None], whole: Vectors, size: int) -> bool:
    """Whether the answers are the first `size` numbers of the first rows of `whole`, scaled."""
    found = [vector for vector in answered if vector is not None]
    if len(found) != len(answered):
        return False
    return bool((_cosines(np.stack(found), cut(whole[: len(found)], size)) >= SAME).all())


def _cosines(one: Vectors, other: Vectors) -> Vectors:
    """(n,): of the rows of two (n, dimension); servers may answer lengths a little off 1."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(lengths, 1e-12), dtype=np.float32)
