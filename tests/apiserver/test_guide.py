"""The guide's table of what the API server refuses in its own words: each row, asked of a real one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from apiserver.api import EFT, ROOT, Api, at, merge, resource

GUIDE = (ROOT / "docs" / "guide.md").read_text()
SECTION = GUIDE[GUIDE.index("## When a manifest is refused") : GUIDE.index("## How long, how much")]
ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", SECTION, re.MULTILINE)


def patch(text: str) -> dict[str, Any]:
    """Of a row such as `a.b: [1]`."""
    path, _, value = text.partition(": ")
    return at(path, yaml.safe_load(value))


def replaced(namespace: str, text: str) -> dict[str, Any]:
    """The smallest manifest with the row's part; a provider takes the place of its own."""
    body = resource(namespace)
    if text.startswith("stages.sdg.provider"):
        del body["spec"]["stages"]["sdg"]["provider"]
    merge(body["spec"], patch(text))
    return body


def test_the_table_has_its_rows() -> None:
    assert len(ROWS) == SECTION.count("\n| `")
    assert len(ROWS) >= 8


@pytest.mark.parametrize(("written", "said", "cure"), ROWS)
def test_what_is_refused_in_the_servers_words_has_its_cure(
    api: Api, scratch: str, written: str, said: str, cure: str
) -> None:
    assert said in api.objection(EFT.format(scratch), resource(scratch, patch(written)))
    assert api.objection(EFT.format(scratch), replaced(scratch, cure)) == ""
