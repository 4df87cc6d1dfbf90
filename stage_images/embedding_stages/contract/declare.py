"""How a setting is declared, and how a table of settings reads what a manifest or a request says. Pure.

A table is a frozen dataclass whose fields are declared with `setting(...)`. A field has the name that the manifest
uses, so no name is ever translated. Whole numbers and decimals are checked against their range, texts against their
choices; every error names the manifest's field. A setting may be a table itself: a section that may be absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Final, Self, get_args, get_type_hints

NOT_SAID: Final = object()
FIRST: Final = "0.1"  # the release of the first settings: each of them is part of a stage's identity


class SettingInvalid(ValueError):
    """A value that a setting does not take: `field` is its path in the manifest."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known of one setting. `low` and `high` are inclusive."""

    name: str
    kind: type  # int, float, bool, str, a table, or the type of a list's items
    listed: bool  # a list of `kind`
    default: Any  # MISSING: must be given; None: absent stays absent
    says: str
    since: str = FIRST
    before: Any = NOT_SAID
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    form: str = ""  # what the pattern asks for, with an example: "must be ..."
    shortest: int = 0  # characters of a text
    longest: int = 0  # characters of a text; of each item of a list
    fewest: int = 0  # items of a list
    most: int = 0  # items of a list
    told: bool = False  # by the operator alone: the manifest has no such field
    how: bool = False  # how the work is done, such as a budget: no part of what the work is

    @property
    def table(self) -> type[Table] | None:
        """Of a section: what it holds."""
        return self.kind if isinstance(self.kind, type) and issubclass(self.kind, Table) else None

    @property
    def as_before(self) -> Any:
        """The value by which a stage does what it did before the setting existed; NOT_SAID for one of the first."""
        if self.before is not NOT_SAID:
            return self.before
        return self.default if self.since != FIRST else NOT_SAID

    @property
    def when_absent(self) -> Any:
        """What a request means that says nothing of it: an older operator wrote it."""
        return self.default if self.as_before is NOT_SAID else self.as_before


def setting(default: Any = MISSING, *, says: str, **limits: Any) -> Any:
    """A field of a table. See `Setting` for `limits`; `says` is one sentence, with its unit, for the CRD and the docs.

    A setting that joins later gives `since`, and `before` where its default is not what the stage did before.
    """
    return field(default=default, metadata={"says": says, **limits})


class Table:
    """Base of a table of settings. FIELD is where the manifest holds them."""

    __slots__ = ()
    FIELD: ClassVar[str]

    @classmethod
    def settings(cls) -> Mapping[str, Setting]:
        """Every setting by its name, in the order of the declaration."""
        return _settings(cls)  # type: ignore[arg-type]  # a class is hashable

    @classmethod
    def parse(cls, raw: Mapping[str, Any], at: str = "") -> Self:
        """Read a section of a manifest; what it does not say has its default. Raises SettingInvalid."""
        return cls(**{item.name: _from_manifest(item, raw, at or cls.FIELD) for item in cls.settings().values()})

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Read a stage's request. Raises SettingInvalid."""
        return cls(**{item.name: _from_request(item, raw, cls.FIELD) for item in cls.settings().values()})

    def to_json(self) -> dict[str, Any]:
        """As a request holds them."""
        found = ((item.name, getattr(self, item.name)) for item in self.settings().values())
        return {name: _plain(value) for name, value in found}

    @classmethod
    def identity(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What of a request's settings makes its work another work: all but those that say `as before`, and those that
        say how it is done.
        """
        known = cls.settings()
        return {
            name: _identity(known.get(name), value)
            for name, value in raw.items()
            if name not in known or not (known[name].how or _says(known[name], value))
        }

    @classmethod
    def hows(cls) -> frozenset[str]:
        """The names of those that say how the work is done."""
        return frozenset(name for name, item in cls.settings().items() if item.how)


def spelled(number: float) -> str:
    """A number as people write it, in as few characters as it takes: 1e-9, not 1e-09."""
    return f"{number:.12g}".replace("e-0", "e-")


def _says(item: Setting, value: Any) -> bool:
    """Whether a request's value is the one by which the stage does what it did before the setting existed."""
    before = item.as_before
    return bool(value == (list(before) if isinstance(before, tuple) else before))


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Table):
        return value.to_json()
    return list(value) if isinstance(value, tuple) else value


def _identity(item: Setting | None, value: Any) -> Any:
    table = item.table if item else None
    return table.identity(value) if table and isinstance(value, Mapping) else value


@cache
def _settings(table: type[Table]) -> Mapping[str, Setting]:
    hints = get_type_hints(table)
    return {item.name: _declared(item, hints[item.name]) for item in fields(table)}  # type: ignore[arg-type]


def _declared(item: Field[Any], hint: Any) -> Setting:
    kinds = [kind for kind in get_args(hint) if kind not in (type(None), Ellipsis)] or [hint]
    listed = hint is not kinds[0] and getattr(hint, "__origin__", None) is tuple
    return Setting(name=item.name, kind=kinds[0], listed=listed, default=item.default, **item.metadata)


def _from_manifest(item: Setting, raw: Mapping[str, Any], at: str) -> Any:
    """A decimal may stand in quotes. A list without items says nothing."""
    value = None if item.told else raw.get(item.name)
    if value is None or value == []:
        if item.default is MISSING:
            raise SettingInvalid(f"{at}.{item.name}", "is required")
        return item.default
    if item.table:
        return item.table.parse(_section(value, f"{at}.{item.name}"), f"{at}.{item.name}")
    if item.kind is float and not item.listed:
        try:
            value = float(str(value))
        except ValueError:
            raise SettingInvalid(f"{at}.{item.name}", f"{value!r} must be a number{_range(item)}") from None
    return _checked(item, value, at)


def _from_request(item: Setting, raw: Mapping[str, Any], at: str) -> Any:
    value = raw.get(item.name, item.when_absent)
    if value is MISSING:
        raise SettingInvalid(f"{at}.{item.name}", "is missing in the stage's request")
    if value is None and item.default is None:
        return None
    return item.table.of(_section(value, f"{at}.{item.name}")) if item.table else _checked(item, value, at)


def _section(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingInvalid(where, f"{value!r} must be a section")
    return value


def _checked(item: Setting, value: Any, at: str) -> Any:
    if not item.listed:
        return _one(item, value, f"{at}.{item.name}")
    where = f"{at}.{item.name}"
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise SettingInvalid(where, f"{value!r} must be a list")
    if len(value) < item.fewest or (item.most and len(value) > item.most):
        raise SettingInvalid(where, f"must have {item.fewest} to {item.most} items, has {len(value)}")
    return tuple(_one(item, part, where) for part in value)


def _one(item: Setting, value: Any, where: str) -> Any:
    for problem in _problems(item, value):
        raise SettingInvalid(where, problem)
    return item.kind(value)


def _problems(item: Setting, value: Any) -> Iterator[str]:
    """What is wrong with a value; the first says enough."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if item.kind is int and not (number and int(value) == value):
        yield f"{value!r} must be a whole number{_range(item)}"
    elif item.kind is float and not number:
        yield f"{value!r} must be a number{_range(item)}"
    elif item.kind is bool and not isinstance(value, bool):
        yield f"{value!r} must be true or false"
    elif item.kind in (int, float):
        if not _above(item, value) or not _below(item, value):  # so that NaN is neither
            yield f"{value!r} must be a {'whole ' if item.kind is int else ''}number{_range(item)}"
    elif item.kind is str:
        yield from _text_problems(item, value)


def _text_problems(item: Setting, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{value!r} must be a text"
    elif item.choices and value not in item.choices:
        yield f"{value!r} is not known; give {' or '.join(item.choices)}"
    elif len(value) < item.shortest or (item.longest and len(value) > item.longest):
        yield f"must have {item.shortest} to {item.longest} characters, has {len(value)}"
    elif item.pattern and not re.search(item.pattern, value):
        yield f"{value!r} must be {item.form}"


def _above(item: Setting, value: float) -> bool:
    return item.low is None or value >= item.low


def _below(item: Setting, value: float) -> bool:
    return item.high is None or value <= item.high


def _range(item: Setting) -> str:
    """In words, as it follows `a number`."""
    if item.low is not None and item.high is not None:
        return f" from {item.low:.12g} to {item.high:.12g}"
    return f" of at least {item.low:.12g}" if item.low is not None else ""
