"""Request bodies to values, faults to answers. Pure.

Sources: OpenAI's embeddings API (bodies, errors); NVIDIA NIM for text embedding (input_type, truncate, and
-query or -passage after the model's name for clients that cannot send input_type).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from embedding_stages.contract.servers import MAX_TEXTS, OWN_TOKEN_IDS, TOKEN_IDS_HEADER
from embedding_stages.encoder.description import ROLES, EncoderDescription, Role
from embedding_stages.formats import characters

Truncate = Literal["NONE", "START", "END"]
Encoding = Literal["float", "base64"]


Ids = list[int]
Spell = Callable[[Ids], str]  # token ids -> their text; raises ValueError that says what is wrong with them

_TOKEN_IDS: Final = (
    "token ids are not taken, because nobody said which vocabulary they are of: send texts (of LangChain's "
    "OpenAIEmbeddings, whose ids are OpenAI's: check_embedding_ctx_length=False), or, where they are of this model's "
    f"own tokenizer, the header {TOKEN_IDS_HEADER}: {OWN_TOKEN_IDS}"
)


class RequestError(Exception):
    """An answer other than 200, in OpenAI's shape; `param` names the field at fault."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """A checked request."""

    texts: tuple[str, ...]  # cleaned as documents are: see formats/characters.py
    role: Role
    dimensions: int
    truncate: Truncate
    encoding: Encoding


def sends_own_ids(values: Sequence[str]) -> bool:
    """Whether a client says that its token ids are of the served model's vocabulary, in the header's values.

    Raises RequestError 400 for any other word: who sends the header relies on it.
    """
    if not values:
        return False
    if [value.strip() for value in values] != [OWN_TOKEN_IDS]:
        raise RequestError(
            400,
            f"{TOKEN_IDS_HEADER} is {', '.join(values)[:64]!r}, expected {OWN_TOKEN_IDS}, or no such header",
            param=TOKEN_IDS_HEADER,
            code="invalid_value",
        )
    return True


def parse_request(
    raw: Any, *, model: str, description: EncoderDescription, spell: Spell | None = None
) -> EmbeddingRequest:
    """`spell` reads token ids by the model's own vocabulary; None where the client did not say that they are of it.

    Raises RequestError: 404 for another model, 422 for what is understood and not offered, else 400.
    """
    if not isinstance(raw, dict):
        raise RequestError(400, "the body is not a JSON object", code="invalid_json")
    texts = _texts(raw.get("input"), spell)
    named_role = _model_role(raw.get("model"), model)
    return EmbeddingRequest(
        texts=texts,
        role=_role(raw.get("input_type"), named_role, model, description),
        dimensions=_dimensions(raw.get("dimensions"), description),
        truncate=_choice(raw, "truncate", get_args(Truncate), "NONE"),
        encoding=_choice(raw, "encoding_format", get_args(Encoding), "float"),
    )


def _texts(value: Any, spell: Spell | None) -> tuple[str, ...]:
    if value is None:
        raise RequestError(400, "input is missing: a text or a list of texts", param="input", code="missing")
    items = [value] if isinstance(value, str) or _are_ids(value) else value
    if not isinstance(items, list):
        raise RequestError(400, "input must be a text or a list of texts", param="input", code="invalid_type")
    if not items:
        raise RequestError(400, "input is an empty list", param="input", code="empty")
    if len(items) > MAX_TEXTS:
        raise RequestError(
            422, f"input has {len(items)} texts, at most {MAX_TEXTS} fit a request", param="input", code="too_many"
        )
    return tuple(characters.clean(_text(item, index, spell)) for index, item in enumerate(items))


def _text(item: Any, index: int, spell: Spell | None) -> str:
    text = _spelled(item, index, spell) if isinstance(item, list) else item
    if not isinstance(text, str):
        raise RequestError(400, f"input {index} is not a text", param="input", code="invalid_type")
    if not text:
        raise RequestError(400, f"input {index} is empty", param="input", code="empty")
    if not _encodable(text):
        raise RequestError(400, f"input {index} holds half a character pair", param="input", code="invalid_text")
    return text


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)  # True is no id


def _spelled(item: list[Any], index: int, spell: Spell | None) -> str:
    if item and not _are_ids(item):
        raise RequestError(400, f"input {index} is a list, and not of token ids", param="input", code="invalid_type")
    if spell is None:
        raise RequestError(422, _TOKEN_IDS, param="input", code="token_ids")
    try:
        return spell(item)
    except ValueError as error:
        raise RequestError(400, f"input {index}: {error}", param="input", code="token_ids") from error


def _encodable(text: str) -> bool:
    """JSON may smuggle in lone surrogates, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _model_role(value: Any, model: str) -> Role | None:
    if value is None:
        raise RequestError(400, f"model is missing; this server has {model!r}", param="model", code="missing")
    if value == model:
        return None
    for role in ROLES:
        if value == f"{model}-{role}":
            return role
    raise RequestError(
        404, f"model {value!r} is not served here; this server has {model!r}", param="model", code="model_not_found"
    )


def names_of(model: str, description: EncoderDescription) -> tuple[str, ...]:
    """What requests may call the model: its name, and a name for each role where the roles differ."""
    return (model,) if description.one_prefix else (model, *(f"{model}-{role}" for role in ROLES))


def _role(value: Any, named: Role | None, model: str, description: EncoderDescription) -> Role:
    if value is None:
        if named is not None:
            return named
        if description.one_prefix:
            # Both roles give the same vector, or a query map is all that differs: then whoever does not know of it gets
            # what the model gave before there was one, which can be compared with all passages.
            return "passage"
        raise RequestError(
            400,
            "input_type is missing: this model embeds a query and a passage differently. Send input_type query or "
            f"passage, or ask for the model by the name {model}-query or {model}-passage",
            param="input_type",
            code="missing",
        )
    for role in ROLES:
        if value == role:
            return role
    raise RequestError(
        400, f"input_type is {value!r}, expected query or passage", param="input_type", code="invalid_value"
    )


def _dimensions(value: Any, description: EncoderDescription) -> int:
    if value is None:
        return description.vector_size
    if isinstance(value, bool) or value not in description.dimensions:
        allowed = ", ".join(str(size) for size in sorted(description.dimensions))
        raise RequestError(
            400, f"dimensions is {value!r}, this model offers {allowed}", param="dimensions", code="invalid_value"
        )
    return int(value)


def _choice(raw: dict[str, Any], key: str, allowed: tuple[Any, ...], default: str) -> Any:
    value = raw.get(key)
    if value is None:
        return default
    if value not in allowed:
        raise RequestError(400, f"{key} is {value!r}, expected {', '.join(allowed)}", param=key, code="invalid_value")
    return value
