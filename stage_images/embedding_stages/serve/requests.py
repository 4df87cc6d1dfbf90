"""Request bodies to values, faults to answers. Pure.

Sources: OpenAI's embeddings API (bodies, errors); NVIDIA NIM for text embedding (input_type, truncate, and
-query or -passage after the model's name for clients that cannot send input_type).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from embedding_stages.contract.servers import MAX_TEXTS
from embedding_stages.encoder.description import ROLES, EncoderDescription, Role
from embedding_stages.formats import characters

Truncate = Literal["NONE", "START", "END"]
Encoding = Literal["float", "base64"]


_TOKEN_IDS: Final = (
    "token ids are not accepted, because another vocabulary made them: send texts (of LangChain's OpenAIEmbeddings: "
    "check_embedding_ctx_length=False)"
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


def parse_request(raw: Any, *, model: str, description: EncoderDescription) -> EmbeddingRequest:
    """Raises RequestError: 404 for another model, 422 for what is understood and not offered, else 400."""
    if not isinstance(raw, dict):
        raise RequestError(400, "the body is not a JSON object", code="invalid_json")
    texts = _texts(raw.get("input"))
    named_role = _model_role(raw.get("model"), model)
    return EmbeddingRequest(
        texts=texts,
        role=_role(raw.get("input_type"), named_role, model, description),
        dimensions=_dimensions(raw.get("dimensions"), description),
        truncate=_choice(raw, "truncate", get_args(Truncate), "NONE"),
        encoding=_choice(raw, "encoding_format", get_args(Encoding), "float"),
    )


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        raise RequestError(400, "input is missing: a text or a list of texts", param="input", code="missing")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise RequestError(400, "input must be a text or a list of texts", param="input", code="invalid_type")
    if not texts:
        raise RequestError(400, "input is an empty list", param="input", code="empty")
    if len(texts) > MAX_TEXTS:
        raise RequestError(
            422, f"input has {len(texts)} texts, at most {MAX_TEXTS} fit a request", param="input", code="too_many"
        )
    for index, text in enumerate(texts):
        if isinstance(text, int | list):
            raise RequestError(422, _TOKEN_IDS, param="input", code="token_ids")
        if not isinstance(text, str):
            raise RequestError(400, f"input {index} is not a text", param="input", code="invalid_type")
        if not text:
            raise RequestError(400, f"input {index} is empty", param="input", code="empty")
        if not _encodable(text):
            raise RequestError(400, f"input {index} holds half a character pair", param="input", code="invalid_text")
    return tuple(map(characters.clean, texts))


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
        return description.hidden_size
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
