"""Titles, excerpts, terms and topics: what each makes of a passage, in prose, without marks, in other languages."""

from __future__ import annotations

from random import Random

import pytest
from unit.stages.sdg_work import chunks_of, counted_of

from embedding_stages.sdg.kinds import WRITERS
from embedding_stages.sdg.lexicon import STOP_WORDS, can_end_phrase
from embedding_stages.sdg.reading import Reading

KINDS = tuple(WRITERS)
NO_MARKS = (
    "electronic coordinate transformer circuit details are given for the construction of an electronic calculating "
    "unit which enables the polar coordinates of a vector modulus and cosine or sine of the argument to be derived "
    "from those of a rectangular system of axes"
)
OTHERS = (
    "an analogue calculating unit for polar coordinates is described which uses a transformer circuit",
    "errors of a calculating unit in a rectangular system of axes are discussed",
    "circuit details of a receiver with a tuned transformer circuit are given",
)
PROSE = (
    "# Rotating keys\n\nThe controller signs every session token with the newest signing key. Older signing keys stay "
    "valid until their tokens have expired, so that no client is logged out."
)
GERMAN = (
    "Die gesetzliche Frist beträgt vier Wochen. Über den Antrag urteilt die zuständige Stelle binnen zwei Wochen.",
    "Die gesetzliche Frist beginnt mit der Zustellung des Bescheids. Auf Antrag prüft die zuständige Stelle die Lage.",
    "Die Gebühren werden mit der Zustellung des Bescheids fällig und sind an die zuständige Stelle zu zahlen.",
    "Die Satzung der Gemeinde regelt die Gebühren und die Nutzung der Hallen durch die Vereine und die Schulen.",
)
CHINESE = "本操作员在集群中运行微调流水线。首先安装图表，然后创建自定义资源。模型训练完成后会自动部署。"
JAPANESE = "東京は日本の首都であり、世界最大の都市圏の一つである。人口は約一千四百万人である。"
THAI = "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย เป็นศูนย์กลางการปกครอง การศึกษา และการคมนาคม"
HINDI = "दिल्ली भारत की राजधानी है। यह देश का सबसे बड़ा महानगर है और यहाँ बहुत सारे ऐतिहासिक स्थल मौजूद हैं।"
CODE = "```\nfor item in queue:\n    handle(item, retries=3)\n```\n\n>>> x = [1, 2, 3]\n>>> sum(x)\n"
TABLE = "| field | meaning of it | range of it |\n|---|---|---|\n| seed | of every choice | 0 and above |\n"


def asked(kind: str, text: str, *others: str, times: int = 30) -> set[str]:
    """What a kind asks about the first passage of a text, over many seeds."""
    documents = [chunks_of(f"d{number}", one) for number, one in enumerate((text, *others))]
    counted = counted_of(*documents)
    reading = Reading(documents[0][0], counted)
    found = {WRITERS[kind](reading, counted, Random(seed)) for seed in range(times)}
    return {question for question in found if question and reading.says_enough(question)}


def test_a_title_is_the_heading_above() -> None:
    assert asked("title", PROSE) == {"Rotating keys"}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Older keys stay valid for a day. The rest is deleted.", "Older keys stay valid for a day"),
        ("# Overview\n\nOlder keys stay valid for a day.", "Older keys stay valid for a day"),
        ("- However, older keys stay valid for a day.", "older keys stay valid for a day"),
        ("OLDER KEYS STAY VALID FOR A DAY IN ALL CLUSTERS.", "older keys stay valid for a day in all clusters"),
        (CHINESE, "本操作员在集群中运行微调流水线"),
        (JAPANESE, "東京は日本の首都であり、世界最大の都市圏の一つである"),
        (THAI, "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"),
        (HINDI, "दिल्ली भारत की राजधानी है"),
    ],
)  # fmt: skip
def test_a_title_is_the_first_sentence_where_no_heading_says_enough(text: str, title: str) -> None:
    assert asked("title", text) == {title}


def test_a_long_first_sentence_is_cut_and_does_not_end_on_a_function_word() -> None:
    found = asked("title", NO_MARKS)
    assert len(found) >= 2
    for title in found:
        assert NO_MARKS.startswith(title)
        assert 4 <= len(title.split()) <= 12
        assert title.split()[-1] not in STOP_WORDS


def test_an_excerpt_leaves_a_third_of_the_content_words_out() -> None:
    found = [question.split() for question in asked("excerpt", NO_MARKS, times=300)]
    source = NO_MARKS.split()
    for parts in found:
        places = iter(source)
        assert all(part in places for part in parts), "words in the order of the sentence"
        assert len(parts) <= 16
        assert parts[0] not in STOP_WORDS
        assert parts[-1] not in STOP_WORDS
    lengths = [len(parts) for parts in found]
    assert 6 < sum(lengths) / len(lengths) < 9, "of 12 neighbours on the average"
    assert not all(" ".join(parts) in NO_MARKS for parts in found)


def test_an_excerpt_keeps_to_one_sentence() -> None:
    text = "maternal levels of glucose were higher . the fetal levels depended on free acids of the blood ."
    assert not any("higher" in question and "fetal" in question for question in asked("excerpt", text))


def test_terms_are_telling_words_in_the_order_of_the_text() -> None:
    for question in asked("terms", NO_MARKS, *OTHERS):
        places = iter(NO_MARKS.split())
        assert all(part in places for part in question.split()), question
        assert 3 <= len(question.split()) <= 6
        assert STOP_WORDS.isdisjoint(question.split())


def test_terms_know_names_and_no_two_forms_of_a_word() -> None:
    text = "get_nowait(self)\n    Remove an item from the queue; items removed are never given to OrderedDict queues.\n"
    found = asked("terms", text, times=100)
    words = {word for question in found for word in question.split()}
    assert {"get_nowait", "OrderedDict"} <= words
    assert not any({"item", "items"} <= set(question.split()) for question in found)


def test_a_topic_joins_phrases_that_other_passages_have_too() -> None:
    found = asked("topic", NO_MARKS, *OTHERS, times=200)
    assert len(found) > 20
    text = " ".join(found)
    for phrase in ("calculating unit", "polar coordinates", "rectangular system", "transformer circuit"):
        assert phrase in text
    assert "modulus" not in text, "a word of one passage alone"
    assert "which enables" not in text
    assert any(question.startswith("the effect of ") for question in found)


def test_the_phrases_of_a_topic_have_no_word_in_common() -> None:
    for question in asked("topic", NO_MARKS, *OTHERS, times=200):
        content = [word for word in question.split() if word not in STOP_WORDS]
        assert len(set(content)) == len(content), question


def test_a_phrase_that_is_always_part_of_a_longer_one_is_not_asked_for() -> None:
    texts = [f"free fatty acids of the {name} and its blood glucose level" for name in ("lamb", "rat", "dog")]
    found = asked("topic", *texts, times=100)
    assert any("free fatty acids" in question for question in found)
    assert not any("fatty" in question and "free fatty acids" not in question for question in found)


def test_a_passage_that_shares_nothing_has_no_topic() -> None:
    assert asked("topic", NO_MARKS, PROSE) == set()
    assert asked("topic", NO_MARKS) == set()


def test_topics_of_another_language_have_no_english_words_and_no_function_words() -> None:
    found = asked("topic", *GERMAN, times=100)
    assert found
    words = {word for question in found for word in question.split()}
    assert words & {"zuständige", "frist"}
    assert words.isdisjoint({"the", "effect", "of", "for", "by", "what", "den"})
    assert not any(question.split()[0] in ("die", "der") or question.split()[-1] == "die" for question in found)


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI])
@pytest.mark.parametrize("kind", ["excerpt", "terms", "topic"])
def test_text_without_spaces_gives_titles_alone(text: str, kind: str) -> None:
    assert asked(kind, text, text + text, text.replace("。", "！")) == set()


def test_words_with_vowel_signs_stay_whole() -> None:
    words = {word for question in asked("terms", HINDI) for word in question.split()}
    assert words <= {part.strip("।") for part in HINDI.split()}
    assert words


@pytest.mark.parametrize("text", [CODE, TABLE, "hello", "1 2 3\n\n4 5 6", "= = = =", "!!! ... ???", "x" * 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_text_gives_nothing(text: str, kind: str) -> None:
    if text is TABLE and kind == "terms":
        return  # words are words, wherever they stand
    assert asked(kind, text) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_code_is_not_asked_about_where_text_stands_beside_it(kind: str) -> None:
    found = asked(kind, f"{PROSE}\n\n{CODE}", *OTHERS)
    assert not any("retries" in question or "handle" in question or "sum" in question.split() for question in found)


@pytest.mark.parametrize(
    ("word", "can_end"),
    [("oscillator", True), ("signal", True), ("summary", True), ("speed", True), ("process", True), ("logic", True),
     ("electrical", False), ("ionized", False), ("magnetic", False), ("slowly", False), ("nuclear", False),
     ("high", False), ("retrieve", False)],
)  # fmt: skip
def test_english_adjectives_and_verbs_do_not_end_a_phrase(word: str, can_end: bool) -> None:
    assert can_end_phrase(word) is can_end
