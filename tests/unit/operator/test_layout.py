"""Where packages may be, and that the import rules know them all.

An __init__.py in the wrong place shadows the standard library or another test.
"""

from __future__ import annotations

import operator
import tomllib
from pathlib import Path

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
