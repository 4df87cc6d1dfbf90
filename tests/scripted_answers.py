"""What the scripted endpoint answers: questions that quote the passages they are asked about, and scores. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from typing import Any

_WANTED = re.compile(r"(\d+) of type (\w+)")


def role_of(body: dict[str, Any]) -> str:
    """By the system's message."""
    system = body["messages"][0]["content"]
    if "You grade" in system:
        return "judge"
    return "extractor" if "You extract" in system else "writer"


def answer_of(body: dict[str, Any], draw: random.Random) -> str:
    if len(body["messages"]) == 1:
        return '{"ok": true}'
    text = "\n".join(message["content"] for message in body["messages"][1:])
    data, _ = json.JSONDecoder().raw_decode(text, text.index('{"'))
    made = {"judge": _scores, "extractor": _artefacts, "writer": _pairs}[role_of(body)](data, text, draw)
    said = json.dumps(made, ensure_ascii=False)
    return f"```json\n{said}\n```" if "```json" in text else said


def vector_of(text: str) -> list[float]:
    """Of the words of a text: the same words, the same vector."""
    found = [0.0] * 64
    for word in set(re.findall(r"\w+", text.lower())):
        found[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1.0
    norm = math.sqrt(sum(one * one for one in found)) or 1.0
    return [one / norm for one in found]


def _pairs(data: dict[str, Any], text: str, _: random.Random) -> Any:
    passages = data["passages"]
    hops = min(3, len(passages))
    pairs = []
    for number, kind in enumerate(kind for times, kind in _WANTED.findall(text) for _ in range(int(times))):
        first = number % len(passages)
        places = [(first + hop) % len(passages) for hop in range(hops if kind == "multi_hop" else 1)]
        words = re.findall(r"\w+", passages[first]["text"]) or ["it"]
        about = " ".join(words[:6])
        pairs.append(
            {
                "type": kind,
                "question": f"How does {kind} number {number} explain {about}?",
                "answer": f"By {about}.",
                "complexity": 2 + number % 4,
                "reasoning": ("factual", "causal", "procedural", "inferential")[number % 4],
                "evidence": [
                    {"passage": passages[place]["number"], "quote": passages[place]["text"][:60]} for place in places
                ],
            }
        )
    return {"pairs": pairs}


def _scores(data: dict[str, Any], text: str, draw: random.Random) -> Any:
    criteria = ("relevance", "accuracy", "support", "clarity")
    scores = []
    for question in data["questions"]:
        each = {name: draw.randint(6, 10) for name in criteria}
        scores.append({"index": question["index"], **each, "score": sum(each.values()) / len(each)})
    return {"scores": scores}


def _artefacts(data: dict[str, Any], text: str, _: random.Random) -> Any:
    words = re.findall(r"\w{5,}", data["passages"][0]["text"])[:6]
    return {"artefacts": [{"kind": "concept", "text": word, "why": "it stands in the text"} for word in words]}
