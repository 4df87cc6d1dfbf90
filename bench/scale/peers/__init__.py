"""Controllers that chain steps as the operator does, each with its defaults and tuned, measured in the same way."""

from __future__ import annotations

from bench.scale.peers.compare import compare

__all__ = ["compare"]
