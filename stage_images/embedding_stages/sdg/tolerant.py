"""The items that a model was asked for, within thoughts, prose, fences and broken JSON. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import json_repair

from embedding_stages.sdg.counted_text import CountedText, ReadTooOftenError

_THOUGHTS_END: Final = re.compile(r"</think(?:ing)?>|</reason(?:ing)?>|<\|channel\|>final\s*<\|message\|>")
_THOUGHTS_BEGIN: Final = re.compile(r"<think(?:ing)?>|<reason(?:ing)?>")
_BRACKET: Final = re.compile(r"[{\[]")
_MOST_STARTS: Final = 64  # brackets at which JSON may begin and does not: prose has some of its own
_MOST_VALUES: Final = 1024  # that are valid: a list that is not has them one by one
_MOST_REPAIRED: Final = 64_000  # characters; an answer of 25 questions has 15,000, and repairing is slow
# Characters that mending may look at, a second or two of them. It begins again and again where quotation marks and
# brackets make no sense, and an answer may be nothing else; one of 25 questions with any usual mistake takes a tenth.
_MOST_LOOKED_AT: Final = 2_000_000
_DEPTH: Final = 4  # of JSON around the items
_ABOUT_OTHERS: Final = "scores"  # whose items may be known by their order alone: one too many shifts all
# What one item has, by the name of the list: enough to know items that stand without their list.
_TELLING: Final[Mapping[str, str]] = {"pairs": "question", "scores": "score", "artefacts": "text"}


def find_items(said: Any, name: str, *, cut: bool) -> list[Any] | None:
    """The list `name` in what a model said, a text or JSON; None where it cannot be read.

    Where the list itself is not valid, it is mended, or its valid items are taken, whichever gives more of them.
    `cut`: the endpoint says that the answer ends at its limit of tokens. What can then only be read by mending its end
    is missing its last item, which was not written to its end.
    """
    if not isinstance(said, str):
        return items_in(said, name)
    nothing = None
    for text in _without_thoughts(said):
        found, bare = _valid_in(text, name)
        if found:
            return found
        nothing = nothing if found is None else found  # an empty list may be one of the prose's, or within an item
        mended = _repaired(text, name)
        if bare or mended:
            return max((mended or [])[: -1 if cut else None], bare, key=len) or None
    return nothing


def items_in(value: Any, name: str, depth: int = _DEPTH) -> list[Any] | None:
    """The list `name` in JSON: under its name, alone, around one item, or in what is wrapped around it."""
    if isinstance(value, str) and depth and value.lstrip()[:1] in ("{", "["):  # JSON within JSON
        found, bare = _valid_in(value, name, depth - 1)
        return found or bare or found
    if isinstance(value, list):
        if value and not all(isinstance(item, dict) for item in value):
            return None
        if value and all(isinstance(item.get(name), list) for item in value):
            return [one for item in value for one in item[name]]
        return list(value) if not value or any(_TELLING[name] in item for item in value) else None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(name), list):
        return list(value[name])
    if _TELLING[name] in value:
        return [value]
    if isinstance(value.get(name), dict):
        value = {name: value[name]}
    if value and all(isinstance(one, dict) and _TELLING[name] in one for one in value.values()):
        return list(value.values())
    within = (items_in(one, name, depth - 1) for one in value.values() if depth and isinstance(one, dict | list | str))
    return next((found for found in within if found), None)


def _valid_in(text: str, name: str, depth: int = _DEPTH) -> tuple[list[Any] | None, list[Any]]:
    """The first list that is valid as a whole, an empty one where there is no other, and the items that stand without
    one: a slip leaves the items around it valid, and their list not.
    """
    nothing, bare = None, list[Any]()
    for value in _values(text):
        is_bare = isinstance(value, dict) and _TELLING[name] in value and not isinstance(value.get(name), list | dict)
        if is_bare and name != _ABOUT_OTHERS:
            bare.append(value)
            continue
        found = items_in(value, name, depth)
        if found:
            return found, bare
        nothing = nothing if found is None else found
    return nothing, bare


def _without_thoughts(text: str) -> Iterator[str]:
    """What stands behind the thoughts, then the whole: a document may speak of such marks."""
    *_, last = (0, *(match.end() for match in _THOUGHTS_END.finditer(text)))
    rest = text[last:]
    begin = _THOUGHTS_BEGIN.search(rest)
    yield rest[: begin.start()] if begin and _is_outside(rest, begin.start()) else rest
    if last:
        yield text


def _is_outside(text: str, place: int) -> bool:
    """Whether a mark stands before all JSON."""
    return not any(bracket in text[:place] for bracket in "{[")


def _values(text: str) -> Iterator[Any]:
    """The JSON objects and arrays in a text that are valid as they stand, outer ones first."""
    decoder = json.JSONDecoder()
    place = starts = values = 0
    while starts < _MOST_STARTS and values < _MOST_VALUES and (start := _BRACKET.search(text, place)):
        try:
            value, place = decoder.raw_decode(text, start.start())
        except ValueError:
            place = start.end()
            starts += 1
        except RecursionError:
            return
        else:
            values += 1
            yield value


def _repaired(text: str, name: str) -> list[Any] | None:
    """Of JSON with mistakes: quotation marks, commas and brackets that are missing, or one comma too many."""
    marked = [start for mark in (f'"{name}"', f"'{name}'", "{", "[") if (start := text.find(mark)) >= 0]
    if not marked or len(text) > _MOST_REPAIRED:
        return None
    opened = max(text.rfind("{", 0, marked[0]), 0) if text[marked[0]] not in "{[" else marked[0]
    try:
        value = json_repair.loads(CountedText(text[opened:], most=_MOST_LOOKED_AT), skip_json_loads=True)
    except (ValueError, RecursionError, ReadTooOftenError):
        return None
    found = items_in(value, name)
    return found if found and all(isinstance(item, dict) for item in found) else None
