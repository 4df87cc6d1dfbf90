"""What earlier releases identified by a fingerprint, this one identifies by the same."""

from __future__ import annotations

import json

import pytest
from unit.operator.released import DATA, fingerprints_of, manifests

KNOWN = json.loads(DATA.read_text())
CURE = """
{name}: {stages} would be done anew by every resource of this kind that has done it, at its next edit.
Give the same fingerprint again: a setting that joins says `since` and `before` (contract/declare.py).
Only where the results of a stage change on purpose, raise its number in contract/versions.py.
Then write the table down anew with `make fingerprints`, and tell of it in CHANGELOG.md.
"""


def test_every_manifest_is_in_the_table() -> None:
    assert sorted(manifests()) == sorted(KNOWN), "add it with `make fingerprints`"


@pytest.mark.parametrize("name", KNOWN)
def test_a_release_gives_the_fingerprints_of_the_one_before(name: str) -> None:
    found = fingerprints_of(manifests()[name])
    moved = [stage for stage, known in KNOWN[name].items() if found.get(stage) != known]
    assert found.keys() == KNOWN[name].keys()
    assert not moved, CURE.format(name=name, stages=", ".join(moved))
