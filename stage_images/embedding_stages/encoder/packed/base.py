"""What every model over packs is: its weights in one flat tensor, their gradients in another, and their names on disk.

All weights are views of one flat tensor (and their gradients of another), so the optimizer and the exchange of
gradients between accelerators work on long arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol, Self

import torch
from torch import nn

from embedding_stages.encoder.dense import DenseLayer
from embedding_stages.encoder.dense_head import DENSE, through
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.packed import check, ops
from embedding_stages.encoder.packed.branch import Branch
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.packed.ops import Heads
from embedding_stages.encoder.packed.pooling import PackedPooling

ALIGNMENT: Final = 128  # elements: each weight starts where wide loads may begin
_PACKS_OF_ROWS: Final = 4  # whose embedded tokens' gradients are kept: 1 % of what the packs take


class PackedShape(Protocol):
    """The sizes of a model, and how its weights lie in memory and on disk.

    Names of weights that the base class knows: `table`, of token embeddings (vocabulary, hidden); `first_plain`, the
    first that does not decay; and "<number>.qkv", the first of each layer.
    """

    @property
    def vocabulary(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> Heads: ...
    @property
    def pooling(self) -> PackedPooling: ...
    @property
    def table(self) -> str: ...
    @property
    def first_plain(self) -> str: ...

    def weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, shape) in the order of the flat tensor: tables, what decays layer after layer, then the rest."""

    def disk_names(self) -> Iterator[tuple[str, str, int, int]]:
        """(name on disk, our name, first row, rows) of every tensor of a checkpoint, without its prefix.

        Of 0 rows: one row, which has no first dimension on disk.
        """


class Trained(Protocol):
    """What an optimizer moves: a model's own weights, or adapters beside them."""

    flat: torch.Tensor
    decayed: int  # elements before it are matrices

    def views(self, flat: torch.Tensor | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, view of `flat`) of every tensor; `flat` is laid out like the flat weights, which it is when absent."""

    def hold_gradients(self) -> torch.Tensor:
        """The flat gradient, zeros where the flat weights are; backward passes add to it from now on."""

    def finish_gradients(self) -> None:
        """Add what backward passes have kept for later; once a step."""

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that is given up."""

    def finishing_order(self) -> list[tuple[int, int]]:
        """Ranges of the flat gradient in the order a backward pass finishes them; one a layer, then the rest."""


class PackedModel(nn.Module, ABC):
    """Maps a pack to the pooled last states of each sequence.

    The weights are zero until they are filled through `on_disk` and, those of Dense modules, `dense_views`.
    """

    padding = -1  # the token whose row of the table gets no gradient; -1 for none
    gated: ClassVar[bool] = False  # it uses the gated product, which is checked before a run

    def __init__(
        self, shape: PackedShape, *, device: str, dtype: torch.dtype, dense: Sequence[DenseLayer] = ()
    ) -> None:
        super().__init__()
        self.shape = shape
        self.dense = tuple(dense)
        self.branches: Mapping[str, Branch] = {}  # beside frozen weights, by their names
        self.places: dict[str, tuple[int, int]] = {}  # begin and end in the flat tensor
        place = 0
        for name, size in _weights(shape, dense):
            if name == shape.first_plain:
                self.decayed = place  # elements before it are matrices
            count = torch.Size(size).numel()
            self.places[name] = (place, place + count)
            place += -(-count // ALIGNMENT) * ALIGNMENT
        place = -(-place // ops.OPTIMIZER_BLOCK) * ops.OPTIMIZER_BLOCK
        self.flat = torch.zeros(place, device=device, dtype=dtype)
        self.named = {
            name: nn.Parameter(self.flat[self.places[name][0] : self.places[name][1]].view(size))
            for name, size in _weights(shape, dense)
        }
        for name, value in self.named.items():
            self.register_parameter(name.replace(".", "_"), value)
        self.gradient: torch.Tensor | None = None
        self.layer_done: Callable[[int], None] | None = None  # told of each layer whose backward pass is launched
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []  # gradients of the embedding table, not yet added

    @classmethod
    @abstractmethod
    def shape_of(cls, config: Mapping[str, Any], description: EncoderDescription) -> PackedShape:
        """From config.json. Raises ValueError with the reason when packs cannot run this model."""

    @classmethod
    @abstractmethod
    def of(cls, config: Mapping[str, Any], description: EncoderDescription, *, device: str, dtype: torch.dtype) -> Self:
        """The model of a config.json, its weights not filled yet. Raises what `shape_of` does."""

    @classmethod
    def kernel_errors(cls, shape: PackedShape, device: torch.device, dtype: torch.dtype) -> Iterator[float]:
        """The relative errors of the kernels that a model of this shape uses, each on random numbers."""
        yield check.attention_error(shape.heads, device, dtype)
        if cls.gated:
            yield check.gated_error(device, dtype)

    @abstractmethod
    def forward(self, pack: DevicePack) -> torch.Tensor:
        """float32 (n, hidden): the pooled last states. Not of length 1 yet."""

    def on_disk(self, flat: torch.Tensor | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """(name on disk without prefix, view of `flat`) of every tensor of a checkpoint.

        `flat` is laid out like the flat weights (moments, master weights); the weights themselves when absent.
        """
        flat = self.flat if flat is None else flat
        for name, ours, row, rows in self.shape.disk_names():
            begin, end = self.places[ours]
            view = flat[begin:end].view(self.named[ours].shape)
            yield name, view[row : row + rows] if rows else view[row]

    def dense_views(self, flat: torch.Tensor | None = None) -> Iterator[tuple[int, str, torch.Tensor]]:
        """(number of the module, weight or bias, view of `flat`) of every tensor of the Dense modules."""
        flat = self.flat if flat is None else flat
        for number, layer in enumerate(self.dense):
            for part in ("weight", "bias") if layer.bias else ("weight",):
                name = f"{DENSE}.{number}.{part}"
                begin, end = self.places[name]
                yield number, part, flat[begin:end].view(self.named[name].shape)

    def views(self, flat: torch.Tensor | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Trained.views`; by the names of `PaddedEncoder`'s module."""
        yield from self.on_disk(flat)
        yield from ((f"{DENSE}.{number}.{part}", view) for number, part, view in self.dense_views(flat))

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """float32 (n, vector size): pooled states through the Dense modules, where the model has any."""
        named = self.named
        parts = (
            (layer, named[f"{DENSE}.{number}.weight"], named.get(f"{DENSE}.{number}.bias"))
            for number, layer in enumerate(self.dense)
        )
        return through(pooled, parts)

    def freeze(self, branches: Mapping[str, Branch]) -> None:
        """From now on the weights stay as they are, without gradients; `branches` beside them have some."""
        for value in self.named.values():
            value.requires_grad_(False)
        self.branches = branches

    @property
    def frozen(self) -> bool:
        """Whether the weights stay as they are."""
        return bool(self.branches)

    def uses(self, name: str) -> bool:
        """Whether a backward pass needs the rows that the weight `name` was multiplied with."""
        return name in self.branches or not self.frozen

    def beside(self, name: str, out: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`out`, a product of rows with the weight `name` or a sum with it, and the branch's in place."""
        branch = self.branches.get(name)
        return out if branch is None else branch.add_(out, rows)

    def back(
        self,
        name: str,
        weight: torch.Tensor,
        grad: torch.Tensor,
        rows: torch.Tensor | None,
        past: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The gradient of rows in their product with `weight`, which has this name, and with the branch beside it.

        Added to `past`, the gradient of what went past the product, in place, where that is given.
        """
        before = grad @ weight if past is None else past.addmm_(grad, weight)
        branch = self.branches.get(name)
        return before if branch is None or rows is None else branch.backward_(before, grad, rows)

    def hold_gradients(self) -> torch.Tensor:
        """See `Trained`. In the weights' number format."""
        self.gradient = torch.zeros_like(self.flat)
        for name, value in self.named.items():
            begin, end = self.places[name]
            value.grad = self.gradient[begin:end].view_as(value)
        return self.gradient

    def finishing_order(self) -> list[tuple[int, int]]:
        """Ranges of the flat gradient in the order a backward pass finishes them.

        The matrices of each layer, the last layer first; then the embedding tables, then what does not decay.
        """
        ends = [self.places[f"{number}.qkv"][0] for number in range(self.shape.layers)] + [self.decayed]
        layers = [(ends[number], ends[number + 1]) for number in reversed(range(self.shape.layers))]
        return [*layers, (0, ends[0]), (self.decayed, len(self.flat))]

    def finish_gradients(self) -> None:
        """Add what is kept of the embedding table's gradient: once a step, for the table is large."""
        if not self._rows:
            return
        ids = torch.cat([ids for ids, _ in self._rows])
        rows = torch.cat([rows for _, rows in self._rows])
        self._rows.clear()
        table = self.named[self.shape.table]
        assert table.grad is not None  # noqa: S101 - rows are kept only beside a flat gradient
        size, padding = self.shape.vocabulary, self.padding
        table.grad += torch.ops.aten.embedding_dense_backward(rows, ids.long(), size, padding, False)

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that is given up."""
        self._rows.clear()
        if self.gradient is not None:
            self.gradient.zero_()

    def keep_rows(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Remember a pack's gradient of the embedded tokens, (T,) and (T, hidden)."""
        self._rows.append((ids, rows))
        if len(self._rows) >= _PACKS_OF_ROWS:
            self.finish_gradients()


def _weights(shape: PackedShape, dense: Sequence[DenseLayer]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) in the order of the flat tensor. Dense modules' matrices lie behind the last layer's: their
    gradients are final before that layer's are.
    """
    for name, size in shape.weights():
        if name == shape.first_plain:
            for number, layer in enumerate(dense):
                yield f"{DENSE}.{number}.weight", (layer.out_features, layer.in_features)
        yield name, size
    for number, layer in enumerate(dense):
        if layer.bias:
            yield f"{DENSE}.{number}.bias", (layer.out_features,)


def product_gradient(weight: torch.Tensor, grad: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor | None:
    """The gradient of `weight` in rows @ weight.t(): added to weight.grad where there is one, else returned.

    None for a frozen weight, whose rows need not be there.
    """
    if not weight.requires_grad or rows is None:
        return None
    if weight.grad is None:
        return grad.t() @ rows
    weight.grad.addmm_(grad.t(), rows)
    return None
