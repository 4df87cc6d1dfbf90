"""Adapters on a Llama over packs: memory and time of a step under a limit of memory, by the stage's own trainer.

python3 bench/lora.py --model llama-1b --limit-gb 16
python3 bench/lora.py --model llama-8b --limit-gb 40

Random weights are made on the card, in bfloat16; nothing is written to a disk. The limit holds for what this process
allocates; the card's own share of it (context, libraries, compiled programs) is kept back before, and the last line
says what the card counted in all. Exit status 1 when that was above the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from tokenizers import Tokenizer  # noqa: E402

from bench.checkpoint import DEVIATION, config_of_llama, tokenizer_of  # noqa: E402
from bench.measure import StepClock, peak_gb, versions  # noqa: E402
from bench.models import SHAPES, Shape  # noqa: E402
from bench.workload import MAX_TOKENS, PAD_ID, PASSAGES, training_steps  # noqa: E402
from embedding_stages.contract.settings import Lora  # noqa: E402
from embedding_stages.encoder.description import EncoderDescription  # noqa: E402
from embedding_stages.encoder.families import family_of  # noqa: E402
from embedding_stages.encoder.packed.encoder import PackedEncoder  # noqa: E402
from embedding_stages.encoder.packed.files import ModelFiles  # noqa: E402
from embedding_stages.encoder.packed.packs import Ragged  # noqa: E402
from embedding_stages.encoder.tokens import TextTokenizer  # noqa: E402
from embedding_stages.finetune.batches import Example  # noqa: E402
from embedding_stages.finetune.packed_lora import add_packed_adapters  # noqa: E402
from embedding_stages.finetune.packed_trainer import PackedTrainer  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
RATE = 1e-4
OUTSIDE_GB = 1.0  # of the card, that is no tensor of ours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    llamas = [name for name, shape in SHAPES.items() if shape.family == "llama"]
    parser.add_argument("--model", choices=llamas, default="llama-1b")
    parser.add_argument("--limit-gb", type=float, default=16.0, help="10^9 bytes of the card")
    parser.add_argument("--lengths", default="A", help="length model of the passages, see workload.py")
    parser.add_argument("--examples", type=int, default=64, help="queries an optimizer step, 5 passages each")
    parser.add_argument("--steps", type=int, default=3, help="timed optimizer steps")
    parser.add_argument("--warmup", type=int, default=1, help="optimizer steps before them")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="all-linear", help="names of layers, with commas between")
    options = parser.parse_args()
    started = time.perf_counter()
    _limit(options.limit_gb)
    shape = SHAPES[options.model]
    encoder = random_encoder(shape)
    targets = tuple(options.targets.split(","))
    lora = add_packed_adapters(encoder, Lora(rank=options.rank, alpha=2 * options.rank, targets=targets), seed=1)
    trainer = PackedTrainer(encoder, temperature=0.02, weight_decay=0.01, adapters=lora)
    count = options.warmup + options.steps
    batches = training_steps(options.lengths, steps=count, examples=options.examples, seed=1234, shape=shape)
    texts = Ragged.of([row.tolist() for batch in batches for example in batch for row in example])
    firsts = range(0, len(texts.lengths), 1 + PASSAGES)
    examples = [Example(first, tuple(range(first + 1, first + 1 + PASSAGES))) for first in firsts]
    trainer.find_budget(examples, texts)
    steps = [examples[begin : begin + options.examples] for begin in range(0, len(examples), options.examples)]
    ready = time.perf_counter() - started
    clock = StepClock(DEVICE)
    clock.start()
    losses = []
    for step, following in zip(steps, [*steps[1:], []], strict=True):
        losses.append(trainer.step(step, texts, RATE, following=following).loss)
        clock.mark()
    milliseconds = clock.durations_ms()[options.warmup :]
    seconds = sum(milliseconds) / len(milliseconds) / 1000
    tokens = int(texts.lengths.sum()) / count
    card = _card_gb()
    print(
        json.dumps(
            {
                "model": options.model,
                "frozen": encoder.model.flat.numel(),
                "trained": trainer.trained,
                "tokensPerPack": trainer.token_budget,
                "secondsAStep": round(seconds, 3),
                "tokensPerSecond": round(tokens / seconds),
                "peakTensorsGb": round(peak_gb(DEVICE), 2),
                "cardGb": round(card, 2),
                "limitGb": options.limit_gb,
                "losses": [round(loss, 4) for loss in losses],
                "secondsBefore": round(ready, 1),
                **versions(),
            }
        )
    )
    return int(card > options.limit_gb)


def random_encoder(shape: Shape) -> PackedEncoder:
    """A Llama of this shape whose random weights were never in a file."""
    config = config_of_llama(shape)
    description = EncoderDescription(
        architecture=family_of(config).name,
        prefixes={"query": "", "passage": ""},
        max_tokens=MAX_TOKENS,
        hidden_size=shape.hidden,
        dimensions=(shape.hidden,),
    )
    if DEVICE == "cuda":
        torch.backends.cuda.preferred_blas_library("cublaslt")  # as PackedEncoder.load does
    model = description.family.packed_model().of(config, description, device=DEVICE, dtype=DTYPE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    with torch.no_grad():
        for value in model.named.values():
            if value.dim() == 1:
                value.fill_(1.0)  # a norm's
            else:
                value.normal_(0.0, DEVIATION, generator=generator)
    tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(tokenizer_of(shape))), description, PAD_ID)
    return PackedEncoder(description, tokenizer, model, ModelFiles(Path("nowhere"), {}, {}))


def _limit(gigabytes: float) -> None:
    if DEVICE == "cuda":
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (gigabytes - OUTSIDE_GB) * 1e9 / total))


def _card_gb() -> float:
    """What the card counts as taken, by whomever."""
    if DEVICE != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
