"""The encoder as a torch module: texts to vectors of length 1, the same in every stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from embedding_stages.encoder.backbone import Backbone, load_backbone, save_backbone
from embedding_stages.encoder.description import EncoderDescription, Role, description_of
from embedding_stages.encoder.hardware import usable_cpus
from embedding_stages.encoder.pooling import POOLINGS, Pooling
from embedding_stages.encoder.query_map import QueryMap, as_role
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.vectors import Vectors

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
)
_POOLING_FLAGS = (  # that every version of sentence-transformers expects in a Pooling module's config.json
    "pooling_mode_mean_tokens",
    "pooling_mode_cls_token",
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
)


class PaddedEncoder:
    """The `Encoder` over padded batches: a description, a tokenizer and a backbone.

    `vectors` is what the trainer differentiates: before the query map, where there is one.
    """

    batched: Final = True

    def __init__(
        self,
        description: EncoderDescription,
        tokenizer: TextTokenizer,
        backbone: Backbone,
        source: Path,
        query_map: QueryMap | None = None,
    ) -> None:
        self.description = description
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.query_map = query_map
        self._source = source

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> PaddedEncoder:
        """From a model folder: an artefact with encoder.json, or a plain Hugging Face folder.

        By default on the GPU in bfloat16 when there is one, else on the CPU in float32 with as many threads
        as the container may use. Raises BadInput (see `describe_model`).
        """
        folder = Path(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype is None:
            dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        if device == "cpu":
            torch.set_num_threads(usable_cpus())
        description = description_of(folder)
        backbone = load_backbone(folder, description.family, device=device, dtype=dtype)
        tokenizer, query_map = TextTokenizer.load(folder, description), QueryMap.load(folder, description)
        return cls(description, tokenizer, backbone, folder, query_map)

    @property
    def module(self) -> torch.nn.Module:
        return self.backbone.module

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def vectors(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Token ids of n texts -> float32 (n, hidden) of length 1, in one forward pass, differentiable."""
        ids, mask = (torch.from_numpy(array).to(self.device) for array in self.tokenizer.pad(rows))
        return pool(self.backbone.hidden_states(ids, mask), mask, self.description.pooling)

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Vectors:
        """See `Encoder.embed`."""
        rows = self.tokenizer.encode(texts, role)
        # Longest first: when memory is short it shows at once.
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        result = np.zeros((len(rows), self.description.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                result[chosen] = self.vectors([rows[index] for index in chosen]).cpu().numpy()
                if progress is not None:
                    progress(start + len(chosen), len(order))
        return as_role(result, role, self.query_map)

    def save(self, folder: Path) -> None:
        """See `Encoder.save`. This class, transformers and, for some families, sentence-transformers can load it."""
        folder.mkdir(parents=True, exist_ok=True)
        save_backbone(self.backbone, folder)
        copy_tokenizer(self._source, folder)
        self.description.save(folder)
        if self.query_map is not None:
            self.query_map.save(folder)
        if self.description.family.sentence_transformers:
            save_sentence_transformers(self.description, folder)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling = "mean") -> torch.Tensor:
    """One vector a text, of length 1, in float32 (n, hidden).

    `states` (n, tokens, hidden), `mask` int64 (n, tokens), padding on the right. The mean is the NVIDIA embed
    recipe's, profile llama: pooling avg, l2_normalize.
    """
    with torch.autocast(states.device.type, enabled=False):
        return torch.nn.functional.normalize(POOLINGS[pooling].padded(states.float(), mask), p=2.0, dim=-1)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files that exist, unchanged."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and source != target:
            shutil.copyfile(source / name, target / name)


def save_sentence_transformers(description: EncoderDescription, folder: Path) -> None:
    """Write what makes sentence-transformers load the folder as it is."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    chosen = POOLINGS[description.pooling].module_flag
    pooling = {"word_embedding_dimension": description.hidden_size, chosen: True}
    pooling |= {flag: False for flag in _POOLING_FLAGS if flag != chosen}
    prompts = {"query": description.prefixes["query"], "document": description.prefixes["passage"]}
    files: dict[str, object] = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": description.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": prompts, "similarity_fn_name": "cosine"},
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
