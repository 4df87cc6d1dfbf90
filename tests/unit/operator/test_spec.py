"""From the manifest to settings: the published recipe's defaults, and an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, OPEN_AI, SECRET, a_manifest, a_spec
from unit.operator.test_spec_bad_fields import stages

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
    assert a_spec(tolerance={"minCosine": 0.95}).tolerance == Tolerance(min_cosine=0.95)
    assert spec.start_deadline_s == 1800
    assert spec.stages[Stage.SDG].pod.retries == 3
    assert spec.deploy.model_name == "tiny"
    assert {stage: spec.stages[stage].pod.image for stage in Stage} == {stage: IMAGES[stage] for stage in Stage}


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
