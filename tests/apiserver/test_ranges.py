"""Ranges of numbers and decimals, and what may change later."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver.api import EFT, Api, at, merge, resource
from unit.operator.test_crd import numbers

from embedding_operator.resource.api import TORCH_SERVER, SpecError
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Stage
from embedding_stages.contract.settings import Run

IMAGES: dict[str, str] = dict.fromkeys((*Stage, TORCH_SERVER), "image:1")
# field -> the lowest and the highest that is taken
NUMBERS = {
    f"{field.removeprefix('spec.')}.{item.name}": (int(item.low or 0), int(item.high or 0))
    for field, item in (
        *((table.FIELD, item) for table, item in numbers()),
        *(("spec.stages.finetune", item) for item in Run.settings().values()),
    )
    if item.kind is int
}
_DESIGNER = at(
    "stages.sdg.provider",
    {"extractive": None, "openAI": None, "dataDesigner": {"baseURL": "http://llm/v1", "model": "m"}},
)
# field -> what a high or low value of it needs
BESIDE: dict[str, dict[str, Any]] = {
    **{field: _DESIGNER for field in NUMBERS if ".dataDesigner." in field},
    "stages.finetune.nodes": at("storage.accessModes", ["ReadWriteMany"]),
    "stages.prep.hardNegatives": at("stages.finetune.negativesPerQuery", 1),
    "stages.finetune.negativesPerQuery": at("stages.prep.hardNegatives", 100),
}
# field -> the lowest and the highest that is taken, and one beyond each; None: the pattern has no way to say it
DECIMALS: dict[str, tuple[str, str, str | None, str]] = {
    **{
        f"stages.sdg.prices.{kind}PerMillion": ("0", "100000", None, "100001")
        for kind in ("prompt", "completion", "judgePrompt", "judgeCompletion")
    },
    "stages.prep.qualityThreshold": ("0", "10", None, "10.1"),
    "stages.prep.evalFraction": ("0.01", "0.9", "0.009", "0.91"),
    "stages.prep.margin": ("0.01", "1", "0", "1.01"),
    "stages.finetune.learningRate": ("1e-9", "1", "0", "2"),
    "stages.finetune.weightDecay": ("0", "1.0", None, "1e1"),
    "stages.finetune.temperature": ("0.0001", "10", "0.00001", "11"),
    "stages.finetune.validation.share": ("0.001", "0.5", "0", "0.51"),
    "stages.export.minCosine": ("0", "1", None, "1.1"),
    "stages.export.maxNdcgDrop": ("0", "1", None, "1.1"),
    "tolerance.atOne": ("0", "1", None, "1.5"),
    "tolerance.atFiveAndAbove": ("0.0", "1", None, "1.5"),
    "tolerance.minCosine": ("0", "1", None, "1.1"),
}


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_outside_its_range_is_refused(api: Api, scratch: str, field: str) -> None:
    low, high = NUMBERS[field]
    for value, taken in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        asked = resource(scratch, BESIDE.get(field, {}))
        merge(asked["spec"], at(field, value))
        objection = api.objection(EFT.format(scratch), asked)
        assert (objection == "") is taken, f"{value}: {objection}"
        assert taken or f"spec.{field}" in objection


@pytest.mark.parametrize("field", DECIMALS)
def test_schema_and_operator_agree_on_the_range_of_a_decimal(api: Api, scratch: str, field: str) -> None:
    low, high, below, above = DECIMALS[field]
    for value, taken in ((low, True), (high, True), (below, False), (above, False)):
        if value is None:
            continue
        manifest = resource(scratch, at(field, value))
        # Of a text the schema knows the form alone, of a number the range.
        assert api.objection(EFT.format(scratch), manifest) == ""
        objection = api.objection(EFT.format(scratch), resource(scratch, at(field, float(value))))
        assert (objection == "") is taken, f"{value}: {objection}"
        if taken:
            parse_spec(manifest["spec"], IMAGES)
        else:
            assert f"spec.{field}" in objection
            with pytest.raises(SpecError, match=f"spec.{field}"):
                parse_spec(manifest["spec"], IMAGES)


@pytest.mark.parametrize(
    ("used", "mined", "taken"),
    [
        (None, None, True),
        (5, None, True),
        (6, None, False),
        (None, 4, True),
        (None, 3, False),
        (8, 8, True),
        (9, 8, False),
    ],
)
def test_no_more_hard_negatives_are_used_than_are_mined(
    api: Api, scratch: str, used: int | None, mined: int | None, taken: bool
) -> None:
    stages: dict[str, Any] = {"finetune": {"negativesPerQuery": used} if used else {}}
    stages |= {"prep": {"hardNegatives": mined}} if mined else {}
    manifest = resource(scratch, {"stages": stages})
    objection = api.objection(EFT.format(scratch), manifest)
    assert (objection == "") is taken, objection
    if taken:
        parse_spec(manifest["spec"], IMAGES)
        return
    assert "spec.stages.finetune.negativesPerQuery" in objection
    with pytest.raises(SpecError, match=r"spec\.stages\.finetune\.negativesPerQuery"):
        parse_spec(manifest["spec"], IMAGES)


ANOTHER: dict[str, Any] = {
    "baseModel": {"name": "other", "source": {"pvc": None, "image": {"reference": "x:1", "path": "/m"}}},
    "corpus": {"source": {"configMap": {"name": "other"}}},
    "evaluation": {"kValues": [10]},
    "stages": {"deploy": {"image": "nim:1", "backend": {"nim": {}}}},
    "suspend": True,
}


ONLY_SIZE = "only the size can change"
STORAGE_EDITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "less": (at("storage.size", "2Gi"), at("storage.size", "1Gi"), "cannot shrink"),
    "less, in another unit": (at("storage.size", "2Gi"), at("storage.size", "2047Mi"), "cannot shrink"),
    "no size any more": (at("storage.size", "60Gi"), at("storage", {}), "cannot shrink"),
    "a claim for a size": (at("storage.size", "1Gi"), at("storage.existingClaim", "x"), ONLY_SIZE),
    "a class": (at("storage.size", "1Gi"), at("storage", {"size": "1Gi", "storageClassName": "x"}), ONLY_SIZE),
    "another mode": (
        at("storage.accessModes", ["ReadWriteOnce"]),
        at("storage.accessModes", ["ReadWriteMany"]),
        ONLY_SIZE,
    ),
    "storage where there was none": ({}, at("storage.existingClaim", "x"), "only the size can be said later"),
    "less than there is": ({}, at("storage.size", "49Gi"), "only the size can be said later"),
    "no storage any more": (at("storage.existingClaim", "x"), {}, "storage cannot be removed"),
}


def _edited(api: Api, namespace: str, before: dict[str, Any], after: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    made = api.make(EFT.format(namespace), resource(namespace, before))
    edited = resource(namespace, after)
    edited["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    return api.send("PUT", f"{EFT.format(namespace)}/docs", edited)


@pytest.mark.parametrize("row", STORAGE_EDITS)
def test_storage_cannot_change(api: Api, namespace: str, row: str) -> None:
    before, after, message = STORAGE_EDITS[row]
    status, answer = _edited(api, namespace, before, after)
    assert (status, message in answer["message"]) == (422, True), answer


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (at("storage.size", "1Gi"), at("storage.size", "2Gi")),
        (at("storage.size", "1Gi"), at("storage.size", "1024Mi")),
        (
            at("storage", {"size": "1Gi", "storageClassName": "x"}),
            at("storage", {"size": "1Ti", "storageClassName": "x"}),
        ),
        (at("storage.storageClassName", "x"), at("storage", {"storageClassName": "x", "size": "60Gi"})),
        ({}, at("storage.size", "50Gi")),
        ({}, at("storage.size", "1Ti")),
    ],
)
def test_storage_may_grow(api: Api, namespace: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    status, answer = _edited(api, namespace, before, after)
    assert status == 200, answer


def test_everything_else_can_change_at_any_time(api: Api, namespace: str) -> None:
    storage = {"size": "10Gi"}
    made = api.make(EFT.format(namespace), resource(namespace, {"storage": storage}))
    edited = resource(namespace, {"storage": storage, **ANOTHER})
    edited["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    status, answer = api.send("PUT", f"{EFT.format(namespace)}/docs", edited)
    assert (status, answer["metadata"]["generation"]) == (200, 2), answer
