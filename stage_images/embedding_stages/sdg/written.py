"""What a language model has written about each document, a file each for a resume, and what becomes of all of it."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedding_stages.errors import BadInput, StageError, Transient
from embedding_stages.formats.lines import FormatError
from embedding_stages.formats.pairs import Pair, normalised
from embedding_stages.sdg.answers import MISSING, ODD, UNREADABLE, Tally, Usage
from embedding_stages.sdg.failures import FIELD, REJECTED, UNAVAILABLE
from embedding_stages.sdg.provider import Outcome


@dataclass(slots=True)
class Written:
    """What one document gave."""

    id: str
    pairs: list[Pair] = field(default_factory=list)
    ungrounded: int = 0
    unjudged: int = 0
    foreign: int = 0  # in another language than the document's
    usage: Usage = field(default_factory=Usage)
    odd: Tally = field(default_factory=Tally)  # answers of no use, those that were asked for again among them
    rejections: list[str] = field(default_factory=list)  # what the endpoint said to sections that it does not take
    counts: dict[str, int] = field(default_factory=dict)  # what a provider counts beside these
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)  # what is known of a pair beside what all have

    @property
    def is_unanswered(self) -> bool:
        """Whether the endpoint has not taken anything of it."""
        return bool(self.rejections or self.odd.counts) and not self.usage.calls

    def save(self, path: Path) -> None:
        """For the next attempt, unless all that came was of no use or something did not come: by then the endpoint may
        have been mended.
        """
        if self.is_unanswered or MISSING in self.odd.counts or (self.odd.counts and not self.pairs):
            return
        body = {
            "id": self.id,
            "pairs": [pair.to_json() for pair in self.pairs],
            "ungrounded": self.ungrounded,
            "unjudged": self.unjudged,
            "foreign": self.foreign,
            "odd": self.odd.to_json(),
            "usage": self.usage.to_json(),
            "rejections": self.rejections,
            "counts": self.counts,
            "marks": self.marks,
        }
        write_json(path, body)

    @classmethod
    def load(cls, path: Path) -> Written | None:
        """None when there is none, or a damaged one."""
        try:
            raw = json.loads(path.read_bytes())
            if MISSING in (raw.get("odd") or {}).get("counts", {}):
                return None
            # Release 0.1 counted one kind of answers.
            odd = raw.get("odd") or {"counts": {UNREADABLE: raw["unreadable"]}, "examples": {}}
            return cls(
                id=raw["id"],
                pairs=[Pair.from_json(item, path.name) for item in raw["pairs"]],
                ungrounded=raw["ungrounded"],
                unjudged=raw["unjudged"],
                foreign=raw.get("foreign", 0),
                usage=Usage(**raw["usage"]),
                odd=Tally.from_json(odd),
                rejections=list(raw["rejections"]),
                counts=dict(raw.get("counts", {})),
                marks=dict(raw.get("marks", {})),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FormatError):
            return None


def write_json(path: Path, body: Any) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(json.dumps(body, ensure_ascii=False))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def given_up(documents: Sequence[Written], which: str, field: str = FIELD) -> StageError:
    """Documents that were answered are kept: the next attempt asks about the others alone."""
    said = [one for document in documents for one in document.rejections]
    if 2 * sum(bool(document.rejections) for document in documents) > len(documents):
        return BadInput(REJECTED, f"{said[0]}; {which} were refused", field=field)
    odd = _merged(documents)
    return Transient(
        UNAVAILABLE, f"the LLM endpoint gives no answer to {which}: {odd.tell()}", field=f"{field}.baseURL"
    )


def _merged(documents: Sequence[Written]) -> Tally:
    tally = Tally()
    for document in documents:
        tally.merge(document.odd)
    return tally


def outcome_of(documents: Sequence[Written], field: str = FIELD) -> Outcome:
    """All pairs in the documents' order. A question about two documents is dropped from both: whichever kept it, the
    other's passages would count as wrong answers. Asked twice about one document it is kept once, with both answers.

    Raises BadInput `LLMRequestRejected` or Transient `LLMUnavailable` when most documents were refused or got no
    answer: what is left is no training set.
    """
    in_vain = [document for document in documents if document.is_unanswered]
    if 2 * len(in_vain) > len(documents):
        raise given_up(in_vain, f"{len(in_vain)} of {len(documents)} documents", field)
    odd = _merged(documents)
    asked_about: defaultdict[str, set[str]] = defaultdict(set)
    for document in documents:
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
        "droppedForeign": sum(document.foreign for document in documents),
        UNREADABLE: 0,
        **{kind: odd.counts[kind] for kind in ODD if odd.counts.get(kind)},
        "rejectedSections": sum(len(document.rejections) for document in documents),
    }
    for document in documents:
        for name, number in document.counts.items():
            counts[name] = counts.get(name, 0) + number
    return Outcome(pairs=pairs, counts=counts, details={}, odd=odd)
