"""The sdg stage: corpus in, pairs out.

chunks.jsonl  {"id", "document_id", "text"}: all chunks of all documents, the passages that are searched
pairs.jsonl   {"id", "question", "document_id", "chunk_ids", "type", "score"}: score is the judge's, 1 to 10, or null

Counts: documents, chunks, pairs, droppedUngrounded, droppedDuplicates. Details with an LLM: llmTokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.errors import BadInput
from embedding_stages.runner import StageContext
from embedding_stages.sdg import extractive, openai_provider
from embedding_stages.sdg.pairs import CHUNKS, FIELD, PAIRS, Corpus, Outcome, Pair


def work(context: StageContext) -> StageResult:
    """Chunk all documents, then have the chosen provider write questions.

    Raises BadInput `NoPairs`, and what the provider raises.
    """
    settings = context.settings
    corpus = Corpus(
        folder=context.input(Artefact.CORPUS),
        sentences_per_chunk=int(settings.get("sentencesPerChunk", 5)),  # NVIDIA embed recipe
        min_text_length=int(settings.get("minTextLength", 50)),  # NVIDIA embed recipe
    )
    folder = context.folder(Artefact.PAIRS)
    statistics = extractive.Statistics()
    documents = 0
    with (folder / CHUNKS).open("w", encoding="utf-8") as stream:
        for document in corpus.documents():
            context.stop_if_asked()
            documents += 1
            statistics.add(document.chunks)
            stream.writelines(json.dumps(chunk.to_json(), ensure_ascii=False) + "\n" for chunk in document.chunks)
    context.log("documents chunked", documents=documents, chunks=statistics.chunks)
    if settings["provider"] == "openAI":
        outcome = openai_provider.write_questions(context, corpus, documents)
    else:
        outcome = _by_rules(context, corpus, statistics, documents)
    if not outcome.pairs:
        raise _no_pairs(str(settings["provider"]), documents, outcome)
    _write_pairs(folder / PAIRS, outcome.pairs)
    counts = {"documents": documents, "chunks": statistics.chunks, "pairs": len(outcome.pairs)}
    return context.result(
        counts=counts | outcome.counts, details=outcome.details, message=f"{len(outcome.pairs)} questions"
    )


def _by_rules(context: StageContext, corpus: Corpus, statistics: extractive.Statistics, documents: int) -> Outcome:
    wanted = int(context.settings.get("pairsPerDocument", 7))  # NVIDIA embed recipe
    seed = int(context.settings.get("seed", 42))
    found: list[list[extractive.Candidate]] = []
    for number, document in enumerate(corpus.documents(), start=1):
        context.stop_if_asked()
        context.progress(number, documents)
        if corpus.is_long_enough(document):
            with document.named():
                found.append(extractive.candidates_of(document.chunks, statistics, wanted=wanted, seed=seed))
    kept, dropped = extractive.drop_ambiguous(found, wanted)
    pairs = [
        Pair(question=item.question, document_id=item.document_id, chunk_ids=(item.chunk_id,), type=item.type)
        for candidates in kept
        for item in candidates
    ]
    return Outcome(pairs=pairs, counts={"droppedUngrounded": 0, "droppedDuplicates": dropped}, details={})


def _write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(pair.to_json(), ensure_ascii=False) + "\n" for pair in pairs)


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
