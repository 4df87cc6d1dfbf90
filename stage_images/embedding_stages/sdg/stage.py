"""The sdg stage: corpus in, pairs out (see formats/pairs.py).

Counts: documents, chunks (passages), pairs, droppedUngrounded, droppedDuplicates. Details with an LLM: llmTokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import Sdg
from embedding_stages.errors import BadInput, settings_of
from embedding_stages.formats import pairs
from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.runner import StageContext
from embedding_stages.sdg import extractive, openai_provider
from embedding_stages.sdg.corpus import CutCorpus
from embedding_stages.sdg.provider import Outcome

FIELD: Final = "spec.stages.sdg"


def work(context: StageContext) -> StageResult:
    """Cut all documents into passages, then have the chosen provider write questions.

    Raises BadInput `NoPairs`, and what the provider raises.
    """
    settings, asked = context.settings, settings_of(Sdg, context.settings)
    corpus = CutCorpus(
        folder=context.input(Artefact.CORPUS),
        sentences_per_passage=asked.sentencesPerChunk,
        min_text_length=asked.minTextLength,
    )
    folder = context.folder(Artefact.PAIRS)
    statistics = extractive.Statistics()
    documents = 0

    def counted() -> Iterator[Passage]:
        nonlocal documents
        for document in corpus.documents():
            context.stop_if_asked()
            documents += 1
            statistics.add(document.passages)
            yield from document.passages

    pairs.write_passages(folder / pairs.PASSAGES, counted())
    context.log("documents cut into passages", documents=documents, passages=statistics.passages)
    if settings["provider"] == "openAI":
        outcome = openai_provider.write_questions(context, corpus, documents)
    else:
        outcome = _by_rules(context, corpus, statistics, documents)
    if not outcome.pairs:
        raise _no_pairs(str(settings["provider"]), documents, outcome)
    pairs.write_pairs(folder / pairs.PAIRS, outcome.pairs)
    counts = {"documents": documents, "chunks": statistics.passages, "pairs": len(outcome.pairs)}
    return context.result(
        counts=counts | outcome.counts, details=outcome.details, message=f"{len(outcome.pairs)} questions"
    )


def _by_rules(context: StageContext, corpus: CutCorpus, statistics: extractive.Statistics, documents: int) -> Outcome:
    asked = settings_of(Sdg, context.settings)
    wanted, seed = asked.pairsPerDocument, asked.seed
    found: list[list[extractive.Candidate]] = []
    for number, document in enumerate(corpus.documents(), start=1):
        context.stop_if_asked()
        context.progress(number, documents)
        if corpus.is_long_enough(document):
            with document.named():
                found.append(extractive.candidates_of(document.passages, statistics, wanted=wanted, seed=seed))
    kept, dropped = extractive.drop_ambiguous(found, wanted)
    written = [
        Pair.about(item.document_id, item.question, (item.passage_id,), kind=item.type)
        for candidates in kept
        for item in candidates
    ]
    return Outcome(pairs=written, counts={"droppedUngrounded": 0, "droppedDuplicates": dropped}, details={})


def _no_pairs(provider: str, documents: int, outcome: Outcome) -> BadInput:
    dropped = ", ".join(f"{name} {number}" for name, number in outcome.counts.items() if number)
    cure = "add documents with full sentences, or use provider openAI"
    if provider == "openAI":
        cure = "use a stronger model, or look at the stage's log for what it answered"
    return BadInput(
        "NoPairs",
        f"no question could be written about {documents} documents ({dropped or 'nothing to ask'}): {cure}",
        field=f"{FIELD}.provider",
    )
