"""Wrong images are found at the start of a revision, not stage by stage hours later. Pure.

Once a revision, while its first stage runs, a pod of the operator's own has a container for each image that later
stages and the server take, and that no stage has run yet. The kubelet's own credentials and mirrors decide: what it
says cannot be pulled stands in `Validated`, as the stage would say it, and the stages before go on. The pod is removed
once every image has come, or after half an hour. No work depends on it: whatever is in its way is noted.
See docs/decisions/0024.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from embedding_operator.decide.decision import CreatePod, DeleteObject, Draft, Observed
from embedding_operator.decide.pulling import CHECK_FIELD, IMAGE_REASONS, cannot_be_pulled, cause_of, lasts
from embedding_operator.decide.refusals import RETRY_S
from embedding_operator.decide.waiting import LONG_WAITS, WAITING_FOR_QUOTA
from embedding_operator.objects.image_pods import ImagePod
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.image_check import build_image_check, image_check_name
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import StageStatus, Status
from embedding_operator.resource.times import is_ahead, noted_time, stamp
from embedding_stages.contract import Stage, fingerprint_of

LONGEST_S: Final = 1800
_PATIENCE_S: Final = 90  # for a registry that does not answer, or is overloaded
_HEARD_OF_S: Final = 60  # by then the watch has told of a pod that was made
_POLL_S: Final = 15.0
_CAUSE_CHARACTERS: Final = 240
_NOTE_CHARACTERS: Final = 512
_MADE: Final = "Made"
_DONE: Final = "Done"
# A stage waits for room that the pod may take.
_ROOM: Final = frozenset({WAITING_FOR_QUOTA, "Unschedulable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """An image that a stage takes."""

    stage: Stage
    field: str
    image: str
    own: bool  # the manifest names it


def end_image_check(draft: Draft, observed: Observed, but: str = "") -> None:
    """Remove the pods that try images, but for the one of that name."""
    for pod in observed.image_pods:
        if pod.name == but or pod.deleting:
            continue
        if observed.refusal("unchecked") is not None:
            draft.look_again_in(RETRY_S["record"])
            continue
        why = "the images are known, or no longer asked for"
        draft.actions.append(DeleteObject(kind="Pod", name=pod.name, why=why))


def check_later_images(draft: Draft, spec: Spec, owner: Owner, observed: Observed, images: Mapping[str, str]) -> None:
    """Bring the revision's check a step further, and say what it has found. `images` are the operator's defaults.

    `status.imageCheck` keeps its `revision` and `state` (Made: there is a pod, since `since`; Done), which images were
    `seen` and which are `wrong` (by the start of a hash of their reference, with the cause), and a `note`.
    """
    if (stop := observed.stopped) is not None:
        if stop.kind == "refused":  # until somebody acts: it is begun anew when the stages go on
            end_image_check(draft, observed)
            begun = draft.status.image_check.get("state") == _MADE
            kept = {key: said for key, said in draft.status.image_check.items() if key not in ("state", "since")}
            draft.status = replace(draft.status, image_check=kept if begun else draft.status.image_check)
        return
    uses = _uses(spec, draft.status, images)
    every = {_key(image) for image in (*(item.pod.image for item in spec.stages.values()), images[Stage.DEPLOY])}
    record = _learnt(draft.status, every, {_key(use.image) for use in uses}, observed)
    record = _advanced(draft, spec, owner, observed, uses, record)
    draft.status = replace(draft.status, image_check=record)
    draft.unpulled = _told(uses, record)


def _uses(spec: Spec, status: Status, images: Mapping[str, str]) -> list[_Use]:
    """Of what has not begun in this revision. Those that the manifest names come first: they are wrong more often, and
    a kubelet pulls one after the other.
    """
    found = []
    for stage, item in spec.stages.items():
        if not _begun(status.stage(stage)) and not (stage is Stage.EXPORT and spec.deploy.serves_checkpoint):
            field, own = f"spec.stages.{stage}.image", item.pod.own_image
            found.append(_Use(stage=stage, field=field, image=item.pod.image, own=own))
            if stage is Stage.DEPLOY:
                found.append(_Use(stage=stage, field=CHECK_FIELD, image=images[Stage.DEPLOY], own=False))
    return sorted(found, key=lambda use: not use.own)


def _begun(entry: StageStatus) -> bool:
    """A stage that has begun speaks for itself."""
    return entry.state != "Pending" or entry.reason == "JobCreated"


def _learnt(status: Status, every: AbstractSet[str], ahead: AbstractSet[str], observed: Observed) -> dict[str, Any]:
    """The record of the revision with what pods and stages have told of images since.

    `every` are the keys of the revision's images, `ahead` of those that a stage has still to begin with.
    """
    known = dict(status.image_check)
    if known.get("revision") != status.revision:
        # What was wrong then may be there by now: only a pod of this revision says so again.
        known = {key: known[key] for key in ("seen",) if key in known} | {"revision": status.revision}
    seen, wrong = set(known.get("seen") or ()), dict(known.get("wrong") or {})
    seen |= {_key(item.image) for item in status.stages if item.image and _ran(item)}
    for pod in observed.image_pods:
        seen |= {_key(image) for image in pod.came}
        for image, (reason, words) in pod.waits.items():
            if reason not in IMAGE_REASONS:  # it was pulled, and does not start: which it has not to
                seen.add(_key(image))
            elif cause := _cause(reason, words, pod, observed.now):
                wrong.setdefault(_key(image), cause)
    known["seen"] = sorted(seen & every)
    known["wrong"] = {key: cause for key, cause in sorted(wrong.items()) if key in ahead - seen}
    return {key: value for key, value in known.items() if value not in ([], {})}


def _ran(entry: StageStatus) -> bool:
    """Whether a pod of the stage has run its image; a server runs when its Deployment has been available."""
    return bool(entry.finished_at) or (entry.state == "Running" and entry.name is not Stage.DEPLOY)


def _cause(reason: str, words: str, pod: ImagePod, now: datetime) -> str:
    """Why an image will not come; empty while that may pass."""
    cause = cause_of(words)[:_CAUSE_CHARACTERS]
    if lasts(reason, cause):
        return cause or reason
    return (cause or words) if (now - pod.created).total_seconds() >= _PATIENCE_S else ""


def _advanced(
    draft: Draft, spec: Spec, owner: Owner, observed: Observed, uses: Sequence[_Use], record: Mapping[str, Any]
) -> dict[str, Any]:
    """The record after this pass, and what is to be done for it."""
    name, unseen = image_check_name(owner, draft.status.revision), _unseen(uses, record)
    pod = next((item for item in observed.image_pods if item.name == name), None)
    current, since = _current(draft.status), stamp(pod.created if pod else observed.now)
    note = _ending(record, pod, unseen, current, observed)
    end_image_check(draft, observed, but=name if note is None else "")
    if note is not None:
        kept = {key: record[key] for key in ("revision", "seen", "wrong") if key in record}
        return {**kept, "state": _DONE, **({"note": note[:_NOTE_CHARACTERS]} if note else {})}
    if pod is None and "state" not in record:
        if not _may_begin(current):
            return dict(record)
        stages = list(dict.fromkeys(use.stage for use in uses if use.image in unseen))
        manifest = build_image_check(owner, spec, draft.status.revision, unseen, stages, longest_s=LONGEST_S)
        draft.actions.append(CreatePod(manifest=manifest, why="a wrong image of a later stage is found now"))
    draft.look_again_in(_POLL_S)
    return {"since": since, **record, "state": _MADE}


def _ending(
    record: Mapping[str, Any], pod: ImagePod | None, unseen: Sequence[str], current: StageStatus, observed: Observed
) -> str | None:
    """The note with which the check is over, empty where there is nothing to note; None while it goes on."""
    refused = observed.refusal("unchecked")
    if record.get("state") == _DONE:
        return str(record.get("note", ""))
    if refused is not None:
        return refused.message
    if not unseen:
        return ""
    if pod is None and "state" not in record:
        return None
    if current.reason in _ROOM:
        return f"stage {current.name} waits for room, so the pod that tries images was removed"
    if pod is not None:
        return _outcome(pod, unseen, record, observed.now)
    since = noted_time(record.get("since")) or observed.now
    over = (observed.now - since).total_seconds() >= _HEARD_OF_S or is_ahead(since, observed.now)
    return "the pod that tries images is gone" if over else None


def _outcome(pod: ImagePod, unseen: Sequence[str], record: Mapping[str, Any], now: datetime) -> str | None:
    """What to note at the end of a pod: nothing where every image came; None while it goes on."""
    left = [image for image in pod.images if image in unseen]
    late = (now - pod.created).total_seconds() >= LONGEST_S or is_ahead(pod.created, now)
    if left and not (late or pod.over or pod.deleting):
        return None
    open_ = [image for image in left if _key(image) not in (record.get("wrong") or {})]
    return f"not known whether these can be pulled: {', '.join(open_)}" if open_ else ""


def _unseen(uses: Iterable[_Use], record: Mapping[str, Any]) -> list[str]:
    seen = record.get("seen") or ()
    return list(dict.fromkeys(use.image for use in uses if _key(use.image) not in seen))


def _current(status: Status) -> StageStatus:
    """The first stage that is not done; verify where all are."""
    return next((entry for stage in Stage if not (entry := status.stage(stage)).done), status.stage(Stage.VERIFY))


def _may_begin(current: StageStatus) -> bool:
    """Not before the image of the first stage is there: a kubelet would pull it after the others."""
    if current.state == "Running":
        return True
    return current.state == "Waiting" and (current.broken or current.reason in LONG_WAITS - _ROOM)


def _told(uses: Iterable[_Use], record: Mapping[str, Any]) -> str:
    """All wrong images in one message; empty where none is known."""
    wrong = record.get("wrong") or {}
    fields: dict[str, list[_Use]] = {}
    for use in uses:
        if _key(use.image) in wrong:
            fields.setdefault(use.image, []).append(use)
    if not fields:
        return ""
    images = [
        (", ".join(dict.fromkeys(use.field for use in found)), str(wrong[_key(image)]), found[0].own)
        for image, found in fields.items()
    ]
    return f"{cannot_be_pulled(*images)}; the stages before go on meanwhile"


@lru_cache(4096)
def _key(image: str) -> str:
    """Many times a pass, of the same few images."""
    return fingerprint_of({"image": image})[:12]
