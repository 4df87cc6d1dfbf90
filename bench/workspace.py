"""The stages with one model and one set of documents, each through its own entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from embedding_stages import contract
from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest, StageResult
from embedding_stages.contract import settings as tables
from embedding_stages.contract.presets import scores_candidates, with_preset
from embedding_stages.encoder.dense import WEIGHT, DenseLayer
from embedding_stages.encoder.description import EncoderDescription, describe_model
from embedding_stages.formats import beir, documents
from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.lines import write_records

ROOT: Final = Path(__file__).resolve().parent.parent
SEEDED: Final = (Stage.SDG, Stage.PREP, Stage.FINETUNE)
_MODULES: Final = {Stage.EVAL: "evaluate"}


class Bench:
    """One workspace: a base model, one set's documents, and what the stages make of them."""

    def __init__(
        self,
        root: Path,
        model: Path,
        texts: Iterable[tuple[str, str]],
        asked: Mapping[str, Mapping[str, Any]],
        max_tokens: int | None = None,
    ) -> None:
        """`texts` are names and texts of documents."""
        self.root, self.stages, self.refs = root, with_preset(asked), dict[Artefact, ArtefactRef]()
        self.seconds = dict[Stage, float]()
        corpus = self._folder(Artefact.CORPUS)
        write_records(corpus / documents.FILE, ({"id": f"d{i}", "path": i, "text": text} for i, text in texts if text))
        shutil.copytree(model, self._folder(Artefact.BASE_MODEL), dirs_exist_ok=True)
        base = self._folder(Artefact.BASE_MODEL)
        describe_model(base, prefixes=None, max_tokens=max_tokens).save(base)
        self._keep(Artefact.CORPUS)
        self._keep(Artefact.BASE_MODEL)

    def judged(self, source: Path) -> ArtefactRef:
        """The set with the queries that have a relevant passage: the others have no score."""
        return self._ref(_judged_set(source, self.root / "judged"))

    def run(self, stage: Stage, seed: int, name: str = "", **inputs: ArtefactRef) -> StageResult:
        """The stage's own entry point in a process of its own. Raises RuntimeError with its last words."""
        settings = self._settings(stage) | ({"seed": seed} if stage in SEEDED else {})
        request = StageRequest(
            stage=stage,
            fingerprint=f"{stage}-{seed}{name}",
            attempt=1,
            revision=1,
            image="bench",
            settings=settings,
            inputs=self.refs | {Artefact(key): ref for key, ref in inputs.items()},
        )
        log = self.root / "termination-log"
        env = os.environ | {
            contract.ENV_REQUEST: request.to_json(),
            contract.ENV_WORKSPACE: str(self.root),
            contract.ENV_TERMINATION_LOG: str(log),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "stage_images"), os.environ.get("PYTHONPATH", "")]),
        }
        module = f"embedding_stages.{_MODULES.get(stage, stage.value)}"
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", module], env=env, capture_output=True, text=True, check=False)
        self.seconds[stage] = time.monotonic() - began
        if done.returncode:
            said = log.read_text() if log.is_file() else ""
            raise RuntimeError(f"{stage} ended with {done.returncode}: {said[-600:]} {done.stderr[-600:]}")
        result = StageResult.from_json(log.read_text())
        self.refs |= result.artefacts
        return result

    def _settings(self, stage: Stage) -> dict[str, Any]:
        """What the operator would tell the stage of these settings; what it alone tells can be set too."""
        section = self.stages.get(stage.value) or {}
        settings = tables.OF_STAGE[stage].parse(section).to_json() | section
        if stage is Stage.SDG:
            settings |= {"provider": "extractive", "openAI": None}
        if stage is Stage.PREP:
            settings |= {"scoreCandidates": scores_candidates(self.stages)}
        if stage is Stage.FINETUNE:
            settings |= {name: float(settings[name]) for name in ("temperature", "learningRate")}
        return settings

    def part_of_the_way(self, share: float) -> ArtefactRef:
        """A checkpoint whose weights are base + share * (tuned - base)."""
        base, tuned = (self.root / self.refs[name].path for name in (Artefact.BASE_MODEL, Artefact.CHECKPOINT))
        folder = self.root / f"share-{share:g}"
        shutil.copytree(tuned, folder)
        before, after = (load_file(one / "model.safetensors") for one in (base, tuned))
        mixed = {name: torch.lerp(before[name].float(), after[name].float(), share) for name in after}
        save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
        return self._ref(folder)

    def cut(self, artefact: Artefact, numbers: int) -> ArtefactRef:
        """The model with vectors of the first so many numbers: a Dense module takes them."""
        folder = self.root / f"{artefact}-{numbers}"
        shutil.copytree(self.root / self.refs[artefact].path, folder)
        known = EncoderDescription.load(folder)
        layer = DenseLayer(
            folder="Cut", in_features=known.vector_size, out_features=numbers, bias=False, activation="identity"
        )
        (folder / layer.folder).mkdir()
        (folder / layer.folder / "config.json").write_text(json.dumps(layer.config))
        save_file({WEIGHT: torch.eye(numbers, known.vector_size)}, folder / layer.folder / "model.safetensors")
        replace(known, dense=(*known.dense, layer), dimensions=(numbers,)).save(folder)
        return self._ref(folder)

    def _folder(self, name: Artefact) -> Path:
        folder = self.root / "given" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _keep(self, name: Artefact) -> None:
        self.refs[name] = self._ref(self._folder(name))

    def _ref(self, folder: Path) -> ArtefactRef:
        return ArtefactRef(path=folder.relative_to(self.root).as_posix(), digest=digest_of_folder(folder))


def _judged_set(source: Path, folder: Path) -> Path:
    folder.mkdir()
    reader = BeirReader.of(source)
    queries = list(reader.queries())
    judgements = list(reader.judgements({query.id for query in queries}))
    scored = {one.query_id for one in judgements if one.score > 0}
    beir.write_passages(folder, reader.passages())
    beir.write_queries(folder, (query for query in queries if query.id in scored))
    beir.write_judgements(folder, (one for one in judgements if one.query_id in scored))
    return folder
