"""config.json of a checkpoint, and what it says of rotary positions."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_stages.encoder.configuration import for_saving, rotations

LLAMA3 = {"rope_type": "llama3", "factor": 32.0}

SAVED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a model's code and its old dtype", {"auto_map": {}, "dtype": "bfloat16", "_name_or_path": "x"}, {}),
    ("the base of plain angles", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rope_theta": 5e5}),
    (
        "angles that are stretched",
        {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    ),
    ("what stands there already", {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e4}}, {"rope_theta": 1e4}),
    ("angles of each kind of layer, for which each family has its own words",
     {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "config", "added"), SAVED, ids=[row[0] for row in SAVED])
def test_transformers_4_reads_of_a_checkpoint(sentence: str, config: dict[str, Any], added: dict[str, Any]) -> None:
    kept = {"rope_parameters": config["rope_parameters"]} if "rope_parameters" in config else {}
    assert for_saving(config, "float32") == {"torch_dtype": "float32"} | kept | added


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, []),
        ({"rope_scaling": None}, []),
        ({"rope_scaling": LLAMA3}, [LLAMA3]),
        ({"rope_parameters": LLAMA3}, [LLAMA3]),
        ({"rope_parameters": {"full_attention": LLAMA3, "sliding_attention": {"rope_theta": 1e4}}},
         [LLAMA3, {"rope_theta": 1e4}]),
        ({"rope_parameters": {"full_attention": LLAMA3, "linear_attention": None}}, [LLAMA3]),
    ],
)  # fmt: skip
def test_rotary_positions_are_read_from(config: dict[str, Any], found: list[dict[str, Any]]) -> None:
    assert list(rotations(config)) == found
