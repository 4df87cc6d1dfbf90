"""The transformer below the pooling: loaded from safetensors, saved by the names of the class without a head."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from safetensors.torch import save_file

from embedding_stages.encoder.configuration import FIELD, Config, for_saving
from embedding_stages.encoder.dense import DenseLayer
from embedding_stages.encoder.dense_head import DENSE, DenseHead
from embedding_stages.encoder.families import Family
from embedding_stages.encoder.safetensors_check import SINGLE_FILE, check_weights, weight_files
from embedding_stages.encoder.tensor_names import as_published, prefix_of
from embedding_stages.errors import BadInput

_NOT_OPENED: Final = re.compile(r"unable to (?:open|mmap)")


@dataclass(slots=True)
class Backbone:
    """`module` maps ids and mask to hidden states; the rest is what `save_backbone` needs to keep names."""

    module: torch.nn.Module
    family: Family
    config: dict[str, Any]  # config.json as found
    disk_names: Mapping[str, str]  # the module's parameter name -> the name in the file
    passengers: Mapping[str, torch.Tensor]  # tensors the encoder has no use for (a pooler): saved unchanged
    dense: DenseHead | None = None  # a child of `module` too: who trains, shards or exports that has its weights

    def hidden_states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) of ids and mask, int64 (batch, tokens). See `Family.states`."""
        states = self.family.states(self.module, ids, mask)
        if not isinstance(states, torch.Tensor):
            raise TypeError(f"the backbone answered {type(states)}, expected a tensor")
        return states

    def layers(self) -> list[torch.nn.Module]:
        """The module's layers, the first one first."""
        return list(self.module.get_submodule(self.family.layers).children())


def load_backbone(
    folder: Path, family: Family, *, device: str, dtype: torch.dtype, dense: Sequence[DenseLayer] = ()
) -> Backbone:
    """Read config.json and the safetensors of a model folder; nothing from a network, no code of the model's.

    Raises BadInput `ModelIncomplete`, `ModelPickled` or `ModelDamaged`, and OSError of a disk that is full or fails.
    """
    tensors = check_weights(folder, field=FIELD)
    config = json.loads((folder / "config.json").read_bytes())
    module = _load_module(folder, family, config, dtype)
    prefix = prefix_of(tensors, family)
    if prefix is None:
        raise BadInput("ModelIncomplete", f"the weights hold no {family.table}", field=FIELD)
    disk_names = {name: family.disk_name(prefix + name, tensors) for name, _ in module.named_parameters()}
    passengers = _read_tensors(folder, set(tensors) - set(disk_names.values()))
    head = DenseHead.load(folder, dense)
    if head is not None:
        module.add_module(DENSE, head.to(dtype))
    module.to(device=device)
    return Backbone(
        module=module.eval(),  # also while training: dropout stays off, as in the recipe's base model
        family=family,
        config=config,
        disk_names=disk_names,
        passengers=passengers,
        dense=head,
    )


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write config.json, model.safetensors and the Dense modules' folders in the module's present dtype."""
    tensors = {
        backbone.disk_names[name]: parameter.detach().to("cpu").contiguous()
        for name, parameter in backbone.module.named_parameters()
        if name in backbone.disk_names
    }
    if backbone.dense is not None:
        backbone.dense.save(folder)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config = for_saving(backbone.config, dtype)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    published = as_published(tensors | dict(backbone.passengers), backbone.family)
    save_file(published, folder / SINGLE_FILE, metadata={"format": "pt"})


def _load_module(folder: Path, family: Family, config: Config, dtype: torch.dtype) -> torch.nn.Module:
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "attn_implementation": "sdpa",
        "dtype": dtype,  # of the weights: the frequencies of rotary positions, no weights, keep their float32
        "output_loading_info": True,
    }
    _quiet()
    try:
        module, report = family.load(folder, config, options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, StrictDataclassError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the machine: the library's own have no number
            raise
        if _was_not_opened(error):
            raise OSError(str(error)) from error
        raise BadInput("ModelDamaged", f"the model cannot be loaded: {error}", field=FIELD) from error
    missing = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
    if missing:
        raise BadInput("ModelIncomplete", f"the weights lack {', '.join(missing[:3])}", field=FIELD)
    assert isinstance(module, torch.nn.Module)  # noqa: S101 - the library is untyped
    return module


def _was_not_opened(error: Exception) -> bool:
    """Whether safetensors or torch could not open or map a file, which they say without a number.

    `check_weights` has just read all of them, so the machine had no room for one more.
    """
    return isinstance(error, FileNotFoundError) or bool(_NOT_OPENED.search(str(error)))


def _quiet() -> None:
    """No bars and no table of tensors that are left out, a pooler's mostly: what is missing is refused here."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _read_tensors(folder: Path, names: set[str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(folder, field=FIELD):
        with safe_open(path, framework="pt") as file:
            found.update({name: file.get_tensor(name) for name in names.intersection(file.keys())})
    return found
