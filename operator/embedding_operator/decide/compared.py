"""May the model that serves have trained on the questions of this revision's evaluation? Pure.

The questions of an evaluation set are kept away from the training of its own revision alone. The model that serves
trained earlier, away from the set that it was evaluated on itself: of a new set it may have trained on many questions,
and would measure better on them than a model that is as good.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from embedding_operator.decide.decision import Draft
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import Status
from embedding_stages.contract import Artefact, Stage

_SET: Final = Artefact.EVALUATION_SET


def active_may_know(status: Status, spec: Spec) -> bool:
    """Of the model that the tuned one was compared with. Once that serves no more, what was noted of it holds."""
    evaluated, active = status.stage(Stage.EVAL), status.served.checkpoint
    if active is None or evaluated.details.get(Artefact.ACTIVE_CHECKPOINT.value) != active.digest:
        return evaluated.active_may_know
    return not _was_kept_from(status, spec)


def note_active(draft: Draft, spec: Spec) -> None:
    """Remember it, beside the figures that it is about."""
    entry = replace(draft.status.stage(Stage.EVAL), active_may_know=active_may_know(draft.status, spec))
    draft.status = draft.status.with_stage(entry)


def evaluated_on(status: Status, revision: int) -> str:
    """Digest of the set that the model which serves was evaluated on again since its `revision` was recorded; empty
    where it is that of the record.
    """
    told, own = str(status.stage(Stage.EVAL).details.get(_SET.value) or ""), _recorded(status, revision)
    return told if own and not told.startswith(own) else ""


def still_evaluated_on(status: Status, revision: int) -> str:
    """The same of what goes on serving by the number of a `revision` that is pinned."""
    served = status.served
    own, theirs = served.evaluated_on or _recorded(status, served.active_revision), _recorded(status, revision)
    return "" if theirs and own.startswith(theirs) else own


def _recorded(status: Status, revision: int) -> str:
    """The beginning of the digest of the set that a revision was evaluated on first; empty where none tells."""
    item = next((item for item in status.history if item.get("revision") == revision), {})
    return str(item.get(_SET.value) or "")


def _was_kept_from(status: Status, spec: Spec) -> bool:
    """Whether what serves was evaluated on these questions, or on a set that they are left over from."""
    made, frozen = status.stage(Stage.PREP).artefacts.get(_SET), status.evaluation_set
    if made is None:
        return False
    revision = status.served.active_revision
    own = status.served.evaluated_on or _recorded(status, revision)
    if own and made.digest.startswith(own):
        return True
    # A pinned revision may be older than the set that is frozen now.
    if frozen is None or not (revision >= frozen.revision or (own and frozen.ref.digest.startswith(own))):
        return False
    is_scored_on_it = spec.freeze and frozen.asked == spec.labelled_asked
    return is_scored_on_it or made.digest == frozen.ref.digest
