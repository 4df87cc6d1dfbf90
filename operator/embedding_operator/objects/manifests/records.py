"""ConfigMaps beside the status: what clients and the owner of an index must know, what can be served again. Pure.

`<name>-contract` describes the model that clients reach; `<name>-revision-<n>` keeps what a revision was made of, so
that `deploy.pinRevision` can serve it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedding_operator.objects.manifests.common import Owner, metadata
from embedding_operator.resource.labels import RECORD_LABEL
from embedding_stages.contract import canonical_json

CONTRACT_KEY: Final = "contract.json"
STAGES_KEY: Final = "stages.json"


def contract_name(owner_name: str) -> str:
    return f"{owner_name}-contract"


def record_name(owner_name: str, revision: int) -> str:
    return f"{owner_name}-revision-{revision}"


def build_contract(owner: Owner, contract: Mapping[str, Any]) -> dict[str, Any]:
    return _config_map(owner, contract_name(owner.name), "contract", CONTRACT_KEY, canonical_json(dict(contract)))


def build_record(owner: Owner, revision: int, stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`stages` are entries of `status.stages`, those before deploy."""
    return _config_map(owner, record_name(owner.name, revision), "revision", STAGES_KEY, canonical_json(list(stages)))


def _config_map(owner: Owner, name: str, record: str, key: str, text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, name, {RECORD_LABEL: record}),
        "data": {key: text},
    }
