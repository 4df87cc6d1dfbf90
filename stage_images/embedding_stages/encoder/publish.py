"""A checkpoint's folder as other libraries read it: tokenizer, sentence-transformers' files, config.json, model card.

sentence-transformers writes two forms. Its own releases from 5.4 on write `pooling_mode` and the full paths of its
modules, which servers of the same time (vLLM's issue 45995, llama.cpp's converter) pass over without a word: they pool
as the family usually does. All of them, and every release of the library, read the older
form, so that is what is written: `sentence_transformers.models.<Kind>`, one flag a pooling, of which one is true. No
other value in that file may be true: vLLM takes the first that is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from embedding_stages.encoder.card import LICENCES, write_card
from embedding_stages.encoder.configuration import for_saving, read_object
from embedding_stages.encoder.description import MATRYOSHKA_KEY, EncoderDescription
from embedding_stages.encoder.modules import MODULES_FILE
from embedding_stages.encoder.pooling import POOLINGS
from embedding_stages.encoder.query_map import QueryMap

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
)
_OTHERS_TOKENIZER_FILES: Final = (  # none of which the stages read, as tokenizer.json says the same
    "vocab.json", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model",
)  # fmt: skip
_NOTICES: Final = ("NOTICE", "NOTICE.md", "NOTICE.txt")
_POOLING_FLAGS: Final = (  # that every version of sentence-transformers expects in a Pooling module's config.json
    "pooling_mode_mean_tokens",
    "pooling_mode_cls_token",
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
)
_LINEAR: Final = "linear.weight"  # of a Dense module


def publish(description: EncoderDescription, query_map: QueryMap | None, source: Path, folder: Path) -> None:
    """Write all that belongs beside config.json and the weights, which are there; the model came from `source`.

    config.json becomes one that libraries read without the model's own code, encoder.json is written as well. Needs
    the safetensors library for a model with a query map.
    """
    copy_tokenizer(source, folder)
    _copy(source, folder, (*_OTHERS_TOKENIZER_FILES, *LICENCES, *_NOTICES))
    description.save(folder)
    config = for_saving(read_object(folder / "config.json", required=True))  # with a query map it is the base model's
    config = description.family.published(config, description.pooling)
    if len(description.dimensions) > 1 or MATRYOSHKA_KEY in config:  # a server refuses other sizes than these
        config = {**config, MATRYOSHKA_KEY: sorted(description.dimensions)}
    _write(folder / "config.json", config, sort_keys=True)
    if query_map is not None:
        query_map.save(folder)
    _write_modules(description, query_map, folder)
    write_card(folder, description)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files that exist, unchanged."""
    _copy(source, target, TOKENIZER_FILES)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file() and source != target:
            shutil.copyfile(source / name, target / name)


def _write_modules(description: EncoderDescription, query_map: QueryMap | None, folder: Path) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    kinds += [(layer.folder, "Dense") for layer in description.dense]  # whose files are written with the weights
    if query_map is not None:
        router = f"{len(kinds)}_Router"
        kinds.append((router, "Router"))
        _write_router(query_map, folder / router)
    kinds.append((f"{len(kinds)}_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    chosen = POOLINGS[description.pooling].module_flag
    pooling = {"word_embedding_dimension": description.hidden_size, chosen: True}
    pooling |= {flag: False for flag in _POOLING_FLAGS if flag != chosen}
    query, passage = (description.prefixes[role] for role in ("query", "passage"))
    # encode_document of sentence-transformers 5 looks for "document", others ask for "passage".
    prompts = {"query": query, "passage": passage, "document": passage}
    texts = {"max_seq_length": description.max_tokens, "do_lower_case": False}
    library = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    _write(folder / MODULES_FILE, modules)
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "sentence_bert_config.json", texts)
    _write(folder / "config_sentence_transformers.json", library)


def _write_router(query_map: QueryMap, folder: Path) -> None:
    """Queries go through the map, documents and what nobody says the role of through nothing."""
    from safetensors.numpy import save_file

    query, document = ("query_0_Dense", "document_0_Normalize")
    kinds = {query: "Dense", document: "Normalize"}
    size = len(query_map.weight)
    dense: dict[str, Any] = {"in_features": size, "out_features": size, "bias": False}
    router: dict[str, Any] = {
        "types": {name: f"sentence_transformers.models.{kind}" for name, kind in kinds.items()},
        "structure": {"query": [query], "document": [document]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    _write(folder / "router_config.json", router)
    _write(folder / query / "config.json", dense | {"activation_function": "torch.nn.modules.linear.Identity"})
    save_file({_LINEAR: query_map.weight}, folder / query / "model.safetensors", metadata={"format": "pt"})


def _write(path: Path, content: Any, *, sort_keys: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=sort_keys)
    path.write_text(text + "\n", encoding="utf-8")
