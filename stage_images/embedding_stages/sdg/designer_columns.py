"""The recipe's pipeline as columns of NeMo Data Designer.

A row is a section of a document, or of several that are asked about together. Its columns, in their order:

artefacts    by the model: what the section is about
found        the artefacts as text
questions    by the model: questions with answers, evidence, complexity and reasoning
drafts       those of them that hold what they promise: quotes that are there, the language, the complexity
vectors      by the model of embeddings, where there is one: of the questions
distinct     the drafts without those that ask the same
graded       the questions as the judge sees them
judgement    by the judge: a score by each criterion, and one of the whole

Nothing is downloaded and nothing is reported: telemetry, metrics, health checks, its statistics and its tokenizer are
off, and its home is a folder of the stage.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.contract import canonical_json
from embedding_stages.sdg import designer_prompts as told

EXTRACT, WRITE, JUDGE, EMBED = "extract", "write", "judge", "embed"  # aliases of models, and routes
_TIMEOUT_S: Final = 86_400  # of a request: the gateway has limits of its own
_NAME: Final = "questions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What the columns between the models' do with a row; each reads columns by name and returns one value."""

    found: Callable[[Mapping[str, Any]], str]
    drafts: Callable[[Mapping[str, Any]], str]
    distinct: Callable[[Mapping[str, Any]], str]
    graded: Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where requests to a model go."""

    url: str
    chats: bool = True  # else it makes embeddings


def environment(home: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Of the process that imports the library, which reads these at import."""
    others = env.get("no_proxy") or env.get("NO_PROXY") or ""  # readers take the first of them
    if "127.0.0.1" not in others.split(","):
        others = f"{others},127.0.0.1".lstrip(",")
    own = {"NEMO_TELEMETRY_ENABLED": "false", "DATA_DESIGNER_HOME": str(home), "NO_PROXY": others, "no_proxy": others}
    return {**env, **own}


def is_of_no_row(error: Exception) -> bool:
    """Whether it may mean no more than that every row was given up; the library has no class for that alone."""
    from data_designer.interface.errors import DataDesignerGenerationError

    return isinstance(error, DataDesignerGenerationError)


def run(
    rows: Sequence[Mapping[str, Any]], steps: Steps, routes: Mapping[str, Address], folder: Path, *, at_once: int
) -> list[dict[str, Any]]:
    """The rows with their columns; those that were given up are missing. Blocks until all are done.

    `rows` have row, data, order and per_kind. At most `at_once` requests are under way to each route. Raises what the
    library raises; see `is_of_no_row`.
    """
    import data_designer.config as dd
    import pandas as pd
    from data_designer.config.seed_source_dataframe import DataFrameSeedSource
    from data_designer.interface.data_designer import DataDesigner

    _count_no_tokens()
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    assets = folder / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    designer = DataDesigner(
        artifact_path=folder,
        model_providers=[
            dd.ModelProvider(name=route, endpoint=one.url, api_key="none") for route, one in routes.items()
        ],
        managed_assets_path=assets,
        auto_configure_logging=False,
    )
    designer.set_run_config(
        dd.RunConfig(
            disable_early_shutdown=True,  # rows that are given up are counted by the stage
            buffer_size=max(1, len(rows)),
            max_conversation_restarts=0,
            otel_metrics_port=None,
            non_inference_max_parallel_workers=1,
        )
    )
    designer._create_dataset_profiler = lambda *_, **__: _NoStatistics()
    builder = dd.DataDesignerConfigBuilder(model_configs=_models(dd, routes, at_once))
    builder.with_seed_dataset(DataFrameSeedSource(df=pd.DataFrame([dict(row) for row in rows])))
    for column in _columns(dd, steps, embeds=EMBED in routes):
        builder.add_column(column)
    made = designer.create(builder, num_records=len(rows), dataset_name=_NAME)
    found = [dict(row) for row in made.load_dataset().to_dict("records")]
    shutil.rmtree(folder)  # what is left of a row is its bundle's by now
    return found


def _models(dd: Any, routes: Mapping[str, Address], at_once: int) -> list[Any]:
    return [
        dd.ModelConfig(
            alias=route,
            model=route,
            provider=route,
            skip_health_check=True,
            inference_parameters=(dd.ChatCompletionInferenceParams if one.chats else dd.EmbeddingInferenceParams)(
                max_parallel_requests=at_once, timeout=_TIMEOUT_S
            ),
        )
        for route, one in routes.items()
    ]


def _columns(dd: Any, steps: Steps, *, embeds: bool) -> list[Any]:
    nothing = dd.SkipConfig(when="{{ drafts_count == 0 }}")

    def custom(name: str, step: Callable[[Mapping[str, Any]], Any], *needs: str) -> Any:
        def make(row: dict[str, Any]) -> dict[str, Any]:
            row[name] = step(row)
            return row

        generator = dd.custom_column_generator(required_columns=list(needs))(make)
        return dd.CustomColumnConfig(name=name, generator_function=generator, propagate_skip=False)

    def by_model(name: str, system: str, prompt: str, alias: str, shape: Any, **more: Any) -> Any:
        return dd.LLMStructuredColumnConfig(
            name=name, system_prompt=system, prompt=prompt, model_alias=alias, output_format=shape, **more
        )

    embedding = [dd.EmbeddingColumnConfig(name="vectors", target_column="asked", model_alias=EMBED, skip=nothing)]
    return [
        by_model("artefacts", told.EXTRACT, told.EXTRACT_TEMPLATE, EXTRACT, told.ARTEFACTS_SHAPE),
        custom("found", steps.found, "artefacts"),
        by_model(_NAME, told.WRITE, told.WRITE_TEMPLATE, WRITE, told.PAIRS_SHAPE),
        custom("drafts", steps.drafts, _NAME, "row"),
        custom("drafts_count", lambda row: len(loaded(row["drafts"])), "drafts"),
        custom("asked", _as_list, "drafts"),
        *(embedding if embeds else []),
        custom("distinct", steps.distinct, "drafts", *(["vectors"] if embeds else [])),
        custom("graded", steps.graded, "distinct", "row"),
        by_model("judgement", told.JUDGE, told.JUDGE_TEMPLATE, JUDGE, told.SCORES_SHAPE, skip=nothing),
    ]


def _as_list(row: Mapping[str, Any]) -> str:
    """The questions as the column of embeddings reads a list. Data Designer 0.9 parses what is JSON before that column
    sees it, which then fails; with a comma too many it is not JSON yet.
    """
    return canonical_json([one["question"] for one in loaded(row["drafts"])])[:-1] + ",]"


def loaded(value: Any) -> Any:
    """A column's value: Data Designer keeps JSON as text in some places, and parsed in others."""
    return json.loads(value) if isinstance(value, str) else value


class _NoStatistics:
    """In the place of the library's, which nobody reads: they fail where there is one row, or one is left."""

    def profile_dataset(self, *_: Any) -> None:
        """None is what the library takes for no statistics."""


def _count_no_tokens() -> None:
    """It counts tokens of thoughts by a vocabulary that it would download. Nobody reads that: bytes are counted."""
    import tiktoken
    from tiktoken import registry

    name = "cl100k_base"
    if name not in registry.ENCODINGS:
        ranks = {bytes([byte]): byte for byte in range(256)}
        registry.ENCODINGS[name] = tiktoken.Encoding(name, pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={})
