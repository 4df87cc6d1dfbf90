"""Which language a document is in, and what is said of those that the rules do not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.stages.sdg_work import pairs_in, stage
from unit.stages.sentence_rows import joined

from embedding_stages.formats.pairs import RULE_TYPES
from embedding_stages.sdg.languages import LATIN, NONE, Language, is_of_another, language_of, prose_of, warning_of
from embedding_stages.sdg.markdown import read_markdown
from embedding_stages.sdg.passages import UnitPassage, make_passages

GERMAN = (
    "Der Drucker steht in dem Raum hinter der Werkstatt und ist nicht für alle offen. Die Schlüssel der Werkstatt "
    "liegen im Sekretariat, das von acht bis vier Uhr besetzt ist. Wenn das Papier fehlt, hilft der Hausmeister mit "
    "einem neuen Paket aus dem Keller. Ein Techniker kommt an jedem Montag und wartet die Geräte der Abteilung."
)
ENGLISH = (
    "The printer stands in the room behind the workshop and is not open to everybody. If the paper tray of the "
    "printer is empty, ask the caretaker for a new pack from the cellar. To open the upper lid of the scanner, press "
    "the green button on the left side. A technician comes on every Monday and looks after the machines."
)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        (joined("fr"), "fr"),
        (joined("nl"), "nl"),
        (joined("ru"), "Cyrillic"),
        (joined("fa"), "Arabic"),
        (joined("ko"), "Hangul"),
        (joined("ja"), "Japanese"),
        (joined("zh"), "Han"),
        (joined("th"), "Thai"),
        ("heapq.heappop(heap)", LATIN),
        ("1 2 3", NONE),
        ("", NONE),
    ],
)
def test_a_document_says_its_language(text: str, language: str) -> None:
    assert language_of([text[:30], text[30:]]).name == language


# A page of a manual: more letters of code than of prose.
CODE = """\
```sh
curl -LO https://example.com/releases/latest/download/kubectl-linux-amd64
sudo install -o root -g root -m 0755 kubectl-linux-amd64 /usr/local/bin/kubectl
kubectl version --client --output=yaml
```
"""
PAGES = {  # how it begins and ends, and a question
    "Han": ("安装完成后需要重启服务。", "如果连接失败，请检查防火墙设置。", "连接失败时应该检查什么？"),
    "Hangul": (
        "설치한 다음 서비스를 다시 시작하십시오.",
        "연결에 실패하면 방화벽을 확인하십시오.",
        "무엇을 다시 시작합니까?",
    ),
    "Cyrillic": ("Установите клиент и перезапустите службу.", "Проверьте соединение.", "Что проверить?"),
    "de": ("Danach ist der Dienst neu zu starten.", "Bricht die Verbindung ab, hilft das nicht.", "Was ist zu tun?"),
    "en": ("Restart the service after that.", "If it fails, look at the rules of the firewall.", "What is to be done?"),
    LATIN: ("kubectl", "", "What is kubectl for, and where is it to be found?"),
}


def page(language: str) -> list[UnitPassage]:
    opening, ending, _ = PAGES[language]
    return make_passages("d", read_markdown(f"{opening}\n\n{CODE}\n{CODE}\n{ending}\n"), sentences=5)


@pytest.mark.parametrize("language", PAGES)
def test_code_says_nothing_of_a_documents_language(language: str) -> None:
    found = language_of(prose_of(page(language)))
    assert found.name == language
    assert not is_of_another(PAGES[language][2], found)


def test_a_document_of_code_alone_has_the_languages_of_its_code() -> None:
    passages = make_passages("d", read_markdown(CODE), sentences=5)
    assert language_of(prose_of(passages)).name == LATIN


@pytest.mark.parametrize(
    ("text", "question", "other"),
    [
        (f"{ENGLISH[:200]} 安装完成后需要重启服务", "安装后需要做什么？", False),
        (f"{ENGLISH[:200]} 安装", "安装后需要做什么？", True),
        (f"{ENGLISH[:200]} 安装完成后需要重启服务", "インストールの後は？", False),
        (f"{ENGLISH[:200]} 安装完成后需要重启服务", "Что проверить?", True),
        (f"{joined('zh')} Deployment", "What is the pressure of the pump in the hall?", True),
    ],
)  # fmt: skip
def test_a_question_may_be_in_each_script_that_a_document_has(text: str, question: str, *, other: bool) -> None:
    assert is_of_another(question, language_of([text])) is other


def test_rules_ask_english_questions_of_english_documents_alone(tmp_path: Path) -> None:
    code, result, folder = stage(tmp_path, {"en": ENGLISH, "de": GERMAN})
    assert code == 0, result
    types = {document: {pair["type"] for pair in pairs_in(folder) if pair["document_id"] == document}
             for document in ("en", "de")}  # fmt: skip
    assert types["en"] - {"keywords"}
    assert types["en"] <= RULE_TYPES
    assert types["de"] == {"keywords"}
    assert result["details"]["languages"] == {"en": 1, "de": 1}
    assert "of 1 of 2 documents, which are not (de 1)" in result["details"]["warnings"][0]


def test_english_documents_give_no_warning(tmp_path: Path) -> None:
    _, result, _ = stage(tmp_path, {"en": ENGLISH})
    assert result["details"] == {"languages": {"en": 1}, "warnings": []}


@pytest.mark.parametrize(("others", "warns"), [(1, False), (2, True)])
def test_a_tenth_of_the_documents_may_be_in_another_language(others: int, warns: bool) -> None:
    assert bool(warning_of({"en": 10 - others, "Thai": others})) is warns


def test_where_there_is_nothing_to_ask_the_languages_are_named(tmp_path: Path) -> None:
    code, result, _ = stage(tmp_path, {"one": joined("th"), "two": joined("zh")})
    assert (code, result["reason"]) == (10, "NoPairs")
    assert "2 documents are not English (Han 1, Thai 1), and rules ask in English alone" in result["message"]
    assert "add title to spec.stages.sdg.questionKinds" in result["message"]


def test_titles_are_asked_of_any_language(tmp_path: Path) -> None:
    code, result, folder = stage(tmp_path, {"two": joined("zh")}, questionKinds=["title"])
    assert code == 0, result
    assert pairs_in(folder)
    assert result["details"]["warnings"] == []


@pytest.mark.parametrize(
    ("question", "language", "other"),
    [
        ("What is the pressure of the inlet for the hall?", "de", True),
        ("Wie hoch ist der Druck, den die Pumpe in der Halle hat?", "de", False),
        ("Wie hoch ist der Druck in der Halle und was ist mit der Pumpe?", "en", True),
        ("worker_connections nginx", "de", False),
        ("What is the pressure of the pump in the hall?", "Latin", False),
        ("What is the pressure of the pump in the hall?", "Thai", True),
        ("ความดันของปั๊มคือเท่าไร", "Thai", False),
        ("ความดันของปั๊ม nginx คือเท่าไร", "Thai", False),
        ("ความดันของปั๊มคือเท่าไร", "en", True),
        ("東京都庁", "Japanese", False),
        ("Hvad er det for en pumpe, og hvor er den?", "sv", True),
        ("Er det en pumpe?", "sv", False),
        ("42?", "de", False),
    ],
)
def test_a_question_is_surely_of_another_language(question: str, language: str, *, other: bool) -> None:
    assert is_of_another(question, Language(language)) is other
