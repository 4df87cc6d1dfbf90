"""The Dense modules of a sentence-transformers model: linear maps between its pooling and length 1.

What each is, and whether it can be reproduced. Standard library only; `dense_head` computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import FIELD, read_object
from embedding_stages.encoder.families import unsupported
from embedding_stages.encoder.modules import is_folder, modules_in
from embedding_stages.encoder.safetensors_check import SINGLE_FILE, check_weights, no_weights
from embedding_stages.errors import BadInput

if TYPE_CHECKING:
    import torch

WEIGHT: Final = "linear.weight"  # in a module's weight file, (out, in)
BIAS: Final = "linear.bias"  # (out,)
_TEXT_VECTOR: Final = "sentence_embedding"  # what sentence-transformers calls the vector of a text


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLayer:
    """One Dense module: activation(W v + b)."""

    folder: str  # beside config.json: its own config.json and weights
    in_features: int
    out_features: int
    bias: bool
    activation: str  # one of ACTIVATIONS

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> DenseLayer:
        """As encoder.json has it. Raises KeyError, TypeError or ValueError."""
        layer = cls(
            folder=str(raw["folder"]),
            in_features=int(raw["in_features"]),
            out_features=int(raw["out_features"]),
            bias=bool(raw["bias"]),
            activation=str(raw["activation"]),
        )
        if layer.activation not in ACTIVATIONS or not is_folder(layer.folder):
            raise ValueError(f"no Dense module that is known here: {raw}")
        return layer

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json as every version of sentence-transformers reads it."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": ACTIVATIONS[self.activation].written,
        }


@dataclass(frozen=True, slots=True)
class Activation:
    """A function between Dense modules."""

    written: str  # the class, as a Dense module's config.json names it
    apply: Callable[[torch.Tensor], torch.Tensor]


def _identity(value: torch.Tensor) -> torch.Tensor:
    return value


def _tanh(value: torch.Tensor) -> torch.Tensor:
    return value.tanh()


def _relu(value: torch.Tensor) -> torch.Tensor:
    return value.relu()


def _gelu(value: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.gelu(value)


ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "identity": Activation("torch.nn.modules.linear.Identity", _identity),
    "tanh": Activation("torch.nn.modules.activation.Tanh", _tanh),
    "relu": Activation("torch.nn.modules.activation.ReLU", _relu),
    "gelu": Activation("torch.nn.modules.activation.GELU", _gelu),
}
_CLASSES: Final = {each.written.rpartition(".")[-1]: name for name, each in ACTIVATIONS.items()}


def dense_of(folder: Path, hidden_size: int) -> tuple[DenseLayer, ...]:
    """The Dense modules that modules.json names, in order; the first one takes `hidden_size` numbers.

    Raises BadInput `BaseModelUnsupported`, `ModelIncomplete` or `ModelDamaged`.
    """
    layers = tuple(_layer(folder, path) for kind, path in modules_in(folder) if kind == "Dense")
    size = hidden_size
    for layer in layers:
        if layer.in_features != size:
            raise BadInput(
                "ModelDamaged",
                f"{layer.folder}/config.json takes {layer.in_features} numbers (in_features), what comes before it "
                f"gives {size}: they do not belong together",
                field=FIELD,
            )
        size = layer.out_features
    return layers


def check_dense(folder: Path, layers: Sequence[DenseLayer]) -> None:
    """That the weights of each are there, sound and of its sizes, by their headers alone.

    Raises BadInput `ModelIncomplete`, `ModelPickled` or `ModelDamaged`.
    """
    for layer in layers:
        place, what = folder / layer.folder, f"the module {layer.folder}"
        if not (place / SINGLE_FILE).is_file():
            raise no_weights((path.name for path in place.glob("*")), field=FIELD, what=what)
        tensors = check_weights(place, field=FIELD, what=what)
        wanted = {WEIGHT: (layer.out_features, layer.in_features)} | (
            {BIAS: (layer.out_features,)} if layer.bias else {}
        )
        for name, shape in wanted.items():
            found = tensors[name].shape if name in tensors else None
            if found != shape:
                raise BadInput(
                    "ModelDamaged",
                    f"{layer.folder}/{SINGLE_FILE}: {name} has shape {found and list(found)}, its config.json says "
                    f"{list(shape)}: they do not match",
                    field=FIELD,
                )


def _layer(folder: Path, path: str) -> DenseLayer:
    if not path:
        raise unsupported("its Dense module has no folder of its own")
    config = read_object(folder / path / "config.json")
    if not config:
        raise BadInput("ModelIncomplete", f"{path}/config.json is missing or empty; add it", field=FIELD)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, _TEXT_VECTOR):
            raise unsupported(f"the Dense module {path} computes {config[key]!r}, not the vector of a text")
    if config.get("use_residual"):
        raise unsupported(f"the Dense module {path} adds its input to its output (use_residual)")
    return DenseLayer(
        folder=path,
        in_features=_size(config, path, "in_features"),
        out_features=_size(config, path, "out_features"),
        bias=config.get("bias") is not False,
        activation=_activation(config, path),
    )


def _size(config: Mapping[str, Any], path: str, key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput("ModelDamaged", f"{path}/config.json: {key} is {value!r}, expected a number > 0", field=FIELD)
    return value


def _activation(config: Mapping[str, Any], path: str) -> str:
    """The library takes the hyperbolic tangent where the file names none."""
    named = config.get("activation_function", ACTIVATIONS["tanh"].written)
    if named is None:
        return "identity"
    package, _, kind = str(named).rpartition(".")
    if not package.startswith("torch.nn") or kind not in _CLASSES:
        known = ", ".join(_CLASSES)
        raise unsupported(f"the Dense module {path} has the activation {named!r}; only {known} can be used")
    return _CLASSES[kind]
