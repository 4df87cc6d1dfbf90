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
from typing import Final

from embedding_stages.sdg.lexicon import (
    STOP_WORDS,
    VAGUE,
    base_verb,
    content_words,
    third_person,
    verb_of_gerund,
    words,
)
from embedding_stages.sdg.units import Kind, Unit

_MAX_WORDS: Final = 16  # of a clause
_MIN_CONTENT: Final = 2


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


_LEAD = re.compile(
    r"^(?:[-*+•·]|\(?\d{1,3}[.)])\s+|^(?:Note|NOTE|Warning|WARNING|Tip|Caution|Important|Deprecated|Example)\s*[:!]\s*"
    r"(?:that\s+)?|^(?:However|Therefore|Thus|Also|Additionally|Finally|Then|Otherwise|Currently|Generally|Usually|Typically"
    r"|Normally|Optionally|Note that|In addition|By default|In general|In particular|For example|Similarly),?\s+"
)
_PARENTHESES = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
_CUT = re.compile(
    r"\s*(?:[;:]|\s--?\s|\s[–—]\s|,\s+(?:and|but|which|who|where|so|or|e\.g|i\.e|as|such|if|unless|when|because|using|with"
    r"|then|that|returning|raising|for example)\b|\s(?:which|so that|such that|because|e\.g\.|i\.e\.|unless|whereas)\s).*$"
)
_TRUTH = re.compile(
    r"^(?:returns?\s+)?(?:true|1|nonzero)\s+(?:if|when|iff|for)\s+(.+?)(?:,?\s+(?:and\s+|or\s+|else|otherwise)?(?:false|0)\b.*)?$",
    re.I,
)
_WHETHER = re.compile(
    r"^(?:returns?|tests?|checks?|determines?|indicates?|tells?|verif(?:y|ies))\s+(?:if|whether(?:\s+or\s+not)?)\s+(.+)$",
    re.I,
)
_CONDITION = re.compile(r"^(If|When|Once|While)\s+(.{8,120}?)(?:,|\s+then)\s+(.{8,})$")
_BACK_CONDITION = re.compile(r"^(.{8,120}?),?\s+(if|when|unless)\s+(.{8,100})$")
_FINITE = re.compile(r"^[^,]{0,60}?\s(?:is|are|was|were|has|have|had|can|cannot|will|would|may|must|should|does|do)\s")
_RAISES = re.compile(
    r"\b(?:raises?|throws?)\s+(?:an?\s+|the\s+)?`{0,2}([A-Z]\w+)`{0,2}(?:\s+exception)?,?\s+(?:if|when|whenever)\s+(.{6,})$"
)
_PURPOSE = re.compile(
    r"^(?:Use|Call|Pass|Set|Specify|Run)\s+.{2,60}?\s+(?:to|in order to)\s+(.+)$|^(?:In order to|To)\s+(.{6,80}?),\s+.+$"
)
_ABILITY = re.compile(
    r"^(?:You|Users?|Clients?|Callers?|One)\s+(?:can|may|could)\s+(?:also\s+|then\s+)?(.+?)(?:\s+by\s+.+)?$"
)
_ENABLES = re.compile(
    r"\b(?:can|may|should|could)\s+be\s+used\s+(?:to|for)\s+(.+)$|\b(?:allows?|lets?|enables?)\s+(?:you|one|users?|callers?|clients?|the user)\s+(?:to\s+)?(.+)$|\b(?:is|are)\s+(?:typically\s+|usually\s+|often\s+)?(?:used|useful|intended|meant)\s+(?:to|for)\s+(.+)$"
)
_DEFINITION = re.compile(
    r"^((?:The |An? )?[\w`'\".-]+(?:\s[\w`'\".-]+){0,3}?)\s+(is|are)\s+((?:an?|the|any|one of)\s.+)$"
)
_OFFERS = re.compile(
    r"^(?:This|The)\s+(?:\w+\s+)?(module|class|package|function|method|command|tool|library|option|stage|service)\s+(\w+s)\s+(.+)$"
)
_TERM = re.compile(
    r"^`{0,2}([\w.*-]+(?:\(\))?)`{0,2}\s+(?:-{1,2}|–|—)\s+(.{8,})$|^`{0,2}([A-Za-z_][\w.-]*(?:\(\))?)`{0,2}:\s+(.{8,})$"
)
_NOUN_PHRASE = re.compile(r"^(?:An?|The)\s+.{0,60}?\b(?:that|which|who)\s+([a-z]+)\s+(.+)$")
_PARAMETER = re.compile(
    r"^(?:The\s+|If\s+)?(?:optional\s+|second\s+|first\s+|third\s+|keyword\s+)*[`'\"*]{0,2}([a-z_]\w*)[`'\"*]{0,2}"
    r"(?:\s+(?:argument|parameter|keyword|attribute|option|flag|arg)s?)?,?\s+(?:is|specifies|controls|determines|gives|defines|indicates"
    r"|can|may|should|must|defaults|sets|describes|allows)\b"
)


def questions_of(unit: Unit, *, signature_is_near: bool) -> Iterator[Question]:
    """All questions that the rules find; `signature_is_near`: the unit's signature is in the same chunk."""
    if unit.kind is Kind.HEADING:
        yield from _heading(unit.text)
        return
    if unit.kind is not Kind.SENTENCE:
        return
    sentence = _plain(unit.text)
    if not _is_prose(sentence):
        return
    subject = Subject.of(unit)
    term = _TERM.match(sentence)
    if term:
        name, sentence = term[1] or term[3], term[2] or term[4]
        subject = Subject(name, "module" if unit.heading == "NAME" else _noun_of(name))
    if term or unit.opens:
        yield from _description(sentence, subject)
    yield from _sentence(sentence, subject, near=signature_is_near and bool(unit.signature))
    yield from _keywords(sentence)


def _description(sentence: str, subject: Subject) -> Iterator[Question]:
    """The first sentence below a signature: what the thing does or is."""
    truth = _TRUTH.match(sentence) or _WHETHER.match(sentence)
    if truth:
        clause = _clause(truth[1])
        yield from _ask("usage", 5, clause, "How do I check whether {}?", "How can I tell if {}?")
        return
    first, _, rest = sentence.partition(" ")
    verb = base_verb(first)
    if verb and rest and words(rest)[:1] != ["s"]:
        yield from _usage(verb, rest, subject)
        return
    relative = _NOUN_PHRASE.match(sentence)
    if relative and (base_verb(relative[1]) or relative[1] in ("is", "has", "can", "are")):
        clause = _clause(f"{relative[1]} {relative[2]}")
        yield from _ask(
            "definition", 4, clause, f"Which {subject.noun} {{}}?", f"What {subject.noun} is there that {{}}?"
        )
    elif subject.name and len(words(sentence)) >= 3 and sentence[:1].isupper() and not _FINITE.match(sentence):
        clause = _clause(sentence)
        clause = clause if _is_name(clause.split(" ")[0]) else clause[:1].lower() + clause[1:]
        plain = re.sub(r"^(?:an?|the) ", "", clause)
        if clause.split(" ")[0] in ("a", "an", "the") and subject.noun != "thing":
            yield from _ask("definition", 2.5, plain, f"Which {subject.noun} is the {{}}?", "Where do I find the {}?")
        else:
            yield from _ask("keywords", 1, plain, "{}", f"{{}} {subject.noun}")


def _usage(verb: str, rest: str, subject: Subject) -> Iterator[Question]:
    clause = _clause(rest)
    if base_verb(clause.split(" ")[0]) and clause.split(" ")[0] != "set":
        return
    joined = re.match(r"^(?:and|or|then)\s", clause) is not None
    if verb in ("represent", "note"):
        return
    shown = "get" if verb in ("return", "yield") and not joined else verb
    wordings = [f"How do I {shown} {{}}?", f"How can I {shown} {{}}?", f"What should I use to {shown} {{}}?"]
    if not joined:
        wordings.append(f"Which {subject.noun} {third_person(verb)} {{}}?")
    yield from _ask("usage", 5, clause, *wordings)


def _sentence(sentence: str, subject: Subject, *, near: bool) -> Iterator[Question]:
    """What any sentence may say: conditions, errors, purposes, definitions, parameters."""
    raises = _RAISES.search(sentence)
    if raises:
        clause = _clause(raises[2])
        yield from _ask("error", 4, clause, "Which error is raised if {}?", "What exception do I get when {}?")
        if near and _is_readable(subject.name):
            yield Question("error", (f"When does {subject.name} raise {raises[1]}?",), 3)
    condition = _CONDITION.match(sentence)
    if condition and not raises:
        clause = _clause(condition[2])
        if near and _is_readable(subject.name):
            yield from _ask("condition", 4, clause, f"What does {subject.name} do if {{}}?", least=1)
        else:
            yield from _ask("condition", 3, clause, "What happens if {}?", "What happens when {}?", least=3)
    purpose = _PURPOSE.match(sentence) or _ABILITY.match(sentence) or _ENABLES.search(sentence)
    if purpose:
        yield from _purpose(next(group for group in purpose.groups() if group))
    definition = _DEFINITION.match(sentence)
    if definition and words(definition[1])[:1] and words(definition[1])[0] not in VAGUE:
        yield from _defined(definition[1], definition[2], definition[3])
    offers = _OFFERS.match(sentence)
    if offers and base_verb(offers[2]):
        yield from _ask("definition", 4, _clause(offers[3]), f"Which {offers[1]} {offers[2]} {{}}?")
    parameter = _PARAMETER.match(sentence)
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
        yield from _ask("usage", 5, _clause(rest), f"How do I {verb} {{}}?", f"What can I use to {verb} {{}}?")


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
        yield Question(
            "heading", (f"What should I know about {_lower(text)}?", f"Where is {_lower(text)} explained?"), 1
        )


def _keywords(sentence: str) -> Iterator[Question]:
    """Only of real sentences: lists of names have hardly a stop word."""
    bare = _PARENTHESES.sub("", sentence)
    all_words, found = words(bare), content_words(bare)
    if len(found) >= 4 and len(all_words) >= 8 and len(all_words) - len(found) >= 0.25 * len(all_words):
        yield Question("keywords", (" ".join(found),), -4)


def _ask(kind: str, weight: float, clause: str, *wordings: str, least: int = _MIN_CONTENT) -> Iterator[Question]:
    all_words = words(clause)
    if len(content_words(clause)) < least or all_words[0] in VAGUE or not _is_prose(clause):
        return
    if (
        max(Counter(word for word in all_words if word not in STOP_WORDS).values(), default=0) < 3
    ):  # "pick x pick y pick z" is a table
        yield Question(kind, tuple(wording.format(clause) for wording in wordings), weight)


def _clause(text: str) -> str:
    """The part of a sentence that fits a question: without asides and continuations, at most `_MAX_WORDS` words."""
    text = _CUT.sub("", _PARENTHESES.sub("", text).replace("{", "").replace("}", "")).strip(' .,;:!"')
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


def _plain(text: str) -> str:
    """Without list marks, lead-in words, link targets and quotes of code; the final stop removed."""
    text = re.sub(r"\[([^\]]+)\]\([^)\s]*\)", r"\1", text)
    text = re.sub(r":\w+:`([^`]+)`", r"\1", text)
    text = re.sub(r"``?|\*", "", text)
    while (shorter := _LEAD.sub("", text, count=1)) != text:
        text = shorter
    text = text.strip().rstrip(".:!").strip()
    return text[:1].upper() + text[1:] if text[:1].islower() and not _is_name(text.split(" ")[0]) else text


def _is_prose(text: str) -> bool:
    """Mostly words: no table, formula, path or example."""
    symbols = sum(not (character.isalnum() or character in " ,.'’-\"()/?") for character in text)
    return (
        len(text) >= 8
        and symbols <= 0.06 * len(text)
        and not re.search(r"[=<>|{}\\^~]|\.\.\.|https?:|@|__|\.py\b", text)
    )


def _is_name(word: str) -> bool:
    return bool(re.search(r"[_.()\d]|[a-z][A-Z]", word)) or (len(word) > 1 and word.isupper())


def _is_readable(name: str) -> bool:
    return len(name) >= 3 and not name.startswith("_")


def _noun_of(name: str) -> str:
    if name.endswith("()"):
        return "function"
    return "class" if re.match(r"^[A-Z][a-z]\w+$", name) else "thing"


def _lower(text: str) -> str:
    return text if _is_name(text.split(" ")[0]) else text[:1].lower() + text[1:]
