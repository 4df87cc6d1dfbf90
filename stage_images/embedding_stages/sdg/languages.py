"""Which language a document is in, as far as the rules have to know: English, or another one. Pure.

Languages of the Latin script are told by the commonest words of each, all others by their script. A guess, for a whole
document: good enough to leave English questions out, and to say why there are none.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.units import Kind

ENGLISH: Final = "en"
LATIN: Final = "Latin"  # a language of this script, or code: nobody knows which
NONE: Final = "none"  # no letters
_LOOKED_AT: Final = 20_000  # characters of a document
_MANY: Final = 0.1  # share of the documents, above which the stage warns
_TOLD: Final = 8  # languages
_LEAST_WORDS: Final = 3  # that speak for a language
_LEAST_SHARE: Final = 0.04  # of all words
_HAS_SCRIPT: Final = 0.05  # share of a document's letters
_KIN: Final = frozenset({"Han", "Japanese"})  # a title in Japanese may have no kana

_COMMON: Final[Mapping[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in (
        (ENGLISH, "the of and to is that for with are be this or as by if it not from can"),
        ("de", "der die und das nicht ist mit den von zu auf ein eine für wird im sich dem"),
        ("fr", "le la les des est et une dans du pour que qui sur un pas au par avec"),
        ("es", "el los las que una por con del la se es para y su lo al más está"),
        ("it", "il che di della per non è sono la un una del con le gli dei si anche"),
        ("pt", "o os uma não para com é do da que em um dos as ao pela se mais"),
        ("nl", "de het een van en niet op zijn is dat met te voor aan wordt ook bij door"),
        ("pl", "w na się nie jest do z że i to od dla przez są oraz jak ale po"),
        ("cs", "a v na se je že to s do pro nebo jako by který jsou při od ale"),
        ("sv", "och att det som är en på för inte av ett med till den om kan från har"),
        ("da", "og at det er en til af ikke på for den de med som et kan ved har"),
        ("fi", "ja on ei se että oli mutta kun ovat tai myös voi sekä niin jos kuin"),
        ("hu", "a az és nem hogy egy is van ha vagy csak meg lehet mint kell ezt de"),
        ("tr", "ve bir bu için ile da de ne olarak gibi daha çok olan veya en kadar"),
        ("ro", "și de la în nu este cu pe un o care din sau pentru sunt mai se"),
        ("vi", "là và của có không được cho một các trong để với này khi từ những người"),
        ("id", "yang dan di dengan untuk tidak ini itu dari pada adalah dalam ke atau akan"),
    )
}
_SPEAKING: Final[Mapping[str, tuple[str, ...]]] = {  # a common word -> the languages that it speaks for
    word: tuple(language for language, common in _COMMON.items() if word in common)
    for word in frozenset().union(*_COMMON.values())
}


@dataclass(frozen=True, slots=True)
class Language:
    """Of a document, or of a question."""

    name: str  # a code such as "de", or of a script such as "Devanagari", `LATIN` where neither says more, or `NONE`
    scripts: frozenset[str] = frozenset()  # that some part of its letters is of


def prose_of(passages: Sequence[UnitPassage]) -> list[str]:
    """The texts of a document that tell its language: code is the same in all of them, and often most of the letters.

    Where there is nothing else, the code.
    """
    texts = [_without_code(passage) for passage in passages]
    return texts if any(texts) else [passage.text for passage in passages]


def _without_code(passage: UnitPassage) -> str:
    prose = [unit.text for unit in passage.units if unit.kind is not Kind.CODE]
    return passage.text if len(prose) == len(passage.units) else " ".join(prose)


def language_of(texts: Iterable[str]) -> Language:
    """Of a document that is given in parts."""
    text = " ".join(_some(texts))
    scripts = Counter(
        {LATIN: 1} if text.isascii() and any(map(str.isalpha, text)) else filter(None, map(_script, text))
    )
    if not scripts:
        return Language(NONE)
    letters = scripts.total()
    script = "Japanese" if scripts["Japanese"] > letters // 8 else max(scripts, key=lambda name: scripts[name])
    name = _of_latin(text.lower().split()) if script == LATIN else script
    return Language(name, frozenset(one for one, number in scripts.items() if number >= _HAS_SCRIPT * letters))


def knows_rules_for(language: str) -> bool:
    """Whether questions by English rules may be asked: of English, and of texts that are mostly names and code."""
    return language in (ENGLISH, LATIN, NONE)


def is_of_another(question: str, document: Language) -> bool:
    """Whether a question is surely not in the language of its document.

    A document may have several scripts, and a question be in each. That says nothing of Latin letters, which stand for
    names in any text. Neighbours, such as Danish and Swedish, share their common words: a few more of the one say
    nothing.
    """
    asked, language = language_of([question]).name, document.name
    if NONE in (asked, language):
        return False
    if asked != LATIN and asked not in _COMMON:  # another script
        return (_KIN if asked in _KIN else {asked}).isdisjoint({language, *document.scripts})
    if language != LATIN and language not in _COMMON:
        return not any(_script(one) not in ("", LATIN) for one in question)
    if LATIN in (asked, language) or asked == language:
        return False
    counts = _common_words(question.lower().split())
    return counts[asked] - counts[language] >= _LEAST_WORDS


def others_than_english(languages: Mapping[str, int]) -> Counter[str]:
    """The documents of those languages of which rules make keywords at most."""
    return Counter({language: number for language, number in languages.items() if not knows_rules_for(language)})


def warning_of(languages: Mapping[str, int]) -> str:
    """What to say where rules are asked for and a good part of the documents is not English; else nothing."""
    others = others_than_english(languages)
    documents = sum(languages.values())
    if others.total() <= _MANY * documents:
        return ""
    return (
        f"questions by rules are English: of {others.total()} of {documents} documents, which are not "
        f"({told(others)}), they make keywords, and nothing where words are written without spaces; "
        "add title and terms to stages.sdg.questionKinds, or use provider openAI"
    )


def told(languages: Mapping[str, int]) -> str:
    """For people: "de 3, Thai 2", the most frequent first."""
    ordered = sorted(languages.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{language} {documents}" for language, documents in ordered[:_TOLD])


def _some(texts: Iterable[str]) -> Iterable[str]:
    left = _LOOKED_AT
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    if character.isascii():
        return LATIN
    name = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return {"HIRAGANA": "Japanese", "KATAKANA": "Japanese", "CJK": "Han"}.get(name, name.capitalize())


def _of_latin(words: list[str]) -> str:
    counts = _common_words(words)
    best = max(counts, key=lambda language: counts[language])  # English is first among equals
    return best if counts[best] >= max(_LEAST_WORDS, _LEAST_SHARE * len(words)) else LATIN


def _common_words(words: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(_COMMON, 0)
    for word in words:
        for language in _SPEAKING.get(word, ()):
            counts[language] += 1
    return counts
