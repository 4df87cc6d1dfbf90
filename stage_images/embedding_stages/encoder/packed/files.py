"""A packed model's weights in a folder of files: read into its views, and saved as the padded model saves them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from embedding_stages.encoder.configuration import FIELD, for_saving
from embedding_stages.encoder.dense import DenseLayer, check_dense
from embedding_stages.encoder.dense_head import ON_DISK, save_layer
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.families import Family
from embedding_stages.encoder.packed.base import PackedModel
from embedding_stages.encoder.safetensors_check import SINGLE_FILE, check_weights, weight_files
from embedding_stages.encoder.tensor_names import as_published, prefix_of
from embedding_stages.errors import BadInput


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files that a model was read from."""

    folder: Path
    family: Family
    names: Mapping[str, str]  # on disk, by the model's own (`PackedModel.on_disk`)
    # In which the weights came and are saved, by name on disk; in front of those of Dense modules is their folder.
    dtypes: Mapping[str, torch.dtype]

    @classmethod
    def fill(cls, model: PackedModel, folder: Path, description: EncoderDescription) -> ModelFiles:
        """Read `model`'s weights from the safetensors in `folder`. Raises BadInput `ModelIncomplete`."""
        tensors, family = check_weights(folder, field=FIELD), description.family
        prefix = prefix_of(tensors, family)
        if prefix is None:
            raise BadInput("ModelIncomplete", f"the weights hold no {family.table}", field=FIELD)
        names = {name: family.disk_name(prefix + name, tensors) for name, _ in model.on_disk()}
        check_dense(folder, model.dense)
        dtypes = _read({names[name]: view for name, view in model.on_disk()}, folder)
        return cls(folder, family, names, dtypes | _read_dense(model, folder))

    def read(self, model: PackedModel, flat: torch.Tensor) -> None:
        """Read the weights once more, into `flat`, which is laid out like the model's."""
        _read({self.names[name]: view for name, view in model.on_disk(flat)}, self.folder)
        _read_dense(model, self.folder, flat)

    def save(self, model: PackedModel, folder: Path, flat: torch.Tensor | None = None) -> None:
        """Write config.json and the weights: those in `flat`, or the model's own."""
        config = json.loads((self.folder / "config.json").read_bytes())
        ours = {self.names[name]: value for name, value in model.on_disk(flat)}
        sizes = Counter[torch.dtype]()
        for name, value in ours.items():
            sizes[self.dtypes[name]] += value.numel()
        config = for_saving(config, str(sizes.most_common(1)[0][0]).removeprefix("torch."))
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        # Rounded where they are: a copy that has to round crosses in full precision and is rounded by the host.
        tensors = {name: value.to(self.dtypes[name]).cpu().contiguous() for name, value in ours.items()}
        published = as_published(tensors | dict(self._others()), self.family)
        save_file(published, folder / SINGLE_FILE, metadata={"format": "pt"})
        parts: list[dict[str, torch.Tensor]] = [{} for _ in model.dense]
        for number, part, value in model.dense_views(flat):
            parts[number][part] = value.to(self.dtypes[_dense_name(model.dense[number], part)])
        for layer, values in zip(model.dense, parts, strict=True):
            save_layer(folder, layer, values)

    def _others(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Tensors that the encoder has no use for: saved unchanged."""
        for path in weight_files(self.folder, field=FIELD):
            with safe_open(path, framework="pt") as file:
                yield from ((name, file.get_tensor(name)) for name in set(file.keys()) - self.dtypes.keys())


def _read(views: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.dtype]:
    """Read the weights from safetensors into `views`, by name on disk; the dtypes they have there. Raises BadInput."""
    wanted = dict(views)
    dtypes: dict[str, torch.dtype] = {}
    for path in weight_files(folder, field=FIELD):
        with safe_open(path, framework="pt") as file:
            for name in wanted.keys() & set(file.keys()):
                tensor = file.get_tensor(name)
                view = wanted.pop(name)
                if tensor.shape != view.shape:
                    raise BadInput(
                        "ModelIncomplete",
                        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(view.shape)}",
                        field=FIELD,
                    )
                dtypes[name] = tensor.dtype
                view.copy_(tensor)
    if wanted:
        raise BadInput("ModelIncomplete", f"the weights lack {', '.join(sorted(wanted)[:3])}", field=FIELD)
    return dtypes


def _read_dense(model: PackedModel, folder: Path, flat: torch.Tensor | None = None) -> dict[str, torch.dtype]:
    """Read the Dense modules' weights into their views; the dtypes they have there."""
    dtypes: dict[str, torch.dtype] = {}
    for number, part, view in model.dense_views(flat):
        layer = model.dense[number]
        tensor = load_file(folder / layer.folder / SINGLE_FILE)[ON_DISK[part]]
        dtypes[_dense_name(layer, part)] = tensor.dtype
        view.copy_(tensor)
    return dtypes


def _dense_name(layer: DenseLayer, part: str) -> str:
    return f"{layer.folder}/{ON_DISK[part]}"
