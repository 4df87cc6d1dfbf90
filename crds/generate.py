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
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "stage_images")]

from embedding_operator.resource.pods import TIMEOUT_S  # noqa: E402
from embedding_stages.contract import Stage  # noqa: E402
from embedding_stages.contract import settings as tables  # noqa: E402
from embedding_stages.contract.declare import FIRST, Setting, Table  # noqa: E402
from embedding_stages.contract.servers import RESERVED_VARIABLES  # noqa: E402

CRD: Final = ROOT / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml"
DOCS: Final = ROOT / "docs" / "resource.md"
DOCUMENTED: Final[tuple[type[Table], ...]] = (
    tables.BaseModel,
    tables.Corpus,
    tables.Evaluation,
    tables.Sdg,
    tables.Prep,
    tables.Finetune,
    tables.Workers,
    tables.Eval,
    tables.Export,
    tables.Deploy,
    tables.Tolerance,
    tables.RunPolicy,
)
_DECIMAL: Final = r"^[0-9]+(\\.[0-9]+)?(e-?[0-9]+)?$"
_LONGEST: Final = 190  # characters of a line, before its indent
_QUANTITY: Final = "^[0-9]+([.][0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][0-9]+)?$"
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
    table: type[Table] = getattr(tables, name)
    for item in table.settings().values():
        if not item.told:
            yield from _property(item)


def _property(item: Setting, says: str = "") -> Iterator[str]:
    description = json.dumps(says or described(item), ensure_ascii=False)
    if item.listed:
        yield f"{item.name}:"
        yield "  type: array"
        if item.fewest:
            yield f"  minItems: {item.fewest}"
        yield f"  maxItems: {item.most}"
        yield f"  description: {description}"
        yield f"  items: {{{', '.join(_limits(item))}}}"
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
    yield "type: string"
    if item.choices:
        yield f"enum: [{', '.join(item.choices)}]"
    if item.shortest:
        yield f"minLength: {item.shortest}"
    if item.longest:
        yield f"maxLength: {item.longest}"
    if item.pattern:
        yield f"pattern: {json.dumps(item.pattern)}"


def _decimal(item: Setting, description: str) -> Iterator[str]:
    """Decimals are texts: a float of YAML would be read differently by every tool. So their range is a CEL rule."""
    low, high = _number(item.low), _number(item.high)
    rule = f"double(self) >= {_double(low)} && double(self) <= {_double(high)}"
    yield f"{item.name}:"
    yield "  type: string"
    yield "  maxLength: 16"
    yield f'  pattern: "{_DECIMAL}"'
    yield f"  description: {description}"
    yield "  x-kubernetes-validations:"
    yield f'    - {{rule: "{rule}", message: "must lie between {low} and {high}"}}'


def _number(value: Any) -> str:
    """The shortest text of a number: 1e-9, not 1e-09."""
    return f"{value:.12g}".replace("e-0", "e-")


def _double(text: str) -> str:
    """CEL compares a double with a double only."""
    return text if "." in text or "e" in text else f"{text}.0"


def _pod(stage: str) -> Iterator[str]:
    """What may be said about a stage's pod: an allow-list, the same for every stage."""
    yield (
        "image: {type: string, minLength: 1, maxLength: 512, description: "
        '"Image of this stage, best by digest: it is part of what identifies the work. The operator\'s default when absent."}'
    )
    yield from _text(
        """
        resources:
          type: object
          description: "Requests and limits of the stage's container. Say nvidia.com/gpu: 0 in limits to run without a GPU."
          properties:
        """
    )
    for kind, says in (("requests", "What the scheduler keeps free for it."), ("limits", "What it may use at most.")):
        yield from _text(
            f"""
                {kind}:
                  type: object
                  maxProperties: 16
                  description: "{says}"
                  additionalProperties:
                    x-kubernetes-int-or-string: true
                    anyOf: [{{type: integer}}, {{type: string}}]
                    minimum: 0
                    maxLength: 32
                    pattern: "{_QUANTITY}"
            """,
            indent=4,
        )
    yield from _text(
        """
        nodeSelector:
          type: object
          maxProperties: 32
          description: "Labels that a node must have."
          additionalProperties: {type: string, maxLength: 63}
        tolerations:
          type: array
          maxItems: 32
          description: "Taints of nodes that do not keep the pod away."
          items:
            type: object
            properties:
              key: {type: string, maxLength: 316, description: "The taint's key; every key when absent, with operator Exists."}
              operator: {type: string, enum: [Exists, Equal], description: "Equal compares the value, and is meant when absent."}
              value: {type: string, maxLength: 63, description: "The taint's value."}
              effect: {type: string, enum: [NoSchedule, PreferNoSchedule, NoExecute], description: "The taint's effect; every effect when absent."}
              tolerationSeconds: {type: integer, format: int64, minimum: 0, description: "How long a taint NoExecute is tolerated, seconds; for ever when absent."}
        priorityClassName: {type: string, maxLength: 253, description: "PriorityClass of the pod."}
        runtimeClassName: {type: string, maxLength: 253, description: "RuntimeClass of the pod."}
        env:
          type: array
          maxItems: 64
          description: "Literal environment variables; part of the stage's fingerprint."
          x-kubernetes-list-type: map
          x-kubernetes-list-map-keys: [name]
          items:
            type: object
            required: [name]
            properties:
              name:
                type: string
                maxLength: 253
                description: "The variable's name."
                x-kubernetes-validations:
                  - {rule: "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')", message: "must be an environment variable's name"}
                  - {rule: "!self.startsWith('EFT_')", message: "names that start with EFT_ belong to the operator"}
        """
    )
    if stage == Stage.DEPLOY:
        names = ", ".join(f"'{name}'" for name in sorted(RESERVED_VARIABLES))
        yield f'          - rule: "!(self in [{names}])"'
        yield '            message: "the operator sets this variable of the server; remove it"'
    yield '      value: {type: string, maxLength: 4096, description: "The variable\'s value, as it stands here; empty when absent."}'
    run = tables.Run.settings()
    fails = (
        "A server that is not available by then has failed"
        if stage == Stage.DEPLOY
        else "The stage fails when it runs longer"
    )
    yield from _property(run["timeoutSeconds"], f"{fails}, seconds; {TIMEOUT_S[Stage(stage)]} when absent.")
    if stage != Stage.DEPLOY:
        yield from _property(run["retries"])


def _source(kind: str) -> Iterator[str]:
    """Where files come from."""
    yield from _text(_SOURCES[kind])
    if kind == "configMap":
        return
    yield "      x-kubernetes-validations:"
    yield "        - {rule: \"!self.matches('(^|/)[.][.](/|$)')\", message: \"must not contain '..'\"}"
    if kind == "image":
        message = "must name a folder of the image, such as /model: with the root come /proc, /sys and /dev"
        rule = "!self.matches('^(/|[.]/)*([.]?|(proc|sys|dev)(/.*)?)$')"
        yield f'        - {{rule: "{rule}", message: "{message}"}}'
        yield '    pullPolicy: {type: string, enum: [Always, IfNotPresent, Never], description: "IfNotPresent when absent."}'


def _secret(says: str) -> Iterator[str]:
    """A key of a Secret in the namespace of the resource."""
    yield from _text(
        f"""
        type: object
        description: "{says}"
        required: [name, key]
        properties:
          name: {{type: string, minLength: 1, maxLength: 253, description: "Name of the Secret, in the namespace of the resource."}}
          key: {{type: string, minLength: 1, maxLength: 253, description: "Key in the Secret."}}
        """
    )


def _text(block: str, indent: int = 0) -> Iterator[str]:
    """The lines of a text without their common margin."""
    lines = [line for line in block.splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    return (" " * indent + line[margin:] for line in lines)


_SOURCES: Final = {
    "pvc": """
        pvc:
          type: object
          description: "A PersistentVolumeClaim in the namespace of the resource; it is mounted read-only."
          required: [claimName]
          properties:
            claimName: {type: string, minLength: 1, maxLength: 253, description: "Name of the claim."}
            path:
              type: string
              maxLength: 512
              description: "Folder in the volume; its root when absent."
        """,
    "image": """
        image:
          type: object
          description: "An image that carries the files; it needs no shell."
          required: [reference, path]
          properties:
            reference: {type: string, minLength: 1, maxLength: 512, description: "The image, with a tag or a digest."}
            path:
              type: string
              minLength: 1
              maxLength: 512
              description: "Folder in the image, not its root."
        """,
    "configMap": """
        configMap:
          type: object
          description: "A ConfigMap in the namespace of the resource: every key is a file."
          required: [name]
          properties:
            name: {type: string, minLength: 1, maxLength: 253, description: "Name of the ConfigMap."}
        """,
}


# The docs.


def described(item: Setting) -> str:
    """What a setting says, with its default."""
    default = _default(item)
    return item.says if default == "" else f"{item.says.removesuffix('.')}; {default} when absent."


def _default(item: Setting) -> str:
    """As a manifest would say it; empty where the sentence says it or nothing is meant."""
    if item.default in (MISSING, None, "") or "when absent" in item.says:
        return ""
    if item.listed:
        return f"[{', '.join(map(str, item.default))}]"
    return _number(item.default) if item.kind in (int, float) else str(item.default)


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
    if item.choices:
        return ", ".join(f"`{choice}`" for choice in item.choices)
    if item.low is not None and item.high is not None:
        return f"{_number(item.low)} – {_number(item.high)}" + (" (a text)" if item.kind is float else "")
    return "globs" if item.listed else f"at most {item.longest} characters"


_GENERATORS: Final[dict[str, Callable[[str], Iterator[str]]]] = {
    "settings": _settings,
    "pod": _pod,
    "source": _source,
    "secret": _secret,
    "table": _table,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
