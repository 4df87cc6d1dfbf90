"""The decision: from a spec, a status and what was observed to the next status and the actions. Pure.

`plan` is the whole story of a resource: the pipeline's stages in order, then deploy, verify, activate. Each step says
whether it is done; the first that is not ends the pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from embedding_operator.decide.bounds import keep_to_limits
from embedding_operator.decide.contract import check_canaries, publish_contract
from embedding_operator.decide.decision import (
    Action,
    Apply,
    DeleteObject,
    Draft,
    Observed,
    Plan,
    ends_image_check,
    frees,
)
from embedding_operator.decide.handover import Traffic, forget_lost_offer, vector_space, withdraw_offer
from embedding_operator.decide.image_check import check_later_images, end_image_check
from embedding_operator.decide.jobs import advance
from embedding_operator.decide.phase import OF_THE_SERVER, stuck_in, with_failure, with_verdict
from embedding_operator.decide.preflight import Made, ask_for_preflight, preflight
from embedding_operator.decide.queue import forget_suspensions, resume_workloads, suspend_jobs
from embedding_operator.decide.records import pinned_stages, record_revision, take_pinned
from embedding_operator.decide.refusals import refusal_wait, with_first_words
from embedding_operator.decide.rendezvous import keep_rendezvous_services
from embedding_operator.decide.results import take_results
from embedding_operator.decide.retention import remove_ended_jobs
from embedding_operator.decide.retire import end_drain, remove_drained
from embedding_operator.decide.scale import note_scale, scaling_of
from embedding_operator.decide.schedule import end_stray_looks, keep_schedule
from embedding_operator.decide.serving import deploy, verification
from embedding_operator.decide.settle import foreseen, settle, settle_server
from embedding_operator.decide.stopped import invalid
from embedding_operator.decide.summary import conclude, judged_by_gate
from embedding_operator.decide.traffic import activate, keep_active
from embedding_operator.decide.training import gate_blocks, run_pipeline
from embedding_operator.decide.usage import begin_run, begun_at, end_run, with_end_of_run
from embedding_operator.decide.verdict import Verdict, verdict_of
from embedding_operator.decide.workspace import keep_workspace
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import selected, serving_label
from embedding_operator.resource.api import Spec, SpecError, check_name
from embedding_operator.resource.frozen import asks_again, carry, resolved
from embedding_operator.resource.images import check_images
from embedding_operator.resource.placement import with_access_modes
from embedding_operator.resource.served import as_verified, taken_before
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import DAMAGED, PINNED, SCALING, TAKEN, Served, StageStatus, Status
from embedding_operator.resource.times import is_ahead, stamp
from embedding_stages.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the operator's own configuration contributes to a decision."""

    images: Mapping[str, str]  # by stage, and TORCH_SERVER
    given_user: bool = False  # the platform gives pods their user and groups, as OpenShift does
    look_for_secrets: bool = False  # the preflight may ask whether a Secret exists
    check_images: bool = True  # a pod may try the images of later stages


def plan(owner: Owner, raw_spec: Mapping[str, Any], status: Status, observed: Observed, defaults: Defaults) -> Plan:
    """Decide. The same arguments always give the same plan. `status` is read without what only scales; see scale.py."""
    draft, observed = Draft(status=status), with_first_words(status, observed)
    forget_suspensions(draft, observed, suspended=bool(raw_spec.get("suspend")))
    try:
        read, assumed = as_verified(raw_spec, status)
        spec = replace(parse_spec(read, defaults.images), given_user=defaults.given_user, assumed=assumed)
        spec = with_access_modes(spec, observed.workspace_modes)
        check_name(owner.name, spec.stages[Stage.FINETUNE].pod.workers.nodes)
        check_images(spec)
        pinned = pinned_stages(spec, status, observed)
    except SpecError as error:
        return _invalid(draft, owner, observed, error, end_drain(draft, observed, None), status)
    drained = end_drain(draft, observed, spec.deploy.drain_s)
    revision = status.revision_of(observed.generation)
    spec = carry(spec, status, revision)
    _begin_revision(draft, spec, raw_spec, owner, observed, revision)
    verdict: Verdict | None = None
    traffic: Traffic | None = None
    trained = False
    if spec.suspend:
        suspend_jobs(draft, observed)
        take_pinned(draft, spec, pinned)
        end_image_check(draft, observed)
    else:
        resume_workloads(draft, observed)
        keep_workspace(draft, spec, owner, observed)
        try:
            trained = run_pipeline(draft, spec, owner, observed, defaults.images, pinned)
        except SpecError as error:
            return _invalid(draft, owner, observed, error, drained, status)
        if trained:
            verdict, traffic = _serve(draft, spec, owner, observed, defaults)
        made = Made(models=trained, everything=verdict is not None)
        ahead = foreseen(spec, draft.status, defaults.images)
        preflight(draft, ahead, owner, observed, defaults.images, made, look_for_secrets=defaults.look_for_secrets)
        if defaults.check_images:
            check_later_images(draft, ahead, owner, observed, defaults.images)
        else:
            end_image_check(draft, observed)
        if _nothing_to_offer(draft, status, verdict):
            withdraw_offer(draft, owner, observed)
        if observed.not_begun is not None:  # its Job may be hours into a training, and the edit may be taken back
            draft.actions = [action for action in draft.actions if not _ends_work(action)]
    leads: Apply | None = None
    served = draft.status.served
    there = served.candidate_fingerprint == served.active_fingerprint
    # Where clients cannot be moved, or are to be led back, and something is refused, nobody else leads them.
    held_up = traffic is not None and traffic.state == "moving" and refusal_wait(observed) is not None
    if traffic is None or traffic.state == "waiting" or held_up:
        reported = trained and there
        leads = keep_active(draft, owner, observed, status.served, reported=reported)
    remove_drained(draft, owner, observed, drained, status.served)
    if traffic is None or traffic.state != "moving":  # what clients reach is about to change
        publish_contract(draft, owner, observed)
    remove_ended_jobs(draft, status, spec, observed)
    decided, draft.actions = draft.actions, []
    _look_at_sources(draft, spec, owner, observed, verdict, traffic)
    if draft.status.revision_of(observed.generation) != revision:  # other sources: that is a revision, from now on
        begun = plan(owner, raw_spec, draft.status, observed, defaults)
        # It may have begun before, in a pass that was lost: its Jobs are not for the one before it to end.
        kept = [action for action in decided if not (isinstance(action, DeleteObject) and action.kind == "Job")]
        return begun.after([*kept, *draft.actions], draft.events, draft.ended_run)
    draft.actions = [*decided, *draft.actions]
    note_scale(draft, owner, observed)
    check_canaries(draft, spec.canaries_every_s, observed)
    keep_to_limits(draft, status, observed)
    take_results(draft, observed, valid=True)
    # The order of these calls matters: `keep_active` may only tell of a server that the deploy stage has not reported;
    # the rendezvous Services follow from the Jobs that all of the above creates and deletes; stages are set back only
    # when each has had its say; conditions and phase are computed from stages that do not change any more.
    keep_rendezvous_services(draft, owner, observed, before=status)
    if refusal_wait(observed) is not None:  # nothing is created behind what was refused
        draft.actions = [action for action in draft.actions if frees(action) or action is leads]
    forget_lost_offer(draft, observed)
    _set_back(draft, spec)
    return with_end_of_run(status, conclude(draft, spec, observed, verdict, traffic))


def _invalid(draft: Draft, owner: Owner, observed: Observed, error: SpecError, drained: str, before: Status) -> Plan:
    """Nothing is begun; what serves is looked after, and what runs is held to its limits."""
    end_image_check(draft, observed)
    keep_active(draft, owner, observed, before.served, reported=False)
    remove_drained(draft, owner, observed, drained, before.served)
    take_results(draft, observed, valid=False)
    keep_to_limits(draft, before, observed)
    forget_lost_offer(draft, observed)
    return invalid(draft, observed, error)


def _ends_work(action: Action) -> bool:
    return isinstance(action, DeleteObject) and not ends_image_check(action)


def _look_at_sources(
    draft: Draft, spec: Spec, owner: Owner, observed: Observed, verdict: Verdict | None, traffic: Traffic | None
) -> None:
    """As spec.schedule says, once the revision serves, or stands still until somebody acts."""
    serves = traffic is not None and (traffic.state == "active" or traffic.broken)
    held = any(item.state == "Failed" or (item.state == "Waiting" and item.broken) for item in draft.status.stages)
    over = serves or held or stuck_in(draft.status, judged_by_gate(draft.status, spec), verdict)
    keep_schedule(draft, spec, owner, observed, over=over)
    end_stray_looks(draft, spec, observed)


def _nothing_to_offer(draft: Draft, before: Status, verdict: Verdict | None) -> bool:
    """Whether what may have been offered is not this revision's verified candidate any more."""
    served, known = draft.status.served, before.served.candidate_fingerprint
    if verdict is not None and not verdict.within:  # after it was offered, its server was changed
        return True
    if served.candidate_fingerprint and served.candidate_fingerprint == served.active_fingerprint:
        return True
    another = verdict is None and served.candidate_fingerprint != known  # such as one with another model name
    return another or served.candidate_revision != draft.status.revision


def _set_back(draft: Draft, spec: Spec) -> None:
    """What comes after the first stage that is not done has not been shown to be valid: it is pending again."""
    reached = True
    for stage in Stage:
        entry = draft.status.stage(stage)
        if not reached and entry.state != "Pending":
            draft.status = draft.status.with_stage(entry.remembered())
        reached = reached and entry.done and not (stage is Stage.EVAL and gate_blocks(draft, spec))


def _begin_revision(
    draft: Draft, spec: Spec, raw_spec: Mapping[str, Any], owner: Owner, observed: Observed, revision: int
) -> None:
    """An edit makes a new revision, and so does a look that found a change. Nothing is forgotten, but everything has to
    be shown to be valid again.
    """
    status = draft.status
    in_force = resolved(spec, status, revision)
    if status.revision != revision:
        begin_run(draft, observed)
        status = replace(
            draft.status,
            revision=revision,
            stages=tuple(_pending(item, status, spec, observed) for item in draft.status.stages),
            last_failure={},
            verification={},
            warnings=(),
            restored={},
            served=_with_lost_move(status, owner, observed),
        )
        status = ask_for_preflight(status, revision)
        if (taken := taken_before(draft.status)) is not None:
            in_force[TAKEN] = taken
        in_force[SCALING] = {**scaling_of(raw_spec, observed.generation), "edits": status.scalings}
    elif (begun := begun_at(status)) is not None and is_ahead(begun, observed.now):  # nothing would count until then
        status = replace(status, run={**status.run, "startedAt": stamp(observed.now)})
    draft.status = replace(status, observed_generation=observed.generation, resolved=in_force)


def _with_lost_move(status: Status, owner: Owner, observed: Observed) -> Served:
    """Where no server is on record as active, with the one that got clients in a pass that was lost: it goes on until
    another one takes its place, drains, and a move to another vector space is acknowledged.
    """
    served = status.served
    led_to = selected(observed.services.get(owner.name))
    if served.active_fingerprint or not led_to or led_to != serving_label(served.candidate_fingerprint):
        return served
    return replace(served, moved_to=served.candidate_fingerprint, vector_space=vector_space(status))


def _refused(status: Status, spec: Spec) -> bool:
    """Whether the last measurement fails by the tolerance that is asked for now."""
    return not verdict_of(status, spec).within


def _pending(item: StageStatus, status: Status, spec: Spec, observed: Observed) -> StageStatus:
    """What a stage remembers into the next revision: its fingerprint and artefacts, for reuse."""
    if any(other.reason in DAMAGED for other in status.stages):
        # Something in the workspace is not what its stage wrote, so no earlier answer is believed: every stage is
        # asked again, and returns at once where its folder is intact.
        return _anew(item, status, observed)
    if item.reason == PINNED and 0 < item.distrusted == item.attempt:  # it has not been asked since
        return _anew(item, status, observed)
    measured = item.done or item.finished_at or item.reason in OF_THE_SERVER
    if item.name is Stage.VERIFY and (asks_again(spec, status) or (measured and _refused(status, spec))):
        # A refusal may have been the server's passing fault: an edit asks for another measurement.
        return _anew(item, status, observed)
    return item.remembered()


def _anew(item: StageStatus, status: Status, observed: Observed) -> StageStatus:
    """What later revisions have made since is believed: this one may have begun before, in a pass that was lost."""
    made = (job for job in observed.jobs if job.stage is item.name and job.revision <= status.revision)
    return item.anew(max([item.attempt, *(job.attempt for job in made)]))


def _serve(
    draft: Draft, spec: Spec, owner: Owner, observed: Observed, defaults: Defaults
) -> tuple[Verdict | None, Traffic | None]:
    """(verdict, where the verified revision stands with clients)."""
    spec, settled = settle_server(draft, spec, defaults.images)
    if not deploy(draft, spec, owner, observed, settled):
        return None, None
    identity, settings = verification(draft, owner, spec)
    spec = settle(draft, Stage.VERIFY, spec, observed, defaults.images, identity=identity)
    if not advance(draft, Stage.VERIFY, spec, owner, observed, identity=identity, settings=settings):
        remembered = with_failure(draft.status.served, draft.status.stage(Stage.VERIFY))
        draft.status = replace(draft.status, served=remembered)
        return None, None
    verdict = verdict_of(draft.status, spec)
    draft.status = replace(draft.status, served=with_verdict(draft.status.served, verdict))
    if not verdict.within:
        return verdict, None
    end_run(draft)
    traffic = activate(draft, owner, spec, observed)
    if traffic.state == "active":
        record_revision(draft, owner, spec, observed)
    return verdict, traffic
