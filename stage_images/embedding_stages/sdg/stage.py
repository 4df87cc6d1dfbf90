"""The sdg stage: corpus in, pairs out (see formats/pairs.py).

Counts: documents, chunks (passages), pairs, droppedUngrounded, droppedDuplicates; with maxPairs documentsAsked; with an
LLM also keptPairs (by the threshold of prep), droppedUnjudged, droppedForeign (in another language than the
document's), rejectedSections, and answers of no use by their kind (`answers.ODD`). Details with an LLM: llmTokens, of
them judgeTokens where another model judges, llmCost, and llmParameters and judgeParameters where an endpoint refuses
some (leftOut, renamed); without one languages (documents, the most frequent first), warnings, and with other kinds of
questions than those of the rules questionKinds, the pairs of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import FITTING, Sdg
from embedding_stages.errors import BadInput, StageError, Transient, settings_of
from embedding_stages.formats import pairs
from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.runner import StageContext
from embedding_stages.sdg import designer_provider, extractive, openai_provider
from embedding_stages.sdg.answers import CUT, EMPTY, MISSING, UNREADABLE
from embedding_stages.sdg.corpus import CutCorpus, CutDocument
from embedding_stages.sdg.drawn import ask_drawn
from embedding_stages.sdg.failures import UNAVAILABLE
from embedding_stages.sdg.fit import Fit
from embedding_stages.sdg.languages import language_of, others_than_english, prose_of, told, warning_of
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.phrases import PhraseCounts
from embedding_stages.sdg.provider import Outcome
from embedding_stages.sdg.reading import Counted
from embedding_stages.sdg.turns import RULES, candidates_in_turns, count_kinds

FIELD: Final = "spec.stages.sdg"
_LLM: Final = {"openAI": openai_provider.write_questions, "dataDesigner": designer_provider.write_questions}
_LANGUAGES_TOLD: Final = 8


def work(context: StageContext) -> StageResult:
    """Cut all documents into passages, then have the chosen provider write questions.

    Raises BadInput `NoPairs`, and what the provider raises.
    """
    settings, asked = context.settings, settings_of(Sdg, context.settings)
    corpus = CutCorpus(
        folder=context.input(Artefact.CORPUS),
        sentences_per_passage=asked.sentencesPerChunk,
        min_text_length=asked.minTextLength,
        fit=_fit(context, asked),
    )
    folder = context.folder(Artefact.PAIRS)
    provider = str(settings["provider"])
    with_llm = provider in _LLM
    counts_phrases = not with_llm and "topic" in asked.questionKinds
    counted = Counted(extractive.Statistics(), PhraseCounts() if counts_phrases else None)
    documents = 0

    def passages() -> Iterator[Passage]:
        nonlocal documents
        for document in corpus.documents():
            context.stop_if_asked()
            documents += 1
            counted.statistics.add(document.passages)
            if counted.phrases is not None:
                counted.phrases.add(document.passages)
            yield from document.passages

    pairs.write_passages(folder / pairs.PASSAGES, passages())
    cut = counted.statistics.passages
    context.log("documents cut into passages", documents=documents, passages=cut)
    if with_llm:
        outcome = _LLM[provider](context, corpus, documents)
    else:
        outcome = _without_llm(context, corpus, counted, documents)
    if not outcome.pairs:
        raise _no_pairs(provider, documents, outcome)
    pairs.write_pairs(folder / pairs.PAIRS, outcome.pairs)
    counts = {"documents": documents, "chunks": cut, "pairs": len(outcome.pairs)}
    return context.result(
        counts=counts | outcome.counts, details=outcome.details, message=f"{len(outcome.pairs)} questions"
    )


def _fit(context: StageContext, asked: Sdg) -> Fit | None:
    return Fit.load(context.input(Artefact.BASE_MODEL)) if asked.passages == FITTING else None


def _without_llm(context: StageContext, corpus: CutCorpus, counted: Counted, documents: int) -> Outcome:
    asked = settings_of(Sdg, context.settings)
    only_rules = set(asked.questionKinds) == {RULES}
    languages: Counter[str] = Counter()
    read = count(start=1)

    def ask(document: CutDocument, expected: int) -> list[extractive.Candidate] | None:
        context.stop_if_asked()
        number = next(read)
        context.progress(number, max(number, expected))
        if not corpus.is_long_enough(document):
            return None
        with document.named():
            languages[language_of(prose_of(document.passages)).name] += 1
            return _candidates(document.passages, counted, asked, only_rules=only_rules)

    found = ask_drawn(
        corpus, ask, documents=documents, wanted=asked.pairsPerDocument, most=asked.maxPairs, seed=asked.seed
    )
    written = [
        Pair.about(item.document_id, item.question, (item.passage_id,), kind=item.type)
        for candidates in found.documents
        for item in candidates
    ]
    warnings = [warning] if RULES in asked.questionKinds and (warning := warning_of(languages)) else []
    for warning in warnings:
        context.log("warning", warning=warning)
    return Outcome(
        pairs=written,
        counts={
            "droppedUngrounded": 0,
            "droppedDuplicates": found.dropped,
            **({"documentsAsked": found.asked} if asked.maxPairs else {}),
        },
        details={
            "languages": dict(languages.most_common(_LANGUAGES_TOLD)),
            "warnings": warnings,
            **({} if only_rules else {"questionKinds": count_kinds(written)}),
        },
    )


def _candidates(
    passages: Sequence[UnitPassage], counted: Counted, asked: Sdg, *, only_rules: bool
) -> list[extractive.Candidate]:
    wanted, seed = asked.pairsPerDocument, asked.seed
    if only_rules:
        return extractive.candidates_of(passages, counted.statistics, wanted=wanted, seed=seed)
    return candidates_in_turns(passages, counted, asked.questionKinds, wanted=wanted, seed=seed)


def _no_pairs(provider: str, documents: int, outcome: Outcome) -> StageError:
    dropped = ", ".join(f"{name} {number}" for name, number in outcome.counts.items() if number)
    cure = "add documents with full sentences, or use provider openAI"
    field = f"{FIELD}.provider"
    languages = Counter(outcome.details.get("languages", {}))
    if others := others_than_english(languages):
        cure = f"{cure}; {others.total()} documents are not English ({told(others)}), and rules ask in English alone: "
        cure += f"add title to {FIELD}.questionKinds"
    if provider in _LLM:
        cure, field = _cure(outcome, f"{field}.{provider}")
    odd = f"; {outcome.odd.tell()}" if outcome.odd.counts else ""
    if 2 * outcome.odd.counts.get(MISSING, 0) >= documents:  # what did not come may be what was wanted
        at = f"{FIELD}.provider.{provider}.baseURL"
        return Transient(UNAVAILABLE, f"no question could be written about {documents} documents{odd}", field=at)
    return BadInput(
        "NoPairs",
        f"no question could be written about {documents} documents ({dropped or 'nothing to ask'}){odd}: {cure}",
        field=field,
    )


def _cure(outcome: Outcome, field: str) -> tuple[str, str]:
    """What to do about answers of which nothing was kept, and the manifest's field for it."""
    odd, dropped = (
        outcome.odd.counts,
        sum(outcome.counts[f"dropped{why}"] for why in ("Ungrounded", "Unjudged", "Foreign")),
    )
    most = max(odd, key=lambda kind: odd[kind], default="")
    if most and odd[most] >= dropped and most in _CURES:
        return _CURES[most].format(field=field), f"{field}.parameters"
    if most == UNREADABLE and "response_format" in outcome.details.get("llmParameters", {}).get("leftOut", ()):
        return _NO_JSON_MODE, f"{field}.model"
    return "use a stronger model", f"{FIELD}.provider"


_NO_JSON_MODE: Final = (
    "the endpoint has no JSON mode (it refuses response_format), and this model writes no JSON without; name another "
    "model, or another endpoint"
)
_CURES: Final = {
    CUT: "answers end at the endpoint's limit of tokens, so raise it with {field}.parameters: {{max_tokens: 8192}}",
    EMPTY: "have the model answer after it has thought, by the endpoint's own parameters, such as "
    "{field}.parameters: {{chat_template_kwargs: {{enable_thinking: false}}}}, or use another model",
}
