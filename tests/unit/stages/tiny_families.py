"""Random models in the shapes and files of published ones, scaled down: as sentence-transformers finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    Ministral3Config,
    Ministral3Model,
    ModernBertConfig,
    ModernBertModel,
    Qwen3Config,
    Qwen3Model,
)
from unit.stages.published import write_dense

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
_IDS = {PAD: 0, BOS: 1, EOS: 2}
VOCABULARY = len(_IDS) + 256  # bytes
ST = "sentence_transformers.models"
QWEN3_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
GEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "BitextMining": "task: search result | query: ",
    "Clustering": "task: clustering | query: ",
    "Retrieval-document": "title: none | text: ",
}


def make_modernbert(folder: Path, *, seed: int = 0, pooling: str = "mean", **changes: Any) -> Path:
    """ModernBERT-base: the first layer and every third see all, no biases, two bases of the angles."""
    _tokenizer(folder, f"{BOS} $A {EOS}", cls_token=BOS, sep_token=EOS)
    config: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 8,
        "max_position_embeddings": 128,
        "position_embedding_type": "absolute",
        "initializer_range": 0.3,
        "pad_token_id": 0,
    } | changes
    _model(folder, ModernBertModel, ModernBertConfig, "modernbert", config, seed)
    _modules(folder, 32, pooling)
    return folder


def make_qwen3(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Qwen3-Embedding-0.6B: heads twice as wide as hidden / heads, an end token, an instruction before queries."""
    _tokenizer(folder, f"$A {EOS}", eos_token=EOS, tokenizer_class="Qwen2Tokenizer", padding_side="left")
    config: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 160,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": 2,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "bos_token_id": 2,
        "eos_token_id": 2,
    } | changes
    _model(folder, Qwen3Model, Qwen3Config, "qwen3", config, seed)
    _modules(folder, 32, "lasttoken", prompts={"query": QWEN3_QUERY, "document": ""})
    return folder


def make_ministral3(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Nemotron 3 Embed: heads that are not hidden / heads wide, YaRN, queries that grow with the position."""
    _tokenizer(folder, f"{BOS} $A", bos_token=BOS)
    config: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
        "sliding_window": None,
        "is_causal": False,
        "pooling": "avg",
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
    } | changes
    _model(folder, Ministral3Model, Ministral3Config, "ministral3", config, seed)
    _modules(folder, 32, "mean", prompts={"query": "query: ", "document": "passage: "})
    return folder


def make_gemma3(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """EmbeddingGemma: three wide heads and one of keys, windows, two Dense modules, a prompt a task."""
    _tokenizer(folder, f"{BOS} $A {EOS}", bos_token=BOS, eos_token=EOS)
    config: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 8,
        "_sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "max_position_embeddings": 128,
        "use_bidirectional_attention": True,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | changes
    _model(folder, Gemma3TextModel, Gemma3TextConfig, "gemma3_text", config, seed)
    _modules(folder, 24, "mean", dense=((24, 64), (64, 32)), prompts=GEMMA_PROMPTS)
    return folder


def list_modules(folder: Path, kinds: Sequence[tuple[str, str]]) -> None:
    """modules.json: (kind, folder) of each."""
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"{ST}.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


def _modules(
    folder: Path,
    hidden: int,
    pooling: str,
    *,
    dense: Sequence[tuple[int, int]] = (),
    prompts: Mapping[str, str] | None = None,
) -> None:
    names = [f"{number}_Dense" for number in range(2, 2 + len(dense))]
    last = ("Normalize", f"{2 + len(dense)}_Normalize")
    list_modules(folder, [("Transformer", ""), ("Pooling", "1_Pooling"), *(("Dense", name) for name in names), last])
    (folder / "1_Pooling").mkdir()
    flags = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    chosen = {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
    module = {"word_embedding_dimension": hidden, **chosen, "include_prompt": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(module))
    for number, (name, sizes) in enumerate(zip(names, dense, strict=True)):
        write_dense(folder / name, sizes, seed=number)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": false}')
    texts = {"prompts": dict(prompts or {}), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(texts))


def _model(folder: Path, kind: Any, settings: Any, model_type: str, config: Mapping[str, Any], seed: int) -> None:
    """Weights by the library, config.json as it was published: the library would write it in its newest form."""
    torch.manual_seed(seed)
    model = kind(settings(**config))
    with torch.no_grad():
        for name, value in model.named_parameters():  # norms that do nothing would not show when they are left out
            if "norm" in name:
                value.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    said = {"model_type": model_type, "architectures": [kind.__name__], "torch_dtype": "float32", **config}
    (folder / "config.json").write_text(json.dumps(said))


def _tokenizer(folder: Path, template: str, *, tokenizer_class: str = "PreTrainedTokenizerFast", **more: str) -> None:
    """Bytes, with the special tokens that `template` puts around a text."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate([*_IDS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_IDS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, number) for token, number in _IDS.items() if token in template]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": tokenizer_class, "model_max_length": 128, "pad_token": PAD, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
