"""Every setting of a manifest that is a number, a decimal, a text or a list, declared once. Standard library only.

The operator's parser, the stages, the CRD's properties (crds/generate.py) and the tables of docs/resource.md are made
from it; CONTRIBUTING.md says how to add one. Defaults are those of the published recipe (NVIDIA NeMo embed
recipe, profile llama) unless a comment says why not. Names are those of the manifest.

common      what several tables share
sources     the model and the documents, and when they are looked at again
questions   sdg
data        prep
training    finetune
serving     eval to the server, and how pods are run
judging     how a revision is measured, judged and watched
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedding_stages.contract import Stage
from embedding_stages.contract.declare import Table
from embedding_stages.contract.settings.common import DEFAULT_GATE_METRICS, DEFAULT_K_VALUES, METRIC
from embedding_stages.contract.settings.data import EVALUATION_QUERIES, Prep, Search
from embedding_stages.contract.settings.judging import Evaluation, Gates, Guard, MaxRegression, Tolerance, Verification
from embedding_stages.contract.settings.questions import (
    FITTING,
    PASSAGES,
    QUESTION_KINDS,
    REASONING,
    DataDesigner,
    Prices,
    QuestionTypes,
    Sdg,
)
from embedding_stages.contract.settings.serving import (
    BF16,
    FALL_BACK,
    NO_QUANTIZATION,
    QUANTIZED_COSINE,
    TENSORRT,
    Deploy,
    Eval,
    Export,
    Limits,
    Retention,
    Run,
    RunPolicy,
    Scheduling,
    Verify,
)
from embedding_stages.contract.settings.sources import DEFAULT_INCLUDE, ON_CORPUS_CHANGE, BaseModel, Corpus, Schedule
from embedding_stages.contract.settings.training import PRESETS, QUERY_SIDE, SIDES, Finetune, Lora, Validation, Workers

__all__ = [
    "BF16",
    "DEFAULT_GATE_METRICS",
    "DEFAULT_INCLUDE",
    "DEFAULT_K_VALUES",
    "EVALUATION_QUERIES",
    "FALL_BACK",
    "FITTING",
    "METRIC",
    "NO_QUANTIZATION",
    "OF_STAGE",
    "ON_CORPUS_CHANGE",
    "PASSAGES",
    "PRESETS",
    "QUANTIZED_COSINE",
    "QUERY_SIDE",
    "QUESTION_KINDS",
    "REASONING",
    "SIDES",
    "TENSORRT",
    "BaseModel",
    "Corpus",
    "DataDesigner",
    "Deploy",
    "Eval",
    "Evaluation",
    "Export",
    "Finetune",
    "Gates",
    "Guard",
    "Limits",
    "Lora",
    "MaxRegression",
    "Prep",
    "Prices",
    "QuestionTypes",
    "Retention",
    "Run",
    "RunPolicy",
    "Schedule",
    "Scheduling",
    "Sdg",
    "Search",
    "Tolerance",
    "Validation",
    "Verification",
    "Verify",
    "Workers",
]

# What a stage's code is told. `inputs` gets sections of the manifest instead, `deploy` is a Deployment.
OF_STAGE: Final[Mapping[Stage, type[Table]]] = {
    Stage.SDG: Sdg,
    Stage.PREP: Prep,
    Stage.FINETUNE: Finetune,
    Stage.EVAL: Eval,
    Stage.EXPORT: Export,
    Stage.VERIFY: Verify,
}
