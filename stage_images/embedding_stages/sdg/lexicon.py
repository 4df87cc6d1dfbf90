"""Words that the rules know: English, because the rules are. Of other languages with spaces the rules make keyword
queries, of those without nothing; what the other kinds of questions make of them is said in kinds.py."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from embedding_stages.formats.characters import MARKS, for_words

KEPT_WORDS: Final = 2**14  # of which it is remembered what they are: most words of a corpus come again and again


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs that begin a description ("Return the ...", "Removes an ..."), in their base form.
VERBS: Final = _listed(
    """
    abort accept access acquire activate add adjust align allocate allow analyze append apply archive arrange ask
    assemble assert assign attach authenticate backup begin bind block boot build bump cache calculate call cancel
    cast
    change check choose clean clear clone close collect combine commit compare compile compress compute concatenate
    configure
    connect construct consume convert copy count create cut deactivate decode decompress decrement define delete
    deliver deploy describe deserialize destroy detach detect determine disable discard disconnect dispatch display
    divide download drain draw drop dump duplicate edit emit empty enable encode encrypt ensure enter enumerate erase
    escape estimate evaluate examine execute exit expand expire export expose express extend extract fetch fill filter
    find finish fix flatten flush fold follow force fork format forward free freeze generate get give grant group
    guess
    halt handle hash hide hold identify ignore import include increase increment indicate inform inherit initialize
    insert inspect install instantiate interpret interrupt invert invoke issue iterate join jump keep kill launch lay
    limit link list listen load locate lock log look loop lower make manage map mark match measure merge migrate mix
    modify monitor move multiply name negate normalize notify obtain open order override overwrite pack pad parse pass
    patch pause perform permit pick place play poll pop populate post prepare prepend prevent print process produce
    prompt propagate protect provide publish pull push put query queue quit quote raise randomize reach read rearrange
    rebuild receive record recover redirect reduce refresh register reject release reload remove rename render reopen
    reorder repeat replace reply report request require reserve reset resize resolve restart restore restrict resume
    retrieve retry return reverse revert rewind roll rollback rotate round run save scale scan schedule search seek
    select send separate serialize serve set setup shift show shuffle shut shutdown simplify simulate skip sleep slice
    sort specify split start stop store stream strip submit subscribe substitute subtract sum summarize support
    suspend
    swap switch synchronize tell terminate test throttle time toggle tokenize trace track train transfer transform
    translate transmit traverse truncate try tune turn undo uninstall unload unlock unpack unquote unregister unset
    unsubscribe unwrap unzip update upgrade upload use validate verify visit wait walk warn watch wrap write yield zip
    """
)

# Of these, the ones that begin a noun phrase just as often: "Test result object", "List of ...".
NOUNS_TOO: Final = _listed(
    """
    backup block cache change count cut display drop dump exit export file filter force fork format grant group handle
    hash import interrupt issue link list lock log look map mark match measure mix model move name order override pack
    pad patch pause place play post process prompt pull push query queue quote record request reset rotate round scale
    schedule search shift skip sleep slice sort split store stream support swap switch test time trace track train
    transfer walk watch yield
    """
)

# Other words for the same thing, so that a question does not only repeat the passage.
SYNONYMS: Final = {
    "return": ("get", "obtain"), "retrieve": ("get", "fetch"), "obtain": ("get",), "fetch": ("get", "retrieve"),
    "create": ("make", "build"), "construct": ("create", "build"), "build": ("create", "put together"),
    "generate": ("produce", "create"), "produce": ("generate", "create"), "remove": ("delete", "drop"),
    "delete": ("remove",), "discard": ("throw away", "drop"), "compute": ("calculate", "work out"),
    "calculate": ("compute", "work out"), "determine": ("find out", "figure out"), "find": ("locate", "look up"),
    "display": ("show",), "show": ("display",), "check": ("test", "find out"), "test": ("check",),
    "modify": ("change", "edit"), "change": ("modify",), "update": ("change", "refresh"), "copy": ("duplicate",),
    "split": ("divide", "break up"), "join": ("combine", "put together"), "combine": ("merge", "join"),
    "merge": ("combine",), "concatenate": ("join",), "send": ("transmit",), "start": ("begin", "launch"),
    "begin": ("start",), "stop": ("end", "halt"), "terminate": ("stop", "kill"), "raise": ("throw",),
    "invoke": ("call",), "call": ("invoke",), "execute": ("run",), "run": ("execute",), "append": ("add",),
    "insert": ("add",), "store": ("save", "keep"), "save": ("store",), "replace": ("swap", "substitute"),
    "convert": ("change", "transform"), "transform": ("convert", "change"), "verify": ("check", "validate"),
    "validate": ("check", "verify"), "specify": ("give", "name"), "select": ("choose", "pick"),
    "initialize": ("set up",), "configure": ("set up",), "install": ("set up",), "ignore": ("skip",),
    "extract": ("pull out", "get"), "locate": ("find",), "iterate": ("loop",), "shut": ("close",),
    "register": ("sign up", "add"), "ensure": ("make sure",), "perform": ("carry out", "do"),
    "argument": ("parameter",), "parameter": ("argument",), "exception": ("error",), "string": ("text",),
    "directory": ("folder",), "element": ("item", "entry"), "item": ("element", "entry"), "integer": ("whole number",),
    "filename": ("file name",), "boolean": ("true or false value",), "dictionary": ("dict", "mapping"),
    "given": ("specified", "passed"), "specified": ("given", "chosen"), "current": ("present",),
    "existing": ("present",), "multiple": ("several",), "additional": ("extra",), "entire": ("whole",),
    "corresponding": ("matching",), "approximately": ("about",), "identical": ("equal", "same"),
    "largest": ("biggest",),
    "smallest": ("lowest", "least"), "quickly": ("fast",), "initial": ("first", "starting"), "maximum": ("largest",),
    "minimum": ("smallest",), "required": ("needed", "necessary"), "optional": ("not required",), "via": ("through",),
    "whether": ("if",), "however": ("but",), "sequence": ("series",), "subclass": ("derived class",),
}  # fmt: skip

STOP_WORDS: Final = _listed(
    """
    a about above after again against all also although always am an and any are as at be because been before being
    below between both but by can cannot could did do does doing done down during each either else etc ever every
    few for from
    further given had has have having he her here hers him his how i if in into is it its itself just least less like
    made make many may me might more most much must my neither no nor not now of off often on once one only or other
    otherwise our ours out over own per rather same see self shall she should since so some such than that the their
    theirs them then there these they this those through thus to too two under until unless up upon us use used uses
    using very via was we were what when where whether which while who whom why will with within without would yet you
    your yours none true false note default returns return
    """
)

# What texts say about themselves, and words that need another one: no phrase of a topic begins or ends with these.
REPORTING: Final = _listed(
    """
    able according account achieved affect al allow allows among analysed analyzed and/or another apparent appeared
    appears applied april article associated assuming attempt august author authors available back based became
    become becomes becoming best better carried cause caused causes certain character compared concerned concerning
    concluded conclusion confirmed consider considerations considered consist consisted consisting consists contain
    contained containing contains corresponding deals december decreases demonstrate demonstrated depend dependent
    depending depends derived describe described describes description despite detail detailed details determine
    determined determining developed died differ difference different discuss discussed discusses discussion due
    easily eight employed encountered ends especially etc evaluated evidence examine examined example examples
    except exhibit exhibited exist expected explain explained extended failed february fewer fig figure find finding
    findings five following follows found four full further gave get gets give gives giving good great greater
    greatest half having held help hence identical illustrated include included includes including increase
    increased increases increasing indicate indicated indicates instances introduced investigated investigation
    investigations involved involving january july june kind kinds known lack large larger last left like made main
    mainly manner measured mentioned near nearly new next nine noted november obscure observed obtain obtained
    obtaining occur occurred occurring occurs october old ones order original others outlined paper papers part
    particular particularly percent performed place play point possible prepared present presented previous prior
    probably produced produces proposed provide provided provides quite received receiving recorded refer reference
    referred refers regard regarded regarding related relation remained removed report reported reports represent
    required requires respect respectively respond rest result resulting results revealed review reviewed russian
    said second section seen selected september serious seven several show showed showing shown shows significant
    significantly similar simple six slightly small smaller special studied studies study subjected suffering
    suggest suggested suggesting suggests suitable summarized table tables taken taking ten tend tends term terms
    tested theoretically thin third three throughout times together told took total toward towards treated twelve
    twenty type types undergoing understanding undertaken usual usually various varying view way ways well whole
    whose work worked worse worst years yield yielded
    """
)

# English adjectives are known by their ends, as in "electrical"; these end like one and are nouns, and the second list
# holds some that do not. An adjective does not end a phrase.
_NOUNS: Final = _listed(
    """
    access additive alternative animal anomaly antibiotic approval archive arithmetic arrival assembly bed bible
    bottle boundary broadcast bubble build cable call canal capillary capital ceramic characteristic clinic collar
    crystal derivative diagonal dictionary directive display disposal dollar double drive ear epidemic estimate
    fabric family gear glossary heuristic hospital integral interval journal library load logic manual material
    mechanic metal metric music objective pillar plastic plot portal potential principal process processes proposal
    public release removal renewal reply report response retrieval rubric salary signal start statistic summary
    supply survival terminal topic traffic trial variable withdrawal year
    """
)
_ADJECTIVES: Final = _listed(
    """
    acute adequate aged appropriate approximate brief broad central clinical close common complete complex
    congenital constant continued cross current different dimensional early efficient equal fast feasible few final
    finite fixed free frequent further general giant gradual high higher important independent infantile intense
    inter internal isolated late later less long lower maximum mean minimum minor moderate more multi narrow natural
    nervous non older optimum overall persistent poor primary prior pure quiet random rapid rare raw real recent
    resistant separate severe short simultaneous slow solid spontaneous stable steady strong subsequent sudden
    sufficient transverse uniform upper urgent vertical weak wide young younger
    """
)
_ADJECTIVE_ENDS: Final = ("al", "ary", "ble", "ear", "ed", "ful", "ic", "ive", "lar", "less", "ly", "ous")

# What a description never means literally: a question that begins with these has no referent.
VAGUE: Final = _listed(
    """
    it this that these those they there here he she we i you such same above below following previous other another
    one both all each any none some most many few
    """
)

_LETTERS: Final = rf"[^\W_]+(?:[{MARKS}]+[^\W_]*)*"
_WORD: Final = re.compile(rf"{_LETTERS}(?:['’]{_LETTERS})?")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Thai to Tibetan, Burmese, Khmer, Kana, Han: between their words there are no spaces.
UNSPACED: Final = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def words(text: str) -> list[str]:
    """Lower-case words; names such as `get_nowait` and `OrderedDict` fall into their parts, joiners are gone."""
    return [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", for_words(text)))]


def is_unspaced(text: str) -> bool:
    """Whether most letters are of a script that writes no spaces between words: Chinese, Japanese, Thai and others."""
    return 2 * len(UNSPACED.findall(text)) > sum(map(str.isalnum, text))


@lru_cache(KEPT_WORDS)
def stem(word: str) -> str:
    """A crude common form of a word's inflections, for counting and comparing, never for showing."""
    for suffix, rest in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(suffix) and not word.endswith("ss") and len(word) - len(suffix) >= 3:
            return (word[: len(word) - len(suffix)] + rest).removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


def content_words(text: str) -> list[str]:
    """Words that carry meaning, in order, each once."""
    found = dict.fromkeys(word for word in words(text) if word not in STOP_WORDS and not word.isdigit())
    return [word for word in found if len(word) > 1]


@lru_cache(KEPT_WORDS)
def is_adverb(word: str) -> bool:
    """Whether an English word in lower case looks like one: "slowly"."""
    return len(word) > 4 and word.endswith("ly") and word not in _NOUNS


@lru_cache(KEPT_WORDS)
def can_end_phrase(word: str) -> bool:
    """Whether an English word in lower case may be a noun, as far as its end tells."""
    if word in _NOUNS or word.endswith("eed"):
        return True
    if word not in NOUNS_TOO and base_verb(word) not in (None, *NOUNS_TOO):
        return False
    return word not in _ADJECTIVES and not (len(word) > 4 and word.endswith(_ADJECTIVE_ENDS))


def base_verb(word: str) -> str | None:
    """The base form of a known verb in the imperative or the third person, or None."""
    lower = word.lower()
    if lower in VERBS:
        return lower
    for suffix, rest in (("ies", "y"), ("es", ""), ("s", "")):
        if lower.endswith(suffix) and lower[: len(lower) - len(suffix)] + rest in VERBS:
            return lower[: len(lower) - len(suffix)] + rest
    return None


def third_person(verb: str) -> str:
    """`return` -> `returns`."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(?:s|sh|ch|x|z|o)$", verb) else "s")


def verb_of_gerund(word: str) -> str | None:
    """`installing` -> `install`, when it is a known verb."""
    lower = word.lower()
    if not lower.endswith("ing"):
        return None
    root = lower[:-3]
    for candidate in (root, root + "e", root[:-1] if root[-1:] == root[-2:-1] else root):
        if candidate in VERBS:
            return candidate
    return None
