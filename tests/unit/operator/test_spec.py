"""From the manifest to settings: the published recipe's defaults, and an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, OPEN_AI, SECRET, a_manifest, a_spec

from embedding_operator.resource.api import SpecError, Tolerance, check_name
from embedding_operator.resource.frozen import resolved
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage
from embedding_stages.contract.settings import Run

SHARED = {"accessModes": ["ReadWriteMany"]}


def test_defaults_are_the_recipes() -> None:
    spec = a_spec()
    settings = {stage: spec.stages[stage].settings for stage in Stage}
    assert settings[Stage.SDG]["pairsPerDocument"] == 7
    assert settings[Stage.PREP] == {
        "qualityThreshold": 7.0,
        "evalFraction": 0.2,
        "margin": 0.95,
        "hardNegatives": 5,
        "batchSize": 128,
        "maxTrainingQuestions": None,
        "scoreCandidates": False,
        "search": None,
        "evaluationQueries": "pairs",
        "seed": 42,
    }
    assert (
        settings[Stage.FINETUNE] | {"epochs": 3, "globalBatchSize": 128, "learningRate": 1e-5}
        == (settings[Stage.FINETUNE])
    )
    assert settings[Stage.EVAL]["kValues"] == [1, 5, 10, 100]
    assert spec.tolerance == Tolerance(at_one=None, at_five_and_above=None)
    assert a_spec(tolerance={"atOne": "0.02"}).tolerance == Tolerance(at_one=0.02)
    assert spec.start_deadline_s == 1800
    assert spec.stages[Stage.SDG].pod.retries == 3
    assert spec.deploy.model_name == "tiny"
    assert {stage: spec.stages[stage].pod.image for stage in Stage} == {stage: IMAGES[stage] for stage in Stage}


def stages(**items: Any) -> dict[str, Any]:
    return {"stages": items}


def backend(**nim: Any) -> dict[str, Any]:
    return stages(deploy={"image": "nim:1", "backend": {"nim": nim}})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"baseModel": None}, "spec.baseModel"),
    ({"baseModel": {"name": "m"}}, "spec.baseModel.source"),
    ({"baseModel": {"name": "m", "source": {}}}, "spec.baseModel.source"),
    ({"baseModel": {"name": "m", "source": {"pvc": {}}}}, "spec.baseModel.source.pvc.claimName"),
    ({"corpus": {}}, "spec.corpus.source"),
    (
        {"corpus": {"source": {"pvc": {"claimName": "a"}, "configMap": {"name": "b"}}}},
        "spec.corpus.source",
    ),
    ({"corpus": {"source": {"configMap": {"name": ""}}}}, "spec.corpus.source.configMap.name"),
    (
        {"corpus": {"source": {"pvc": {"claimName": "a", "path": "../b"}}}},
        "spec.corpus.source.pvc.path",
    ),
    ({"corpus": {"source": {"image": {"path": "/docs"}}}}, "spec.corpus.source.image.reference"),
    ({"corpus": {"source": {"image": {"reference": "docs:1"}}}}, "spec.corpus.source.image.path"),
    *(
        ({"corpus": {"source": {"image": {"reference": "docs:1", "path": path}}}}, "spec.corpus.source.image.path")
        for path in ("", "/", "//", ".", "/.", "./", "/./.", "/proc", "proc", "//proc/", "./sys/a", "/dev/shm")
    ),
    ({"corpus": {"source": {"configMap": {"name": "d"}}, "minTextLength": "x"}}, "spec.corpus.minTextLength"),
    ({"evaluation": {"beir": {"configMap": {"name": "d"}}}}, "spec.evaluation.beir"),
    ({"evaluation": {"kValues": [10, 5]}}, "spec.evaluation.kValues"),
    ({"evaluation": {"kValues": [0, 10]}}, "spec.evaluation.kValues"),
    ({"evaluation": {"kValues": ["10"]}}, "spec.evaluation.kValues"),
    ({"evaluation": {"kValues": [1, 5]}}, "spec.evaluation.kValues"),
    (stages(sdg={}), "spec.stages.sdg.provider"),
    (stages(sdg={"provider": {"extractive": {}, **OPEN_AI}}), "spec.stages.sdg.provider"),
    *(
        (
            stages(sdg={"provider": {"dataDesigner": {"baseURL": "http://a", "model": "m"} | changes}}),
            f"spec.stages.sdg.provider.dataDesigner.{field}",
        )
        for changes, field in (
            ({"baseURL": "llm:8000"}, "baseURL"),
            ({"complexity": 7}, "complexity"),
            ({"complexity": 1}, "complexity"),
            ({"hops": 0}, "hops"),
            ({"hops": 4}, "hops"),
            ({"types": {"multiHop": 0, "structural": 0, "contextual": 0}}, "types"),
            ({"reasoning": ["magical"]}, "reasoning"),
            ({"duplicateCosine": "1.1"}, "duplicateCosine"),
            ({"documentsPerBundle": 0}, "documentsPerBundle"),
            ({"embedding": {"baseURL": "http://b"}}, "embedding.model"),
            ({"embedding": {"model": "e", "apiKeySecretRef": {"name": "a", "key": "b"}}}, "embedding.apiKeySecretRef"),
        )
    ),
    (stages(sdg={"provider": OPEN_AI, "preview": 0}), "spec.stages.sdg.preview"),
    (stages(sdg={"provider": OPEN_AI, "maxTokensTotal": 0}), "spec.stages.sdg.maxTokensTotal"),
    (
        stages(sdg={"provider": OPEN_AI, "prices": {"promptPerMillion": "-1"}}),
        "spec.stages.sdg.prices.promptPerMillion",
    ),
    (
        stages(sdg={"provider": {"openAI": {"baseURL": "file:///etc", "model": "m"}}}),
        "spec.stages.sdg.provider.openAI.baseURL",
    ),
    (
        stages(sdg={"provider": {"openAI": {"baseURL": "http://a", "apiKeySecretRef": {"name": "a"}}}}),
        "spec.stages.sdg.provider.openAI.apiKeySecretRef",
    ),
    *(
        (
            stages(sdg={"provider": {"openAI": {"baseURL": "http://a", "model": "m"} | changes}}),
            f"spec.stages.sdg.provider.openAI.{field}",
        )
        for changes, field in (
            ({"baseURL": "https://me:secret@llm/v1"}, "baseURL"),
            ({"baseURL": "https://me@llm/v1?api-version=1"}, "baseURL"),
            ({"baseURL": "http://[::1/v1"}, "baseURL"),
            ({"caBundle": {"key": "ca.crt"}}, "caBundle"),
            ({"parameters": {"model": "other"}}, "parameters.model"),
            ({"parameters": {"stream": True}}, "parameters.stream"),
            ({"parameters": {"messages": None}}, "omitParameters"),
            ({"omitParameters": ["model"]}, "omitParameters"),
            ({"parameters": {"seed": 1}, "omitParameters": ["seed"]}, "omitParameters"),
            ({"parameters": {"stop": "x" * 5000}}, "parameters"),
            ({"judge": {}}, "judge.model"),
            ({"judge": {"model": "j", "baseURL": "ftp://llm"}}, "judge.baseURL"),
            ({"judge": {"model": "j", "apiKeySecretRef": {"name": "a", "key": "b"}}}, "judge.apiKeySecretRef"),
            ({"judge": {"model": "j", "caBundle": {"name": "a"}}}, "judge.caBundle"),
            ({"judge": {"model": "j", "parameters": {"model": "k"}}}, "judge.parameters.model"),
        )
    ),
    (stages(sdg={"provider": {"extractive": {}}, "pairsPerDocument": 0}), "spec.stages.sdg.pairsPerDocument"),
    (stages(prep={"margin": "1.5"}), "spec.stages.prep.margin"),
    (stages(prep={"margin": "nan"}), "spec.stages.prep.margin"),
    (stages(prep={"qualityThreshold": "high"}), "spec.stages.prep.qualityThreshold"),
    (stages(prep={"batchSize": True}), "spec.stages.prep.batchSize"),
    (stages(finetune={"epochs": "three"}), "spec.stages.finetune.epochs"),
    (stages(finetune={"learningRate": "0"}), "spec.stages.finetune.learningRate"),
    (stages(finetune={"warmupSteps": -1}), "spec.stages.finetune.warmupSteps"),
    (stages(finetune={"epochs": 101}), "spec.stages.finetune.epochs"),
    (stages(finetune={"negativesPerQuery": 6}), "spec.stages.finetune.negativesPerQuery"),
    (stages(prep={"hardNegatives": 3}), "spec.stages.finetune.negativesPerQuery"),
    (stages(finetune={"side": "passage"}), "spec.stages.finetune.side"),
    *(
        (
            stages(
                finetune={"side": "query"}, deploy={"image": "nim:1", "backend": {"nim": {"generation": generation}}}
            ),
            "spec.stages.finetune.side",
        )
        for generation in (1, 2)
    ),
    ({"corpus": {"source": {"configMap": {"name": "d"}}, "version": "v" * 65}}, "spec.corpus.version"),
    (stages(finetune={"retries": -1}), "spec.stages.finetune.retries"),
    (stages(finetune={"timeoutSeconds": 0}), "spec.stages.finetune.timeoutSeconds"),
    (stages(finetune={"env": [{"name": "EFT_REQUEST"}]}), "spec.stages.finetune.env"),
    (stages(finetune={"gpusPerNode": -1}), "spec.stages.finetune.gpusPerNode"),
    (stages(finetune={"gpusPerNode": 17}), "spec.stages.finetune.gpusPerNode"),
    (
        stages(finetune={"gpusPerNode": 2, "resources": {"limits": {"nvidia.com/gpu": 4}}}),
        "spec.stages.finetune.gpusPerNode",
    ),
    (
        stages(finetune={"gpusPerNode": 1, "resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}),
        "spec.stages.finetune.gpusPerNode",
    ),
    (
        stages(finetune={"gpusPerNode": 1, "resources": {"limits": {"amd.com/gpu": 1}}}),
        "spec.stages.finetune.gpusPerNode",
    ),
    (
        stages(finetune={"resources": {"limits": {"amd.com/gpu": "half"}}}),
        "spec.stages.finetune.resources.limits.amd.com/gpu",
    ),
    (stages(deploy={"resources": {"limits": {"amd.com/gpu": 1}}}), "spec.stages.deploy.resources.limits"),
    (
        stages(finetune={"resources": {"limits": {"nvidia.com/gpu": "1.5"}}}),
        "spec.stages.finetune.resources.limits.nvidia.com/gpu",
    ),
    (stages(finetune={"nodes": 0}), "spec.stages.finetune.nodes"),
    (stages(finetune={"nodes": 65}), "spec.stages.finetune.nodes"),
    (stages(finetune={"matryoshka": [4]}), "spec.stages.finetune.matryoshka"),
    (stages(finetune={"matryoshka": 64}), "spec.stages.finetune.matryoshka"),
    (stages(finetune={"validation": True}), "spec.stages.finetune.validation"),
    (stages(finetune={"validation": {"share": "0.6"}}), "spec.stages.finetune.validation.share"),
    (stages(finetune={"validation": {"patience": 0}}), "spec.stages.finetune.validation.patience"),
    (stages(finetune={"lora": {"rank": 0}}), "spec.stages.finetune.lora.rank"),
    (stages(finetune={"lora": {"targets": [""]}}), "spec.stages.finetune.lora.targets"),
    (stages(finetune={"lora": {}, "side": "query"}), "spec.stages.finetune.lora"),
    (stages(finetune={"validation": {}, "side": "query"}), "spec.stages.finetune.validation"),
    (stages(finetune={"inBatchNegatives": True, "side": "query"}), "spec.stages.finetune.inBatchNegatives"),
    (stages(finetune={"inBatchNegatives": True, "preset": "auto"}), "spec.stages.finetune.inBatchNegatives"),
    (stages(finetune={"parallelism": "TP"}), "spec.stages.finetune.parallelism"),
    (stages(finetune={"nodes": 2}), "spec.storage.accessModes"),
    (stages(finetune={"nodes": 2}) | {"storage": {"accessModes": ["ReadWriteOnce"]}}, "spec.storage.accessModes"),
    (stages(eval={"batchSize": 1.5}), "spec.stages.eval.batchSize"),
    (stages(deploy={"backend": {"nim": {}, "onnx": {}}}), "spec.stages.deploy.backend"),
    (stages(deploy={"backend": {"nim": {}}}), "spec.stages.deploy.image"),
    (stages(deploy={"backend": {"torch": {}, "onnx": {}}}), "spec.stages.deploy.backend"),
    (stages(deploy={"resources": {"limits": {"nvidia.com/gpu": 1}}}), "spec.stages.deploy.resources.limits"),
    (stages(deploy={"replicas": 0}), "spec.stages.deploy.replicas"),
    (stages(deploy={"strategy": "Canary"}), "spec.stages.deploy.strategy"),
    (stages(deploy={"env": [{"name": "NIM_CUSTOM_MODEL", "value": "/"}]}), "spec.stages.deploy.env"),
    (
        stages(deploy={"resources": {"limits": {"nvidia.com/gpu": "half"}}}),
        "spec.stages.deploy.resources.limits.nvidia.com/gpu",
    ),
    (backend(generation=3), "spec.stages.deploy.backend.nim.generation"),
    (backend(ngcKeySecretRef={"key": "k"}), "spec.stages.deploy.backend.nim.ngcKeySecretRef"),
    ({"tolerance": {"atOne": "2"}}, "spec.tolerance.atOne"),
    ({"tolerance": {"atFiveAndAbove": "-0.1"}}, "spec.tolerance.atFiveAndAbove"),
    ({"storage": {"existingClaim": "a", "size": "1Gi"}}, "spec.storage"),
    (
        {"storage": {"existingClaim": "a"}, "corpus": {"source": {"pvc": {"claimName": "a"}}}},
        "spec.corpus.source.pvc.path",
    ),
    (
        {"storage": {"existingClaim": "a"}, "evaluation": {"beir": {"pvc": {"claimName": "a", "path": "/"}}}},
        "spec.evaluation.beir.pvc.path",
    ),
    ({"storage": {"accessModes": ["ReadWriteOncePod"]}}, "spec.storage.accessModes"),
    ({"storage": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}, "spec.storage.accessModes"),
    ({"runPolicy": {"startDeadlineSeconds": "soon"}}, "spec.runPolicy.startDeadlineSeconds"),
]


@pytest.mark.parametrize(("sections", "field"), BAD, ids=[field for _, field in BAD])
def test_a_field_that_cannot_be_acted_on_is_named(sections: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(a_manifest(**sections), IMAGES)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_what_training_asks_of_the_model_is_told_to_inputs_alone_where_it_is_asked() -> None:
    asked = {"matryoshka": [16, 8], "lora": {"rank": 4}}
    assert "training" not in a_spec().stages[Stage.INPUTS].settings
    found = a_spec(stages={"finetune": asked}).stages
    assert found[Stage.INPUTS].settings["training"] == {"matryoshka": [16, 8], "loraTargets": ["all-linear"]}
    assert found[Stage.FINETUNE].settings["lora"] == {"rank": 4, "alpha": 32, "targets": ["all-linear"]}
    assert found[Stage.FINETUNE].settings["validation"] is None


@pytest.mark.parametrize("backend", [{}, {"backend": {"onnx": {}}}, {"backend": {"torch": {}}}])
def test_queries_side_alone_is_served_by_servers_that_map_queries(backend: dict[str, Any]) -> None:
    spec = a_spec(stages={"finetune": {"side": "query"}, "deploy": backend, "sdg": {"provider": {"extractive": {}}}})
    assert spec.deploy.profile.maps_queries


@pytest.mark.parametrize("path", ["/docs", "docs", "/./docs", "/a/proc", "/process", "/.hidden", "/srv/dev", "..."])
def test_a_folder_of_an_image(path: str) -> None:
    source = {"image": {"reference": "docs:1", "path": path}}
    assert a_spec(corpus={"source": source}).corpus_source.path == path


def test_a_secret_is_known_by_where_the_manifest_names_it() -> None:
    spec = a_spec(stages={"sdg": {"provider": OPEN_AI}})
    key = spec.llm_keys["openai"]
    assert (key.name, key.key) == (SECRET["name"], SECRET["key"])
    assert key.field == "spec.stages.sdg.provider.openAI.apiKeySecretRef"
    assert "apiKeySecretRef" not in str(spec.stages[Stage.SDG].settings)


def test_a_judge_of_its_own_is_told_to_the_stage_and_has_its_secret() -> None:
    judge = {"baseURL": "https://judge.test/v1", "model": "strict", "apiKeySecretRef": {"name": "two", "key": "k"}}
    spec = a_spec(stages={"sdg": {"provider": {"openAI": OPEN_AI["openAI"] | {"judge": judge}}}})
    told = spec.stages[Stage.SDG].settings["openAI"]["judge"]
    assert told == {"baseURL": "https://judge.test/v1", "model": "strict"}
    assert {purpose: key.name for purpose, key in spec.llm_keys.items()} == {"openai": SECRET["name"], "judge": "two"}
    assert spec.llm_keys["judge"].field == "spec.stages.sdg.provider.openAI.judge.apiKeySecretRef"
    spec = a_spec(stages={"sdg": {"provider": {"openAI": OPEN_AI["openAI"] | {"judge": {"model": "strict"}}}}})
    assert spec.stages[Stage.SDG].settings["openAI"]["judge"] == {"model": "strict"}
    assert spec.llm_keys.keys() == {"openai"}


def test_data_designer_is_told_the_recipe_where_the_manifest_says_nothing() -> None:
    spec = a_spec(stages={"sdg": {"provider": {"dataDesigner": OPEN_AI["openAI"] | {"embedding": {"model": "e"}}}}})
    told = spec.stages[Stage.SDG].settings
    assert (told["provider"], told["dataDesigner"]["embedding"]) == ("dataDesigner", {"model": "e"})
    design = told["design"]
    assert (design["complexity"], design["hops"], design["duplicateCosine"], design["artefactsPerKind"]) == (
        2,
        3,
        0.9,
        2,
    )
    assert len(design["reasoning"]) == 7
    assert spec.llm_keys.keys() == {"openai"}


def test_sdg_is_told_which_score_prep_keeps() -> None:
    assert a_spec().stages[Stage.SDG].settings["qualityThreshold"] == 7.0
    assert a_spec(stages={"sdg": {"provider": OPEN_AI}, "prep": {"qualityThreshold": "8"}}).stages[
        Stage.SDG
    ].settings["qualityThreshold"] == 8.0  # fmt: skip


def test_parameters_of_an_endpoint_are_what_is_sent_and_what_is_not() -> None:
    said = {"parameters": {"max_tokens": 8192, "temperature": None}, "omitParameters": ["seed"]}
    spec = a_spec(stages={"sdg": {"provider": {"openAI": OPEN_AI["openAI"] | said}}})
    told = spec.stages[Stage.SDG].settings["openAI"]
    assert (told["parameters"], told["omitParameters"]) == ({"max_tokens": 8192}, ["seed", "temperature"])
    plain = a_spec(stages={"sdg": {"provider": OPEN_AI}}).stages[Stage.SDG].settings["openAI"]
    assert plain.keys() == {"baseURL", "model"}


@pytest.mark.parametrize("url", ["https://a.test/openai/deployments/m?api-version=2024-10-21", "http://a/v1?user=a@b"])
def test_an_endpoint_may_have_a_query(url: str) -> None:
    provider = {"openAI": OPEN_AI["openAI"] | {"baseURL": url}}
    assert a_spec(stages={"sdg": {"provider": provider}}).stages[Stage.SDG].settings["openAI"]["baseURL"] == url


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(SpecError) as found:
        a_spec(stages={"sdg": {"provider": {"openAI": {"baseURL": "https://me:hunter2@llm/v1", "model": "m"}}}})
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize("name", ["a", "handbook", "h-1", "a" * 40])
def test_names_that_jobs_can_be_named_after(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "1a", "A", "a.b", "a-", "a" * 41, "a_b"])
def test_names_that_they_cannot(name: str) -> None:
    with pytest.raises(SpecError, match=r"metadata\.name"):
        check_name(name)


@pytest.mark.parametrize(("characters", "nodes"), [(37, 2), (40, 1)])
def test_host_names_begin_with_the_name_of_the_resource(characters: int, nodes: int) -> None:
    check_name("a" * characters, nodes)
    with pytest.raises(SpecError, match=rf"metadata\.name: .* {characters} characters"):
        check_name("a" * (characters + 1), nodes)


def in_force(**sections: Any) -> dict[str, Any]:
    """Stages of `status.resolved`."""
    found: dict[str, Any] = resolved(a_spec(**sections), Status(), 1)["stages"]
    return found


def test_resolved_settings_say_how_many_share_the_training() -> None:
    alone, shared = (
        in_force(stages={"finetune": finetune}, storage=SHARED)["finetune"]
        for finetune in ({"parallelism": "FSDP"}, {"nodes": 2, "gpusPerNode": 4})
    )
    assert alone | {"nodes": 1, "processesPerNode": 1} == alone
    assert "parallelism" not in alone
    assert shared | {"nodes": 2, "processesPerNode": 4, "parallelism": "DDP"} == shared


def test_resolved_settings_show_every_default() -> None:
    found = in_force()
    assert set(found) == {stage.value for stage in Stage}
    assert found["finetune"]["settings"]["epochs"] == 3
    assert found["deploy"]["strategy"] == "BlueGreen"


def test_resolved_settings_show_the_users_number_under_the_users_name() -> None:
    found = in_force(stages={stage.value: {"timeoutSeconds": 77} for stage in Stage if stage is not Stage.SDG})
    assert {name: item["timeoutSeconds"] for name, item in found.items() if name != "sdg"} == {
        stage.value: 77 for stage in Stage if stage is not Stage.SDG
    }
    assert not [name for item in found.values() for name in item["settings"] if name in Run.settings()]


@pytest.mark.parametrize(("asked", "told"), [({}, 50), ({"minTextLength": 10}, 10), ({"minTextLength": 200}, 50)])
def test_short_documents_that_are_wanted_get_questions_too(asked: Any, told: int) -> None:
    spec = a_spec(corpus={"source": {"configMap": {"name": "docs"}}, **asked})
    assert spec.stages[Stage.SDG].settings["minTextLength"] == told
    assert spec.stages[Stage.INPUTS].settings["corpus"]["minTextLength"] == asked.get("minTextLength", 50)


@pytest.mark.parametrize(
    ("said", "given", "expected"),
    [
        (None, {}, {"nvidia.com/gpu": "1"}),
        ("nvidia", {}, {"nvidia.com/gpu": "1"}),
        ("none", {}, {}),
        ("none", {"nvidia.com/gpu": 2}, {"nvidia.com/gpu": "2"}),
        ("amd", {}, {"amd.com/gpu": "1"}),
        ("amd", {"memory": "4Gi"}, {"amd.com/gpu": "1", "memory": "4Gi"}),
        ("amd", {"amd.com/gpu": 0}, {}),
        ("gpu.intel.com/xe", {}, {"gpu.intel.com/xe": "1"}),
        ("nvidia.com/mig-1g.10gb", {}, {"nvidia.com/mig-1g.10gb": "1"}),
    ],
)
def test_an_accelerator_is_the_default_of_all_stages(
    said: str | None, given: dict[str, Any], expected: dict[str, str]
) -> None:
    section = {"resources": {"limits": given}} if given else {}
    raw = a_manifest(**stages(prep=section, deploy={**section, "backend": {"torch": {}}}))
    spec = parse_spec(raw | ({"accelerator": said} if said else {}), IMAGES)

    assert spec.stages[Stage.PREP].pod.resources["limits"] == expected
    assert spec.stages[Stage.DEPLOY].pod.resources["limits"] == expected
    assert set(spec.stages[Stage.SDG].pod.resources["limits"]) == set()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("none", "nvidia.com/gpu"),
        ("amd", "nvidia.com/gpu"),
        ("nvidia", "nvidia.com/gpu"),
        ("nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb"),
    ],
)
def test_a_nim_asks_for_a_gpu_of_nvidia_whatever_the_others_do(said: str, expected: str) -> None:
    raw = a_manifest(accelerator=said, stages={"deploy": {"image": "nim:1", "backend": {"nim": {}}}})

    assert parse_spec(raw, IMAGES).stages[Stage.DEPLOY].pod.resources["limits"] == {expected: "1"}


@pytest.mark.parametrize(
    ("said", "count", "expected"),
    [
        ("nvidia", 2, {"nvidia.com/gpu": "2"}),
        ("none", 2, {"nvidia.com/gpu": "2"}),
        ("nvidia.com/mig-1g.10gb", 2, {"nvidia.com/gpu": "2"}),
        ("amd", 2, {"amd.com/gpu": "2"}),
        ("gpu.intel.com/xe", 2, {"gpu.intel.com/xe": "2"}),
        ("amd", 0, {}),
    ],
)
def test_gpus_on_each_node_are_those_of_the_accelerator(said: str, count: int, expected: dict[str, str]) -> None:
    pod = (
        parse_spec(a_manifest(accelerator=said, **stages(finetune={"gpusPerNode": count})), IMAGES)
        .stages[Stage.FINETUNE]
        .pod
    )

    assert pod.resources["limits"] == expected
    assert pod.workers.per_node == max(1, count)


@pytest.mark.parametrize("said", ["gpu", "example.com/gpu", "cpu"])
def test_an_unknown_accelerator_is_refused_with_those_that_there_are(said: str) -> None:
    with pytest.raises(SpecError, match=r"spec.accelerator: .* none, nvidia, amd"):
        parse_spec(a_manifest(accelerator=said), IMAGES)
