"""Published models as small folders: their configurations in true proportion, random weights, tokenizers of their kind.

A row of `PUBLISHED` is one model that people name. To add one, write the figures of its config.json as they are
published; `scaled` keeps the size of a head, the queries a key head, positions and all else that is no mere size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel

_QUESTIONS = "what does the warranty of this pump cover how long is a contract valid who repairs it when water gets in"
_WORDS = _QUESTIONS.split()
LONGEST = 700  # words of the longest text: more than most models read
TEXTS = [  # lengths on both sides of where windows, buckets of distances and limits end
    "pump",
    "What does the warranty of this pump cover?",
    "How long is a contract valid, who repairs it?",
    *(
        " ".join(_WORDS[(start + 5 * step) % 21] for step in range(count))
        for start, count in enumerate((40, 190, LONGEST))
    ),
]
_LETTERS = "abcdefghijklmnopqrstuvwxyz.,:?"
# -> (tokenizer, what its files say of it)
MakeTokenizer: TypeAlias = Callable[[], tuple[Tokenizer, dict[str, Any]]]
_BRACKETS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ANGLES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>",
           "sep_token": "</s>", "mask_token": "<mask>"}  # fmt: skip
_FLAGS = ("mean_tokens", "cls_token", "lasttoken")


def _wordpiece(kind: str, named: Mapping[str, str], first: str, last: str) -> MakeTokenizer:
    def make() -> tuple[Tokenizer, dict[str, Any]]:
        pieces = [*dict.fromkeys(named.values()), *_WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
        ids = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token=named["unk_token"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = _ends(first, last, ids)
        return tokenizer, {"tokenizer_class": kind, "do_lower_case": True, **named}

    return make


def _unigram() -> tuple[Tokenizer, dict[str, Any]]:
    """XLM-RoBERTa's: pieces with scores, blanks as a mark before words."""
    marked = [f"▁{word}" for word in dict.fromkeys(_WORDS)]
    scores = dict.fromkeys(("<s>", "<pad>", "</s>", "<unk>"), 0.0) | dict.fromkeys(marked, -3.0)
    scores |= {"▁": -5.0} | dict.fromkeys(_LETTERS + _LETTERS.upper(), -6.0) | {"<mask>": 0.0}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
    ])  # fmt: skip
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = _ends("<s>", "</s>", {name: number for number, name in enumerate(scores)})
    return tokenizer, {"tokenizer_class": "XLMRobertaTokenizer", **_ANGLES}


def byte_level(kind: str, named: Mapping[str, str], *, first: str | None, last: str | None) -> MakeTokenizer:
    """Bytes, none joined; `first` and `last` are put around a text."""

    def make() -> tuple[Tokenizer, dict[str, Any]]:
        pieces = [*dict.fromkeys(named.values()), *sorted(pre_tokenizers.ByteLevel.alphabet())]
        ids = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(ids, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = _ends(first, last, ids)
        return tokenizer, {"tokenizer_class": kind, **named}

    return make


def _ends(first: str | None, last: str | None, ids: Mapping[str, int]) -> Any:
    around = [piece for piece in (first, "$A", last) if piece]
    special = [(piece, ids[piece]) for piece in dict.fromkeys((first, last)) if piece]
    return processors.TemplateProcessing(single=" ".join(around), special_tokens=special)


def _build(config: Mapping[str, Any]) -> torch.nn.Module:
    """The library's model of this configuration, as the library starts it."""
    known = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    model: torch.nn.Module = AutoModel.from_config(AutoConfig.for_model(config["model_type"], **known))
    return model


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model: what its files say."""

    name: str
    family: str
    config: Mapping[str, Any]
    tokenizer: MakeTokenizer
    pooling: str = "mean"  # `pooling_mode`
    prompts: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] | None = None  # of the manifest, where the files name none
    most_tokens: int = 512
    layers: int = 2
    dense: Sequence[tuple[int, int]] = ()  # (in, out) of its Dense modules, as many as there are
    build: Callable[[Mapping[str, Any]], Any] = _build


def scaled(config: Mapping[str, Any], *, layers: int, vocabulary: int) -> dict[str, Any]:
    """The configuration with few heads and layers; sizes shrink together, so that their ratios stay."""
    heads = config["num_attention_heads"]
    group = heads // config.get("num_key_value_heads", heads)
    fewer = group if group > 1 else 2
    sizes = {key: config[key] * fewer // heads for key in ("hidden_size", "intermediate_size")}
    if "num_key_value_heads" in config:
        sizes["num_key_value_heads"] = fewer // group
    sizes |= {"num_attention_heads": fewer, "num_hidden_layers": layers, "vocab_size": vocabulary}
    return dict(config) | sizes | {"initializer_range": 0.1}


def _modules(model: Published, folder: Path) -> Iterator[tuple[str, str]]:
    """(folder, kind) of each module; writes the Dense ones."""
    yield from (("", "Transformer"), ("1_Pooling", "Pooling"))
    for number, sizes in enumerate(model.dense, start=2):
        write_dense(folder / f"{number}_Dense", sizes, seed=number)
        yield f"{number}_Dense", "Dense"
    yield f"{2 + len(model.dense)}_Normalize", "Normalize"


def write_dense(
    folder: Path,
    sizes: tuple[int, int],
    *,
    bias: bool = False,
    activation: str = "torch.nn.modules.linear.Identity",
    seed: int,
) -> None:
    """The folder of one Dense module."""
    folder.mkdir()
    linear = torch.nn.Linear(*sizes, bias=bias)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"linear.{name}": torch.randn(value.shape, generator=generator) * 0.3
        for name, value in linear.named_parameters()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"in_features": sizes[0], "out_features": sizes[1], "bias": bias, "activation_function": activation}
    (folder / "config.json").write_text(json.dumps(config))


def write(model: Published, folder: Path) -> Path:
    """A folder as sentence-transformers' models are published, with random weights everywhere: norms and biases too."""
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer, told = model.tokenizer()
    config = scaled(model.config, layers=model.layers, vocabulary=tokenizer.get_vocab_size())
    torch.manual_seed(0)
    module = model.build(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    module.save_pretrained(folder)
    files: dict[str, Any] = {
        "config.json": config,
        "tokenizer_config.json": told | {"model_max_length": model.most_tokens},
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(_modules(model, folder))
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config["hidden_size"],
            **{f"pooling_mode_{flag}": flag.startswith(model.pooling) for flag in _FLAGS},
        },
        "sentence_bert_config.json": {"max_seq_length": model.most_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": dict(model.prompts), "similarity_fn_name": "cosine"},
    }  # fmt: skip
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


_BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", "max_position_embeddings": 512,
         "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0}  # fmt: skip
_BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
_XLM_R = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "hidden_act": "gelu", "type_vocab_size": 1,
          "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}  # fmt: skip
_FIRST_ALONE = {"pad_token": "<pad>", "bos_token": "<bos>"}
_SEARCH = {"query": "Represent this sentence for searching relevant passages: "}
_BERT_TOKENS = _wordpiece("BertTokenizer", _BRACKETS, "[CLS]", "[SEP]")

PUBLISHED: list[Published] = [
    Published(
        name="all-MiniLM-L6-v2",
        family="bert",
        config=_BERT | {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
        tokenizer=_BERT_TOKENS,
        most_tokens=256,
    ),
    Published(name="gte-base", family="bert", config=_BERT | _BASE, tokenizer=_BERT_TOKENS),
    Published(
        name="multilingual-e5-small",  # a BERT with XLM-RoBERTa's tokenizer, whose padding is another token
        family="bert",
        config=_BERT | {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
        tokenizer=_unigram,
        prefixes={"query": "query: ", "passage": "passage: "},
    ),
    Published(
        name="bge-base-en-v1.5",
        family="bert",
        config=_BERT | _BASE,
        tokenizer=_BERT_TOKENS,
        pooling="cls",
        prefixes={"query": _SEARCH["query"], "passage": ""},
    ),
    Published(
        name="snowflake-arctic-embed-m",
        family="bert",
        config=_BERT | _BASE,
        tokenizer=_BERT_TOKENS,
        pooling="cls",
        prompts=_SEARCH,
    ),
    Published(
        name="all-roberta-large-v1",
        family="roberta",
        config=_XLM_R | _LARGE | {"model_type": "roberta", "max_position_embeddings": 514},
        tokenizer=byte_level("RobertaTokenizer", _ANGLES, first="<s>", last="</s>"),
        most_tokens=256,
    ),
    Published(
        name="multilingual-e5-base",
        family="roberta",
        config=_XLM_R | _BASE | {"max_position_embeddings": 514},
        tokenizer=_unigram,
        prefixes={"query": "query: ", "passage": "passage: "},
    ),
    Published(
        name="bge-m3",
        family="roberta",
        config=_XLM_R | _LARGE | {"max_position_embeddings": 8194},
        tokenizer=_unigram,
        pooling="cls",
        most_tokens=8192,
    ),
    Published(
        name="snowflake-arctic-embed-l-v2.0",
        family="roberta",
        config=_XLM_R | _LARGE | {"max_position_embeddings": 8194},
        tokenizer=_unigram,
        pooling="cls",
        prompts={"query": "query: "},
        most_tokens=8192,
    ),
    Published(
        name="all-mpnet-base-v2",
        family="mpnet",
        config=_BASE
        | {"model_type": "mpnet", "architectures": ["MPNetModel"], "hidden_act": "gelu", "max_position_embeddings": 514,
           "relative_attention_num_buckets": 32, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0,
           "eos_token_id": 2},
        tokenizer=_wordpiece("MPNetTokenizer", _ANGLES | {"unk_token": "[UNK]"}, "<s>", "</s>"),
        most_tokens=384,
    ),
    Published(
        name="llama-nemotron-embed-1b-v2",
        family="llama_bidirectional",
        config={"model_type": "llama", "architectures": ["LlamaModel"], "is_causal": False, "hidden_size": 2048,
                "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192,
                "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
                "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 8192},
                "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "pooling": "avg"},
        tokenizer=byte_level("PreTrainedTokenizerFast", _FIRST_ALONE, first="<bos>", last=None),
        prompts={"query": "query: ", "document": "passage: "},
        most_tokens=512,
    ),
]  # fmt: skip
