"""The sdg stage without a cluster, and documents cut into passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest
from embedding_stages.runner import run
from embedding_stages.sdg.extractive import Statistics
from embedding_stages.sdg.passages import UnitPassage, make_passages
from embedding_stages.sdg.phrases import PhraseCounts
from embedding_stages.sdg.reading import Counted
from embedding_stages.sdg.stage import work
from embedding_stages.sdg.units import read_units


def chunks_of(name: str, text: str) -> list[UnitPassage]:
    return make_passages(name, read_units(text), sentences=5)


def counted_of(*documents: list[UnitPassage]) -> Counted:
    """A corpus as it is known before questions are written."""
    counted = Counted(Statistics(), PhraseCounts())
    for passages in documents:
        counted.statistics.add(passages)
        assert counted.phrases is not None
        counted.phrases.add(passages)
    return counted


def pairs_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def stage(tmp_path: Path, texts: dict[str, str], **changes: Any) -> tuple[int, dict[str, Any], Path]:
    """Run the stage; its exit code, result and the folder of pairs."""
    folder = tmp_path / "inputs" / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": name, "path": f"{name}.txt", "text": text}) for name, text in texts.items()]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    settings = {"provider": "extractive", "openAI": None, "pairsPerDocument": 7, "sentencesPerChunk": 5,
                "minTextLength": 10, "seed": 42, **changes}  # fmt: skip
    request = StageRequest(
        stage=Stage.SDG,
        fingerprint=f"f{len(list(tmp_path.iterdir()))}",
        attempt=1,
        revision=1,
        image="i",
        settings=settings,
        inputs={Artefact.CORPUS: ArtefactRef(path="inputs/corpus", digest=digest_of_folder(folder))},
    )
    log = tmp_path / f"log-{request.fingerprint}"
    code = run(Stage.SDG, work, {"EFT_REQUEST": request.to_json(), "EFT_WORKSPACE": str(tmp_path),
                                 "EFT_TERMINATION_LOG": str(log)})  # fmt: skip
    result = json.loads(log.read_text())
    pairs = result["artefacts"].get(Artefact.PAIRS)
    return code, result, tmp_path / pairs["path"] if pairs else tmp_path
