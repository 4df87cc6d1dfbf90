"""Questions from an LLM: written, grounded and judged a document at a time, several documents at once.

Each finished document is a file in the stage's scratch folder, so that a resumed attempt pays nothing twice.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from embedding_stages import contract
from embedding_stages.contract.settings import Sdg
from embedding_stages.errors import BadInput, settings_of
from embedding_stages.formats.lines import FormatError
from embedding_stages.formats.pairs import Pair, Passage, normalised
from embedding_stages.runner import StageContext
from embedding_stages.sdg import prompts
from embedding_stages.sdg.corpus import CutCorpus, CutDocument
from embedding_stages.sdg.openai_client import FIELD, REJECTED, AnswerInvalidError, ChatClient, Usage
from embedding_stages.sdg.provider import Outcome

_AT_ONCE: Final = 8  # documents
_SECTION_CHARACTERS: Final = 12_000  # of one call, about 3,000 tokens
_MOST_SECTIONS: Final = 4  # of one document, spread over it
_TRIES: Final = 3  # of an answer that is not JSON
_HOPELESS: Final = 100  # documents in a row that were refused one and all: the others would be
_WRITING: Final = 0.7  # temperatures
_JUDGING: Final = 0.0
_POLL_S: Final = 0.5


@dataclass(slots=True)
class _Document:
    """What one document gave."""

    id: str
    pairs: list[Pair]
    ungrounded: int
    unjudged: int
    unreadable: int  # answers that were not JSON even when asked again
    usage: Usage
    rejections: list[str] = field(default_factory=list)  # what the endpoint said to sections that it does not take

    @property
    def is_refused(self) -> bool:
        """Whether the endpoint has not taken anything of it."""
        return bool(self.rejections) and not self.usage.calls

    def save(self, path: Path) -> None:
        """For the next attempt, unless nothing was accepted: that costs nothing to ask again."""
        if self.is_refused:
            return
        body = {
            "id": self.id,
            "pairs": [pair.to_json() for pair in self.pairs],
            "ungrounded": self.ungrounded,
            "unjudged": self.unjudged,
            "unreadable": self.unreadable,
            "usage": self.usage.to_json(),
            "rejections": self.rejections,
        }
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> _Document | None:
        """None when there is none, or a damaged one."""
        try:
            raw = json.loads(path.read_bytes())
            pairs = [Pair.from_json(item, path.name) for item in raw["pairs"]]
            numbers = (raw["ungrounded"], raw["unjudged"], raw["unreadable"])
            return cls(raw["id"], pairs, *numbers, Usage(**raw["usage"]), list(raw["rejections"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FormatError):
            return None


def write_questions(context: StageContext, corpus: CutCorpus, documents: int) -> Outcome:
    """Ask the endpoint about every document. Raises what `ChatClient.ask` raises; finished documents are kept."""
    settings = context.settings
    stopping = threading.Event()
    client = ChatClient(
        base_url=str(settings["openAI"]["baseURL"]),
        model=str(settings["openAI"]["model"]),
        key=context.secret(contract.SECRET_OPENAI, field=f"{FIELD}.apiKeySecretRef"),
        stopping=stopping,
    )
    asked = settings_of(Sdg, settings)
    wanted, seed = asked.pairsPerDocument, asked.seed
    scratch = context.scratch("llm")

    def one(source: CutDocument) -> _Document:
        path = scratch / f"{source.id}.json"
        document = _Document.load(path)
        if document is None:
            document = _ask_about(client, source, wanted, seed)
            document.save(path)
        return document

    items = (document for document in corpus.documents() if corpus.is_long_enough(document))
    found: dict[int, _Document] = {}
    refused = 0  # documents in a row
    try:
        for number, document in _in_parallel(one, items, context.stop_if_asked):
            found[number] = document
            for said in document.rejections:
                context.log("a section is left out", document=document.id, reason=REJECTED, result=said)
            context.progress(len(found), documents)
            refused = refused + 1 if document.is_refused else 0
            if refused == _HOPELESS:
                raise _refusal(document.rejections[-1], f"the last {refused} documents were refused, and nothing else")
    finally:
        stopping.set()
    return _outcome([found[number] for number in sorted(found)])


def _in_parallel(
    work: Callable[[CutDocument], _Document],
    items: Iterator[CutDocument],
    between: Callable[[], None],
) -> Iterator[tuple[int, _Document]]:
    """(number of the item, its result) as they finish, `_AT_ONCE` at once. Raises the first error of any.

    Its own daemon threads, not an executor: at the end of the process an executor waits for calls under way,
    which can take longer than a pod that was asked to stop has left.
    """
    tasks: queue.SimpleQueue[tuple[int, CutDocument] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, _Document | Exception]] = queue.SimpleQueue()

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


def _ask_about(client: ChatClient, source: CutDocument, wanted: int, seed: int) -> _Document:
    """Write, ground and judge the questions about one document."""
    document = _Document(source.id, [], 0, 0, 0, Usage())
    sections = sections_of(source.passages, wanted)
    for number, section in enumerate(sections):
        share = wanted // len(sections) + (number < wanted % len(sections))
        answer = _ask(client, prompts.writer_messages(section, prompts.mix(share)), seed, _WRITING, document)
        if answer is None:
            continue
        drafts, dropped = prompts.read_drafts(answer, section, share)
        document.ungrounded += dropped
        if not drafts:
            continue
        verdict = _ask(client, prompts.judge_messages(section, drafts), seed, _JUDGING, document)
        scores = prompts.read_scores(verdict or {}, len(drafts))
        for draft, score in zip(drafts, scores, strict=True):
            if score is None:  # without a score it would pass the threshold of prep
                document.unjudged += 1
                continue
            document.pairs.append(
                Pair.about(source.id, draft.question, draft.passage_ids, kind=draft.type, score=score)
            )
    return document


def _ask(
    client: ChatClient, messages: list[dict[str, str]], seed: int, temperature: float, document: _Document
) -> dict[str, Any] | None:
    """The model's JSON, or None when it does not manage to write any or is not given the section; counts the cost."""
    for number in range(_TRIES):
        try:
            answer, usage = client.ask(messages, seed=seed + number, temperature=temperature)
        except AnswerInvalidError as error:
            document.usage.add(error.usage)
            continue
        except BadInput as error:
            if error.reason != REJECTED:
                raise
            document.rejections.append(error.message)
            return None
        document.usage.add(usage)
        return answer
    document.unreadable += 1
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


def _refusal(said: str, how_many: str) -> BadInput:
    """Documents that were answered are kept: the next attempt asks about the others alone."""
    return BadInput(REJECTED, f"{said}; {how_many}", field=FIELD)


def _outcome(documents: Sequence[_Document]) -> Outcome:
    """All pairs in the documents' order. A question about two documents is dropped from both: whichever kept it, the
    other's passages would count as wrong answers. Asked twice about one document it is kept once, with both answers.

    Raises BadInput `LLMRequestRejected` when the endpoint has refused most documents: what it left is no training set.
    """
    rejections = [said for document in documents for said in document.rejections]
    refused = sum(document.is_refused for document in documents)
    if 2 * refused > len(documents):
        raise _refusal(rejections[0], f"{refused} of {len(documents)} documents were refused")
    usage = Usage()
    asked_about: defaultdict[str, set[str]] = defaultdict(set)
    for document in documents:
        usage.add(document.usage)
        for pair in document.pairs:
            asked_about[normalised(pair.query)].add(document.id)
    found: dict[tuple[str, str], Pair] = {}
    for pair in (pair for document in documents for pair in document.pairs):
        key = normalised(pair.query), pair.document_id
        first = found.setdefault(key, pair)
        found[key] = replace(first, passage_ids=tuple(dict.fromkeys(first.passage_ids + pair.passage_ids)))
    pairs = [pair for (question, _), pair in found.items() if len(asked_about[question]) == 1]
    counts = {
        "droppedUngrounded": sum(document.ungrounded for document in documents),
        "droppedDuplicates": sum(len(document.pairs) for document in documents) - len(pairs),
        "droppedUnjudged": sum(document.unjudged for document in documents),
        "unreadableAnswers": sum(document.unreadable for document in documents),
        "rejectedSections": len(rejections),
    }
    return Outcome(pairs=pairs, counts=counts, details={"llmTokens": usage.to_json()})
