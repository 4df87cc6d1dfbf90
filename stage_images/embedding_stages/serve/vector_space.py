"""Whether a client expects the vectors that it would get. Pure.

A query is worth something only in the vector space that its index was made in. Two models of one size answer vectors of
the same shape, so nothing but the space's name (`contract.vector_space_of`) tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from embedding_stages.contract import ENV_VECTOR_SPACE, VECTOR_SPACE_NAME
from embedding_stages.contract.servers import VECTOR_SPACE_HEADER
from embedding_stages.serve.requests import RequestError

_SHOWN: Final = 64  # characters of what a client sent that are told back


def check_vector_space(expected: Sequence[str], served: str | None) -> None:
    """Compare the values of a request's X-Vector-Space with the space that this server answers in.

    No value asks for nothing. Raises RequestError: 400 for what is no name (an empty value, or several, included:
    whoever sends the header relies on it), 409 `vector_space_mismatch` for another space, and 409
    `vector_space_unknown` where nobody told this server its own. Passing over the header there would answer across
    vector spaces just when a client asked not to be; the status is the same, so that one branch of a client has both.
    """
    if not expected:
        return
    name = ", ".join(expected)  # as HTTP joins the values of a header that is there twice
    if not re.fullmatch(VECTOR_SPACE_NAME, name):
        raise RequestError(
            400,
            f"{VECTOR_SPACE_HEADER} is {name[:_SHOWN]!r}, expected 16 digits of 0-9a-f as in status.served.vectorSpace",
            param=VECTOR_SPACE_HEADER,
            code="invalid_value",
        )
    if served is None:
        raise RequestError(
            409,
            f"the request expects vector space {name}, and this server was not told which one it answers in: start it "
            f"with {ENV_VECTOR_SPACE}, or leave {VECTOR_SPACE_HEADER} out where it cannot be another one",
            param=VECTOR_SPACE_HEADER,
            code="vector_space_unknown",
        )
    if name != served:
        raise RequestError(
            409,
            f"the request expects vector space {name}, this server answers in {served}, and vectors of the two cannot "
            f"be compared: use the index that was made in {served}, or ask the server of {name} "
            "(the Service <name>-next, while a new model waits for its index)",
            param=VECTOR_SPACE_HEADER,
            code="vector_space_mismatch",
        )
