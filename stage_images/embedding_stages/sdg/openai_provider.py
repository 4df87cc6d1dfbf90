"""Questions from an LLM: written, grounded and judged a document at a time, several documents at once.

Each finished document is a file in the stage's scratch folder, so that a resumed attempt pays nothing twice.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_stages import contract
from embedding_stages.runner import StageContext
from embedding_stages.sdg import prompts
from embedding_stages.sdg.chunks import Chunk
from embedding_stages.sdg.lexicon import normalised
from embedding_stages.sdg.openai_client import AnswerInvalidError, ChatClient, Usage
from embedding_stages.sdg.pairs import Corpus, Outcome, Pair

_AT_ONCE: Final = 8  # documents
_SECTION_CHARACTERS: Final = 12_000  # of one call, about 3,000 tokens
_MOST_SECTIONS: Final = 4  # of one document, spread over it
_TRIES: Final = 3  # of an answer that is not JSON
_WRITING: Final = 0.7  # temperatures
_JUDGING: Final = 0.0


@dataclass(slots=True)
class _Document:
    """What one document gave."""

    pairs: list[Pair]
    ungrounded: int
    unjudged: int
    unreadable: int  # answers that were not JSON even when asked again
    usage: Usage

    def save(self, path: Path) -> None:
        body = {
            "pairs": [pair.to_json() for pair in self.pairs],
            "ungrounded": self.ungrounded,
            "unjudged": self.unjudged,
            "unreadable": self.unreadable,
            "usage": self.usage.to_json(),
        }
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> _Document | None:
        """None when there is none, or a damaged one."""
        try:
            raw = json.loads(path.read_bytes())
            pairs = [
                Pair(
                    question=item["question"],
                    document_id=item["document_id"],
                    chunk_ids=tuple(item["chunk_ids"]),
                    type=item["type"],
                    score=item["score"],
                )
                for item in raw["pairs"]
            ]
            return cls(pairs, raw["ungrounded"], raw["unjudged"], raw["unreadable"], Usage(**raw["usage"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_questions(context: StageContext, corpus: Corpus, documents: int) -> Outcome:
    """Ask the endpoint about every document. Raises what `ChatClient.ask` raises, after saving what is finished."""
    settings = context.settings
    client = ChatClient(
        base_url=str(settings["openAI"]["baseURL"]),
        model=str(settings["openAI"]["model"]),
        key=context.secret(contract.SECRET_OPENAI),
        stopping=_Either(context.stopping),
    )
    wanted, seed = int(settings.get("pairsPerDocument", 7)), int(settings.get("seed", 42))
    scratch = context.scratch("llm")
    found: list[_Document] = []

    def one(name: str, chunks: Sequence[Chunk]) -> _Document:
        path = scratch / f"{name}.json"
        document = _Document.load(path)
        if document is None:
            document = _ask_about(client, chunks, wanted, seed)
            document.save(path)
        return document

    try:
        for document in _in_parallel(one, _long_enough(corpus)):
            found.append(document)
            context.progress(len(found), documents)
    except BaseException:
        client.stopping.set()
        raise
    return _outcome(found)
