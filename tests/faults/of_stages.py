"""Kinds of scenarios: stages fail."""

from __future__ import annotations

from faults.lab import Actor, Scenario, Script
from faults.of_people import EPOCHS, JOB_STAGES, end
from faults.of_requests import Goldens
from simulation.endings import BAD_INPUT, BUG, OOM_KILLED, OUT_OF_MEMORY, SILENT, STOPPED, TRANSIENT, Ending

from embedding_stages.contract import Stage

_ENDINGS = {
    "bad input": BAD_INPUT,
    "transient": TRANSIENT,
    "out of memory": OUT_OF_MEMORY,
    "stopped": STOPPED,
    "a bug": BUG,
    "killed for memory": OOM_KILLED,
    "not a word": SILENT,
}


def failing(stage: Stage, ending: Ending, *, second: bool = False) -> Script:
    """Once; where that is final, a retry token asks for another attempt."""

    async def script(actor: Actor) -> None:
        if second:
            await actor.create()
            await actor.ready()
        actor.place.endings[stage] = [ending]
        await (actor.edit(EPOCHS) if second else actor.create())
        await actor.until("an end", lambda: actor.is_ready() or (actor.is_stalled() and not actor.place.endings[stage]))
        if not actor.is_ready():
            await actor.edit({"retryToken": "again"})
        await end(actor)

    return script


def stages_fail(goldens: Goldens) -> list[Scenario]:
    return [
        Scenario(name=f"{stage}: {how}", script=failing(stage, ending), golden="first", cost=24, end="asked")
        for stage in JOB_STAGES
        for how, ending in _ENDINGS.items()
    ]


def stages_fail_later(goldens: Goldens) -> list[Scenario]:
    """In a second revision, while the first one serves."""
    return [
        Scenario(
            name=f"{stage} of the second revision: {how}",
            script=failing(stage, _ENDINGS[how], second=True),
            golden="edited",
            cost=24,
            end="asked",
        )
        for stage in (Stage.FINETUNE, Stage.EVAL, Stage.EXPORT, Stage.VERIFY)
        for how in ("bad input", "transient", "a bug")
    ]
