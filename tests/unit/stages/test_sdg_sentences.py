"""Sentences of many languages, and that their time grows with the text."""

from __future__ import annotations

import pytest
from unit.stages.growth import grows_with_the_text
from unit.stages.sentence_rows import ROWS, joined

from embedding_stages.sdg.sentences import cut, split_sentences


@pytest.mark.parametrize("language", ROWS)
def test_a_text_of_each_language_comes_apart(language: str) -> None:
    assert split_sentences(joined(language), max_characters=1000) == list(ROWS[language])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use a list, e.g. Python's. It works.", ["Use a list, e.g. Python's.", "It works."]),
        ("See Fig. 3 and Dr. Who. Done.", ["See Fig. 3 and Dr. Who.", "Done."]),
        ("Version 3.11 is out. x.y is a name.", ["Version 3.11 is out. x.y is a name."]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("Wrapped\n  over lines.  Next.", ["Wrapped over lines.", "Next."]),
        ("The key is on floor 2. Ask there.", ["The key is on floor 2.", "Ask there."]),
        ("He said no. Then No. 5 came.", ["He said no.", "Then No. 5 came."]),
        ("1. Open it. 2. Shut it.", ["1. Open it.", "2. Shut it."]),
        ("Am 3. Oktober 2024 und am 3. 10. 2024.", ["Am 3. Oktober 2024 und am 3. 10. 2024."]),
        ("A. B. Smith, C. Jones and D. E. Fox. They left.", ["A. B. Smith, C. Jones and D. E. Fox.", "They left."]),
        ("Take plan B. It works.", ["Take plan B.", "It works."]),
        ("It is 12 m. Measure again.", ["It is 12 m.", "Measure again."]),
        ("It works... Sometimes. Why?! Because.", ["It works...", "Sometimes.", "Why?!", "Because."]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("「はい。」と言った。次。", ["「はい。」と言った。", "次。"]),
        ("هل ذهب؟نعم.", ["هل ذهب؟", "نعم."]),
        ("네. 그렇습니다.", ["네.", "그렇습니다."]),
        ("यह है।वह है।", ["यह है।", "वह है।"]),
        ("यह है| वह है|", ["यह है|", "वह है|"]),
        ("ነው፡፡ ቁልፉን ይውሰዱ፡፡", ["ነው፡፡", "ቁልፉን ይውሰዱ፡፡"]),
        ("你好!我是谁?他是.txt", ["你好!", "我是谁?", "他是.txt"]),
        ("It was so.[1][2] Then not.", ["It was so.[1][2]", "Then not."]),
        ("The code is 12. 7 people came.", ["The code is 12.", "7 people came."]),
        ("他走了。2024年他回来。", ["他走了。", "2024年他回来。"]),
        ("", []),
        ("...", ["..."]),
    ],
)  # fmt: skip
def test_sentences_end_where_people_see_the_end(text: str, expected: list[str]) -> None:
    assert split_sentences(text, max_characters=1000) == expected


@pytest.mark.parametrize("word", ["ภาษาไทย", "ភាសាខ្មែរ", "မြန်မာဘာသာ", "ພາສາລາວ"])
def test_a_script_without_marks_is_cut_at_its_spaces(word: str) -> None:
    text = " ".join([word * 3] * 60)
    parts = split_sentences(text, max_characters=1000)
    assert max(map(len, parts)) <= 120
    assert " ".join(parts) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d e f", ["a b c", "d e f"]),
        ("一二三，四五六七", ["一二三，", "四五六七"]),
        ("abcd\u200befghi", ["abcd\u200b", "efghi"]),
        ("abcdef\u0301gh", ["abcde", "f\u0301gh"]),
        ("x" * 13, ["x" * 6, "x" * 6, "x"]),
    ],
    ids=["spaces", "a mark", "a space without width", "a letter and its accent", "nothing"],
)
def test_long_texts_are_cut_where_it_hurts_least(text: str, expected: list[str]) -> None:
    assert cut(text, 6) == expected


@pytest.mark.parametrize(
    "piece",
    [
        "A. B. Smith, C. Jones and D. E. F. Fox wrote of 12. ",
        ". ",
        ".",
        '"a. B ',
        ". (((((((((((((((((((",
        ".))))))))))))))))))))",
        "第一句。",
        "ภาษาไทย",
        "x",
        "a\u0301\u0301\u0301",
        "༎",
        "། ",
    ],
)
def test_the_time_grows_with_the_text(piece: str) -> None:
    assert grows_with_the_text(lambda text: split_sentences(text, max_characters=1000), piece * (600_000 // len(piece)))
