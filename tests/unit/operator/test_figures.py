"""The columns of figures: what they say, and of which revision."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import a_stage

from embedding_operator.decide.figures import shown, uplift_of
from embedding_operator.resource.status import Served, StageStatus, Status
from embedding_stages.contract import Stage


def evaluated(
    uplift: float | None, interval: Any, queries: int = 225, compared: list[float] | None = None
) -> StageStatus:
    comparisons = {} if compared is None else {"comparisons": {"base": {"ndcg@10": compared}}}
    return a_stage(
        details={"relativeUplift": uplift, "confidenceInterval": interval, **comparisons},
        counts={"queries": queries},
        metrics={"fineTuned": {"ndcg@10": 0.615, "recall@10": 0.7}},
    )


@pytest.mark.parametrize(
    ("entry", "column"),
    [
        (evaluated(0.02, [0.005, 0.035]), "+2.0%[+0.5,+3.5]n=225"),
        (evaluated(-0.02, [-0.035, -0.005]), "-2.0%[-3.5,-0.5]n=225"),
        (evaluated(0.02, [0.0, 0.07], queries=19), "+2.0%(n=19,not-significant)"),
        (evaluated(-0.01, [-0.05, 0.03]), "-1.0%(n=225,not-significant)"),
        (evaluated(0.0, [0.0, 0.0], queries=1), "+0.0%(n=1,not-significant)"),
        (evaluated(0.02, None), "+2.0%n=225"),
        # The base model finds so little that no ratio has an upper end.
        (evaluated(0.375, None, 100, [0.08, 0.11, 0.0, 0.055]), "+37.5%(n=100,not-significant)"),
        (evaluated(0.375, None, 100, [0.08, 0.11, -0.01, 0.055]), "+37.5%(n=100,not-significant)"),
        (evaluated(0.375, None, 100, [0.08, 0.11, 0.001, 0.055]), "+37.5%(n=100,not-significant)"),
        (evaluated(0.75, None, 100, [0.08, 0.14, 0.02, 0.055]), "+75.0%n=100"),
        (evaluated(-0.375, None, 100, [0.08, 0.05, -0.07, 0.055]), "-37.5%(n=100,not-significant)"),
        (evaluated(-0.375, None, 100, [0.08, 0.05, -0.05, 0.055]), "-37.5%(n=100,not-significant)"),
        (evaluated(-0.75, None, 100, [0.08, 0.02, -0.09, 0.055]), "-75.0%n=100"),
        (evaluated(0.375, None, 100, []), "+37.5%n=100"),
        (evaluated(0.375, [0.1, 0.6], 100, [0.08, 0.11, -0.01, 0.055]), "+37.5%[+10.0,+60.0]n=100"),
        (evaluated(None, None), ""),
        (evaluated(1e30, [1e29, 1e31]), "+" + f"{1e32:.1f}%"),
        (a_stage(state="Running"), ""),
    ],
)
def test_the_uplift_is_one_word_with_how_sure_it_is(entry: StageStatus, column: str) -> None:
    found = uplift_of(Status(stages=[entry]))
    assert found == column or (len(column) > 30 and found.startswith(column[:30]))
    assert " " not in found
    assert len(found) <= 48


NEW, OLD = evaluated(0.02, [0.005, 0.035]), {"ndcg": "0.50000", "uplift": "+1.0%n=9"}
SERVES = Served(active_fingerprint="aa", active_revision=1)
HISTORY = [{"revision": 1, "ndcg@10": "0.40000"}]


@pytest.mark.parametrize(
    ("status", "activated", "columns"),
    [
        (Status(), False, ("", "")),
        (Status(stages=[NEW]), False, ("0.61500", "+2.0%[+0.5,+3.5]n=225")),
        (Status(stages=[NEW], served=SERVES, **OLD), True, ("0.61500", "+2.0%[+0.5,+3.5]n=225")),
        (Status(stages=[NEW], served=SERVES, **OLD), False, ("0.50000", "+1.0%n=9")),
        (Status(stages=[a_stage(Stage.SDG)], served=SERVES, **OLD), False, ("0.50000", "+1.0%n=9")),
        (Status(stages=[NEW], served=SERVES, history=HISTORY), False, ("0.40000", "")),
        (Status(stages=[NEW], served=SERVES), False, ("", "")),
    ],
    ids=[
        "nothing is known",
        "the first revision, before it serves",
        "it serves",
        "another one serves",
        "another one serves, this one runs",
        "written by a release that emptied the columns",
        "nothing is known of what serves",
    ],
)
def test_the_columns_are_those_of_what_clients_reach(status: Status, activated: bool, columns: tuple[str, str]) -> None:
    assert shown(status, activated=activated) == columns
