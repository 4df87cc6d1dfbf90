"""What the tables of several sections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SEED_HIGH: Final = 2**32 - 1
BATCH: Final[Mapping[str, int]] = {"low": 1, "high": 8192}
DEFAULT_K_VALUES: Final = (1, 5, 10, 100)
METRIC: Final = r"^(ndcg|recall|map|precision)@[1-9][0-9]{0,4}$"
METRIC_FORM: Final = "ndcg, recall, map or precision and a cut-off, such as ndcg@10"
QUEUE: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUEUE_FORM: Final = "a name of lower-case letters, digits, - and ., such as team-a"
DEFAULT_GATE_METRICS: Final = ("ndcg@10", "recall@10")
JOINED: Final = "0.2"  # the release that the settings joined in
