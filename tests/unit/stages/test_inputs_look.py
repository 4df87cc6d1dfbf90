"""A look at the sources: the drift that it measures, and what it removes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from unit.stages.test_inputs_corpus import TEXT, config_map
from unit.stages.test_inputs_stage import inputs, make_sources

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.formats.documents import Document
from embedding_stages.inputs.drift import TermSample, drift_between

FIRST = {"a.txt": TEXT.encode(), "b.txt": (TEXT + " Some more words.").encode()}


def a_look(root: Path, number: int, trained: StageResult, before: StageResult | None = None) -> StageResult:
    """Look number so and so, by the requests that the operator makes."""
    last = {} if before is None else {"fingerprint": before.fingerprint, "corpus": path_of(before)}
    told = {"trained": trained.artefacts[Artefact.CORPUS].to_json(), "before": last}
    code, result = inputs(root, fingerprint=f"{number:064x}", look=told)
    assert code == 0, result
    return result


def path_of(result: StageResult) -> str:
    return result.artefacts[Artefact.CORPUS].path


@pytest.fixture
def trained(tmp_path: Path) -> StageResult:
    make_sources(tmp_path / "sources")
    put(tmp_path, FIRST)
    code, result = inputs(tmp_path, fingerprint="0" * 64)
    assert code == 0, result
    return result


def put(root: Path, documents: dict[str, bytes]) -> None:
    shutil.rmtree(root / "sources" / "corpus", ignore_errors=True)
    config_map(root / "sources" / "corpus", documents)


def test_unchanged_sources_have_the_same_digests_and_no_drift(tmp_path: Path, trained: StageResult) -> None:
    found = a_look(tmp_path, 1, trained)
    assert found.artefacts == trained.artefacts
    assert "drift" not in found.details


def test_the_drift_of_an_edited_a_new_and_a_removed_document(tmp_path: Path, trained: StageResult) -> None:
    new = "Zebras graze in the savannah, which no document of the first edition has ever told us about."
    put(tmp_path, {"a.txt": FIRST["a.txt"], "c.txt": new.encode()})
    drift = a_look(tmp_path, 1, trained).details["drift"]
    assert drift["newDocuments"] == 1
    assert drift["goneDocuments"] == 1
    assert drift["newText"] == f"{len(new) / (len(new) + len(TEXT)):.5f}"
    assert 0.3 < float(drift["unseenTerms"]) < 0.6


def test_of_looks_the_last_ones_documents_are_kept(tmp_path: Path, trained: StageResult) -> None:
    folder = tmp_path / "workspace" / "inputs"
    last = None
    for number in range(1, 5):
        put(tmp_path, {"a.txt": f"{TEXT} In its edition {number}.".encode()})
        last = a_look(tmp_path, number, trained, last)
        corpora = {path.name for path in folder.iterdir() if path.name.startswith("corpus-")}
        assert corpora == {Path(path_of(trained)).name, Path(path_of(last)).name}
    results = {path.name for path in folder.iterdir() if len(path.name) == 64}
    assert results == {"0" * 64, f"{4:064x}"}


def test_what_the_revision_has_is_not_removed(tmp_path: Path, trained: StageResult) -> None:
    last = a_look(tmp_path, 1, trained)
    put(tmp_path, {"a.txt": f"{TEXT} Edited.".encode()})
    a_look(tmp_path, 2, trained, last)
    assert (tmp_path / "workspace" / path_of(trained)).is_dir()


@pytest.mark.parametrize("path", ["../secret", "/etc", "inputs", "inputs/baseModel-0123456789abcdef", "sdg/x"])
def test_nothing_but_documents_is_removed(tmp_path: Path, trained: StageResult, path: str) -> None:
    kept = tmp_path / "workspace" / "inputs" / "baseModel-0123456789abcdef"
    kept.mkdir()
    (tmp_path / "secret").mkdir()
    told = {"trained": trained.artefacts[Artefact.CORPUS].to_json(), "before": {"fingerprint": "..", "corpus": path}}
    code, _ = inputs(tmp_path, fingerprint="1" * 64, look=told)
    assert code == 0
    assert kept.is_dir()
    assert (tmp_path / "secret").is_dir()
    assert (tmp_path / "workspace" / path_of(trained)).is_dir()


def test_documents_that_are_gone_or_damaged_leave_the_drift_unknown(tmp_path: Path, trained: StageResult) -> None:
    put(tmp_path, {"a.txt": f"{TEXT} Edited.".encode()})
    file = tmp_path / "workspace" / path_of(trained) / "documents.jsonl"
    file.write_text("no JSON\n")
    assert "drift" not in a_look(tmp_path, 1, trained).details
    shutil.rmtree(file.parent)
    assert "drift" not in a_look(tmp_path, 2, trained).details


def test_a_resource_that_was_never_trained_has_no_drift(tmp_path: Path, trained: StageResult) -> None:
    code, result = inputs(tmp_path, fingerprint="1" * 64, look={"trained": None, "before": {}})
    assert (code, "drift" in result.details) == (0, False)


def documents(*texts: str) -> list[Document]:
    return [Document(id=f"{number:016x}", path=f"{number}.txt", text=text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("trained", "now", "new_text", "unseen"),
    [
        (["one two"], ["one two"], 0.0, 0.0),
        (["one two"], ["One, TWO!"], 1.0, 0.0),
        (["one two"], ["one two three four"], 1.0, 0.5),
        (["one two"], [], 0.0, 0.0),
        ([], ["one two"], 1.0, 1.0),
        (["same", "gone"], ["same", "plus"], 0.5, 0.5),
        (["日本語"], ["日本語文"], 1.0, 1 / 3),
    ],
)
def test_shares(trained: list[str], now: list[str], new_text: float, unseen: float) -> None:
    drift = drift_between(documents(*trained), documents(*now))
    assert (drift.new_text, drift.unseen_terms) == pytest.approx((new_text, unseen))


def test_a_sample_holds_a_bounded_number_of_terms_and_its_share_is_that_of_all() -> None:
    """5,000 of 20,000 terms are new; each side remembers 1,000 at most."""
    trained, now = TermSample(most=1000), TermSample(most=1000)
    for start in range(0, 20_000, 100):
        now.add(" ".join(f"w{number}" for number in range(start, start + 100)))
        assert len(now._kept) <= 1000
    for start in range(0, 15_000, 100):
        trained.add(" ".join(f"w{number}" for number in range(start, start + 100)))
    assert now.share_missing_in(trained) == pytest.approx(0.25, abs=0.06)
