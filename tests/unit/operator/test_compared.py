"""Whether what serves may have trained on the questions of a revision's evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_manifest, a_stage

from embedding_operator.decide.compared import active_may_know
from embedding_operator.resource.api import Spec
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import FrozenSet, Served, Status
from embedding_stages.contract import Artefact, ArtefactRef, Stage

FIRST, SECOND = (f"sha256:{digit * 64}" for digit in "ab")
SERVES, EARLIER = (ArtefactRef(path=name, digest=f"sha256:{name}") for name in ("serves", "earlier"))
LABELLED = {"beir": {"pvc": {"claimName": "labelled"}}}


def manifest(**evaluation: Any) -> Spec:
    return parse_spec(a_manifest(evaluation=evaluation), IMAGES)


@dataclass
class Row:
    name: str
    may_know: bool
    evaluation: dict[str, Any] = field(default_factory=dict)
    questions: str = FIRST  # of this revision's evaluation
    frozen: str = FIRST  # on record; empty: none
    frozen_in: int = 1
    serves: int = 2
    history: dict[int, str] = field(default_factory=lambda: {1: FIRST, 2: FIRST})
    beside: ArtefactRef | None = SERVES  # what the tuned model was compared with
    noted: bool = False


ROWS = [
    Row("the questions that it was evaluated on", False),
    Row("the same, while none is on record", False, frozen=""),
    Row("the same, of a release that kept no history", False, history={}),
    Row("what is left of them", False, questions=SECOND),
    Row("what is left of them, after one that lost others", False, questions=SECOND, history={1: FIRST, 2: SECOND}),
    Row("a new set", True, evaluation={"freeze": False}, questions=SECOND),
    Row("the same set, although a new one was asked for", False, evaluation={"freeze": False}),
    Row("another labelled set", True, evaluation=LABELLED, questions=SECOND),
    Row(
        "what is frozen since another revision, beside one that was pinned",
        True,
        questions=SECOND,
        frozen=SECOND,
        frozen_in=2,
        serves=1,
        history={1: FIRST, 2: SECOND},
    ),
    Row(
        "those of a revision that was pinned, while others are frozen",
        False,
        evaluation={"freeze": False},
        frozen=SECOND,
        frozen_in=2,
        serves=1,
        history={1: FIRST, 2: SECOND},
    ),
    Row("nothing is known of what serves", True, frozen="", history={}),
    Row("it was evaluated again since", False, questions=SECOND, frozen_in=3),
    Row("it serves no more, and was compared with fairly", False, questions=SECOND, frozen=SECOND, beside=EARLIER),
    Row("it serves no more, and might have known them", True, beside=EARLIER, noted=True),
    Row("nothing was compared with", False, evaluation={"freeze": False}, questions=SECOND, beside=None),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_serves_may_know_other_questions_than_it_was_evaluated_on(row: Row) -> None:
    spec = manifest(**row.evaluation)
    asked = manifest().labelled_asked
    frozen = FrozenSet(ref=ArtefactRef(path="set", digest=row.frozen), revision=row.frozen_in, asked=asked)
    status = Status(
        stages=(
            a_stage(Stage.PREP, artefacts={Artefact.EVALUATION_SET: ArtefactRef(path="", digest=row.questions)}),
            a_stage(
                details={"activeCheckpoint": row.beside.digest if row.beside is not None else None},
                active_may_know=row.noted,
            ),
        ),
        served=Served(active_fingerprint="f" * 64, active_revision=row.serves, checkpoint=SERVES),
        history=[{"revision": number, "evaluationSet": digest[:19]} for number, digest in row.history.items()],
        evaluation_set=frozen if row.frozen else None,
    )
    assert active_may_know(status, spec) is row.may_know
