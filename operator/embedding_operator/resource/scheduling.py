"""Who decides when the resource's pods may run: a queue of Kueue, or nobody. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_operator.resource.api import Scheduling, SpecError, read
from embedding_operator.resource.labels import QUEUE_LABEL, QUEUE_PRIORITY_LABEL
from embedding_stages.contract import settings as tables


def parse_scheduling(raw: Mapping[str, Any] | None) -> Scheduling:
    """Raises SpecError."""
    asked = read(tables.Scheduling, raw)
    for name, given in (("priorityClass", asked.priorityClass), ("serving", asked.serving)):
        if given and not asked.queueName:
            field = f"{tables.Scheduling.FIELD}.queueName"
            raise SpecError(field, f"must be given where {name} is: both are about Kueue's queue")
    return Scheduling(queue=asked.queueName or "", priority=asked.priorityClass or "", serving=asked.serving)


def queue_labels(scheduling: Scheduling) -> dict[str, str]:
    """By which Kueue knows the objects that it decides about."""
    if not scheduling.queue:
        return {}
    priority = {QUEUE_PRIORITY_LABEL: scheduling.priority} if scheduling.priority else {}
    return {QUEUE_LABEL: scheduling.queue, **priority}
