"""The CRD says what the table of settings says, and everything that a message names is in it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulation.invariants import crd_schema, spec_errors
from unit.operator.builders import a_manifest

from embedding_operator.resource.api import TORCH_SERVER, SpecError
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Stage
from embedding_stages.contract import settings as tables
from embedding_stages.contract.declare import Setting, Table

ROOT = Path(__file__).parents[3]
IMAGES = dict.fromkeys((*Stage, TORCH_SERVER), "image:1")
SOURCES = sorted([*(ROOT / "operator").rglob("*.py"), *(ROOT / "stage_images").rglob("*.py")])


def schema_of(path: str) -> dict[str, Any] | None:
    """The schema of a field, by its path that starts with `spec`; None where there is none."""
    node: dict[str, Any] = crd_schema()
    for part in path.split("."):
        inner = (node.get("properties") or {}).get(part) or node.get("additionalProperties")  # limits.memory
        if not isinstance(inner, dict):
            return None
        node = inner
    return node


OF_DEPLOYMENTS = ("spec.replicas", "spec.template")  # whose drift is told by their own fields


def fields_named(text: str) -> Iterator[str]:
    for found in re.findall(r"\bspec(?:\.[A-Za-z]+)+", text):
        if not found.startswith(OF_DEPLOYMENTS):
            yield found.removesuffix(".")


def texts_of(path: Path) -> Iterator[str]:
    """Every text of a module with its own constants filled in; docstrings as well."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(_part(part, constants) for part in node.values)


def _part(part: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
        return constants.get(part.value.id, "{}")
    return "{}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_field_that_a_message_names_exists(path: Path) -> None:
    named = {field for text in texts_of(path) for field in fields_named(text)}
    assert [field for field in sorted(named) if schema_of(field) is None] == []


def test_the_generated_parts_of_crd_and_docs_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "crds" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_field_has_a_description() -> None:
    def missing(node: dict[str, Any], path: str) -> Iterator[str]:
        for name, inner in (node.get("properties") or {}).items():
            if "description" not in inner:
                yield f"{path}.{name}"
            yield from missing(inner, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                yield from missing(node[key], f"{path}[]")

    assert [name for part in ("spec", "status") for name in missing(crd_schema()["properties"][part], part)] == []


def numbers() -> Iterator[tuple[type[Table], Setting]]:
    for table in vars(tables).values():
        if isinstance(table, type) and issubclass(table, Table) and table not in (Table, tables.Run, tables.Guard):
            for item in table.settings().values():
                if not item.told and not item.listed and item.kind in (int, float):
                    yield table, item


def with_value(path: str, value: Any) -> dict[str, Any]:
    """A manifest with one field set, and beside it what a high value of it needs."""
    manifest = json.loads(json.dumps(a_manifest(storage={"accessModes": ["ReadWriteMany"]})))
    if path.endswith("negativesPerQuery"):
        manifest["stages"]["prep"] = {"hardNegatives": 100}
    if path.endswith("hardNegatives"):
        manifest["stages"]["finetune"] = {"negativesPerQuery": 1}
    if ".dataDesigner." in path:
        manifest["stages"]["sdg"] = {"provider": {"dataDesigner": {"baseURL": "http://llm/v1", "model": "m"}}}
    node = manifest
    *parents, name = path.split(".")[1:]
    for part in parents:
        node = node.setdefault(part, {})
    node[name] = value
    return manifest


@pytest.mark.parametrize(("table", "item"), list(numbers()), ids=lambda value: getattr(value, "name", ""))
def test_operator_and_crd_agree_on_the_range_of_a_number(table: type[Table], item: Setting) -> None:
    assert item.low is not None
    assert item.high is not None
    path = f"{table.FIELD}.{item.name}"
    written = (lambda value: value) if item.kind is int else (lambda value: f"{value:.12f}".rstrip("0").rstrip("."))
    for value in (item.low, item.high):
        manifest = with_value(path, written(value))
        parse_spec(manifest, IMAGES)
        assert spec_errors(manifest) == []
    for value in (item.low - 1, item.high + 1):
        with pytest.raises(SpecError, match=path):
            parse_spec(with_value(path, written(value)), IMAGES)
        if item.kind is int:
            assert spec_errors(with_value(path, value)) != []
        else:
            schema = schema_of(path) or {}
            assert spec_errors(with_value(path, float(value))) != []
            low, high = (f"{bound:.12g}".replace("e-0", "e-") for bound in (item.low, item.high))
            words = re.search(rf"a number between {low} and {high}, such as ([0-9.e-]+)", schema["pattern"])
            assert words is not None
            assert f"such as {words[1]}." in schema["description"]
            for example in (words[1], float(words[1])):
                assert spec_errors(with_value(path, example)) == []
                parse_spec(with_value(path, example), IMAGES)


CRD_TEXT = (ROOT / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml").read_text()


def test_the_crd_fits_a_client_side_apply_and_etcd() -> None:
    """`kubectl apply` keeps the whole object in an annotation of at most 262,144 bytes; half is left to grow."""
    assert len(json.dumps(yaml.safe_load(CRD_TEXT))) < 262_144 // 2


def with_patterns(node: Any, path: str = "") -> Iterator[str]:
    """Paths of fields with a pattern: what the API server says of one is a regular expression."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str) and not node["pattern"].startswith("^(a number between "):
            yield path
        for key, inner in node.items():
            yield from with_patterns(inner, f"{path}.{key}" if key not in ("properties", "items") else path)


def test_a_text_of_a_certain_form_is_refused_with_an_example_and_not_with_a_regular_expression() -> None:
    assert list(with_patterns(crd_schema())) == []


def test_every_setting_with_a_pattern_says_what_it_asks_for() -> None:
    of_tables = (item for item in vars(tables).values() if isinstance(item, type) and issubclass(item, Table))
    settings = [item for table in of_tables if table is not Table for item in table.settings().values()]
    assert [item.name for item in settings if item.pattern and "such as" not in item.form] == []


def test_every_rule_of_a_form_tells_an_example() -> None:
    def rules(node: Any) -> Iterator[dict[str, str]]:
        if isinstance(node, dict):
            yield from node.get("x-kubernetes-validations", ())
            for inner in node.values():
                yield from rules(inner)

    formed = [rule for rule in rules(crd_schema()["properties"]["spec"]) if rule["rule"].startswith("self.matches('^")]
    assert formed
    assert [
        rule["message"] for rule in formed if "such as" not in rule["message"] and "variable" not in rule["message"]
    ] == []


def test_what_is_measured_in_units_says_which() -> None:
    for kind in ("requests", "limits"):
        described = (schema_of(f"spec.stages.finetune.resources.{kind}") or {})["description"]
        assert "such as memory: 20Gi" in described
