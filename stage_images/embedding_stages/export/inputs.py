"""The names of the graph's inputs and of its output: the recipe's."""

from __future__ import annotations

INPUT_IDS, ATTENTION_MASK, DIMENSIONS, EMBEDDINGS = "input_ids", "attention_mask", "dimensions", "embeddings"
