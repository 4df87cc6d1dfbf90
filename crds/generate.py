"""Write what the table of settings says into the CRD and into docs/resource.md, between their markers.

Everything outside of the markers is written by hand: structure, relations between fields, status. `--check` writes
nothing and fails when a file is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "crds"), str(ROOT / "operator"), str(ROOT / "stage_images")]

import blocks  # noqa: E402

from embedding_operator.resource.pods import TIMEOUT_S  # noqa: E402
from embedding_stages.contract import Stage  # noqa: E402
from embedding_stages.contract import settings as tables  # noqa: E402
from embedding_stages.contract.declare import FIRST, Setting, Table, spelled  # noqa: E402
from embedding_stages.contract.servers import RESERVED_VARIABLES  # noqa: E402

CRD: Final = ROOT / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml"
DOCS: Final = ROOT / "docs" / "resource.md"
DOCUMENTED: Final[tuple[type[Table], ...]] = (
    tables.BaseModel,
    tables.Corpus,
    tables.Evaluation,
    tables.Guard,
    tables.Gates,
    tables.MaxRegression,
    tables.Sdg,
    tables.Prices,
    tables.DataDesigner,
    tables.QuestionTypes,
    tables.Prep,
    tables.Finetune,
    tables.Validation,
    tables.Lora,
    tables.Workers,
    tables.Eval,
    tables.Export,
    tables.Deploy,
    tables.Tolerance,
    tables.Verification,
    tables.RunPolicy,
    tables.Scheduling,
    tables.Limits,
    tables.Retention,
    tables.Schedule,
)
_DECIMAL: Final = "[0-9]+([.][0-9]+)?(e-?[0-9]+)?"
_EXAMPLE: Final = 0.01  # of a decimal that has no default
_LONGEST: Final = 190  # characters of a line, before its indent
_BLOCK: Final = re.compile(
    r"(?P<begin>^(?P<indent> *)(?:#|<!--) generated: (?P<what>[^\n]*?)(?: -->)?\n)"
    r".*?"
    r"(?P<end>^ *(?:#|<!--) end generated)",
    re.MULTILINE | re.DOTALL,
)


def main(arguments: list[str]) -> int:
    """0 when the files are as they should be."""
    outdated = []
    for path in (CRD, DOCS):
        text = path.read_text()
        wanted = _BLOCK.sub(_block, text)
        if wanted != text:
            outdated.append(path.relative_to(ROOT))
            if "--check" not in arguments:
                path.write_text(wanted)
    if outdated and "--check" in arguments:
        print(f"out of date: {', '.join(map(str, outdated))}; run `make charts`", file=sys.stderr)
        return 1
    return 0


def _block(found: re.Match[str]) -> str:
    kind, _, rest = found["what"].partition(" ")
    lines = _GENERATORS[kind](rest)
    indented = "".join(f"{found['indent']}{line}\n" for line in lines)
    return f"{found['begin']}{indented}{found['end']}"


# The CRD.


def _settings(name: str) -> Iterator[str]:
    yield from _properties(getattr(tables, name))


def _properties(table: type[Table]) -> Iterator[str]:
    for item in table.settings().values():
        if not item.told:
            yield from _property(item)


def _property(item: Setting, says: str = "") -> Iterator[str]:
    description = json.dumps(says or described(item), ensure_ascii=False)
    if item.table:
        yield f"{item.name}:"
        yield "  type: object"
        yield f"  description: {description}"
        yield "  properties:"
        yield from (f"    {line}" for line in _properties(item.table))
        return
    if item.listed:
        yield f"{item.name}:"
        yield "  type: array"
        if item.fewest:
            yield f"  minItems: {item.fewest}"
        yield f"  maxItems: {item.most}"
        yield f"  description: {description}"
        yield "  items:"
        yield from (f"    {part}" for part in _limits(item))
    elif item.kind is float:
        yield from _decimal(item, description)
    else:
        said = (*_limits(item), f"description: {description}")
        line = f"{item.name}: {{{', '.join(said)}}}"
        yield from [line] if len(line) <= _LONGEST else [f"{item.name}:", *(f"  {part}" for part in said)]


def _limits(item: Setting) -> Iterator[str]:
    if item.kind is int:
        yield "type: integer"
        if item.low is not None:
            yield f"minimum: {item.low:d}"
        if item.high is not None:
            yield f"maximum: {item.high:d}"
        return
    if item.kind is bool:
        yield "type: boolean"
        return
    yield "type: string"
    if item.choices:
        yield f"enum: [{', '.join(item.choices)}]"
    if item.shortest:
        yield f"minLength: {item.shortest}"
    if item.longest:
        yield f"maxLength: {item.longest}"
    if item.pattern:  # a rule and no pattern: people read its message, and not a regular expression
        rule, message = json.dumps(f"self.matches('{item.pattern}')"), json.dumps(f"must be {item.form}")
        yield f"x-kubernetes-validations: [{{rule: {rule}, message: {message}}}]"


def _decimal(item: Setting, description: str) -> Iterator[str]:
    """A decimal is taken as a number and in quotes: whoever writes 1e-5 means the same by both.

    A schema that takes both has no type, and CEL does not see what has none: so the form of a text is a pattern, whose
    first group says in words what is wanted and matches nothing. The range of a text is the operator's to check.
    """
    assert item.low is not None  # noqa: S101 - decimals have both limits
    assert item.high is not None  # noqa: S101
    low, high = spelled(item.low), spelled(item.high)
    example = spelled(_EXAMPLE if item.default in (MISSING, None) else item.default)
    such = json.dumps(f" A number, such as {example}.")[1:-1]
    yield f"{item.name}:"
    yield "  x-kubernetes-preserve-unknown-fields: true"
    yield f"  minimum: {_double(low)}"
    yield f"  maximum: {_double(high)}"
    yield "  maxLength: 16"
    yield "  maxItems: 0"
    yield "  maxProperties: 0"
    yield f'  pattern: "^(a number between {low} and {high}, such as {example}){{0}}{_DECIMAL}$"'
    yield f'  description: {description[:-1]}{such}"'


def _double(text: str) -> str:
    """As YAML of every version reads a number: 1e-9 is a text in some, 1.0e-9 in none."""
    mantissa, e, exponent = text.partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + e + exponent


def _pod(stage: str) -> Iterator[str]:
    """How a stage's pod is run; the server has no retries, since it is no Job."""
    serves = stage == Stage.DEPLOY
    yield from blocks.pod(RESERVED_VARIABLES if serves else ())
    run = tables.Run.settings()
    fails = (
        "A server that is not available by then has failed"
        if stage == Stage.DEPLOY
        else "The stage fails when it runs longer"
    )
    yield from _property(run["timeoutSeconds"], f"{fails}, seconds; {TIMEOUT_S[Stage(stage)]} when absent.")
    if not serves:
        for name, item in run.items():
            if name != "timeoutSeconds":
                yield from _property(item)


# The docs.


def described(item: Setting) -> str:
    """What a setting says, with its default."""
    default = _default(item)
    return item.says if default == "" else f"{item.says.removesuffix('.')}; {default} when absent."


def _default(item: Setting) -> str:
    """As a manifest would say it; empty where the sentence says it or nothing is meant."""
    if item.default in (MISSING, None, "", ()) or "when absent" in item.says:
        return ""
    if item.listed:
        return f"[{', '.join(map(str, item.default))}]"
    if item.kind is bool:
        return str(item.default).lower()
    return spelled(item.default) if item.kind in (int, float) else str(item.default)


def _table(_: str) -> Iterator[str]:
    yield "| field | meaning | values | when absent |"
    yield "|---|---|---|---|"
    for table in DOCUMENTED:
        for item in table.settings().values():
            if not item.told:
                field = f"{table.FIELD.removeprefix('spec.')}.{item.name}"
                since = "" if item.since == FIRST else f" Since {item.since}."
                yield f"| `{field}` | {item.says}{since} | {_values(item)} | {_default(item) or '—'} |"


def _values(item: Setting) -> str:
    if item.table:
        return "a section, may be `{}`"
    if item.kind is bool:
        return "`true`, `false`"
    if item.listed and item.pattern == tables.METRIC:
        return "metrics, such as `ndcg@10`"
    if item.choices:
        return ", ".join(f"`{choice}`" for choice in item.choices)
    if item.low is not None and item.high is not None:
        return f"{spelled(item.low)} – {spelled(item.high)}"
    if item.listed:
        return "globs" if item.name == "include" else "names"
    return f"at most {item.longest} characters"


_GENERATORS: Final[dict[str, Callable[[str], Iterator[str]]]] = {
    "settings": _settings,
    "pod": _pod,
    "source": blocks.source,
    "secret": blocks.secret,
    "bundle": blocks.bundle,
    "endpoint": blocks.endpoint,
    "table": _table,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
