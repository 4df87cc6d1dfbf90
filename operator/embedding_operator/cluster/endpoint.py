"""Asks an embedding endpoint for vectors: the only traffic of the operator that does not go to the API server."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from embedding_stages.contract.canaries import CANARIES

Vectors = Sequence[Sequence[float]]
Ask = Callable[[str, Mapping[str, Any]], Vectors | None]  # (address, contract with the model's name) -> vectors
_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 16 << 20
_ROLES: Final = ("query", "passage")
# Endpoints are inside of the cluster: proxies are for addresses outside.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask_canaries(url: str, contract: Mapping[str, Any]) -> Vectors | None:
    """The vectors of the canaries, in their order; None when the endpoint does not answer them all in time.

    `url` is that of /v1/embeddings; `contract` is `status.served.contract` with the model's name as `model`.
    """
    found: dict[str, list[Sequence[float]]] = {}
    for role in _ROLES:
        texts = [text for its, text in CANARIES if its == role]
        vectors = _embed(url, contract, role, texts)
        if vectors is None or len(vectors) != len(texts):
            return None
        found[role] = vectors
    return [found[role].pop(0) for role, _ in CANARIES]


def _embed(url: str, contract: Mapping[str, Any], role: str, texts: list[str]) -> list[Sequence[float]] | None:
    told = role in (contract.get("inputTypes") or ())
    prefix = "" if told else str((contract.get("prefixes") or {}).get(role, ""))
    body = {
        "model": contract["model"],
        "input": [prefix + text for text in texts],
        "encoding_format": "float",
        **({"input_type": role} if told else {}),
        **(contract.get("requestFields") or {}),
    }
    request = urllib.request.Request(  # noqa: S310 - the address of a Service of ours
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
            raw = json.loads(answer.read(_MOST_BYTES))
        by_index = {item["index"]: [float(x) for x in item["embedding"]] for item in raw["data"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    vectors = [by_index.get(index) for index in range(len(texts))]
    if any(not vector or not all(map(math.isfinite, vector)) for vector in vectors):
        return None
    return [vector for vector in vectors if vector]
