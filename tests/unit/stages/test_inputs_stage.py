"""The whole inputs stage on mounted folders."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.stages.nobody import as_nobody
from unit.stages.test_inputs_corpus import TEXT, config_map
from unit.stages.test_inputs_labelled import make_set
from unit.stages.test_inputs_model import make_model

from embedding_stages.artefacts import digest_of_folder, sha256_file
from embedding_stages.contract import TERMINATION_MESSAGE_BYTES, Artefact, Stage, StageRequest, StageResult
from embedding_stages.evaluate.evaluation_set import load_evaluation_set
from embedding_stages.inputs.stage import work
from embedding_stages.runner import run


def settings(**changes: Any) -> dict[str, Any]:
    """Documents from a ConfigMap, the model and the labelled set from volumes."""
    return {
        "corpus": {"kind": "configMap", "path": "", "include": ["*.txt"], "minTextLength": 50, "limits": {}},
        "baseModel": {"name": "tiny", "kind": "pvc", "path": "models/tiny", "revision": None, "prefixes": None,
                      "maxTokens": 32},
        "labelledSet": {"kind": "pvc", "path": "/beir/"},
        **changes,
    }  # fmt: skip


def inputs(tmp_path: Path, fingerprint: str = "f", **changes: Any) -> tuple[int, StageResult]:
    request = StageRequest(
        stage=Stage.INPUTS,
        fingerprint=fingerprint,
        attempt=1,
        revision=1,
        image="i",
        settings=settings(**changes),
        inputs={},
    )
    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path / "workspace"),
        "EFT_SOURCES": str(tmp_path / "sources"),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(Stage.INPUTS, work, env)
    return code, StageResult.from_json((tmp_path / "log").read_text())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user than root reaches too; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize(
    ("closed", "reason", "field"),
    [
        ("model/models/tiny/model.safetensors", "BaseModelForbidden", "spec.baseModel.source.pvc.path"),
        ("model/models/tiny/config.json", "BaseModelForbidden", "spec.baseModel.source.pvc.path"),
        ("model/models", "BaseModelForbidden", "spec.baseModel.source.pvc.path"),
        ("beir/beir/queries.jsonl", "LabelledSetForbidden", "spec.evaluation.beir.pvc.path"),
        ("beir/beir", "LabelledSetForbidden", "spec.evaluation.beir.pvc.path"),
    ],
)
def test_what_may_not_be_read_is_named(open_folder: Path, closed: str, reason: str, field: str) -> None:
    make_sources(open_folder / "sources").joinpath(closed).chmod(0)
    with as_nobody():
        code, result = inputs(open_folder)
    (open_folder / "sources" / closed).chmod(0o755)
    assert (code, result.reason, result.field) == (10, reason, field), result.message
    assert closed.rsplit("/", 1)[-1] in result.message


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return make_sources(tmp_path / "sources")


def make_sources(root: Path) -> Path:
    config_map(root / "corpus", {"a.txt": TEXT.encode(), "b.txt": (TEXT + " b").encode(), "c.txt": b"\0"})
    make_model(root / "model" / "models" / "tiny")
    make_set(root / "beir" / "beir")
    return root


def test_everything_is_frozen_under_the_name_of_its_content(tmp_path: Path, sources: Path) -> None:
    code, result = inputs(tmp_path)
    assert code == 0, result
    assert set(result.artefacts) == {Artefact.CORPUS, Artefact.BASE_MODEL, Artefact.LABELLED_SET}
    for artefact, ref in result.artefacts.items():
        assert ref.path == f"inputs/{artefact}-{ref.digest[7:23]}"
        assert digest_of_folder(tmp_path / "workspace" / ref.path) == ref.digest == result.details[f"{artefact}Digest"]
    assert result.counts["documents"] == 2
    assert result.counts["skippedBinary"] == 1
    assert list(result.details["skipped"]) == ["skippedBinary"]
    assert result.counts["labelledQueries"] == 1
    assert result.details["encoder"]["max_tokens"] == 32


def test_guards_are_frozen_each_in_a_folder_of_its_name(tmp_path: Path, sources: Path) -> None:
    make_set(sources / "guard-general" / "set")
    make_set(sources / "guard-law")
    guards = {"general": {"kind": "pvc", "path": "set"}, "law": {"kind": "image", "path": "/beir"}}
    code, result = inputs(tmp_path, guards=guards)
    assert code == 0, result
    ref = result.artefacts[Artefact.GUARD_SETS]
    folder = tmp_path / "workspace" / ref.path
    assert sorted(path.name for path in folder.iterdir()) == ["general", "law"]
    assert len(load_evaluation_set(folder / "law").queries) == 1
    assert digest_of_folder(folder) == ref.digest
    assert result.counts["guardQueries"] == 2


def test_names_of_skipped_files_fit_a_termination_message(tmp_path: Path, sources: Path) -> None:
    contents = {"other.bin": b"", "binary.txt": b"\xff", "short.txt": b"short", "twin.txt": TEXT.encode()}
    (sources / "documents").mkdir()
    for number in range(9):
        for name, content in contents.items():
            (sources / "documents" / f"{number}{'ក' * 60}{name}").write_bytes(content)
    (sources / "corpus").rename(sources / "unused")
    (sources / "documents").rename(sources / "corpus")
    make_set(sources / "guard-general")
    guards = {"general": {"kind": "image", "path": "/beir"}}
    model = {**settings()["baseModel"], "prefixes": {"query": "ក" * 64, "passage": "ខ" * 64}}
    corpus = {**settings()["corpus"], "kind": "pvc"}
    code, result = inputs(tmp_path, guards=guards, baseModel=model, corpus=corpus)
    assert code == 0, result
    assert result.counts["skippedDuplicates"] == 8
    assert result.details["skipped"]["skippedFiles"]


def test_the_tokenizer_is_named_by_its_digest(tmp_path: Path, sources: Path) -> None:
    _, result = inputs(tmp_path)
    tokenizer = sources / "model" / "models" / "tiny" / "tokenizer.json"
    assert result.details["tokenizerDigest"] == f"sha256:{sha256_file(tokenizer)}"


def test_the_same_inputs_are_the_same_artefacts_and_an_edited_document_is_another(
    tmp_path: Path, sources: Path
) -> None:
    _, first = inputs(tmp_path)
    _, again = inputs(tmp_path, "second")
    assert again.artefacts == first.artefacts
    (sources / "corpus" / "..2025_01_01" / "a.txt").write_text(TEXT + " edited")
    _, edited = inputs(tmp_path, "third")
    assert edited.artefacts[Artefact.CORPUS] != first.artefacts[Artefact.CORPUS]
    assert edited.artefacts[Artefact.BASE_MODEL] == first.artefacts[Artefact.BASE_MODEL]
    names = sorted(
        path.name.split("-")[0] for path in (tmp_path / "workspace" / "inputs").iterdir() if "-" in path.name
    )
    assert names == ["baseModel", "corpus", "corpus", "labelledSet"]


@pytest.mark.parametrize("revision", ["the first", "one that changes nothing", "another model"])
def test_weights_are_read_once_where_they_come_from_and_once_where_they_are_kept(
    revision: str, tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources / "model" / "models" / "tiny" / "model.safetensors"
    if revision != "the first":
        inputs(tmp_path)
    if revision == "another model":
        make_model(source.parent, fill=1)
    read: list[str] = []

    def counted(path: Path) -> str:
        if path.name == source.name:
            read.append("source" if path == source else "kept")
        return sha256_file(path)

    monkeypatch.setattr("embedding_stages.artefacts.sha256_file", counted)
    monkeypatch.setattr("embedding_stages.inputs.model.sha256_file", counted)
    code, result = inputs(tmp_path, "later")
    assert code == 0
    assert read == ["source", "kept"]
    kept = tmp_path / "workspace" / result.artefacts[Artefact.BASE_MODEL].path
    assert (kept / source.name).read_bytes() == source.read_bytes()
    assert digest_of_folder(kept) == result.artefacts[Artefact.BASE_MODEL].digest


def test_what_people_should_look_at_is_told_in_the_details(tmp_path: Path, sources: Path) -> None:
    _, result = inputs(tmp_path)
    assert result.details["warnings"] == []
    prompts = sources / "model" / "models" / "tiny" / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"clustering": "C "}}))
    corpus = {**settings()["corpus"], "include": ["*.txt", "*.{rst,adoc}"]}
    _, result = inputs(tmp_path, "second", corpus=corpus)
    model, pattern = result.details["warnings"]
    assert "spec.baseModel.prefixes" in model
    assert "'*.{rst,adoc}' of spec.corpus.include" in pattern
    given = {**settings()["baseModel"], "prefixes": {"query": "", "passage": ""}}
    _, result = inputs(tmp_path, "third", baseModel=given)
    assert result.details["warnings"] == [], "the manifest says what is right"


@pytest.mark.parametrize("prefix", ["", "文" * 100, "文" * 256, "q" * 256])
def test_many_warnings_and_folders_fit_the_kubelets_message(tmp_path: Path, sources: Path, prefix: str) -> None:
    """With all artefacts and long prefixes: a result that does not fit would end the stage."""
    make_set(sources / "guard-law")
    for number in range(40):
        (sources / "plain" / ("文" * 60 + str(number))).mkdir(parents=True)
    (sources / "plain" / "a.txt").write_text(TEXT)
    shutil.rmtree(sources / "corpus")
    (sources / "plain").rename(sources / "corpus")
    include = ["*.txt", *(f"{'文' * 200}{number}.md" for number in range(31))]
    prompts = sources / "model" / "models" / "tiny" / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"文" * 90 + str(number): "C " for number in range(9)}}))
    asked = {
        "corpus": {**settings()["corpus"], "kind": "pvc", "include": include},
        "guards": {"law": {"kind": "image", "path": "/beir"}},
        "baseModel": {**settings()["baseModel"], "prefixes": {"query": prefix, "passage": prefix}},
    }
    _, first = inputs(tmp_path, "first", **asked)
    (sources / "corpus" / "a.txt").write_text(f"{TEXT} Edited.")
    trained = first.artefacts[Artefact.CORPUS].to_json()
    code, result = inputs(tmp_path, "second", **asked, look={"trained": trained, "before": {}})
    assert code == 0, result
    assert result.details["drift"]["newDocuments"] == 1
    assert result.details["warnings"][-1].startswith("and ")
    assert result.counts["skippedFiles"] == 40
    assert bool(result.details.get("skipped")) is (len(prefix.encode()) < 768)
    assert len((tmp_path / "log").read_bytes()) < TERMINATION_MESSAGE_BYTES - 300, "there is room for other counts"


def test_folders_that_are_left_out_are_named(tmp_path: Path, sources: Path) -> None:
    folder = sources / "corpus"
    for key in folder.iterdir():
        if key.is_symlink():
            key.unlink()
    (folder / "a.txt").write_text(TEXT)
    _, result = inputs(tmp_path, corpus={**settings()["corpus"], "kind": "pvc"})
    assert "'..2025_01_01/': no pattern of include reaches this folder" in result.details["skipped"]["skippedFiles"]


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"labelledSet": {"kind": "pvc", "path": "gone"}}, "LabelledSetNotFound", "spec.evaluation.beir.pvc.path"),
        ({"labelledSet": {"kind": "image", "path": "x"}}, "LabelledSetIncomplete", "spec.evaluation.beir.image.path"),
        (
            {"guards": {"general": {"kind": "pvc", "path": "gone"}}},
            "LabelledSetNotFound",
            "spec.evaluation.guards[name=general].beir.pvc.path",
        ),
        (
            {"baseModel": {**settings()["baseModel"], "path": "gone"}},
            "BaseModelNotFound",
            "spec.baseModel.source.pvc.path",
        ),
        (
            {"baseModel": {**settings()["baseModel"], "maxTokens": 9999}},
            "MaxTokensTooLarge",
            "spec.baseModel.maxTokens",
        ),
        ({"corpus": {**settings()["corpus"], "include": ["*.pdf"]}}, "CorpusEmpty", "spec.corpus.include"),
    ],
)
def test_a_bad_input_ends_the_stage_with_its_field(
    tmp_path: Path, sources: Path, changes: dict[str, Any], reason: str, field: str
) -> None:
    code, result = inputs(tmp_path, **changes)
    assert (code, result.reason, result.field) == (10, reason, field)
    left = [path.name for path in (tmp_path / "workspace" / "inputs").iterdir() if path.name.endswith(".draft")]
    assert left == []


def test_the_documents_are_what_the_next_stage_reads(tmp_path: Path, sources: Path) -> None:
    _, result = inputs(tmp_path)
    folder = tmp_path / "workspace" / result.artefacts[Artefact.CORPUS].path
    records = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
    assert [(item["path"], item["text"]) for item in records] == [("a.txt", TEXT), ("b.txt", TEXT + " b")]


def test_drafts_that_a_killed_attempt_left_are_removed(tmp_path: Path, sources: Path) -> None:
    folder = tmp_path / "workspace" / "inputs"
    (folder / "baseModel-0.draft").mkdir(parents=True)
    (folder / "baseModel-0.draft" / "model.safetensors").write_text("half")
    (folder / "download-0.draft").write_text("{")
    assert inputs(tmp_path)[0] == 0
    assert not list(folder.glob("*.draft"))
