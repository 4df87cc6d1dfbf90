"""The stages' shared volume: its claim is made once, and grows when the manifest says so. Pure."""

from __future__ import annotations

from typing import Any

from embedding_operator.decide.decision import Apply, Draft, Observed
from embedding_operator.decide.drift import Change, restore
from embedding_operator.objects.compare import difference, quantity
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.storage import build_workspace
from embedding_operator.resource.api import Spec
from embedding_stages.contract import fingerprint_of


def keep_workspace(draft: Draft, spec: Spec, owner: Owner, observed: Observed) -> None:
    """Have the claim there, as large as the manifest asks for. No volume shrinks: one that is larger stays as it is."""
    if spec.storage.existing_claim:
        return
    manifest = build_workspace(owner, spec)
    if not observed.workspace_exists:
        draft.actions.append(Apply(manifest=manifest, why="the stages' shared volume"))
        return
    if observed.refusal("claim") is not None:
        return
    change = Change(
        kind=manifest["kind"],
        name=manifest["metadata"]["name"],
        asked=fingerprint_of(spec.storage.size),
        field=difference(_asks(spec.storage.size), _asks(observed.workspace_request)) if _grows(spec, observed) else "",
    )
    drift = restore(draft, change, observed, new=True)
    if drift.apply:
        draft.actions.append(Apply(manifest=manifest, why="the manifest asks for a larger volume"))
        draft.at_once = True
    if drift.wait is not None:  # work goes on in the room that there is
        draft.unkept = drift.wait.message


def _asks(size: str) -> dict[str, Any]:
    return {"spec": {"resources": {"requests": {"storage": size}}}}


def _grows(spec: Spec, observed: Observed) -> bool:
    """Whether the claim asks for less than the manifest."""
    request = observed.workspace_request
    return bool(request) and quantity(request) < quantity(spec.storage.size)
