"""The rollout of this revision's Deployment: how far has it come, and why is it not complete? Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.lost import silent_node
from embedding_operator.decide.usage import begin_run, has_ended
from embedding_operator.decide.waiting import A_MOMENT, UNREMARKABLE, WAITING_FOR_QUOTA, Wait, explain_wait
from embedding_operator.decide.words import as_told, counts_as_told
from embedding_operator.objects.compare import differs
from embedding_operator.objects.manifests.serving import CHECK_CONTAINER
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import DeploymentView, EventView
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import DAMAGED, SERVER_IMAGES, StageStatus, State, Status
from embedding_operator.resource.times import noted_time, stamp
from embedding_stages.contract import ExitCode, Stage

SCALING: Final = "Scaling"
STARTING: Final = "Starting"
_POLL_S: Final = 3.0
_SERVERS_KEPT: Final = 4
_IMAGE_IDS_KEPT: Final = 8  # of one tag, on nodes of several kinds


def follow(
    draft: Draft, spec: Spec, entry: StageStatus, live: DeploymentView, observed: Observed, *, applied: bool
) -> bool:
    """True when the rollout is complete.

    `applied`: this pass re-applied the Deployment's manifest, so the replica counts of its status are stale.
    """
    # Of replicas that somebody else decides about, one has to answer: there are always some that start or end.
    wanted = spec.deploy.replicas or 1
    available = live.available >= wanted
    # What its controller has not seen yet is then their number, and no template.
    scaled = spec.deploy.replicas is None and entry.state == "Succeeded" and live.asked != live.total
    if available and not applied and live.rolled_out(wanted, scaled=scaled):
        _succeed(draft, entry, live, spec.deploy.replicas or live.asked, observed)
        return True
    pod = max((p for p in live.pods if not p.deleting), key=lambda p: p.created, default=None)
    if pod is not None and not applied and (failure := _failure_of(pod, entry)) is not None:
        fail(draft, entry, *_of_pinned(spec, failure))
        return False
    if was_available(entry) and available:
        # A rolling update: the old pods still serve, so this is not a failure. The start timer begins anew.
        now = stamp(observed.now)
        message = f"pods of {live.name} are being replaced, {live.available} are available meanwhile"
        record(
            draft,
            replace(entry, state="Running", reason="RollingOut", message=message, started_at=now, finished_at=""),
        )
        return False
    _wait(draft, spec, entry, live, observed, _why(spec, live, observed, pod, applied=applied))
    return False


def scales(
    draft: Draft,
    spec: Spec,
    entry: StageStatus,
    live: DeploymentView,
    desired: Mapping[str, Any],
    observed: Observed,
) -> bool:
    """Go on while the server gets another number of pods, and is otherwise what it was: Ready where clients reach it.

    What answers is what was measured. An autoscaler of the resource makes such an edit every minute or so.
    """
    wanted = int(desired["spec"]["replicas"])
    settled = live.total <= live.updated  # no rolling update is under way: it may be stuck, and that has to show
    # One that clients are not moved to yet has to have come up once: what it lacks before that are no pods more.
    serves = entry.fingerprint == draft.status.served.active_fingerprint or entry.state == "Succeeded"
    on_it = settled and serves and live.available > 0
    begins = live.asked != wanted and not differs(_as_many(desired, live), live.raw)
    since = noted_time(entry.started_at) or live.created
    goes_on = (
        entry.reason == SCALING
        and live.available < wanted
        and (observed.now - since).total_seconds() <= spec.deploy.start_timeout_s
    )
    if not on_it or not (begins or goes_on):
        return False
    now = stamp(observed.now)
    images = _images(draft, entry, live, observed)  # a tag may have moved that the new pods come with
    _remember(draft, live, images)
    message = f"{live.available} of {wanted} replicas of {live.name} are available, and the server goes on with them"
    going = replace(
        entry,
        state="Succeeded",
        reason=SCALING,
        message=message,
        broken=False,
        started_at=entry.started_at if entry.reason == SCALING else now,
        finished_at=entry.finished_at or now,
        image_ids=images,
    )
    record(draft, going)
    draft.look_again_in(_POLL_S)
    return True


def _as_many(desired: Mapping[str, Any], live: DeploymentView) -> dict[str, Any]:
    """What is desired, with as many pods as there are asked for now, and without what is noted of the whole."""
    meta = {key: value for key, value in desired["metadata"].items() if key != "annotations"}
    return {**desired, "metadata": meta, "spec": {**desired["spec"], "replicas": live.asked}}


def _succeed(draft: Draft, entry: StageStatus, live: DeploymentView, wanted: int, observed: Observed) -> None:
    if entry.state != "Succeeded":
        draft.event("Normal", "Available", f"deploy: {live.available} of {wanted} replicas are available")
    finished = entry.finished_at or stamp(observed.now)
    message = f"{live.available} of {wanted} replicas of {live.name} are available"
    done = replace(entry, state="Succeeded", reason="Available", finished_at=finished, message=message)
    images = _images(draft, entry, live, observed)
    record(draft, replace(done, broken=False, image_ids=images))
    _remember(draft, live, images)


def _remember(draft: Draft, live: DeploymentView, images: tuple[str, ...]) -> None:
    others = [[server, known] for server, known in _remembered(draft.status) if server != live.serving]
    told = [*others, [live.serving, list(images)]][-_SERVERS_KEPT:]
    draft.status = replace(draft.status, resolved={**draft.status.resolved, SERVER_IMAGES: told})


def _images(draft: Draft, entry: StageStatus, live: DeploymentView, observed: Observed) -> tuple[str, ...]:
    """The images that the server's pods ran, by digest. A tag that moved is another server: it is measured anew."""
    known, measured = entry.image_ids, draft.status.stage(Stage.VERIFY)
    known = known or next((tuple(images) for server, images in _remembered(draft.status) if server == live.serving), ())
    running = _running(live)
    here = Counter(_digest(pod.image_id) for pod in live.pods if pod.image_id and _is_there(pod))
    # What loads yet answers nobody: a measurement that began now would pass it by. One of more pods than do not answer
    # does answer.
    silent = here.total() - live.available
    new = [image for image in sorted(running - set(known)) if not known or here[image] > silent]
    of_it = (job for job in observed.jobs if job.stage is Stage.VERIFY)
    jobs = [job for job in of_it if known or job.revision == draft.status.revision]
    # One of which no status tells has perhaps measured what ran before.
    late = [job.attempt for job in jobs if set(new) - _ran_at(live, job.created)]
    if new and (known or late):
        draft.event("Warning", "ImageMoved", f"deploy: {entry.image} is now {', '.join(new)}, and is verified again")
        if has_ended(draft.status):
            begin_run(draft, observed)
            measured = draft.status.stage(Stage.VERIFY)
        draft.status = draft.status.with_stage(measured.anew(max([measured.attempt, *late])))
    # What ran before a move was perhaps refused: should it come back, it is measured again.
    told = sorted(running & {*known, *new}) if known and new else [*known, *new]
    return tuple(told[-max(_IMAGE_IDS_KEPT, len(running)) :])


def _remembered(status: Status) -> Sequence[tuple[str, Sequence[str]]]:
    """(label, images that were measured) of the last servers: clients may be led back to one."""
    told = status.resolved.get(SERVER_IMAGES)
    pairs = [item for item in told if isinstance(item, list) and len(item) == 2] if isinstance(told, list) else []
    return [(str(server), [str(image) for image in images]) for server, images in pairs if isinstance(images, list)]


def _running(live: DeploymentView) -> set[str]:
    """Images of pods that are there."""
    return {_digest(pod.image_id) for pod in live.pods if pod.image_id and _is_there(pod)}


def _is_there(pod: PodView) -> bool:
    """Not one that was put out, which stays for a while as a pod that has failed."""
    return pod.phase not in ("Failed", "Succeeded") and not pod.deleting


def _ran_at(live: DeploymentView, at: datetime) -> set[str]:
    """Images that pods of it ran at a time, as far as can be told: a container that restarts may have another one."""
    return {_digest(pod.image_id) for pod in live.pods if pod.image_id and (pod.began or pod.created) <= at}


def _digest(image_id: str) -> str:
    """Without the repository: one image may be pulled under several names."""
    return image_id[image_id.rfind("sha256:") :] if "sha256:" in image_id else image_id


def _why(spec: Spec, live: DeploymentView, observed: Observed, pod: PodView | None, *, applied: bool) -> Wait:
    """Why it is not available yet."""
    if applied:
        why = "if this stays, something changes it back, such as an admission policy"
        message = f"{live.kind} {live.name} was applied; {why}"
        return Wait(reason="Applied", message=message, broken=False)
    if live.replica_failure:
        refusal = EventView(reason="FailedCreate", message=live.replica_failure)
        return explain_wait(None, (refusal,), spec, Stage.DEPLOY)
    if (silent := silent_node(live.pods)) is not None:
        return silent
    if pod is not None and pod.started and not pod.blocked_by:
        return Wait(reason=STARTING, message=f"pod {pod.name} is loading the model", broken=False)
    return explain_wait(pod, observed.warnings.get(pod.uid, ()) if pod else (), spec, Stage.DEPLOY)


def _wait(draft: Draft, spec: Spec, entry: StageStatus, live: DeploymentView, observed: Observed, wait: Wait) -> None:
    since = noted_time(entry.started_at) or live.created
    if was_available(entry):
        # Where their number has changed, that is told at once.
        counts = f"{live.available} of {spec.deploy.replicas or live.asked} replicas are available: "
        fail(draft, entry, "Unavailable", _counted(counts, wait, draft, entry, observed))
    elif (observed.now - since).total_seconds() > spec.deploy.start_timeout_s:
        limit = f"{spec.deploy.start_timeout_s} s (spec.stages.deploy.timeoutSeconds: raise it if it only needs longer)"
        fail(draft, entry, "StartTimeout", _counted(f"not available after {limit}: ", wait, draft, entry, observed))
    elif _just_created(entry, live, wait, observed):
        record(draft, entry)
    else:
        wait = as_told(wait, entry, draft.status, observed.now, poll_s=_POLL_S)
        queued = spec.scheduling.serving and wait.reason == WAITING_FOR_QUOTA  # the start timer does not run meanwhile
        state: State = "Waiting" if wait.broken or queued else "Running"
        record(draft, replace(entry, state=state, reason=wait.reason, message=wait.message, broken=wait.broken))


def _counted(start: str, wait: Wait, draft: Draft, entry: StageStatus, observed: Observed) -> str:
    """What it waits for behind such a start, with the counts that were told of the same."""
    said = entry.message.removeprefix(start)
    return start + counts_as_told(wait.message, said, draft.status, observed.now, poll_s=_POLL_S)


def _just_created(entry: StageStatus, live: DeploymentView, wait: Wait, observed: Observed) -> bool:
    """Whether it is still told that it starts: most pods have started in a moment, and that is not worth a write."""
    starts = entry.reason == STARTING and wait.reason in (STARTING, *UNREMARKABLE)
    return starts and observed.now < live.created + A_MOMENT


def _failure_of(pod: PodView, entry: StageStatus) -> tuple[str, str] | None:
    """(reason, message) when the pod will not come up as it is."""
    if pod.failed_init == CHECK_CONTAINER:
        return _failed_check(pod)
    # Between two crashes the server runs for a while: that is not a recovery before it answers.
    crashing = pod.waiting_reason == "CrashLoopBackOff" or entry.reason == "ServerCrashed"
    if pod.exit_code not in (None, 0) and crashing:
        said = pod.termination_message.strip()[-600:]
        return "ServerCrashed", f"the server ends with exit code {pod.exit_code}: {said}{_look(pod)}"
    return None


def _look(pod: PodView) -> str:
    return f"; its own words are in the log (kubectl logs {pod.name} --previous)"


def _of_pinned(spec: Spec, failure: tuple[str, str]) -> tuple[str, str]:
    """A pinned revision whose artefacts are gone says nothing about the workspace of later ones."""
    reason, message = failure
    if spec.deploy.pinned is None or reason not in DAMAGED:
        return failure
    cure = "pin another revision of status.history, or remove pinRevision"
    return "PinnedRevisionGone", (
        f"spec.stages.deploy.pinRevision: revision {spec.deploy.pinned} cannot be served again: {message}; {cure}"
    )


def _failed_check(pod: PodView) -> tuple[str, str]:
    """The check says that something changed the model only in its own words: it may also fail to run at all."""
    try:
        said = json.loads(pod.termination_message)
        reason, message = str(said["reason"]), str(said["message"])[:600]
    except (ValueError, TypeError, KeyError):
        reason, message = "", pod.termination_message.strip()[-600:] or pod.termination_reason
    if pod.exit_code == ExitCode.BAD_INPUT and reason in DAMAGED:
        return reason, f"the mounted model is not the exported one and was not started: {message}"
    return "CheckFailed", f"the check of the mounted model ends with exit code {pod.exit_code}: {message}"


def was_available(entry: StageStatus) -> bool:
    """Whether this Deployment was available before. If so, clients may use it, and unavailable means failed."""
    return entry.state in ("Succeeded", "Failed") and bool(entry.finished_at)


def fail(draft: Draft, entry: StageStatus, reason: str, message: str) -> None:
    if entry.reason != reason:
        draft.event("Warning", reason, f"deploy: {message}")
    record(draft, replace(entry, state="Failed", reason=reason, message=message))


def record(draft: Draft, entry: StageStatus, *, poll_s: float = _POLL_S) -> None:
    """A wait of which nothing has changed keeps its time: another one in each pass would be a write in each pass."""
    known = draft.status.stage(Stage.DEPLOY)
    if entry.state == "Waiting" and entry == replace(known, started_at=entry.started_at):
        entry = known
    draft.look_again_in(poll_s) if entry.state != "Succeeded" else None
    draft.status = draft.status.with_stage(entry)
