"""What the API server refuses of a manifest before the operator sees it: sources, evaluation, gates, storage, names."""

from __future__ import annotations

import pytest
from apiserver.api import EFT, Api, at, resource
from apiserver.schema import IMAGE, Refusal, must_refuse

HUB = at("baseModel.source", {"pvc": None, "huggingFace": {"revision": "main"}})
REFUSED: dict[str, Refusal] = {
    "a minute that no hour has": (
        {"schedule": {"cron": "61 * * * *"}},
        "spec.schedule.cron",
        "the five fields of cron",
    ),
    "a look each minute": ({"schedule": {"cron": "* * * * *"}}, "spec.schedule.cron", "*/15, */20 or */30"),
    "a look each second": ({"schedule": {"cron": "* * * * * *"}}, "spec.schedule.cron", "the five fields of cron"),
    "a look each ten minutes": ({"schedule": {"cron": "*/10 * * * *"}}, "spec.schedule.cron", "*/15, */20 or */30"),
    "looks ten minutes apart": ({"schedule": {"cron": "0,10 3 * * *"}}, "spec.schedule.cron", "at least 15 apart"),
    "looks near to each other around the hour": (
        {"schedule": {"cron": "5,55 * * * *"}},
        "spec.schedule.cron",
        "also around the hour",
    ),
    "a shortcut of cron": ({"schedule": {"cron": "@daily"}}, "spec.schedule.cron", "such as '0 3 * * 1' for Mondays"),
    "a schedule without a time": ({"schedule": {"timeZone": "UTC"}}, "spec.schedule.cron", "Required value"),
    "a zone that is no name": (
        {"schedule": {"cron": "0 3 * * 1", "timeZone": "+01:00"}},
        "spec.schedule.timeZone",
        "such as Europe/Berlin",
    ),
    "a change with a word that is not known": (
        {"schedule": {"cron": "0 3 * * 1", "onCorpusChange": "Ignore"}},
        "spec.schedule.onCorpusChange",
        "Unsupported value",
    ),
    "no base model": ({"baseModel": None}, "spec.baseModel", "Required value"),
    "no documents": ({"corpus": None}, "spec.corpus", "Required value"),
    "no stages": ({"stages": None}, "spec.stages", "Required value"),
    "no source of documents": (
        at("corpus.source.configMap", None),
        "spec.corpus.source",
        "exactly one of pvc, configMap",
    ),
    "two sources of documents": (
        at("corpus.source.pvc", {"claimName": "x"}),
        "spec.corpus.source",
        "exactly one of pvc, configMap, image",
    ),
    "two sources of the model": (
        at("baseModel.source.image", IMAGE),
        "spec.baseModel.source",
        "exactly one of pvc, image",
    ),
    "two labelled sets": (
        at("evaluation.beir", {"pvc": {"claimName": "x"}, "image": IMAGE}),
        "spec.evaluation.beir",
        "exactly one of pvc, image",
    ),
    "a branch instead of a commit": (HUB, "spec.baseModel.source.huggingFace.revision", "a branch would"),
    "a path out of the volume": (
        at("baseModel.source.pvc.path", "a/../../b"),
        "spec.baseModel.source.pvc.path",
        "must not contain '..'",
    ),
    "a path out of the image": (
        at("evaluation.beir.image", {"reference": "x", "path": ".."}),
        "spec.evaluation.beir.image.path",
        "must not contain '..'",
    ),
    **{
        f"of an image the path {path}": (
            at("evaluation.beir.image", {"reference": "x", "path": path}),
            "spec.evaluation.beir.image.path",
            "must name a folder of the image",
        )
        for path in ("/", "//", ".", "/./.", "/proc", "./sys/a", "dev")
    },
    "one prefix of two": (at("baseModel.prefixes.query", "q"), "spec.baseModel.prefixes.passage", "Required value"),
    "a hub's certificates without the name of a ConfigMap": (
        at("baseModel.source", {"pvc": None, "huggingFace": {"revision": "a" * 40, "caBundle": {"key": "ca.crt"}}}),
        "spec.baseModel.source.huggingFace.caBundle.name",
        "Required value",
    ),
    "a gate's metric that is not evaluated": (
        at("gates.metrics", ["ndcg@7"]),
        "spec.gates.metrics",
        "must be among evaluation.kValues",
    ),
    "a gate's metric that is none": (at("gates.metrics", ["ndcg"]), "spec.gates.metrics[0]", "such as ndcg@10"),
    "a criterion that is none": (at("gates.criterion", "Nearly"), "spec.gates.criterion", "Unsupported value"),
    "a fall by more than everything": (
        at("gates.maxRegression.base", 2),
        "spec.gates.maxRegression.base",
        "less than or equal to 1",
    ),
    "two guards of one name": (
        at("evaluation.guards", [{"name": "a", "beir": {"image": IMAGE}}] * 2),
        "spec.evaluation.guards[1]",
        "Duplicate value",
    ),
    "a guard without a set": (
        at("evaluation.guards", [{"name": "a", "beir": {}}]),
        "spec.evaluation.guards[0].beir",
        "exactly one of pvc, image",
    ),
    "canaries every second": (
        at("verification.intervalSeconds", 1),
        "spec.verification.intervalSeconds",
        "greater than or equal to 60",
    ),
    "cut-offs out of order": (at("evaluation.kValues", [10, 1]), "spec.evaluation.kValues", "rising order"),
    "cut-offs twice": (at("evaluation.kValues", [1, 10, 10]), "spec.evaluation.kValues", "unique"),
    "cut-offs without ten": (at("evaluation.kValues", [1, 5]), "spec.evaluation.kValues", "must contain 10"),
    "no cut-off": (at("evaluation.kValues", []), "spec.evaluation.kValues", "at least 1"),
    "a cut-off of zero": (
        at("evaluation.kValues", [0, 10]),
        "spec.evaluation.kValues[0]",
        "greater than or equal to 1",
    ),
    "a tolerance that is no number": (
        at("tolerance.atOne", "low"),
        "spec.tolerance.atOne",
        "a number between 0 and 1, such as 0.01",
    ),
    "a tolerance that is a list": (at("tolerance.atOne", [0.01]), "spec.tolerance.atOne", "at most 0 items"),
    "a tolerance that is an object": (at("tolerance.atOne", {"k": 1}), "spec.tolerance.atOne", "at most 0 items"),
    "an image with documents that is none": (
        at("corpus.source", {"configMap": None, "image": {"reference": "docs:a b", "path": "/d"}}),
        "spec.corpus.source.image.reference",
        "must be an image",
    ),
    "a claim and a size": (at("storage", {"existingClaim": "x", "size": "1Gi"}), "spec.storage", "not both"),
    "a size that is no quantity": (at("storage.size", "big"), "spec.storage.size", "such as 20Gi"),
    "a volume of nothing": (at("storage.size", "0Gi"), "spec.storage.size", "such as 20Gi"),
    "an access mode that cannot be written": (
        at("storage.accessModes", ["ReadWriteOncePod"]),
        "spec.storage.accessModes",
        "values",
    ),
    "a host path": (at("corpus.source.hostPath", {"path": "/etc"}), "spec.corpus.source.hostPath", "unknown field"),
    "a reference into another namespace": (
        at("corpus.source.configMap.namespace", "kube-system"),
        "spec.corpus.source.configMap.namespace",
        "unknown field",
    ),
}

BAD_NAMES = ("1st", "has.dot", "ends-", "a" * 41)


@pytest.mark.parametrize("row", REFUSED)
def test_refused_by_field_and_with_a_reason(api: Api, scratch: str, row: str) -> None:
    must_refuse(api, scratch, REFUSED[row])


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_jobs_cannot_have_is_refused(api: Api, scratch: str, name: str) -> None:
    objection = api.objection(EFT.format(scratch), resource(scratch, name=name))
    # What no object of Kubernetes can be called is refused before the schema is asked.
    assert "Jobs and Services are named after it" in objection or "RFC 1123" in objection


def test_a_name_that_hosts_cannot_begin_with_is_refused(api: Api, scratch: str) -> None:
    patch = {"stages": {"finetune": {"nodes": 2}}, "storage": {"existingClaim": "shared"}}
    assert api.objection(EFT.format(scratch), resource(scratch, patch, "a" * 37)) == ""
    objection = api.objection(EFT.format(scratch), resource(scratch, patch, "a" * 38))
    assert "host names begin with it" in objection
