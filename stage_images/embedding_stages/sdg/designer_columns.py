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

Nothing is downloaded and nothing is reported: telemetry, metrics, health checks and the tokenizer of its statistics are
off, and its home is a folder of the stage.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages.contract import canonical_json
from embedding_stages.sdg import designer_prompts as told
from embedding_stages.sdg.designer_gateway import Gateway

EXTRACT, WRITE, JUDGE, EMBED = "extract", "write", "judge", "embed"  # aliases of models, and routes
_TIMEOUT_S: Final = 86_400  # of a request: the gateway has limits of its own
_NAME: Final = "questions"
# Python's threads take turns. An answer that has come must be on disk at once: until then a kill makes it paid for
# twice, and the library's threads, which compute, would hold its turn up for five milliseconds each.
_SWITCH_S: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What the columns between the models' do with a row; each reads columns by name and returns one value."""

    found: Callable[[Mapping[str, Any]], str]
    drafts: Callable[[Mapping[str, Any]], str]
    distinct: Callable[[Mapping[str, Any]], str]
    graded: Callable[[Mapping[str, Any]], str]


def prepare(home: Path) -> None:
    """Before the library is imported for the first time: it reads these at import."""
    os.environ["NEMO_TELEMETRY_ENABLED"] = "false"
    os.environ["DATA_DESIGNER_HOME"] = str(home)
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""  # readers take the first of them
    if "127.0.0.1" not in others.split(","):
        others = f"{others},127.0.0.1".lstrip(",")
    os.environ |= {"NO_PROXY": others, "no_proxy": others}


def run(
    rows: Sequence[Mapping[str, Any]], steps: Steps, gateway: Gateway, folder: Path, *, at_once: int, embeds: bool
) -> list[dict[str, Any]]:
    """The rows with their columns; those that were given up are missing. Blocks until all are done.

    `rows` have row, data, order and per_kind. At most `at_once` requests are under way to each route.
    """
    import data_designer.config as dd
    import pandas as pd
    from data_designer.config.seed_source_dataframe import DataFrameSeedSource
    from data_designer.interface.data_designer import DataDesigner
    from data_designer.interface.errors import DataDesignerGenerationError

    _count_no_tokens()
    sys.setswitchinterval(_SWITCH_S)
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    assets = folder / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    designer = DataDesigner(
        artifact_path=folder,
        model_providers=[
            dd.ModelProvider(name=route, endpoint=gateway.url_of(route), api_key="none") for route in gateway.routes
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
    builder = dd.DataDesignerConfigBuilder(model_configs=_models(dd, gateway, at_once))
    builder.with_seed_dataset(DataFrameSeedSource(df=pd.DataFrame([dict(row) for row in rows])))
    for column in _columns(dd, steps, embeds=embeds):
        builder.add_column(column)
    try:
        made = designer.create(builder, num_records=len(rows), dataset_name=_NAME)
    except DataDesignerGenerationError:
        if not gateway.gave_up:  # what ended it is its own, not an answer
            raise
        return []  # no row is left
    found = [dict(row) for row in made.load_dataset().to_dict("records")]
    shutil.rmtree(folder)  # what is left of a row is its bundle's by now
    return found


def _models(dd: Any, gateway: Gateway, at_once: int) -> list[Any]:
    return [
        dd.ModelConfig(
            alias=route,
            model=route,
            provider=route,
            skip_health_check=True,
            inference_parameters=(dd.ChatCompletionInferenceParams if one.items else dd.EmbeddingInferenceParams)(
                max_parallel_requests=at_once, timeout=_TIMEOUT_S
            ),
        )
        for route, one in gateway.routes.items()
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


def _count_no_tokens() -> None:
    """Its statistics count tokens by a vocabulary that it would download. Nobody reads them: bytes are counted."""
    import tiktoken
    from tiktoken import registry

    name = "cl100k_base"
    if name not in registry.ENCODINGS:
        ranks = {bytes([byte]): byte for byte in range(256)}
        registry.ENCODINGS[name] = tiktoken.Encoding(name, pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={})
