"""The frozen set: the evaluation set that an earlier revision was scored on, without documents that changed since.

Two revisions are compared on the same questions. So the set is not made again but copied, byte for byte while nothing
changed; of a document that changed or left the corpus its passages and the queries that it answers are removed. New
documents do not join. How documents are cut into passages today makes no difference, nor does what they are called: a
document is the same while its text is, wherever its file lies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from embedding_stages.contract import Artefact
from embedding_stages.errors import BadInput, StageError
from embedding_stages.formats import beir, set_documents
from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.lines import FormatError
from embedding_stages.formats.pairs import PairSet
from embedding_stages.formats.set_documents import SetDocument, documents_of, read_set_documents
from embedding_stages.prep.asked import Asked, contents_of
from embedding_stages.runner import StageContext

FIELD: Final = "spec.evaluation.freeze"


def open_frozen(context: StageContext) -> Path:
    """The folder of the set, checked. Raises BadInput `FrozenSetMissing`: no other stage can make it again."""
    try:
        return context.input(Artefact.FROZEN_SET)
    except StageError as error:
        raise _missing(error.message) from error


def keep_frozen(frozen: Path, folder: Path, source: PairSet) -> Asked:
    """Write to `folder` what is left of the set, which may be no query at all. Raises BadInput `FrozenSetMissing`."""
    try:
        return _keep_frozen(frozen, folder, source)
    except FormatError as error:
        raise _missing(str(error)) from error


def _keep_frozen(frozen: Path, folder: Path, source: PairSet) -> Asked:
    now = defaultdict[str, list[str]](list)  # ids by each digest, for the set may lack one
    for one in documents_of(source.passages.values()):
        now[one.sha256].append(one.id)
        now[one.digest].append(one.id)
    documents = read_set_documents(frozen)
    kept = [one for one in documents if one.digest in now]
    lost = _passages_of(documents) - _passages_of(kept)
    if lost:
        lost_queries = _write_without(lost, kept, frozen, folder)
    else:
        lost_queries = 0
        beir.copy(frozen, folder)
        set_documents.copy(frozen, folder)
    return _read(folder, kept, now, lost_queries=lost_queries, lost_passages=len(lost))


def _passages_of(documents: list[SetDocument]) -> set[str]:
    return {name for one in documents for name in one.passages}


def _write_without(lost: set[str], kept: list[SetDocument], frozen: Path, folder: Path) -> int:
    """The set without these passages and without what they answer. Returns the number of queries that it lost."""
    reader = BeirReader.of(frozen, may_be_empty=True)
    queries = list(reader.queries())
    judgements = list(reader.judgements({query.id for query in queries}))
    gone = {one.query_id for one in judgements if one.passage_id in lost}  # prep judges answers alone
    beir.write_passages(folder, (one for one in reader.passages() if one.id not in lost))
    beir.write_queries(folder, (one for one in queries if one.id not in gone))
    beir.write_judgements(folder, (one for one in judgements if one.query_id not in gone))
    set_documents.write_set_documents(folder, kept)
    return len(gone)


def _read(
    folder: Path, documents: list[SetDocument], now: Mapping[str, list[str]], *, lost_queries: int, lost_passages: int
) -> Asked:
    queries, answers, passages = contents_of(BeirReader.of(folder, may_be_empty=True))
    return Asked(
        queries=tuple(queries.values()),
        answers=tuple(answers.values()),
        passages=passages,
        held_out=frozenset(
            name for one in documents if not answers.keys().isdisjoint(one.passages) for name in now[one.digest]
        ),
        lost_queries=lost_queries,
        lost_passages=lost_passages,
    )


def _missing(fault: str) -> BadInput:
    return BadInput(
        "FrozenSetMissing",
        f"the evaluation set that revisions are compared on cannot be read ({fault}): restore that folder of the "
        "workspace and edit the manifest to run again, or set this to false, which takes a new set",
        field=FIELD,
    )
