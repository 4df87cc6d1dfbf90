"""Specs and Events that the tests of waiting pods share."""

from __future__ import annotations

from unit.operator.builders import OPEN_AI, a_spec

from embedding_operator.objects.views import EventView

PREEMPTION = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
HUGGING_FACE = {
    "revision": "a" * 40,
    "tokenSecretRef": {"name": "hub", "key": "token"},
    "caBundle": {"name": "mirrors"},
}
SPEC = a_spec(
    baseModel={"name": "m", "source": {"huggingFace": HUGGING_FACE}},
    evaluation={"beir": {"pvc": {"claimName": "labelled"}}},
    storage={"existingClaim": "shared"},
    stages={
        "sdg": {"provider": {"openAI": OPEN_AI["openAI"] | {"caBundle": {"name": "pki"}}}},
        "deploy": {"image": "nim:1", "backend": {"nim": {"ngcKeySecretRef": {"name": "ngc", "key": "apikey"}}}},
    },
)
FROM_PVC = a_spec(
    corpus={"source": {"pvc": {"claimName": "docs"}}}, baseModel={"name": "m", "source": {"pvc": {"claimName": "w"}}}
)


def mount(text: str) -> list[EventView]:
    return [EventView(reason="FailedMount", message=f'MountVolume.SetUp failed for volume "v" : {text}')]


def event(reason: str, message: str = "it is so") -> list[EventView]:
    return [EventView(reason=reason, message=message)]
