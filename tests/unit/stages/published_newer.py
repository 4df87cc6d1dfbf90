"""Published models of the newer families; see `published`."""

from __future__ import annotations

from unit.stages.published import Published, byte_level

_ENDS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# Ministral 3's own, with fewer original positions: queries grow within the texts of the tests.
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}

NEWER: list[Published] = [
    Published(
        name="gte-modernbert-base",
        family="modernbert",
        config={"model_type": "modernbert", "architectures": ["ModernBertModel"], "hidden_size": 768,
                "num_attention_heads": 12, "intermediate_size": 1152, "global_attn_every_n_layers": 3,
                "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "local_attention": 128,
                "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5, "norm_bias": False,
                "attention_bias": False, "mlp_bias": False, "position_embedding_type": "absolute", **_IDS},
        tokenizer=byte_level(
            "PreTrainedTokenizerFast",
            {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}, first="[CLS]", last="[SEP]",
        ),
        pooling="cls",
        most_tokens=600,
    ),
    Published(
        name="Nemotron-3-Embed-1B",
        family="ministral3_bidirectional",
        config={"model_type": "ministral3", "architectures": ["Ministral3Model"], "is_causal": False, "pooling": "avg",
                "hidden_size": 2048, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
                "intermediate_size": 6144, "hidden_act": "silu", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
                "rope_parameters": _YARN, "sliding_window": None, **_IDS},
        tokenizer=byte_level("PreTrainedTokenizerFast", _ENDS, first="<bos>", last=None),
        prompts={"query": "query: ", "document": "passage: "},
        most_tokens=600,  # beyond the original positions twice: queries grow
    ),
    Published(
        name="Qwen3-Embedding-0.6B",
        family="qwen3",
        config={"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024,
                "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
                "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
                "rope_scaling": None, "sliding_window": None, "use_sliding_window": False, "max_window_layers": 2,
                "tie_word_embeddings": True, "attention_bias": False, **_IDS},
        tokenizer=byte_level("Qwen2Tokenizer", {"pad_token": "<pad>", "eos_token": "<eos>"}, first=None, last="<eos>"),
        pooling="lasttoken",
        prompts={
            "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
            "document": "",
        },
    ),
    Published(  # its three heads are one group, which nothing divides: widths are a quarter of the published ones
        name="embeddinggemma-300m",
        family="gemma3_text",
        config={"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"], "hidden_size": 192,
                "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 288,
                "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 512,
                "_sliding_window_pattern": 6, "layer_types": ["sliding_attention", "full_attention"],
                "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None, "rms_norm_eps": 1e-6,
                "max_position_embeddings": 2048, "use_bidirectional_attention": True, "attention_bias": False, **_IDS},
        tokenizer=byte_level("PreTrainedTokenizerFast", _ENDS, first="<bos>", last="<eos>"),
        prompts={"query": "task: search result | query: ", "document": "title: none | text: ",
                 "Clustering": "task: clustering | query: ", "Retrieval-document": "title: none | text: "},
        dense=((192, 768), (768, 192)),
        most_tokens=600,
    ),
]  # fmt: skip
