"""Where packages may be: an __init__.py in the wrong place shadows the standard library or another test."""

from __future__ import annotations

import operator
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_source_root_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert "site-packages" not in str(operator.__file__)
    assert ROOT not in Path(str(operator.__file__)).parents


def test_no_folder_of_tests_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
