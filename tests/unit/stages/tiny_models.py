"""Random models small enough to train in a test, and a way to run a stage on a temporary workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)
from unit.stages.tiny_families import make_gemma3, make_ministral3, make_modernbert, make_qwen3

from embedding_stages import contract
from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest, StageResult
from embedding_stages.runner import Work, run

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny products are slower on more threads

TOPICS = 12
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["the", "of", "a", "query", "passage", ":", *(f"ask{i}" for i in range(TOPICS))]
_SPECIAL = {  # what a tokenizer's files call them, and their names in BERT and its kin
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}
WORDS += [*(f"key{i}" for i in range(TOPICS)), *(f"noise{i}" for i in range(40))]


def make_bert(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A BERT of two layers with a WordPiece tokenizer, as a Hugging Face folder."""
    return _make_post_norm(folder, BertConfig, BertModel, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), seed, changes)


def make_roberta(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A RoBERTa of two layers with positions for 48 tokens, and a WordPiece tokenizer."""
    changes = {"max_position_embeddings": 50, "type_vocab_size": 1} | changes
    return _make_post_norm(folder, RobertaConfig, RobertaModel, ("<s>", "<pad>", "</s>", "<unk>"), seed, changes)


def make_mpnet(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """An MPNet of two layers with positions for 48 tokens, and a WordPiece tokenizer."""
    changes = {"max_position_embeddings": 50} | changes
    return _make_post_norm(folder, MPNetConfig, MPNetModel, ("<s>", "<pad>", "</s>", "[UNK]"), seed, changes)


def _make_post_norm(
    folder: Path, configuration: Any, model: Any, special: Sequence[str], seed: int, changes: Mapping[str, Any]
) -> Path:
    """BERT or one of its kin; `special` are the first tokens, in the order of their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*special, *WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    padding, unknown, first, last = (next(x for x in names if x in special) for names in _SPECIAL.values())
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = (last, vocabulary[last]), (first, vocabulary[first])
    tokenizer.post_processor = processors.BertProcessing(*ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
        "initializer_range": 0.2,
        "hidden_act": "gelu",
        "pad_token_id": vocabulary[padding],
    }
    torch.manual_seed(seed)
    model(configuration(**config | changes)).save_pretrained(folder)
    names = dict(zip(_SPECIAL, (padding, unknown, first, last), strict=True))
    _write_tokenizer_files(folder, names, "BertTokenizerFast" if padding == "[PAD]" else "PreTrainedTokenizerFast")
    return folder


def make_llama(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A bidirectional Llama of two layers with a byte-level BPE tokenizer, as a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<pad>", "<bos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    torch.manual_seed(seed)
    model = LlamaModel(LlamaConfig(**config | changes))
    model.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "pooling": "avg"}
    raw["auto_map"] = {"AutoModel": "remote_code.LlamaBidirectionalModel"}  # must be ignored, never run
    (folder / "config.json").write_text(json.dumps(raw))
    _write_tokenizer_files(folder, {"bos_token": "<bos>", "pad_token": "<pad>"}, "PreTrainedTokenizerFast")
    return folder


# A tiny model of every family, by the family's name: test_families.py holds each to what all must do.
MAKERS: dict[str, Callable[..., Path]] = {
    "bert": make_bert,
    "roberta": make_roberta,
    "mpnet": make_mpnet,
    "modernbert": make_modernbert,
    "llama_bidirectional": make_llama,
    "ministral3_bidirectional": make_ministral3,
    "qwen3": make_qwen3,
    "gemma3_text": make_gemma3,
}


def write_topics(folder: Path) -> Path:
    """Queries name a topic by one word, passages by another: only training can bring them together."""
    folder.mkdir()
    passages = [
        {"id": f"p{topic}-{copy}", "text": f"the key{topic} of" + f" noise{7 * topic % 40}" * (4 * copy)}
        for topic in range(TOPICS)
        for copy in range(2)
    ]
    records = [
        {
            "query": f"a ask{topic} noise{copy}",
            "positive": f"p{topic}-{copy}",
            "negatives": [f"p{(topic + step) % TOPICS}-{(copy + step) % 2}" for step in (1, 2, 5)],
        }
        for topic in range(TOPICS)
        for copy in range(2)
    ]
    for name, lines in (("passages.jsonl", passages), ("train.jsonl", records)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run_stage(
    stage: Stage,
    work: Work,
    workspace: Path,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[Artefact, Path],
    fingerprint: str = "f" * 64,
) -> tuple[int, StageResult]:
    """Run a stage's work under the real frame; `inputs` are folders below `workspace`."""
    request = StageRequest(
        stage=stage,
        fingerprint=fingerprint,
        attempt=1,
        revision=1,
        image="test",
        settings=settings,
        inputs={
            name: ArtefactRef(path=path.relative_to(workspace).as_posix(), digest=digest_of_folder(path))
            for name, path in inputs.items()
        },
    )
    log = workspace / "termination-log"
    env = {
        contract.ENV_REQUEST: request.to_json(),
        contract.ENV_WORKSPACE: str(workspace),
        contract.ENV_TERMINATION_LOG: str(log),
    }
    return run(stage, work, env), StageResult.from_json(log.read_text())


def _write_tokenizer_files(folder: Path, special: Mapping[str, str], kind: str) -> None:
    config = {"tokenizer_class": kind, "model_max_length": 1_000_000_000_000, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(dict(special)))
