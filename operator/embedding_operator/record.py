"""Record: one status write a pass, then what people and dashboards are told of it: metrics, log lines, events.

Where the API server does not take the status (an older CRD, a right that was taken away), nothing is begun that could
not be remembered: it is asked beforehand, until it takes one again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedding_operator import journal
from embedding_operator.cluster.act import Actor
from embedding_operator.cluster.answers import dry_run_error
from embedding_operator.cluster.cache import Key
from embedding_operator.cluster.client import Cluster
from embedding_operator.cluster.errors import ClusterError, Conflict, Forbidden, NotTried, Rejected
from embedding_operator.cluster.events import EventPoster
from embedding_operator.decide.decision import Plan
from embedding_operator.decide.stopped import unrecorded
from embedding_operator.metrics import METRICS
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.resource.api import KIND
from embedding_operator.resource.status import Status
from embedding_operator.resource.times import stamp

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Recorder:
    """`doubted` grows by the resources whose status was written by somebody else meanwhile."""

    cluster: Cluster
    actor: Actor
    events: EventPoster
    doubted: set[Key]
    unrecorded: set[Key] = field(default_factory=set)  # whose last status the API server did not take

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self.unrecorded.discard(key)

    def would_refuse(self, resource: Mapping[str, Any], decided: Plan) -> ClusterError | None:
        """Why the API server would not take the status, where it did not take the last one. Raises Conflict and
        Unavailable.
        """
        key = _key(resource)
        if key not in self.unrecorded:
            return None
        try:
            self.cluster.write_status(resource, decided.status.to_json(), dry_run=True)
        except Conflict:
            self.doubted.add(key)
            raise
        except (Rejected, Forbidden) as error:
            return None if isinstance(dry_run_error(error), NotTried) else error
        self.unrecorded.discard(key)
        return None

    def record(self, resource: Mapping[str, Any], old: Status, decided: Plan, now: datetime) -> bool:
        """Write the status if it changed, then tell what happened. Whether it was written. Raises ClusterError."""
        body, key = decided.status.to_json(), _key(resource)
        if body == (resource.get("status") or {}):
            return False
        asked = self.actor.cache.now()
        try:
            written = self.cluster.write_status(resource, body)
        except Conflict:
            self.doubted.add(key)
            raise
        except (Rejected, Forbidden) as error:
            if key not in self.unrecorded:
                self.unrecorded.add(key)
                self.events.post(resource, [unrecorded(str(error))], stamp(now))
            raise
        self.unrecorded.discard(key)
        owner = Owner(namespace=key[0], name=key[1], uid=resource["metadata"]["uid"])
        self.actor.keep(KIND, owner, written, as_of=asked)
        self._tell(f"{key[0]}/{key[1]}", old, decided)
        self.events.post(written, decided.events, stamp(now))
        return True

    def _tell(self, who: str, old: Status, decided: Plan) -> None:
        for stage in decided.status.stages:
            METRICS.stage_ended(old.stage(stage.name), stage)
        METRICS.used(old, decided.status, decided.ended_run)
        for line in journal.lines(who, old, decided.status):
            line.write(log)


def _key(resource: Mapping[str, Any]) -> Key:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]
