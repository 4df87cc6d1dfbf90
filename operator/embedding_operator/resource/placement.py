"""On which nodes a resource's pods may run. Pure.

A claim without ReadWriteMany is mounted by one node at a time, so all pods that mount it have to meet on one node. The
first of them decides where a new volume is made. It has to be a node on which `finetune` may run, which is the hardest
to place; so the stages without a place of their own take its place. See docs/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from embedding_operator.resource.api import PodSettings, Spec
from embedding_stages.contract import Stage

READ_WRITE_MANY: Final = "ReadWriteMany"


def mounts_on_one_node(spec: Spec) -> bool:
    """Whether only one node can mount the workspace at a time.

    An existing claim whose modes are not known counts as one of that kind, unless several nodes train: then it is
    taken on trust that they can share it.
    """
    trusted = spec.storage.existing_claim and spec.stages[Stage.FINETUNE].pod.workers.nodes > 1
    return READ_WRITE_MANY not in spec.storage.access_modes and not trusted


def with_access_modes(spec: Spec, seen: Sequence[str]) -> Spec:
    """The spec with the access modes that an existing claim has; `seen` is empty when the claim was not found."""
    if not seen or not spec.storage.existing_claim:
        return spec
    return replace(spec, storage=replace(spec.storage, access_modes=tuple(seen)))


def placed(spec: Spec, stage: Stage) -> PodSettings:
    """The stage's pod settings with the node selector and the tolerations that are in force.

    `verify` goes where the server is that it measures; every other stage, and the server, where `finetune` goes.
    """
    own = spec.stages[stage].pod
    if stage is Stage.FINETUNE or not mounts_on_one_node(spec):
        return own
    other = placed(spec, Stage.DEPLOY) if stage is Stage.VERIFY else spec.stages[Stage.FINETUNE].pod
    return replace(
        own,
        node_selector=own.node_selector or other.node_selector,
        tolerations=own.tolerations or other.tolerations,
    )
