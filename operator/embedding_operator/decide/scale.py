"""What the CRD's scale subresource tells: how many pods the server has, and by which labels they are found. Pure.

`kubectl scale` and an autoscaler of the resource write `spec.stages.deploy.replicas`, and read these two.
"""

from __future__ import annotations

from dataclasses import replace

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import selector_of, serving_label


def note_scale(draft: Draft, owner: Owner, observed: Observed) -> None:
    """Of the server that clients are sent to; of the candidate while there is none.

    While neither is there, such as between two with strategy Recreate, the last number stays: the next begins with it.
    """
    served = draft.status.served
    scaled = served.active_fingerprint or served.candidate_fingerprint
    if not scaled:
        return
    there = [item.total for item in observed.deployments if item.serving == serving_label(scaled)]
    pods = sum(there) if there or served.replicas is None else served.replicas
    selector = ",".join(f"{key}={value}" for key, value in selector_of(owner, scaled).items())
    draft.status = replace(draft.status, served=replace(served, replicas=pods, selector=selector))
