"""Questions from an LLM: written, grounded and judged a document at a time, several documents at once.

Each answer is in the ledger before it is used, and each finished document is a file in the stage's scratch folder, so
that a resumed attempt pays nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from embedding_stages.contract.settings import Sdg
from embedding_stages.errors import BadInput, settings_of
from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.runner import StageContext
from embedding_stages.sdg import prompts
from embedding_stages.sdg.answers import CUT, MISSING, OddAnswerError, Tally
from embedding_stages.sdg.bill import Shape
from embedding_stages.sdg.clients import Clients, counted, details_of, opened
from embedding_stages.sdg.corpus import CutCorpus, CutDocument
from embedding_stages.sdg.failures import FIELD, REJECTED
from embedding_stages.sdg.languages import Language, is_of_another, language_of, prose_of
from embedding_stages.sdg.ledger import BudgetSpentError
from embedding_stages.sdg.openai_client import ChatClient
from embedding_stages.sdg.parallel import in_parallel
from embedding_stages.sdg.provider import Outcome
from embedding_stages.sdg.rationing import Rations, chosen, preview_done
from embedding_stages.sdg.written import Written, given_up, outcome_of

_SECTION_CHARACTERS: Final = 12_000  # of one call, about 3,000 tokens
_MOST_SECTIONS: Final = 4  # of one document, spread over it
_TRIES: Final = 3  # where answers are of no use
_HOPELESS: Final = 100  # documents in a row that were refused one and all: the others would be


@dataclass(frozen=True, slots=True)
class _Task:
    """What a model is asked for: a list of that name."""

    items: str
    temperature: float


_WRITE: Final = _Task(prompts.PAIRS, 0.7)
_JUDGE: Final = _Task(prompts.SCORES, 0.0)


def write_questions(context: StageContext, corpus: CutCorpus, documents: int) -> Outcome:
    """Ask the endpoint about every document. What was answered is kept.

    Raises what `ChatClient.ask` raises; Stopped `PreviewDone`, `TokenBudgetSpent`; BadInput `TokenBudgetTooSmall`.
    """
    scratch = context.scratch("llm")
    asked = settings_of(Sdg, context.settings)
    asked_about = min(documents, asked.preview or documents)
    with opened(context, scratch, context.settings["openAI"], FIELD) as clients:
        shapes = _shapes(corpus, asked) if asked.preview else []
        rations = Rations(
            items=_asked_about(corpus, chosen(shapes, asked.preview)),
            shape=lambda source: shape_of(source, asked.pairsPerDocument),
            is_paid=lambda source: (scratch / f"{source.id}.json").exists(),
            ledger=clients.ledger,
            most=asked.maxTokensTotal,
        )
        found = _ask_all(context, clients, rations, asked_about)
        clients.check_they_chat()
        outcome = outcome_of([found[number] for number in sorted(found)])
        rations.check_all_were_taken(documents, len(outcome.pairs))
        if asked.preview:
            raise preview_done(
                asked,
                clients.ledger,
                rations.forecast,
                shapes,
                outcome.pairs,
                previewed=(rations.documents, len(shapes)),
                missing=outcome.odd.counts.get(MISSING, 0),
            )
        return replace(outcome, counts=counted(outcome, asked), details=details_of(clients, outcome, asked))


def _ask_all(
    context: StageContext, clients: Clients, rations: Rations[CutDocument], documents: int
) -> dict[int, Written]:
    """By their number, the documents that were asked about to their end."""
    scratch, asked = context.scratch("llm"), settings_of(Sdg, context.settings)

    def one(source: CutDocument) -> tuple[Shape, Written | None]:
        path, shape = scratch / f"{source.id}.json", shape_of(source, asked.pairsPerDocument)
        document = Written.load(path)
        if document is None:
            try:
                document = _ask_about(clients, source, asked.pairsPerDocument, asked.seed)
            except BudgetSpentError:  # raised, it would end others at once, whose answers under way are paid for
                return shape, None
            document.save(path)
        return shape, document

    found: dict[int, Written] = {}
    told = Tally()
    in_vain = 0  # documents in a row
    for number, (shape, document) in in_parallel(one, rations.take, context.stop_if_asked, clients.at_once):
        if document is None:
            rations.release(number)
            rations.cut_short(1)
            continue
        found[number] = document
        if MISSING in document.odd.counts:  # it took less than one that is answered
            rations.release(number)
        else:
            rations.done(number, shape, document.usage)
            if not document.is_unanswered:
                clients.losses.answered()
        _tell(context, document, told)
        context.progress(len(found), documents)
        in_vain = in_vain + 1 if document.is_unanswered else 0
        if in_vain == _HOPELESS:
            raise given_up([document], f"the last {in_vain} documents")
    return found


def _asked_about(corpus: CutCorpus, places: frozenset[int] | None) -> Iterator[CutDocument]:
    long_enough = (document for document in corpus.documents() if corpus.is_long_enough(document))
    return (document for place, document in enumerate(long_enough) if places is None or place in places)


def _shapes(corpus: CutCorpus, asked: Sdg) -> list[Shape]:
    return [shape_of(document, asked.pairsPerDocument) for document in _asked_about(corpus, None)]


def shape_of(source: CutDocument, wanted: int) -> Shape:
    """Of a document as it is sent."""
    sections = sections_of(source.passages, wanted)
    characters = sum(len(passage.text) for section in sections for passage in section)
    return Shape(characters=characters, calls=2 * len(sections), pairs=wanted)


def _tell(context: StageContext, document: Written, told: Tally) -> None:
    """Log what was left out of a document, and the first answer of each kind that was of no use."""
    for said in document.rejections:
        context.log("a section is left out", document=document.id, reason=REJECTED, result=said)
    if MISSING in document.odd.counts:
        said = document.odd.examples.get(MISSING, "")
        context.log("a section is left out", document=document.id, reason=MISSING, result=said)
    for kind in document.odd.counts.keys() - told.counts.keys() - {MISSING}:
        example = document.odd.examples.get(kind, "")
        context.log("an answer is of no use", document=document.id, reason=kind, result=example)
    told.merge(document.odd)


def _ask_about(clients: Clients, source: CutDocument, wanted: int, seed: int) -> Written:
    """Write, ground and judge the questions about one document. Raises what `Losses.take` raises."""
    document = Written(source.id)
    language = language_of(prose_of(source.passages))
    sections = sections_of(source.passages, wanted)
    for number, section in enumerate(sections):
        share = wanted // len(sections) + (number < wanted % len(sections))
        try:
            _ask_about_section(clients, document, section, share, language, seed)
        except OddAnswerError as error:  # nothing comes of it
            clients.losses.take(source.id, source.path, error)
    return document


def _ask_about_section(
    clients: Clients, document: Written, section: list[Passage], wanted: int, language: Language, seed: int
) -> None:
    """Raises OddAnswerError where one of the models does not answer."""
    messages = prompts.writer_messages(section, prompts.mix(wanted))
    written = _ask(clients.writer, _WRITE, messages, seed, document)
    drafts, dropped = prompts.read_drafts(written or [], section, wanted)
    document.ungrounded += dropped
    asked = len(drafts)
    drafts = [draft for draft in drafts if not is_of_another(draft.question, language)]
    document.foreign += asked - len(drafts)
    if not drafts:
        return
    messages = prompts.judge_messages(section, drafts)
    verdict = _ask(clients.judge, _JUDGE, messages, seed, document)
    for draft, score in zip(drafts, prompts.read_scores(verdict or [], len(drafts)), strict=True):
        if score is None:  # without a score it would pass the threshold of prep
            document.unjudged += 1
            continue
        document.pairs.append(Pair.about(document.id, draft.question, draft.passage_ids, kind=draft.type, score=score))


def _ask(
    client: ChatClient, task: _Task, messages: list[dict[str, str]], seed: int, document: Written
) -> list[Any] | None:
    """What the model wrote, or None when it writes nothing of use or is not given the section.

    The cost is counted all the same. Answers of no use that an earlier attempt got are no tries of this one. Raises
    OddAnswerError where none came.
    """
    tries = number = 0
    while tries < _TRIES:
        if tries:
            client.pause(tries - 1)
        try:
            reply = client.ask(messages, wanted=task.items, seed=seed + number, temperature=task.temperature)
        except OddAnswerError as error:
            document.usage.add(error.usage)
            document.odd.add(error.kind, error.example)
            if error.is_final:
                raise
            tries += not error.is_old
            number += 1
            continue
        except BadInput as error:
            if error.reason != REJECTED:
                raise
            document.rejections.append(error.message)
            return None
        document.usage.add(reply.usage)
        if reply.is_cut:
            document.odd.add(CUT, "")
        return reply.items
    return None


def sections_of(passages: Sequence[Passage], wanted: int) -> list[list[Passage]]:
    """Runs of consecutive passages, each small enough for one call, spread over the document; the cost is bounded."""
    sections: list[list[Passage]] = []
    size = 0
    for passage in passages:
        if not sections or size + len(passage.text) > _SECTION_CHARACTERS:
            sections.append([])
            size = 0
        sections[-1].append(passage)
        size += len(passage.text)
    most = min(_MOST_SECTIONS, wanted, len(sections))
    return [sections[place * len(sections) // most] for place in range(most)]
