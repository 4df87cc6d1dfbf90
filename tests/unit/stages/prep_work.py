"""Small prep stages, with vectors that count words instead of a model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest, StageResult
from embedding_stages.contract.settings import Prep
from embedding_stages.encoder.counting import TokenCounter
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.errors import settings_of
from embedding_stages.prep.stage import prepare, work
from embedding_stages.runner import StageContext, run
from embedding_stages.vectors import Vectors

DOCUMENTS = 10


def count_words(texts: Sequence[str], role: Literal["query", "passage"]) -> Vectors:
    vectors = np.zeros((len(texts), 4096), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().strip("?.").split():
            vectors[row, zlib.crc32(word.encode()) % 4096] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def word_counter(most: int) -> TokenCounter:
    """A token a word, without a prefix."""
    return _counter(most, pre_tokenizers.WhitespaceSplit())


def character_counter(most: int) -> TokenCounter:
    """A token a character, as vocabularies of Chinese have it."""
    return _counter(most, pre_tokenizers.Split(Regex("."), "isolated"))


def _counter(most: int, parts: pre_tokenizers.PreTokenizer) -> TokenCounter:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = parts
    description = EncoderDescription(
        architecture="bert",
        prefixes={"query": "", "passage": ""},
        max_tokens=most,
        hidden_size=8,
        dimensions=(8,),
    )
    return TokenCounter(tokenizer, description)


def records(documents: int = DOCUMENTS, **changes: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Chunks and pairs: three chunks a document, two questions, one of them with two positives."""
    chunks, pairs = [], []
    for n in range(documents):
        chunks += [
            {"id": f"d{n}-{m}", "document_id": f"d{n}", "text": f"Part {m} of subject{n} says word{n}{m}."}
            for m in range(3)
        ]
        pairs.append({"id": f"q{n}a", "question": f"What says word{n}0?", "chunk_ids": [f"d{n}-0"]})
        pairs.append({"id": f"q{n}b", "question": f"Which part of subject{n}?", "chunk_ids": [f"d{n}-1", f"d{n}-2"]})
        for pair in pairs[-2:]:
            pair |= {"document_id": f"d{n}", "type": "usage", "score": None, **changes}
    return chunks, pairs


def stage(
    tmp_path: Path,
    chunks: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    *,
    labelled: dict[str, str] | None = None,
    frozen: ArtefactRef | None = None,
    model: Path | None = None,
    fingerprint: str = "f",
    max_tokens: int = 512,
    **settings: Any,
) -> tuple[int, StageResult]:
    inputs: dict[Artefact, ArtefactRef] = {Artefact.FROZEN_SET: frozen} if frozen else {}

    def add(artefact: Artefact, folder: Path) -> None:
        path = folder.relative_to(tmp_path).as_posix()
        inputs[artefact] = ArtefactRef(path=path, digest=digest_of_folder(folder))

    folder = tmp_path / "pairs"
    folder.mkdir(exist_ok=True)
    (folder / "chunks.jsonl").write_text("".join(json.dumps(item) + "\n" for item in chunks))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(item) + "\n" for item in pairs))
    add(Artefact.PAIRS, folder)
    if labelled:
        for name, text in labelled.items():
            (tmp_path / "labelled" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "labelled" / name).write_text(text)
        add(Artefact.LABELLED_SET, tmp_path / "labelled")
    if model:
        add(Artefact.BASE_MODEL, model)
    request = StageRequest(
        stage=Stage.PREP, fingerprint=fingerprint, attempt=1, revision=1, image="i", settings=settings, inputs=inputs
    )

    def with_counted_words(context: StageContext) -> StageResult:
        counter = word_counter(max_tokens)
        return prepare(context, settings_of(Prep, context.settings), lambda _total: count_words, counter)

    env = {
        "EFT_REQUEST": request.to_json(),
        "EFT_WORKSPACE": str(tmp_path),
        "EFT_TERMINATION_LOG": str(tmp_path / "log"),
    }
    code = run(Stage.PREP, work if model else with_counted_words, env)
    return code, StageResult.from_json((tmp_path / "log").read_text())


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]
