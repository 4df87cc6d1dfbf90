"""Parameters of a request that an endpoint refuses, and those that the manifest gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stages.llm_endpoint import Endpoint, Reply, good, sdg

SENT = ("response_format", "seed", "temperature")
Refuses = Callable[[dict[str, Any]], Any]  # the words of a refusal, or None


def refuses(name: str, said: Any) -> Refuses:
    return lambda body: said if name in body else None


def gemini(body: dict[str, Any]) -> Any:
    said = {"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.', "status": "INVALID_ARGUMENT"}}
    return [said] if "seed" in body else None


def reasoning_model(body: dict[str, Any]) -> Any:
    if body.get("temperature", 1) != 1:
        message = "'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
        return {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}}
    if "max_tokens" in body:
        message = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return {"error": {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}}
    return None


def fast_api(body: dict[str, Any]) -> Any:
    """Names one parameter, and says the whole request."""
    extra = next((name for name in ("seed", "response_format") if name in body), None)
    said = {"type": "extra_forbidden", "loc": ["body", extra], "msg": "Extra inputs are not permitted", "input": body}
    return {"detail": [said]} if extra else None


def without_system(body: dict[str, Any]) -> Any:
    return "System role not supported" if any(one["role"] == "system" for one in body["messages"]) else None


def both_limits(body: dict[str, Any]) -> Any:
    both = {"max_tokens", "max_completion_tokens"} <= body.keys()
    return "max_tokens and max_completion_tokens cannot both be set" if both else None


def any_limit(body: dict[str, Any]) -> Any:
    return "max_tokens is not known" if {"max_tokens", "max_completion_tokens"} & body.keys() else None


def one_at_a_time(body: dict[str, Any]) -> Any:
    name = next((one for one in ("top_p", "temperature") if one in body), None)
    return f"Unknown parameter: {name}. Known are model and messages." if name else None


REFUSED: dict[str, tuple[Refuses, dict[str, Any], dict[str, Any]]] = {
    "a seed": (gemini, {}, {"leftOut": ["seed"]}),
    "a temperature, and the old name of the limit": (
        reasoning_model, {"max_tokens": 99},
        {"leftOut": ["temperature"], "renamed": {"max_tokens": "max_completion_tokens"}},
    ),
    "a temperature that is given": (reasoning_model, {"temperature": 0.2}, {"leftOut": ["temperature"]}),
    "the new name of the limit": (
        refuses("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
        {"max_completion_tokens": 99}, {"renamed": {"max_completion_tokens": "max_tokens"}},
    ),
    "both names of the limit": (
        both_limits, {"max_tokens": 9, "max_completion_tokens": 9}, {"leftOut": ["max_tokens"]},
    ),
    "any limit": (
        any_limit, {"max_tokens": 9}, {"leftOut": ["max_tokens"]},
    ),
    "extra inputs": (fast_api, {}, {"leftOut": ["response_format", "seed"]}),
    "JSON mode": (
        refuses("response_format", "JSON mode is not enabled for this model"), {}, {"leftOut": ["response_format"]},
    ),
    "a name in another spelling": (
        refuses("response_format", "responseFormat: unknown"), {}, {"leftOut": ["response_format"]},
    ),
    "a parameter of the manifest": (one_at_a_time, {"top_p": 0.5}, {"leftOut": ["temperature", "top_p"]}),
    "without a word on what": (refuses("seed", "Bad Request"), {}, {"leftOut": [*SENT]}),
    "the system's role": (without_system, {}, {"renamed": {"system": "user"}}),
}  # fmt: skip


@pytest.mark.parametrize("status", ["400", "422", "400 within 200"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_parameter_that_is_refused_is_left_out_and_remembered(
    tmp_path: Path, endpoint: type[Endpoint], name: str, status: str
) -> None:
    refused, parameters, changed = REFUSED[name]

    def reply(body: dict[str, Any], number: int) -> Reply:
        said = refused(body)
        if said is None:
            return good(with_system(body), number)
        if status != "400 within 200":
            return int(status), said, {}
        return 200, {"error": {"code": 400, "message": json.dumps(said)}}, {}

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=20, endpoint={"parameters": parameters})
    assert (code, len(pairs), result["counts"]["rejectedSections"]) == (0, 20, 0), result
    assert result["details"]["llmParameters"] == changed
    assert not any(refused(body) for body in endpoint.bodies[-8:])


def test_a_result_has_room_for_however_many_that_are_refused(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    """All that the manifest can name, refused one after the other; the result is written when all is paid for."""

    def reply(body: dict[str, Any], number: int) -> Reply:
        refused = next((name for name in body if name.startswith("made_up")), None)
        return good(body, number) if refused is None else (400, f"no parameter {refused}", {})

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    parameters = {f"made_up_{number}_{'x' * 100}": 1 for number in range(35)}
    code, result, pairs = sdg(tmp_path, endpoint.url, endpoint={"parameters": parameters})
    assert (code, len(pairs)) == (0, 1), result
    assert result["details"]["llmParameters"]["leftOut"][-1] == "and 27 more"


def with_system(body: dict[str, Any]) -> dict[str, Any]:
    """The request as one that has both roles."""
    if len(body["messages"]) == 2:
        return body
    instructions, _, data = body["messages"][0]["content"].partition("\n\n")
    return {**body, "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": data}]}


def test_a_resumed_attempt_knows_what_is_refused(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        if said := gemini(body):
            return 400, said, {}
        return (401, {}, {}) if number > 10 else good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    assert sdg(tmp_path, endpoint.url, documents=20)[0] == 10
    endpoint.bodies.clear()
    endpoint.reply = staticmethod(good)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=20, attempt=2)
    assert (code, result["details"]["llmParameters"]) == (0, {"leftOut": ["seed"]})
    assert not any("seed" in body for body in endpoint.bodies)


def test_what_is_refused_for_its_content_changes_no_other_request(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        about = body["messages"][1]["content"]
        return (400, "no: the seed of unit 1", {}) if "unit 1." in about else good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=5)
    assert (code, len(pairs), result["counts"]["rejectedSections"]) == (0, 4, 1)
    assert "llmParameters" not in result["details"]


def test_a_limit_that_is_too_high_for_one_section_stays_for_the_others(
    tmp_path: Path, endpoint: type[Endpoint]
) -> None:
    said = "'max_tokens' is too large: 99. This model's maximum context length is 4096 tokens"

    def reply(body: dict[str, Any], number: int) -> Reply:
        too_long = "unit 1." in body["messages"][1]["content"] and "max_tokens" in body
        return (400, {"error": {"message": said, "param": "max_tokens"}}, {}) if too_long else good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=9, endpoint={"parameters": {"max_tokens": 99}})
    assert (code, len(pairs)) == (0, 9)
    assert "llmParameters" not in result["details"]
    assert sum("max_tokens" not in body for body in endpoint.bodies) == 2, "those about one document, without a limit"


SAID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "more": ({"parameters": {"top_p": 0.9, "max_tokens": 99}}, {"top_p": 0.9, "max_tokens": 99, "temperature": 0.7}),
    "another value": ({"parameters": {"temperature": 1, "seed": 7}}, {"temperature": 1, "seed": 7}),
    "unset": ({"parameters": {"temperature": None}}, {"temperature": None, "seed": 42}),
    "omitted": ({"omitParameters": ["seed", "response_format"]}, {"seed": None, "response_format": None}),
    "a server's own": ({"parameters": {"chat_template_kwargs": {"enable_thinking": False}}},
                       {"chat_template_kwargs": {"enable_thinking": False}}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_the_manifest_says_what_is_sent(tmp_path: Path, endpoint: type[Endpoint], name: str) -> None:
    said, expected = SAID[name]
    code, result, _ = sdg(tmp_path, endpoint.url, endpoint=said)
    assert code == 0, result
    assert {key: endpoint.bodies[0].get(key) for key in expected} == expected
    assert "llmParameters" not in result["details"]
