"""What an encoder is, without loading it: architecture, pooling, prefixes, lengths. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from embedding_stages.contract import ENCODER_FILE
from embedding_stages.encoder.configuration import FIELD, Config, read_object
from embedding_stages.encoder.dense import DenseLayer, check_dense, dense_of
from embedding_stages.encoder.families import Family, family_named, family_of, unsupported
from embedding_stages.encoder.modules import pooling_of, text_settings
from embedding_stages.encoder.pooling import Pooling
from embedding_stages.encoder.prompts import own_prefixes
from embedding_stages.encoder.safetensors_check import TensorEntry, check_weights
from embedding_stages.encoder.vocabulary import check_vocabulary
from embedding_stages.errors import BadInput

Role = Literal["query", "passage"]
MATRYOSHKA: Final = "spec.stages.finetune.matryoshka"  # the field that says what vectors are trained to be cut to
ROLES: Final[tuple[Role, ...]] = get_args(Role)

MATRYOSHKA_KEY: Final = "matryoshka_dimensions"  # of config.json, as published models and servers have it
QUERY_MAP_FILE: Final = "query_map.safetensors"  # beside the weights; see encoder/query_map.py
DEFAULT_MAX_TOKENS: Final = 512  # NVIDIA embed recipe, profile llama
_UNLIMITED: Final = 1_000_000  # tokenizers write about 1e30 for "no limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDescription:
    """What a caller must know to get the same vectors again; stored as encoder.json in a model folder."""

    architecture: str  # the name of its family
    prefixes: Mapping[str, str]  # {"query": ..., "passage": ...}: put before each text
    max_tokens: int  # longer texts are cut, special tokens counted
    hidden_size: int  # numbers in a state
    dimensions: tuple[int, ...]  # output sizes that may be asked for, the whole vector's first
    pooling: Pooling = "mean"
    normalized: bool = True  # vectors have length 1
    query_map: bool = False  # queries' vectors go through the map beside the weights
    dense: tuple[DenseLayer, ...] = ()  # what the pooled states go through, in order

    @property
    def vector_size(self) -> int:
        """Numbers in a whole vector: the hidden size, or what the last Dense module makes of it."""
        return self.dense[-1].out_features if self.dense else self.hidden_size

    @property
    def symmetric(self) -> bool:
        """Whether a text has one vector, whichever role it is sent in."""
        return self.one_prefix and not self.query_map

    @property
    def one_prefix(self) -> bool:
        """Whether both roles have the same prefix, or none."""
        return len({self.prefixes[role] for role in ROLES}) == 1

    @property
    def family(self) -> Family:
        """Raises KeyError for an architecture unknown here, which `load` refuses."""
        return family_named(self.architecture)

    def offering(self, sizes: Sequence[int]) -> EncoderDescription:
        """A model that was trained for `sizes` offers these, beside its whole vectors; the same where there are none.

        Raises BadInput `MatryoshkaTooLarge`.
        """
        whole = self.dimensions[0]
        above = sorted(size for size in sizes if size > whole)
        if above:
            raise BadInput(
                "MatryoshkaTooLarge",
                f"the model's vectors have {whole} numbers and cannot be cut to {', '.join(map(str, above))}; leave "
                f"out what is above {whole}",
                field=MATRYOSHKA,
            )
        return replace(self, dimensions=_cut_to(sizes, whole)) if sizes else self

    def save(self, folder: Path) -> None:
        """Write encoder.json into `folder`."""
        # What a model lacks is left out: its folder, and so its digest, is that of releases which did not know of it.
        said = {key: value for key, value in asdict(self).items() if key not in ("query_map", "dense") or value}
        text = json.dumps(said, indent=1, ensure_ascii=False, sort_keys=True)
        (folder / ENCODER_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EncoderDescription:
        """Read encoder.json. Raises BadInput `EncoderDescriptionInvalid`, and OSError of a volume that fails."""
        try:
            raw = json.loads((folder / ENCODER_FILE).read_bytes())
            description = cls(
                architecture=raw["architecture"],
                prefixes={role: str(raw["prefixes"][role]) for role in ROLES},
                max_tokens=int(raw["max_tokens"]),
                hidden_size=int(raw["hidden_size"]),
                dimensions=tuple(int(size) for size in raw["dimensions"]),
                pooling=raw["pooling"],
                normalized=raw["normalized"],
                query_map=raw.get("query_map", False),
                dense=tuple(DenseLayer.of(layer) for layer in raw.get("dense", ())),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                "EncoderDescriptionInvalid", f"{ENCODER_FILE} is missing or invalid: {error}", field=FIELD
            ) from error
        sound = description.max_tokens >= 1 and isinstance(description.query_map, bool)
        if not description._known() or not sound or description.normalized is not True:
            raise BadInput(
                "EncoderDescriptionInvalid",
                f"{ENCODER_FILE} describes an encoder unknown here: {raw}",
                field=FIELD,
            )
        return description

    def _known(self) -> bool:
        try:
            return self.pooling in self.family.poolings
        except (KeyError, TypeError):  # no name at all is as unknown
            return False


def description_of(folder: Path) -> EncoderDescription:
    """What encoder.json says, else what the files of a plain Hugging Face folder say.

    Raises BadInput as `EncoderDescription.load` and `describe_model` do.
    """
    if (folder / ENCODER_FILE).is_file():
        return EncoderDescription.load(folder)
    return describe_model(folder, prefixes=None, max_tokens=None)


def describe_model(folder: Path, *, prefixes: Mapping[str, str] | None, max_tokens: int | None) -> EncoderDescription:
    """Read a Hugging Face or sentence-transformers folder and check that it can be used.

    `prefixes` (roles query and passage) and `max_tokens` override what the folder says; a role that
    `prefixes` leaves out has none. Code that comes with a model (`auto_map`) is ignored and never runs.
    Raises BadInput `BaseModelUnsupported`, `ModelIncomplete`, `ModelPickled`, `ModelDamaged` or
    `MaxTokensTooLarge`.
    """
    description = describe_configuration(folder, prefixes=prefixes, max_tokens=max_tokens)
    check_tensors(folder, description)
    return description


def check_tensors(folder: Path, description: EncoderDescription) -> None:
    """What `describe_model` refuses of the weights, by their headers alone."""
    config = read_object(folder / "config.json", required=True)
    tensors = check_weights(folder, field=FIELD)
    family = description.family
    _check_table(tensors, family.table, [family.vocabulary(config), description.hidden_size])
    if family.position_table and any(name.endswith(family.position_table) for name in tensors):
        _check_table(tensors, family.position_table, [family.position_rows(config), description.hidden_size])
    layers = config.get("num_hidden_layers")
    for number in range(layers if isinstance(layers, int) else 0):
        if not any(f".{family.layers}.{number}." in f".{name}" for name in tensors):
            raise BadInput(
                "ModelIncomplete",
                f"the weights hold nothing of layer {number}; config.json says num_hidden_layers {layers}",
                field=FIELD,
            )
    check_dense(folder, description.dense)


def describe_configuration(
    folder: Path, *, prefixes: Mapping[str, str] | None, max_tokens: int | None
) -> EncoderDescription:
    """What `describe_model` says and refuses before it looks at the weights, which need not be there yet."""
    config = read_object(folder / "config.json", required=True)
    family = family_of(config)
    if (folder / QUERY_MAP_FILE).exists():  # to leave it out would be to take another model
        raise unsupported(f"{QUERY_MAP_FILE} maps its queries; take the model that it was made of")
    check_vocabulary(folder, config, family.vocabulary(config))
    prefixes = _prefixes(folder, family, prefixes)
    pooling = pooling_of(folder, config, family, prefixes)
    hidden_size = family.hidden_size(config)
    dense = dense_of(folder, hidden_size)
    whole = dense[-1].out_features if dense else hidden_size
    return EncoderDescription(
        architecture=family.name,
        prefixes=prefixes,
        max_tokens=_max_tokens(folder, config, family, max_tokens),
        hidden_size=hidden_size,
        dimensions=_cut_to(_shorter(config, family), whole),
        pooling=pooling,
        dense=dense,
    )


def _cut_to(sizes: Sequence[int], whole: int) -> tuple[int, ...]:
    """The whole size of vectors, and those of `sizes` below it, the largest first."""
    return (whole, *sorted({size for size in sizes if size < whole}, reverse=True))


def _shorter(config: Config, family: Family) -> Sequence[int]:
    """Sizes that vectors may be cut to: by config.json, else by the family's published models."""
    said = config.get(MATRYOSHKA_KEY)
    if said is None:
        return family.shorter_dimensions
    if not isinstance(said, list) or not all(type(size) is int and size > 0 for size in said):
        raise BadInput("ModelDamaged", f"config.json: {MATRYOSHKA_KEY} is {said!r}; list numbers", field=FIELD)
    return said


def _check_table(tensors: Mapping[str, TensorEntry], table: str, shape: list[int]) -> None:
    for name, entry in tensors.items():
        if name.endswith(table):
            if list(entry.shape) != shape:
                raise BadInput(
                    "ModelDamaged",
                    f"{name} has shape {list(entry.shape)}, config.json says {shape}: they do not match",
                    field=FIELD,
                )
            return
    raise BadInput("ModelIncomplete", "the weights hold no token embedding table", field=FIELD)


def _prefixes(folder: Path, family: Family, given: Mapping[str, str] | None) -> dict[str, str]:
    if given is not None:
        return {role: given.get(role, "") for role in ROLES}
    own = own_prefixes(folder)
    return dict(family.prefixes) if own is None else own


def _max_tokens(folder: Path, config: Config, family: Family, given: int | None) -> int:
    positions = family.positions(config)
    if given is not None:
        if not 1 <= given <= positions:
            raise BadInput(
                "MaxTokensTooLarge",
                f"{given} tokens a text were asked for, and the model has {positions} positions; give at most so many",
                field=f"{FIELD}.maxTokens",
            )
        return given
    told = (
        text_settings(folder).get("max_seq_length"),
        read_object(folder / "tokenizer_config.json").get("model_max_length"),
    )
    limits = [int(value) for value in told if isinstance(value, int | float) and 0 < value < _UNLIMITED]
    return min([DEFAULT_MAX_TOKENS, positions, *limits])
