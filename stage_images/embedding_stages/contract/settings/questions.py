"""The stage that writes questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedding_stages.contract.declare import Table, setting
from embedding_stages.contract.settings.common import JOINED, SEED_HIGH

QUESTION_KINDS: Final = ("rules", "title", "excerpt", "terms", "topic")
PASSAGES: Final = ("sentences", "fit")
FITTING: Final = PASSAGES[1]
REASONING: Final = ("factual", "relational", "inferential", "temporal", "procedural", "visual", "causal")
_DEAREST: Final = 100_000  # of a million tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices(Table):
    """In a currency of the user's; what a judge of its own costs, where it costs something else."""

    FIELD = "spec.stages.sdg.prices"

    promptPerMillion: float = setting(
        0.0, since=JOINED, low=0, high=_DEAREST, says="Price of a million tokens of what is asked."
    )
    completionPerMillion: float = setting(
        0.0, since=JOINED, low=0, high=_DEAREST, says="Price of a million tokens of what is answered."
    )
    judgePromptPerMillion: float | None = setting(
        None, since=JOINED, low=0, high=_DEAREST, says="The same of the judge; promptPerMillion when absent."
    )
    judgeCompletionPerMillion: float | None = setting(
        None, since=JOINED, low=0, high=_DEAREST, says="The same of the judge; completionPerMillion when absent."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionTypes(Table):
    """How the questions of a document are divided."""

    FIELD = "spec.stages.sdg.provider.dataDesigner.types"

    multiHop: int = setting(3, since=JOINED, low=0, high=100, says="Part of those that need several passages.")
    structural: int = setting(2, since=JOINED, low=0, high=100, says="Part of those on how things relate.")
    contextual: int = setting(2, since=JOINED, low=0, high=100, says="Part of those on a fact, condition or purpose.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDesigner(Table):
    """The recipe's pipeline as columns of NeMo Data Designer."""

    FIELD = "spec.stages.sdg.provider.dataDesigner"

    complexity: int = setting(2, since=JOINED, low=2, high=5, says="Least complexity of a question, 2 to 5.")
    hops: int = setting(
        3, since=JOINED, low=1, high=3, says="Most passages that a question needs; with 1 none needs several."
    )
    types: QuestionTypes | None = setting(  # noqa: RUF009 - as every other setting
        None, since=JOINED, says="How questions are divided among types; 3, 2 and 2 of 7 when absent."
    )
    reasoning: tuple[str, ...] = setting(
        REASONING,
        since=JOINED,
        choices=REASONING,
        fewest=1,
        most=len(REASONING),
        says="Kinds of reasoning that are asked for in turn.",
    )
    artefactsPerKind: int = setting(
        2,
        since=JOINED,
        low=1,
        high=10,
        says="Things of each kind that are looked for in a document before it is asked about.",
    )
    documentsPerBundle: int = setting(
        1, since=JOINED, low=1, high=10, says="Neighbouring documents that are asked about together."
    )
    duplicateCosine: float = setting(
        0.9,
        since=JOINED,
        low=0.5,
        high=1,
        says="Of two questions about a document with a higher cosine the first is kept; needs embedding.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdg(Table):
    FIELD = "spec.stages.sdg"

    pairsPerDocument: int = setting(7, low=1, high=100, says="Questions a document.")
    maxPairs: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=100_000_000,
        says="At most so many questions by rules, about documents drawn with the seed; all when absent. 4096, or what "
        "maxTrainingQuestions needs, with finetune.preset auto or conservative.",
    )
    sentencesPerChunk: int = setting(5, low=1, high=100, says="Sentences a passage.")
    passages: str = setting(
        PASSAGES[0],
        since=JOINED,
        choices=PASSAGES,
        says="sentences: sentencesPerChunk sentences each, however long. fit: at most so many, and no longer than "
        "baseModel.maxTokens, so that the model reads them whole.",
    )
    minTextLength: int = setting(50, low=1, says="Documents below this get no questions, characters.", told=True)
    questionKinds: tuple[str, ...] = setting(
        ("rules",),
        since=JOINED,
        choices=QUESTION_KINDS,
        fewest=1,
        most=len(QUESTION_KINDS),
        says="Kinds of questions of provider extractive; all but excerpt with finetune.preset auto or conservative.",
    )
    concurrency: int = setting(
        8, since=JOINED, low=1, high=1024, how=True, says="Requests that the language model answers at once."
    )
    judgeConcurrency: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1024,
        how=True,
        says="The same of a judge of its own; as concurrency when absent.",
    )
    maxTokensTotal: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1_000_000_000_000,
        how=True,
        says="Tokens that the language model may be asked and may answer; then the stage stops and keeps what it has. "
        "No limit when absent.",
    )
    preview: int | None = setting(
        None,
        since=JOINED,
        low=1,
        high=1000,
        how=True,
        says="Only so many documents are asked about, and the run stops with what all of them would cost; "
        "all when absent.",
    )
    prices: Prices | None = setting(  # noqa: RUF009 - as every other setting
        None, since=JOINED, how=True, says="Prices of tokens, for what a question costs; none is told when absent."
    )
    qualityThreshold: float | None = setting(
        None, since=JOINED, low=0, high=10, how=True, told=True, says="Lowest score that prep keeps."
    )
    design: DataDesigner | None = setting(  # noqa: RUF009 - as every other setting
        None, since=JOINED, told=True, says="What provider dataDesigner makes of a document."
    )
    seed: int = setting(42, low=0, high=SEED_HIGH, says="Of every random choice.")
