"""What finished stages warn of: little data, a gain that may be chance. It stops nothing; people must hear it. Pure.

A stage puts warnings, a list of texts, into the details of its result; what follows from figures is added here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from embedding_operator.decide.decision import Draft
from embedding_operator.decide.figures import may_be_chance
from embedding_operator.resource.api import Spec
from embedding_operator.resource.images import floats, images_of
from embedding_operator.resource.status import StageStatus, StageWarning, Status
from embedding_stages.contract import Stage

STAGE_WARNED: Final = "StageWarned"
_WARNINGS: Final = 8  # of all stages
_OF_A_STAGE: Final = 3  # the stage's first ones; its log has all
_CHARACTERS: Final = 240


def warn(draft: Draft, spec: Spec | None = None) -> None:
    """Bring status.warnings up to date, and tell the new ones of a stage in an Event, once in a revision."""
    known, found = draft.status.warnings, (*_floating(spec), *_warnings(draft.status))[:_WARNINGS]
    # A status that would be too large keeps the beginning of each.
    new = [
        item
        for item in found
        if not any(item.stage is old.stage and item.message.startswith(old.message) for old in known)
    ]
    for stage in dict.fromkeys(item.stage for item in new):
        texts = [item.message for item in new if item.stage is stage]
        draft.event("Warning", STAGE_WARNED, f"{stage}: {'; '.join(texts)}")
    draft.status = replace(draft.status, warnings=found)


def _floating(spec: Spec | None) -> Iterator[StageWarning]:
    """Images of the manifest with neither tag nor digest, and a server's generation that nobody knows."""
    for stage, field, image in images_of(spec) if spec is not None else ():
        if floats(image):
            said = f"{field}: {image} has neither tag nor digest, so it is what latest is when a pod starts; name one"
            yield StageWarning(stage=stage, message=said[:_CHARACTERS])
    if spec is not None and spec.assumed:
        yield StageWarning(stage=Stage.DEPLOY, message=spec.assumed[:_CHARACTERS])


def _warnings(status: Status) -> Iterator[StageWarning]:
    if status.schedule.result == "Failed":
        yield StageWarning(stage=Stage.INPUTS, message=status.schedule.message[:_CHARACTERS])
    for stage in Stage:
        entry = status.stage(stage)
        if entry.done:
            texts = [" ".join(text.split())[:_CHARACTERS] for text in _told(entry)]
            yield from (StageWarning(stage=stage, message=text) for text in list(dict.fromkeys(texts))[:_OF_A_STAGE])
        elif entry.state == "Pending" and entry.artefacts:
            # Its work is found again after a detour in this revision: not told twice, nor forgotten meanwhile.
            yield from (item for item in status.warnings if item.stage is stage)


def _told(entry: StageStatus) -> Iterator[str]:
    """Untrusted: an image of somebody else's may print anything."""
    said = entry.details.get("warnings")
    if isinstance(said, list):
        yield from (text for text in said if isinstance(text, str) and text.strip())
    if entry.name is Stage.EVAL and (chance := may_be_chance(entry)):
        yield chance
