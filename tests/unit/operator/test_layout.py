"""Where packages may be, and that the import rules and the chart know them all.

An __init__.py in the wrong place shadows the standard library or another test.
"""

from __future__ import annotations

import json
import operator
import re
import tomllib
from pathlib import Path

import yaml

from embedding_operator.settings import Settings

ROOT = Path(__file__).parents[3]
STAGES = ROOT / "stage_images" / "embedding_stages"


def test_the_source_root_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert "site-packages" not in str(operator.__file__)
    assert ROOT not in Path(str(operator.__file__)).parents


def test_no_folder_of_tests_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_import_rules_name_every_stage() -> None:
    stages = {f"embedding_stages.{path.parent.name}" for path in STAGES.glob("*/__main__.py")}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rules = {item["name"]: stages - set(item.get("forbidden_modules", ())) for item in contracts}
    assert rules["of the stages the operator knows the contract alone"] == set()
    assert rules["formats and HTTP know no stage and need the standard library alone"] == set()


def test_the_chart_gives_the_operator_every_default_image() -> None:
    chart = ROOT / "charts" / "embedding-operator"
    values = set(yaml.safe_load((chart / "values.yaml").read_text())["stageImages"])
    schema = json.loads((chart / "values.schema.json").read_text())["properties"]["stageImages"]["properties"]
    listed = re.search(r"range \$name := list (.*?) }}", (chart / "templates/deployment.yaml").read_text())
    assert listed is not None
    folders = {path.parent.name for path in (ROOT / "stage_images").glob("*/Containerfile")}
    assert values == set(schema) == set(re.findall(r'"(.*?)"', listed[1])) == folders
    variables = {f"IMAGE_{name.upper().replace('-', '_')}": name for name in folders}
    assert set(Settings.from_env(variables).images.values()) == folders
