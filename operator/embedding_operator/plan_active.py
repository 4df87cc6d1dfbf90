"""What clients talk to, while another revision is made, has failed, is suspended or is not valid. Pure.

The manifest that it came from may be gone, so a lost server cannot be made again from here; it is said that it is
lost. The Service in front of it needs no manifest, and is kept.
"""

from __future__ import annotations

from dataclasses import replace

from embedding_operator.compare import differs
from embedding_operator.decision import Apply, Draft, Observed
from embedding_operator.manifests.common import Owner
from embedding_operator.manifests.serving import build_service, clients_url
from embedding_operator.status import Served

ACTIVE_UNAVAILABLE = "ActiveUnavailable"


def keep_active(draft: Draft, owner: Owner, observed: Observed, *, told: bool) -> None:
    """Keep the clients' Service on the active revision; without an available server there is no URL to speak of.

    `told` says that the deploy stage judges the same server in this pass and speaks of it itself.
    """
    served = draft.status.served
    if not served.active_fingerprint:
        return
    desired = build_service(owner, owner.name, served.active_fingerprint)
    if differs(desired, observed.services.get(owner.name)):
        draft.actions.insert(0, Apply(manifest=desired, why="clients talk to the active revision"))
    url = clients_url(owner) if _answers(served, observed) else ""
    if served.url and not url and not told:
        draft.event("Warning", ACTIVE_UNAVAILABLE, lost_message(served))
    draft.status = replace(draft.status, served=replace(served, url=url))


def _answers(served: Served, observed: Observed) -> bool:
    serving = served.active_fingerprint[:16]
    return any(item.serving == serving and item.available and not item.deleting for item in observed.deployments)


def lost_message(served: Served) -> str:
    return (
        f"no server of revision {served.active_revision}, which clients talk to, is available; it was removed or "
        "stopped, or its pods fail: restore its Deployment, or let the revision of this manifest take its place"
    )
