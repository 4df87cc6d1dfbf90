"""Questions from an LLM: written, grounded and judged a document at a time, several documents at once.

Each finished document is a file in the stage's scratch folder, so that a resumed attempt pays nothing twice.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from embedding_stages import contract
from embedding_stages.contract import canonical_json
from embedding_stages.contract.settings import Sdg
from embedding_stages.errors import BadInput, settings_of
from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.runner import StageContext
from embedding_stages.sdg import prompts
from embedding_stages.sdg.answers import CUT, OddAnswerError, Tally
from embedding_stages.sdg.corpus import CutCorpus, CutDocument
from embedding_stages.sdg.dialect import Changes, Dialect
from embedding_stages.sdg.failures import FIELD, REJECTED
from embedding_stages.sdg.openai_client import ChatClient
from embedding_stages.sdg.provider import Outcome
from embedding_stages.sdg.written import Written, given_up, outcome_of, write_json

_AT_ONCE: Final = 8  # documents
_SECTION_CHARACTERS: Final = 12_000  # of one call, about 3,000 tokens
_MOST_SECTIONS: Final = 4  # of one document, spread over it
_TRIES: Final = 3  # where answers are of no use
_HOPELESS: Final = 100  # documents in a row that were refused one and all: the others would be
_WRITING: Final = 0.7  # temperatures
_JUDGING: Final = 0.0
_POLL_S: Final = 0.5
_MOST_TOLD: Final = 1000  # bytes of JSON
_LEARNED: Final = "parameters"  # file of what the endpoint takes; documents' files have a suffix


def write_questions(context: StageContext, corpus: CutCorpus, documents: int) -> Outcome:
    """Ask the endpoint about every document. Raises what `ChatClient.ask` raises; finished documents are kept."""
    stopping = threading.Event()
    scratch = context.scratch("llm")
    client = _client(context, scratch, stopping)
    asked = settings_of(Sdg, context.settings)
    wanted, seed = asked.pairsPerDocument, asked.seed

    def one(source: CutDocument) -> Written:
        path = scratch / f"{source.id}.json"
        document = Written.load(path)
        if document is None:
            document = _ask_about(client, source, wanted, seed)
            document.save(path)
        return document

    items = (document for document in corpus.documents() if corpus.is_long_enough(document))
    found: dict[int, Written] = {}
    told = Tally()
    in_vain = 0  # documents in a row
    try:
        for number, document in _in_parallel(one, items, context.stop_if_asked):
            found[number] = document
            _tell(context, document, told)
            context.progress(len(found), documents)
            in_vain = in_vain + 1 if document.is_unanswered else 0
            if in_vain == _HOPELESS:
                raise given_up([document], f"the last {in_vain} documents")
    finally:
        stopping.set()
        learned = client.dialect.known().to_json()
        if learned:
            write_json(scratch / _LEARNED, learned)
    client.check_it_chats()
    outcome = outcome_of([found[number] for number in sorted(found)])
    return replace(outcome, details=outcome.details | {"llmParameters": _told(learned)}) if learned else outcome


def _client(context: StageContext, scratch: Path, stopping: threading.Event) -> ChatClient:
    """Raises BadInput `SecretInvalid` and what a ChatClient raises."""
    endpoint = context.settings["openAI"]
    return ChatClient(
        base_url=str(endpoint["baseURL"]),
        model=str(endpoint["model"]),
        key=context.secret(contract.SECRET_OPENAI, field=f"{FIELD}.apiKeySecretRef"),
        parameters={key: value for key, value in (endpoint.get("parameters") or {}).items() if value is not None},
        omitted=omitted_parameters(endpoint),
        authorities=context.authorities(contract.SECRET_OPENAI),
        dialect=Dialect(_learned(scratch / _LEARNED)),
        stopping=stopping,
    )


def omitted_parameters(endpoint: Mapping[str, Any]) -> frozenset[str]:
    """Those that the manifest lists, and those that it sets to null."""
    unset = {key for key, value in (endpoint.get("parameters") or {}).items() if value is None}
    return frozenset({*unset, *(endpoint.get("omitParameters") or ())})


def _told(learned: Mapping[str, Any]) -> dict[str, Any]:
    """As much of it as a result has room for: the manifest may name hundreds of parameters, of any length."""
    told = dict(learned)
    names: Sequence[str] = told.get("leftOut", ())
    while names and len(canonical_json(told).encode()) > _MOST_TOLD:
        names = names[: len(names) // 2]
        told["leftOut"] = [*names, f"and {len(learned['leftOut']) - len(names)} more"]
    return told


def _learned(path: Path) -> Changes | None:
    """What an earlier attempt found out about the endpoint: a resumed one does not ask in vain again."""
    try:
        return Changes.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _tell(context: StageContext, document: Written, told: Tally) -> None:
    """Log what was refused of a document, and the first answer of each kind that was of no use."""
    for said in document.rejections:
        context.log("a section is left out", document=document.id, reason=REJECTED, result=said)
    for kind in document.odd.counts.keys() - told.counts.keys():
        example = document.odd.examples.get(kind, "")
        context.log("an answer is of no use", document=document.id, reason=kind, result=example)
    told.merge(document.odd)


def _in_parallel(
    work: Callable[[CutDocument], Written],
    items: Iterator[CutDocument],
    between: Callable[[], None],
) -> Iterator[tuple[int, Written]]:
    """(number of the item, its result) as they finish, `_AT_ONCE` at once. Raises the first error of any.

    Its own daemon threads, not an executor: at the end of the process an executor waits for calls under way,
    which can take longer than a pod that was asked to stop has left.
    """
    tasks: queue.SimpleQueue[tuple[int, CutDocument] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, Written | Exception]] = queue.SimpleQueue()

    def serve() -> None:
        while (task := tasks.get()) is not None:
            try:
                answers.put((task[0], work(task[1])))
            except Exception as error:  # handed to the caller, who raises it
                answers.put((task[0], error))

    for _ in range(_AT_ONCE):
        threading.Thread(target=serve, daemon=True).start()
    numbered = enumerate(items)
    under_way = 0
    try:
        while True:
            while under_way < _AT_ONCE and (task := next(numbered, None)) is not None:
                tasks.put(task)
                under_way += 1
            if not under_way:
                return
            between()
            try:
                number, answer = answers.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            under_way -= 1
            if isinstance(answer, Exception):
                raise answer
            yield number, answer
    finally:
        for _ in range(_AT_ONCE):
            tasks.put(None)


def _ask_about(client: ChatClient, source: CutDocument, wanted: int, seed: int) -> Written:
    """Write, ground and judge the questions about one document."""
    document = Written(source.id)
    sections = sections_of(source.passages, wanted)
    for number, section in enumerate(sections):
        share = wanted // len(sections) + (number < wanted % len(sections))
        messages = prompts.writer_messages(section, prompts.mix(share))
        written = _ask(client, messages, prompts.PAIRS, seed, _WRITING, document)
        drafts, dropped = prompts.read_drafts(written or [], section, share)
        document.ungrounded += dropped
        if not drafts:
            continue
        verdict = _ask(client, prompts.judge_messages(section, drafts), prompts.SCORES, seed, _JUDGING, document)
        scores = prompts.read_scores(verdict or [], len(drafts))
        for draft, score in zip(drafts, scores, strict=True):
            if score is None:  # without a score it would pass the threshold of prep
                document.unjudged += 1
                continue
            document.pairs.append(
                Pair.about(source.id, draft.question, draft.passage_ids, kind=draft.type, score=score)
            )
    return document


def _ask(
    client: ChatClient, messages: list[dict[str, str]], name: str, seed: int, temperature: float, document: Written
) -> list[Any] | None:
    """What the model wrote as `name`, or None when it writes nothing of use or is not given the section.

    The cost is counted all the same.
    """
    for number in range(_TRIES):
        if number:
            client.pause(number - 1)
        try:
            reply = client.ask(messages, wanted=name, seed=seed + number, temperature=temperature)
        except OddAnswerError as error:
            document.usage.add(error.usage)
            document.odd.add(error.kind, error.example)
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
