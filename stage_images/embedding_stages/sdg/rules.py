"""Questions that sentences answer, by rules. Pure, deterministic, no language model: English patterns and templates.

Each rule looks at one unit and cuts a question out of it: the verb of a description ("Remove and return ..."), the
condition of a sentence ("If the queue is empty, ..."), the subject of a definition, the purpose of a recipe ("To ...,
use ..."), the role of a parameter, a heading. The name that is defined is left out, so that a question must find its
passage by meaning. What no rule understands can still give a keyword query.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from embedding_stages.formats.characters import base_letters
from embedding_stages.sdg import patterns
from embedding_stages.sdg.lexicon import (
    KEPT_WORDS,
    NOUNS_TOO,
    STOP_WORDS,
    VAGUE,
    base_verb,
    content_words,
    third_person,
    verb_of_gerund,
    words,
)
from embedding_stages.sdg.sentences import FULL_STOPS
from embedding_stages.sdg.units import Kind, Unit

_MAX_WORDS: Final = 16  # of a clause
_MIN_CONTENT: Final = 2
_EMPTY_VERBS: Final = frozenset({"do", "get", "give", "make", "return", "set", "use"})
_PRONOUNS: Final = frozenset({"it", "its", "itself", "this", "that", "these", "those", "they", "them", "such"})
_MARKS: Final = (*FULL_STOPS, "!", "?", ";", "…", "؟", "！", "？")


@dataclass(frozen=True, slots=True)
class Question:
    """`variants` are wordings of one question; the caller picks one."""

    type: str  # usage, definition, condition, error, parameter, heading, keywords
    variants: tuple[str, ...]
    weight: float  # how natural questions of this kind are, in units of one rare word


@dataclass(frozen=True, slots=True)
class Subject:
    """What a unit describes: the last name of its signature, and the word for such a thing."""

    name: str
    noun: str  # function, method, class, module or thing

    @classmethod
    def of(cls, unit: Unit) -> Subject:
        signature = unit.signature
        match = re.search(r"(?:class\s+|async\s+|def\s+)*([A-Za-z_][\w.]*)\s*(?:\(|=|:|$)", signature)
        name = match[1].rsplit(".", 1)[-1] if match else ""
        if "class " in signature or name[:1].isupper():
            return cls(name, "class")
        if not name:
            return cls("", "thing")
        return cls(name, "method" if re.search(r"\((?:self|cls)\b", signature) else "function")


def questions_of(unit: Unit, *, signature_is_near: bool) -> Iterator[Question]:
    """All questions that the rules find; `signature_is_near`: the unit's signature is in the same passage."""
    if unit.kind is Kind.HEADING:
        yield from _heading(unit.text)
        return
    if unit.kind is not Kind.SENTENCE:
        return
    sentence = _plain(unit.text)
    if not _is_prose(sentence):
        return
    subject = Subject.of(unit)
    term = patterns.TERM.match(sentence)
    if term:
        name, sentence = term[1] or term[3], term[2] or term[4]
        subject = Subject(name, "module" if unit.heading == "NAME" else _noun_of(name))
    if term or unit.opens:
        yield from _description(sentence, subject)
    yield from _sentence(sentence, subject, near=signature_is_near and bool(unit.signature))
    yield from _keywords(sentence, unit.text)


def _description(sentence: str, subject: Subject) -> Iterator[Question]:
    """The first sentence below a signature: what the thing does or is."""
    truth = patterns.TRUTH.match(sentence) or patterns.WHETHER.match(sentence)
    if truth:
        clause = _clause(truth[1])
        yield from _ask("usage", 5, clause, "How do I check whether {}?", "How can I tell if {}?")
        return
    first, _, rest = sentence.partition(" ")
    verb = base_verb(first)
    if verb and rest and words(rest)[:1] != ["s"]:
        yield from _usage(verb, rest, subject)
        return
    relative = patterns.NOUN_PHRASE.match(sentence)
    if relative and (base_verb(relative[1]) or relative[1] in ("is", "has", "can", "are")):
        clause = _clause(f"{relative[1]} {relative[2]}")
        yield from _ask(
            "definition", 4, clause, f"Which {subject.noun} {{}}?", f"What {subject.noun} is there that {{}}?"
        )
    elif subject.name and len(words(sentence)) >= 3 and sentence[:1].isupper() and not patterns.FINITE.match(sentence):
        clause = _clause(sentence)
        clause = clause if is_name(clause.split(" ")[0]) else clause[:1].lower() + clause[1:]
        plain = re.sub(r"^(?:an?|the) ", "", clause)
        if clause.split(" ")[0] in ("a", "an", "the") and subject.noun != "thing":
            yield from _ask("definition", 2.5, plain, f"Which {subject.noun} is the {{}}?", "Where do I find the {}?")
        else:
            yield Question("keywords", (" ".join(content_words(plain)),), 1)


def _usage(verb: str, rest: str, subject: Subject) -> Iterator[Question]:
    clause = _clause(rest)
    if base_verb(clause.split(" ")[0]) and clause.split(" ")[0] != "set":
        return
    joined = re.match(r"^(?:and|or|then)\s", clause) is not None
    if verb in ("represent", "raise") or (verb in NOUNS_TOO and not patterns.DETERMINED.match(rest)):
        return
    shown = "get" if verb in ("return", "yield") and not joined else verb
    wordings = [f"How do I {shown} {{}}?", f"How can I {shown} {{}}?", f"What should I use to {shown} {{}}?"]
    if not joined:
        wordings.append(f"Which {subject.noun} {third_person(verb)} {{}}?")
    yield from _ask("usage", 5, clause, *wordings, verb=verb)


def _sentence(sentence: str, subject: Subject, *, near: bool) -> Iterator[Question]:
    """What any sentence may say: conditions, errors, purposes, definitions, parameters."""
    raises = patterns.RAISES.search(sentence)
    if raises:
        clause = _clause(raises[2])
        yield from _ask("error", 4, clause, "Which error is raised if {}?", "What exception do I get when {}?")
        if near and _is_readable(subject.name):
            yield Question("error", (f"When does {subject.name} raise {raises[1]}?",), 3)
    condition = patterns.CONDITION.match(sentence)
    if condition and not raises:
        clause = _clause(condition[2])
        if near and _is_readable(subject.name):
            yield from _ask("condition", 4, clause, f"What does {subject.name} do if {{}}?", least=1)
        else:
            yield from _ask("condition", 3, clause, "What happens if {}?", "What happens when {}?", least=3)
    purpose = patterns.PURPOSE.match(sentence) or patterns.ABILITY.match(sentence) or patterns.ENABLES.search(sentence)
    if purpose:
        yield from _purpose(next(group for group in purpose.groups() if group))
    definition = patterns.DEFINITION.match(sentence)
    if definition and not _begins_vaguely(definition[1]):
        yield from _defined(definition[1], definition[2], definition[3])
    offers = patterns.OFFERS.match(sentence)
    if offers and base_verb(offers[2]):
        yield from _ask("definition", 4, _clause(offers[3]), f"Which {offers[1]} {offers[2]} {{}}?")
    parameter = patterns.PARAMETER.match(sentence)
    if (
        parameter
        and near
        and _is_readable(subject.name)
        and parameter[1] not in VAGUE
        and parameter[1] not in ("the", "a")
    ):
        name = parameter[1]
        yield Question(
            "parameter",
            (f"What is {name} for in {subject.name}?", f"What does the {name} argument of {subject.name} do?"),
            4.5,
        )


def _purpose(text: str) -> Iterator[Question]:
    first, _, rest = text.partition(" ")
    verb = verb_of_gerund(first) or (first if base_verb(first) == first else None)
    if verb and rest:
        yield from _ask(
            "usage", 5, _clause(rest), f"How do I {verb} {{}}?", f"What can I use to {verb} {{}}?", verb=verb
        )


def _defined(name: str, be: str, rest: str) -> Iterator[Question]:
    clause = _clause(re.sub(r"^(?:an?|the|any)\s", "", rest))
    bare = re.sub(r"^(?:The|An?) ", "", name).strip("`'\"")
    if len(content_words(rest)) < 3:
        return
    yield Question("definition", (f"What {be} {name[:1].lower() + name[1:] if bare != name else bare}?",), 2.5)
    yield from _ask("definition", 2, clause, f"What {be} the name for {{}}?" if be == "is" else "What are {}?")


def _heading(text: str) -> Iterator[Question]:
    text = _plain(re.sub(r"^[\d.]+\s+", "", text)).rstrip(":")
    if len(content_words(text)) < 2 or text.isupper():
        return
    if text.endswith("?"):
        yield Question("heading", (text,), 5)
        return
    first, _, rest = text.partition(" ")
    verb = verb_of_gerund(first) or base_verb(first)
    if verb and rest:
        yield Question("heading", (f"How do I {verb} {rest}?", f"What are the steps to {verb} {rest}?"), 4)
    else:
        yield Question("heading", (f"What should I know about {_lower(text)}?",), 1)


def _begins_vaguely(name: str) -> bool:
    first = words(name)[:1]
    return not first or first[0] in VAGUE or (first[0] in STOP_WORDS and first[0] not in ("a", "an", "the"))


def _keywords(sentence: str, source: str) -> Iterator[Question]:
    """Only of real sentences, which end with a mark and hold more lower-case words than names. Any language."""
    bare = patterns.PARENTHESES.sub("", sentence)
    parts, found = bare.split(), content_words(bare)
    lower = sum(not part[0].isupper() for part in parts)  # a script without capitals shows no names
    if len(found) >= 4 and len(parts) >= 8 and lower >= 0.6 * len(parts) and source.rstrip("\"')").endswith(_MARKS):
        yield Question("keywords", (" ".join(found),), -4)


def _ask(
    kind: str, weight: float, clause: str, *wordings: str, least: int = _MIN_CONTENT, verb: str = ""
) -> Iterator[Question]:
    """Nothing when the clause says too little; `verb` counts as one of its words."""
    all_words = words(clause)
    said = len(content_words(clause)) + (verb != "" and verb not in _EMPTY_VERBS)
    if said < max(1, least) or not all_words or all_words[0] in _PRONOUNS or not _is_prose(clause):
        return
    if (
        max(Counter(word for word in all_words if word not in STOP_WORDS).values(), default=0) < 3
    ):  # "pick x pick y pick z" is a table
        yield Question(kind, tuple(wording.format(clause) for wording in wordings), weight)


def _clause(text: str) -> str:
    """The part of a sentence that fits a question: without asides and continuations, at most `_MAX_WORDS` words."""
    text = patterns.CUT.sub("", patterns.PARENTHESES.sub("", text).replace("{", "").replace("}", "")).strip(' .,;:!"')
    parts = text.split(" ")
    for place in range(2, len(parts)):
        if parts[place - 1].endswith(",") and base_verb(parts[place]) == parts[place]:  # "Read x, write y"
            parts = parts[:place]
            break
    if len(parts) <= _MAX_WORDS:
        return " ".join(parts).strip(" ,;:")
    parts = parts[:_MAX_WORDS]
    while parts and words(parts[-1])[-1:] and not content_words(parts[-1]):
        parts.pop()
    return " ".join(parts).strip(" ,;:")


def without_marks(text: str) -> str:
    """Without list marks, lead-in words, link targets and quotes of code; the final stop removed."""
    text = re.sub(r"\[([^\]]+)\]\([^)\s]*\)", r"\1", text)
    text = re.sub(r":\w+:`([^`]+)`", r"\1", text)
    text = re.sub(r"``?|\*", "", text)
    while (shorter := patterns.LEAD.sub("", text, count=1)) != text:
        text = shorter
    return text.strip().rstrip(f"{FULL_STOPS}:!").strip()


def _plain(text: str) -> str:
    """Without marks and lead-in words, beginning with a capital unless with a name."""
    text = without_marks(text)
    return text[:1].upper() + text[1:] if text[:1].islower() and not is_name(text.split(" ")[0]) else text


def _is_prose(text: str) -> bool:
    """Mostly words: no table, formula, path or example."""
    symbols = sum(not (character.isalnum() or character in " ,.'’-\"()/?") for character in base_letters(text))
    return (
        len(text) >= 8
        and symbols <= 0.06 * len(text)
        and not re.search(r"[=<>|{}\\^~]|\.\.\.|https?:|@|__|\.py\b", text)
    )


@lru_cache(KEPT_WORDS)
def is_name(word: str) -> bool:
    """Whether a word is an identifier, a number or in capitals, and keeps its letters as they are."""
    return bool(re.search(r"[_.()\d]|[a-z][A-Z]", word)) or (len(word) > 1 and word.isupper())


def _is_readable(name: str) -> bool:
    return len(name) >= 3 and not name.startswith("_")


def _noun_of(name: str) -> str:
    if name.endswith("()"):
        return "function"
    return "class" if re.match(r"^[A-Z][a-z]\w+$", name) else "thing"


def _lower(text: str) -> str:
    return text if is_name(text.split(" ")[0]) else text[:1].lower() + text[1:]
