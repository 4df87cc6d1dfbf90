"""What ended while no stage asks after it goes on record. Pure.

A suspended resource, and one whose manifest is not valid, may stay so for weeks, and so may a stage that waits. The
Jobs of stages that the pass does not reach end meanwhile, and Kubernetes removes them after a day: their work would be
done again. So what they did is remembered, as what an earlier revision did: a stage finds it when its turn comes, if it
is still asked for the same.
"""

from __future__ import annotations

from dataclasses import replace

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.outcome import result_of
from embedding_operator.decide.retry import with_result
from embedding_operator.decide.usage import begun_at, measured


def take_results(draft: Draft, observed: Observed, *, valid: bool) -> None:
    """Take what the newest attempt of each stage that has not begun did. `valid`: the manifest is, so that another
    stage's turn is before it; else a stage stays what it was, and is done.
    """
    for entry in draft.status.stages:
        known = entry.done or entry.state == "Failed" or (entry.finished_at and entry.artefacts)
        if known or (valid and entry.state != "Pending"):
            continue
        of_stage = (job for job in observed.jobs if job.stage is entry.name and job.fingerprint == entry.fingerprint)
        jobs = sorted((job for job in of_stage if job.attempt > entry.distrusted), key=lambda job: job.attempt)
        result = result_of(jobs[-1]) if jobs and jobs[-1].finished and not jobs[-1].deleting else None
        if result is None:
            continue
        usage = measured(entry.usage, jobs, observed, begun_at(draft.status), exact=True)
        taken = with_result(replace(entry, usage=usage), jobs[-1], result, draft.status.revision, observed.now)
        draft.event("Normal", "Completed", f"{entry.name}: {taken.message}")
        draft.status = draft.status.with_stage(taken.remembered() if valid else taken)
