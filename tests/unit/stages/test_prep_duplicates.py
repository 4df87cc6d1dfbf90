"""Near-duplicates across the split: what was changed a little is found, what is about the same things is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from embedding_stages.prep.duplicates import PASSAGES, QUERIES, near_duplicates

SYLLABLES = ["ba", "do", "ke", "li", "mu", "na", "po", "ri", "sa", "te", "vo", "xi", "za", "co", "fe", "gu"]
SMALL_WORDS = ["the", "of", "a", "to", "in", "is", "and", "that", "it", "with", "for", "on"]
ANSWERS = 300
Change = Callable[[random.Random, list[str]], list[str]]  # of a passage, as sentences


def vocabulary(chance: random.Random) -> list[str]:
    return ["".join(chance.choices(SYLLABLES, k=chance.randint(2, 4))) for _ in range(2000)]


def sentence(chance: random.Random, words: Sequence[str]) -> str:
    """Small words take turns with the others, the first of which are the most frequent."""
    length = chance.randint(8, 16)
    often = [min(int(chance.paretovariate(0.6)), len(words)) - 1 for _ in range(length)]
    text = " ".join(chance.choice(SMALL_WORDS) if chance.random() < 0.4 else words[place] for place in often)
    return text.capitalize() + "."


def passages(chance: random.Random, words: Sequence[str], count: int) -> list[list[str]]:
    return [[sentence(chance, words) for _ in range(chance.randint(3, 6))] for _ in range(count)]


def with_words_changed(share: float) -> Change:
    def change(chance: random.Random, sentences: list[str]) -> list[str]:
        words = " ".join(sentences).split()
        others = vocabulary(chance)
        for place in chance.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = chance.choice(others)
        return [" ".join(words)]

    return change


def with_sentence_added(chance: random.Random, sentences: list[str]) -> list[str]:
    place = chance.randint(0, len(sentences))
    return [*sentences[:place], sentence(chance, vocabulary(chance)), *sentences[place:]]


def with_sentence_left_out(chance: random.Random, sentences: list[str]) -> list[str]:
    place = chance.randrange(len(sentences))
    return sentences[:place] + sentences[place + 1 :]


def in_another_order(chance: random.Random, sentences: list[str]) -> list[str]:
    return chance.sample(sentences, len(sentences))


def with_other_case_and_marks(chance: random.Random, sentences: list[str]) -> list[str]:
    return [f"({one.upper().replace('.', ' -')})\n" for one in sentences]


def cut_elsewhere(chance: random.Random, sentences: list[str]) -> list[str]:
    """As another number of sentences a passage would: one is lost, one comes from the neighbour."""
    return [*sentences[1:], sentence(chance, vocabulary(chance))]


CHANGES: dict[str, Change] = {
    "nothing": lambda _, sentences: sentences,
    "one word": with_words_changed(0.0),
    "a tenth of the words": with_words_changed(0.1),
    "15 % of the words": with_words_changed(0.15),
    "the order of the sentences": in_another_order,
    "a sentence that was added": with_sentence_added,
    "a sentence that was left out": with_sentence_left_out,
    "case, punctuation and white space": with_other_case_and_marks,
    "where the document was cut": cut_elsewhere,
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_passage_is_found_again_although_this_changed(what: str) -> None:
    chance = random.Random(1)
    words = vocabulary(chance)
    answers = passages(chance, words, ANSWERS)
    unlike = passages(chance, words, 3 * ANSWERS)
    planted = [CHANGES[what](chance, answer) for answer in answers]
    texts = [" ".join(one) for one in planted + unlike]
    found = near_duplicates(texts, [" ".join(answer) for answer in answers], PASSAGES)
    recall = sum(number < ANSWERS for number in found) / ANSWERS
    assert recall >= 0.95
    assert not any(number >= ANSWERS for number in found), "passages with the same words stay"


@pytest.mark.parametrize(("of_the_form", "of_its_own"), [(4, 4), (16, 3)])
def test_what_all_passages_share_makes_none_alike(of_the_form: int, of_its_own: int) -> None:
    chance = random.Random(2)
    words = vocabulary(chance)
    form = " ".join(sentence(chance, words) for _ in range(of_the_form))

    def filled_in() -> list[str]:
        return [" ".join([form, *(sentence(chance, words) for _ in range(of_its_own))]) for _ in range(ANSWERS)]

    answers, unlike = filled_in(), filled_in()
    planted = [" ".join(with_words_changed(0.02)(chance, [answer])) for answer in answers]
    found = near_duplicates(planted + unlike, answers, PASSAGES)
    assert sum(number < ANSWERS for number in found) >= 0.95 * ANSWERS
    assert not any(number >= ANSWERS for number in found)


ASKED = [f"How do I set the {name} of a queue before it starts?" for name in ("size", "name", "owner", "colour")]
ASKED += [f"What does {name} return?" for name in ("open", "close", "read", "write", "seek", "tell", "flush")]
ASKED += ["装置の電源を入れる方法は何ですか？", "Wie groß darf eine Datei höchstens sein, die gelesen wird?"]
ASKED += ["วิธีเปลี่ยนรหัสผ่านของผู้ใช้งานระบบ", "តើខ្ញុំប្តូរពាក្យសម្ងាត់របស់អ្នកប្រើយ៉ាងដូចម្តេច?", "လျှို့ဝှက်နံပါတ်ကို ဘယ်လိုပြောင်းရမလဲ"]
ALIKE: list[tuple[str, str, bool]] = [
    ("case and punctuation", "what does READ return", True),
    ("the order of the words", "Before it starts, how do I set the size of a queue?", True),
    ("a word that says nothing", "How do I set the size of the queue before it starts?", True),
    ("a word that was added", "How do I set the size of a queue before it first starts?", True),
    ("another language", "wie groß darf eine Datei sein, die gelesen wird", True),
    ("a language without spaces", "装置の電源を入れる方法は？", True),
    ("an ending, in Thai", "วิธีเปลี่ยนรหัสผ่านของผู้ใช้งานระบบทำอย่างไร", True),
    ("zero-width spaces, in Khmer", "តើខ្ញុំ\u200bប្តូរ\u200bពាក្យសម្ងាត់\u200bរបស់\u200bអ្នកប្រើយ៉ាងដូចម្តេច", True),
    ("a word, in Burmese", "လျှို့ဝှက်နံပါတ်ကို ဘယ်လိုပြောင်းနိုင်လဲ", True),
    ("nothing but the letters of Thai", "ความดันของปั๊มน้ำในห้องเครื่องคือเท่าไร", False),
    ("a word in common, in Thai", "ผู้ใช้งานดูรายงานการขายของเดือนที่แล้วได้ที่ไหน", False),
    ("nothing but the form", "What does truncate return?", False),
    ("another thing with long wording", "How do I get the limit of a pool while it runs?", False),
    ("a part of it", "How do I set the size?", False),
    ("words in common", "Which file is read before a queue starts?", False),
    ("a text without words", "???", False),
]


@pytest.mark.parametrize(("what", "query", "alike"), ALIKE, ids=[row[0] for row in ALIKE])
def test_a_query_repeats_another_but_for(what: str, query: str, alike: bool) -> None:
    assert bool(near_duplicates([query], ASKED, QUERIES)) is alike


# A passage in Thai, of whose phrases each has another word.
CONTRACT = (
    "บริษัทขอสงวนสิทธิ์ในการเปลี่ยนแปลงเงื่อนไข ลูกค้าต้องชำระเงินภายในสามสิบวัน สินค้าที่ชำรุดสามารถเปลี่ยนคืนได้ภายในเจ็ดวัน "
    "การจัดส่งจะดำเนินการภายในสองวันทำการ ใบเสร็จรับเงินต้องเก็บไว้เป็นหลักฐาน"
)
EXCHANGED = (("บริษัท", "ทางร้าน"), ("สามสิบ", "สิบห้า"), ("เจ็ด", "สิบ"), ("สองวัน", "สามวัน"), ("เก็บไว้", "แสดง"))
OTHER = "ระบบจะสำรองข้อมูลทุกคืนเวลาสองนาฬิกา ผู้ดูแลสามารถกู้คืนไฟล์ได้จากหน้าจอตั้งค่า หากพื้นที่จัดเก็บเต็มจะมีอีเมลแจ้งเตือนไปยังผู้ดูแล"


def test_a_passage_without_spaces_is_found_again_and_another_is_not() -> None:
    repeat = CONTRACT
    for word, other in EXCHANGED:
        repeat = repeat.replace(word, other)
    assert near_duplicates([repeat, OTHER], [CONTRACT], PASSAGES) == {0}


@pytest.mark.parametrize(("texts", "others"), [([], ["a b"]), (["a b"], []), ([], [])])
def test_nothing_repeats_nothing(texts: list[str], others: list[str]) -> None:
    assert near_duplicates(texts, others, PASSAGES) == set()


def test_a_text_repeats_itself_however_short_and_however_often_it_stands_there() -> None:
    others = ["One.", "A few words.", "!?", *["The same line of a form."] * 500]
    assert near_duplicates(["one", "A FEW words", "!?", "the same line of a form", "two"], others, PASSAGES) == {
        0, 1, 2, 3,
    }  # fmt: skip
