"""A corpus in ten scripts through the whole stage: its passages, its counts and its time."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from unit.stages.growth import grows_with_the_text
from unit.stages.sdg_work import pairs_in, stage
from unit.stages.test_sdg_fit import model

from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.sdg.fit import Fit
from embedding_stages.sdg.markdown import read_markdown
from embedding_stages.sdg.passages import MAX_PASSAGE_CHARACTERS, make_passages
from embedding_stages.sdg.units import Unit, read_units


class Script(NamedTuple):
    """How made-up prose is written in it."""

    words: str
    between: str  # two words
    stops: str  # one of them ends each sentence; without one a space does


SCRIPTS: Final = {
    "en": Script("the printer stands in a room behind workshop and its key hangs near old window", " ", ".!?"),
    "Cyrillic": Script("принтер стоит в комнате за мастерской и ключ висит у старого окна", " ", ".!?"),
    "Greek": Script("ο εκτυπωτής είναι στο δωμάτιο πίσω από την πόρτα και κλειδί κοντά", " ", ".!;"),
    "Arabic": Script("الطابعة في الغرفة خلف الورشة والمفتاح قرب النافذة القديمة دائما", " ", ".؟"),
    "Devanagari": Script("प्रिंटर कमरे में कार्यशाला के पीछे है और चाबी पुरानी खिड़की पास", " ", "।?"),
    "Hangul": Script("프린터는 작업실 뒤 방에 있고 열쇠는 오래된 창문 옆에 걸려 있습니다", " ", ".?"),
    "Japanese": Script("プリンター は 作業場 の 裏 に ある 鍵 は 古い 窓 の そば です", "", "。？"),
    "Han": Script("打印机 在 车间 后面 房间 钥匙 挂 旧 窗户 旁边 每天 都 有", "", "。！？"),
    "Thai": Script("เครื่องพิมพ์ อยู่ ใน ห้อง หลัง โรงงาน และ กุญแจ แขวน ใกล้ หน้าต่าง เก่า", "", ""),
    "Khmer": Script("ម៉ាស៊ីនបោះពុម្ព នៅ ក្នុង បន្ទប់ ក្រោយ រោងជាង ហើយ កូនសោ ព្យួរ ជិត បង្អួច ចាស់", "", ""),
}
CHARACTERS: Final = 100_000  # of each script


def prose(script: Script, characters: int, *, seed: int = 0) -> str:
    """Paragraphs of six sentences of 6 to 14 words."""
    chance, words = random.Random(seed), script.words.split()
    paragraphs: list[str] = []
    size = 0
    while size < characters:
        sentences = []
        for _ in range(6):
            said = script.between.join(chance.choice(words) for _ in range(chance.randint(6, 14)))
            sentences.append(said[:1].upper() + said[1:] + (chance.choice(script.stops) if script.stops else ""))
        paragraphs.append((" " if script.between or not script.stops else "").join(sentences))
        size += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs)


@pytest.mark.parametrize("name", SCRIPTS)
def test_passages_have_about_five_sentences_in_any_script(name: str) -> None:
    passages = make_passages("d", read_units(prose(SCRIPTS[name], 20_000)), sentences=5)
    lengths = [len(passage.text) for passage in passages]
    assert max(lengths) <= MAX_PASSAGE_CHARACTERS // 2
    assert 80 <= sum(lengths) / len(lengths) <= 700


def test_a_corpus_of_ten_scripts_is_asked_about(tmp_path: Path) -> None:
    texts = {name: prose(script, CHARACTERS) for name, script in SCRIPTS.items()}
    assert sum(map(len, texts.values())) >= 1_000_000
    code, result, folder = stage(tmp_path, texts, questionKinds=["rules", "title"])
    assert code == 0, result
    chunks = [json.loads(line) for line in (folder / "chunks.jsonl").read_text().splitlines()]
    assert max(len(chunk["text"]) for chunk in chunks) <= MAX_PASSAGE_CHARACTERS
    asked = Counter(pair["document_id"] for pair in pairs_in(folder))
    assert set(asked) == set(SCRIPTS)
    assert result["counts"] == {
        "documents": 10,
        "chunks": len(chunks),
        "pairs": asked.total(),
        "droppedUngrounded": 0,
        "droppedDuplicates": result["counts"]["droppedDuplicates"],
    }
    assert len(result["details"]["languages"]) == 8, "the most frequent"
    assert "of 9 of 10 documents, which are not" in result["details"]["warnings"][0]
    for name, text in texts.items():  # not a word is lost
        kept = "".join(chunk["text"] for chunk in chunks if chunk["document_id"] == name)
        assert "".join(kept.split()) == "".join(text.split()), name


@pytest.mark.parametrize("name", SCRIPTS)
def test_passages_that_fit_are_read_whole_in_any_script(tmp_path: Path, name: str) -> None:
    counter = TokenCounter.load(model(tmp_path / "m", most=128))
    text = prose(SCRIPTS[name], 10_000)
    passages = Fit(counter).make_passages("d", read_units(text), sentences=5)
    assert max(counter.whole([passage.text for passage in passages])) <= 128
    assert "".join("".join(passage.text for passage in passages).split()) == "".join(text.split())


@pytest.mark.parametrize("read", [read_units, read_markdown])
def test_reading_takes_time_in_proportion(read: Callable[[str], list[Unit]]) -> None:
    paragraphs = [part for script in SCRIPTS.values() for part in prose(script, CHARACTERS // 2).split("\n\n")]
    random.Random(0).shuffle(paragraphs)
    text = "\n\n".join(paragraphs)
    assert grows_with_the_text(lambda part: make_passages("d", read(part), sentences=5), text)


def test_fitting_takes_time_in_proportion(tmp_path: Path) -> None:
    fit = Fit(TokenCounter.load(model(tmp_path / "m", most=128)))
    text = prose(SCRIPTS["Han"], CHARACTERS)
    assert grows_with_the_text(lambda part: fit.make_passages("d", read_units(part), sentences=5), text)
