"""What an endpoint answered with status 200: a chat completion, an error in its place, or something else. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_stages.contract import encodable

# By these names answers of no use are counted.
CUT: Final = "cutAnswers"  # they end at the endpoint's limit of tokens
EMPTY: Final = "emptyAnswers"  # no text in them
REFUSED: Final = "refusedAnswers"  # the model, or a filter of the endpoint's, says no
ERRORED: Final = "erroredAnswers"  # an error without a status, where the answer should be
UNREADABLE: Final = "unreadableAnswers"  # a text without the JSON that was asked for
INVALID: Final = "invalidAnswers"  # no chat completion
MISSING: Final = "missingAnswers"  # none came to this request, while the endpoint answers others
ODD: Final = (CUT, EMPTY, REFUSED, ERRORED, UNREADABLE, INVALID, MISSING)

_EXAMPLE: Final = 120  # characters
_CHARACTERS_A_TOKEN: Final = 4  # of English, where an endpoint does not tell its tokens
_ENDS_CUT: Final = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_ENDS_REFUSED: Final = frozenset({"content_filter", "safety", "refusal", "prohibited_content", "recitation"})
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_STATUS_KEYS: Final = ("code", "status", "status_code", "statusCode", "http_status")
# Words that stand for a status where an error has none.
_STATUS_WORDS: Final = (
    (429, ("rate_limit", "ratelimit", "resource_exhausted", "too_many_requests", "throttl")),
    (503, ("unavailable", "overloaded", "server_error", "servererror", "internal", "timeout", "bad_gateway")),
    (401, ("authentication", "invalid_api_key", "unauthenticated", "unauthorized")),
    (404, ("model_not_found",)),
    (400, ("invalid_request", "invalidrequest", "invalid_argument", "bad_request", "badrequest", "unsupported")),
)


@dataclass(slots=True)
class Usage:
    """Tokens as the endpoint counts them, and calls that were answered."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    estimated: int = 0  # calls whose tokens the endpoint does not tell

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    def add(self, other: Usage) -> None:
        self.calls += other.calls
        self.prompt += other.prompt
        self.completion += other.completion
        self.estimated += other.estimated

    def to_json(self) -> dict[str, int]:
        found = {"calls": self.calls, "prompt": self.prompt, "completion": self.completion}
        return found | ({"estimated": self.estimated} if self.estimated else {})


@dataclass(slots=True)
class Tally:
    """How many answers were of no use, by kind, and the first of each kind, shortened."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str, times: int = 1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + times
        if example:
            self.examples.setdefault(kind, shortened(example))

    def merge(self, other: Tally) -> None:
        for kind, times in other.counts.items():
            self.add(kind, other.examples.get(kind, ""), times)

    def tell(self) -> str:
        """For a message."""
        return "; ".join(
            f"{_SAYS[kind]}: {times}" + (f", such as {self.examples[kind]!r}" if kind in self.examples else "")
            for kind, times in self.counts.items()
        )

    def to_json(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "examples": dict(self.examples)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Tally:
        """Raises KeyError, TypeError, ValueError or AttributeError when it is none."""
        counts = {str(kind): int(times) for kind, times in raw["counts"].items() if kind in ODD}
        return cls(counts, {str(kind): shortened(str(said)) for kind, said in raw["examples"].items()})


_SAYS: Final = {
    CUT: "answers cut at the endpoint's limit of tokens",
    EMPTY: "answers without a text",
    REFUSED: "answers that refuse",
    ERRORED: "errors in the place of answers",
    UNREADABLE: "answers without the JSON that was asked for",
    INVALID: "answers that are no chat completions",
    MISSING: "requests without an answer, while others are answered",
}


class OddAnswerError(Exception):
    """An answer of no use, or none; another try may be. `usage` is what it cost all the same."""

    def __init__(
        self,
        kind: str,
        example: str,
        usage: Usage | None = None,
        *,
        is_old: bool = False,
        is_refused: bool = False,
        field: str = "",
    ) -> None:
        super().__init__(f"{kind}: {shortened(example)}")
        self.kind, self.example = kind, example
        self.usage = usage or Usage()
        self.is_old = is_old  # an earlier attempt has paid for it
        self.is_refused = is_refused  # what stands before the endpoint does not let the text through
        self.field = field  # the endpoint's, in the manifest

    @property
    def is_final(self) -> bool:
        """Whether it was asked for as often as makes sense."""
        return self.kind == MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the model said. `said` is a text, or JSON where the endpoint has parsed it; empty when it said nothing."""

    said: Any
    is_reasoning: bool  # the text stands where the model's thoughts should
    is_cut: bool
    is_refused: bool
    usage: Usage


def shortened(text: str, most: int = _EXAMPLE) -> str:
    """On one line; the beginning, and the end of what is cut. Halves of character pairs are spelled out: an answer may
    end between two, and no file, log or result can hold one.
    """
    text = " ".join(encodable(text).split())
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} ... {text[-most // 3 :]}"


def status_within(body: Any) -> int | None:
    """The status of the error that stands where an answer should; 0 for an error without one, None for no error."""
    error = _error_in(body)
    if error is None:
        return None
    said = error if isinstance(error, dict) else {"message": error}
    for value in (said.get(key) for key in _STATUS_KEYS):
        number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{3}", value) else value
        if isinstance(number, int) and 400 <= number < 600:
            return number
    words = " ".join(str(said.get(key, "")) for key in ("type", *_STATUS_KEYS)).lower()
    return next((status for status, known in _STATUS_WORDS if any(word in words for word in known)), 0)


def _error_in(body: Any) -> Any:
    if isinstance(body, list) and body:  # Gemini puts one around its errors
        body = body[0]
    if not isinstance(body, dict):
        return None
    choice = _first(body.get("choices"))
    if choice is not None:
        return None if _said(choice)[0] else choice.get("error") or body.get("error") or None
    if body.get("error"):
        return body["error"]
    numbers = [value for key in _STATUS_KEYS if isinstance(value := body.get(key), int)]
    is_error = body.get("object") == "error" or body.get("type") == "error"
    return body if is_error or any(400 <= value < 600 for value in numbers) else None


def read_completion(body: Any) -> Completion | None:
    """None when `body` is no chat completion. One without choices, or without a message, is one that says nothing."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if not isinstance(choices, list) and not (choices is None and _is_completion(body)):
        return None
    choice = _first(choices) or {}
    said, is_reasoning = _said(choice)
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, dict) else None
    end = str(choice.get("finish_reason") or choice.get("stop_reason") or "").lower()
    return Completion(
        said=said or (refusal if isinstance(refusal, str) else ""),
        is_reasoning=is_reasoning,
        is_cut=end in _ENDS_CUT,
        is_refused=end in _ENDS_REFUSED or bool(refusal and not said),
        usage=_usage(body.get("usage")),
    )


def odd_kind(completion: Completion) -> str:
    if completion.is_refused:
        return REFUSED
    if completion.is_cut:
        return CUT
    return EMPTY if completion.is_reasoning or not completion.said else UNREADABLE


def _is_completion(body: Mapping[str, Any]) -> bool:
    """Without choices, by its other fields."""
    return str(body.get("object", "")).startswith("chat.completion") or ("choices" in body and "model" in body)


def _first(choices: Any) -> dict[str, Any] | None:
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _said(choice: Mapping[str, Any]) -> tuple[Any, bool]:
    """The text of a choice, or its JSON, and whether it stands in the field of the model's thoughts."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return _text(choice.get("text")), False
    content = message.get("content")
    said = content if isinstance(content, dict) and not _is_part(content) else _text(content)
    if said:
        return said, False
    if isinstance(message.get("parsed"), dict | list):
        return message["parsed"], False
    reasoning = next((text for key in _REASONING if (text := _text(message.get(key)))), "")
    return reasoning, bool(reasoning)


def _text(content: Any) -> str:
    """Of a text, of a part, or of a list of parts: thoughts among them are left out."""
    parts = content if isinstance(content, list) else [content]
    text = "".join(_text_of_part(part) for part in parts)
    return text if text.strip() else ""


def _text_of_part(part: Any) -> str:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    if not str(part.get("type", "text")).endswith("text"):
        return ""
    texts = (part.get(key) for key in ("text", "content"))
    return next((text for text in texts if isinstance(text, str)), "")


def _is_part(content: Mapping[str, Any]) -> bool:
    return isinstance(content.get("text"), str)


def _usage(raw: Any) -> Usage:
    used = raw if isinstance(raw, dict) else {}
    return Usage(1, _count(used, "prompt_tokens"), _count(used, "completion_tokens"))


def read_usage(body: Any) -> Usage:
    """What an answer of any kind cost."""
    return _usage(body.get("usage") if isinstance(body, dict) else None)


def read_vectors(body: Any, number: int) -> list[list[float]] | None:
    """The embeddings of an answer in the order of the texts; None when they are not so many."""
    data = body.get("data") if isinstance(body, dict) else None
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    found = [item.get("embedding") for item in sorted(items, key=lambda item: int(item.get("index") or 0))]
    vectors = [vector for vector in found if isinstance(vector, list) and vector]
    return vectors if len(vectors) == number else None


def or_estimated(usage: Usage, asked: int, said: int) -> Usage:
    """The usage that an endpoint tells, or one by the characters of the request and of the answer."""
    if usage.tokens:
        return usage
    return Usage(usage.calls, asked // _CHARACTERS_A_TOKEN, said // _CHARACTERS_A_TOKEN, estimated=usage.calls)


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value >= 0 else 0
