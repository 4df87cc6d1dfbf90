"""Questions by the recipe's pipeline, which NeMo Data Designer runs: columns are in `designer_columns`, words in
`designer_prompts`. Every request goes through `designer_gateway`, so what was answered is never paid twice.

Details beside those of provider openAI, of the questions that are left: questionTypes, reasoningTypes, complexities,
hops (how many passages), and judgeScores, the mean by each criterion.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from embedding_stages.contract.settings import DataDesigner, Sdg
from embedding_stages.errors import settings_of
from embedding_stages.formats.pairs import Pair
from embedding_stages.runner import StageContext
from embedding_stages.sdg import designer_columns as columns
from embedding_stages.sdg import designer_process
from embedding_stages.sdg import designer_prompts as told
from embedding_stages.sdg.answers import ERRORED, INVALID, MISSING, UNREADABLE
from embedding_stages.sdg.bill import Forecast, Shape
from embedding_stages.sdg.clients import Clients, counted, details_of, opened
from embedding_stages.sdg.corpus import CutCorpus
from embedding_stages.sdg.designer_columns import Address
from embedding_stages.sdg.designer_gateway import Gateway, Route
from embedding_stages.sdg.designer_process import Designer, DesignerError, Order, raised
from embedding_stages.sdg.designer_rows import Bundle, Row, Steps, bundled, rows_of, shape_of
from embedding_stages.sdg.ledger import BudgetSpentError
from embedding_stages.sdg.prompts import PAIRS, SCORES
from embedding_stages.sdg.provider import Outcome
from embedding_stages.sdg.rationing import Rations, chosen, preview_done
from embedding_stages.sdg.written import Written, outcome_of

FIELD: Final = "spec.stages.sdg.provider.dataDesigner"
_AT_A_TIME: Final = 25  # bundles for each request at once: fewer would often wait for the slowest of them
_MOST_AT_A_TIME: Final = 400  # bundles: Data Designer holds all of their rows and columns in memory
_LEARNED: Final = "learned.json"  # the forecast: what was answered does not say which bundle it was paid for
_TOKENS_TOLD_S: Final = 5.0
_EXTRACTING, _WRITING, _JUDGING = 0.0, 0.7, 0.0  # temperatures


def write_questions(context: StageContext, corpus: CutCorpus, documents: int) -> Outcome:
    """Have Data Designer make rows of all documents. What was answered is kept.

    Raises what `ChatClient.ask` raises; Stopped `PreviewDone`, `TokenBudgetSpent`; BadInput `TokenBudgetTooSmall`.
    """
    scratch, asked = context.scratch("designer"), settings_of(Sdg, context.settings)
    design = asked.design or DataDesigner()
    asked_about = min(documents, asked.preview or documents)
    with (
        opened(context, scratch, context.settings["dataDesigner"], FIELD) as clients,
        _ended_by(context, clients),
        designer_process.opened(scratch / "home") as designer,
    ):
        shapes, sizes = _all_of(corpus, asked, design) if asked.preview else ([], [])
        preview = math.ceil(asked.preview / design.documentsPerBundle) if asked.preview else None
        rations = Rations(
            items=_bundles(corpus, design, chosen(shapes, preview)),
            shape=lambda bundle: _shape(bundle, asked),
            is_paid=lambda bundle: _path(scratch, bundle).exists(),
            ledger=clients.ledger,
            most=asked.maxTokensTotal,
            forecast=Forecast.load(scratch / _LEARNED),
            size=lambda bundle: len(bundle.documents),
        )
        found = _make_all(context, clients, designer, rations, asked_about)
        clients.check_they_chat()
        outcome = outcome_of(found, FIELD)
        rations.check_all_were_taken(documents, len(outcome.pairs))
        if asked.preview:
            of_all = sum(sizes)
            raise preview_done(
                asked,
                clients.ledger,
                rations.forecast,
                shapes,
                outcome.pairs,
                previewed=(rations.documents, of_all),
                missing=outcome.odd.counts.get(MISSING, 0),
            )
        details = details_of(clients, outcome, asked) | _kinds(outcome.pairs, found)
        return replace(outcome, counts=counted(outcome, asked), details=details)


def _bundles(corpus: CutCorpus, design: DataDesigner, places: frozenset[int] | None) -> Iterator[Bundle]:
    long_enough = (document for document in corpus.documents() if corpus.is_long_enough(document))
    bundles = bundled(long_enough, design.documentsPerBundle)
    return (bundle for place, bundle in enumerate(bundles) if places is None or place in places)


def _all_of(corpus: CutCorpus, asked: Sdg, design: DataDesigner) -> tuple[list[Shape], list[int]]:
    """Of each bundle its shape, and how many documents it has."""
    known = [(_shape(bundle, asked), len(bundle.documents)) for bundle in _bundles(corpus, design, None)]
    return [shape for shape, _ in known], [size for _, size in known]


def _shape(bundle: Bundle, asked: Sdg) -> Shape:
    return shape_of(rows_of(bundle, asked.pairsPerDocument))


def _path(scratch: Path, bundle: Bundle) -> Path:
    return scratch / f"{bundle.id}.json"


@contextmanager
def _ended_by(context: StageContext, clients: Clients) -> Iterator[None]:
    """Data Designer cannot be stopped from outside: where the pod has to end, what it waits for ends at once. It tells
    nothing meanwhile either, so what is spent is told here.
    """
    done = threading.Event()

    def watch() -> None:
        due = context.clock() + _TOKENS_TOLD_S
        while not done.wait(0.2):
            if context.stopping.is_set():
                clients.writer.stopping.set()
                return
            if context.clock() >= due:
                context.tell_tokens()
                due += _TOKENS_TOLD_S

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _make_all(
    context: StageContext, clients: Clients, designer: Designer, rations: Rations[Bundle], documents: int
) -> list[Written]:
    """What each bundle gave, in their order."""
    scratch, asked = context.scratch("designer"), settings_of(Sdg, context.settings)
    design = asked.design or DataDesigner()
    found: list[Written] = []
    size = min(_AT_A_TIME * clients.at_once, _MOST_AT_A_TIME)
    while batch := _taken(rations, size):
        context.stop_if_asked()
        first = rations.given - len(batch)
        written = {bundle.id: Written.load(_path(scratch, bundle)) or Written(bundle.id) for bundle in batch}
        left = [bundle for bundle in batch if not written[bundle.id].usage.calls]
        for bundle in batch:
            if written[bundle.id].usage.calls:
                clients.losses.answered()
        rows = {row.id: row for bundle in left for row in rows_of(bundle, asked.pairsPerDocument)}
        if rows:
            gateway, lost = _make(context, clients, designer, Steps(design=design, rows=rows, written=written))
            for bundle in left:
                if gateway.failure is None or bundle.id not in lost:
                    written[bundle.id].save(_path(scratch, bundle))
            _learn(rations, rows, lost if gateway.missing else frozenset(), gateway, is_preview=bool(asked.preview))
            rations.forecast.save(scratch / _LEARNED)
            _tell(context, gateway)
            if isinstance(gateway.failure, BudgetSpentError):
                batch = [bundle for bundle in batch if bundle.id not in lost]
                rations.cut_short(sum(len(bundle.documents) for bundle in left if bundle.id in lost))
            elif gateway.failure is not None:
                raise gateway.failure
        for number in range(first, rations.given):
            rations.release(number)
        found += [written[bundle.id] for bundle in batch]
        context.progress(min(documents, rations.documents), documents)
    return found


def _learn(
    rations: Rations[Bundle], rows: Mapping[str, Row], lost: AbstractSet[str], gateway: Gateway, *, is_preview: bool
) -> None:
    """What rows take. Of one that got no answer nobody knows; what was spent on it is in what all have used. So a
    preview tells too much then rather than too little, and a budget is not held up by a guess that is much too high.
    """
    known = [row for row in rows.values() if row.bundle not in lost]
    if lost and not is_preview:
        known = list(rows.values()) if rations.forecast.worst else []
    if known:
        rations.forecast.learn(shape_of(known), gateway.usage)


def _taken(rations: Rations[Bundle], most: int) -> list[Bundle]:
    batch: list[Bundle] = []
    while len(batch) < most and (bundle := rations.take()) is not None:
        batch.append(bundle)
    return batch


def _make(context: StageContext, clients: Clients, designer: Designer, steps: Steps) -> tuple[Gateway, set[str]]:
    """Have the rows made; what is left of each goes to its bundle in `steps`. Also the bundles that lost a row."""
    asked = settings_of(Sdg, context.settings)
    with Gateway(
        routes=_routes(clients),
        seed=asked.seed,
        stop_if_asked=context.stop_if_asked,
        losses=clients.losses,
        whose=lambda text: _whose(text, steps),
    ) as gateway:
        made = designer.make(
            Order(
                seeds=[_seed(row, steps.design) for row in steps.rows.values()],
                steps=steps,
                routes={
                    name: Address(url=gateway.url_of(name), chats=bool(one.items))
                    for name, one in gateway.routes.items()
                },
                folder=context.scratch("designer") / "rows",
                at_once=clients.at_once,
            )
        )
    lost = [row for row in steps.rows.values() if row.id not in made.finished]
    own = gateway.unexplained(len(lost))
    if made.fault is not None and (own or not made.fault.no_row_is_left):
        raise raised(made.fault)  # what ended it is its own, not an answer
    if 2 * own > len(steps.rows):  # as many as are too many where the endpoint is at fault
        raise DesignerError(f"it dropped {own} of {len(steps.rows)} rows, and no answer is the reason; see the log")
    for _ in range(len(made.finished) - gateway.ended):  # nothing of them was left for the judge
        clients.losses.answered()
    steps.written.update(made.written)
    _blame(lost, gateway, steps)
    return gateway, {row.bundle for row in lost}


def _whose(text: str, steps: Steps) -> tuple[str, str]:
    """The bundle and the documents of the row most of whose passages stand in a text of a request; empty where none
    does, as among questions.
    """

    def shared(row: Row) -> tuple[int, int]:
        found = sum(json.dumps(one.text, ensure_ascii=False) in text for one in row.passages)
        return found, found - len(row.passages)

    row = max(steps.rows.values(), key=shared)
    return (row.bundle, ", ".join(row.paths)) if shared(row)[0] else ("", "")


def _routes(clients: Clients) -> dict[str, Route]:
    embedding = {columns.EMBED: Route(client=clients.embedder)} if clients.embedder is not None else {}
    return {
        columns.EXTRACT: Route(client=clients.writer, items=told.ARTEFACTS, temperature=_EXTRACTING),
        columns.WRITE: Route(client=clients.writer, items=PAIRS, temperature=_WRITING),
        columns.JUDGE: Route(client=clients.judge, items=SCORES, temperature=_JUDGING, ends_row=True),
        **embedding,
    }


def _seed(row: Row, design: DataDesigner) -> dict[str, Any]:
    return {
        "row": row.id,
        "data": told.data_of(row.passages),
        "order": told.order_of(design, row.wanted),
        "per_kind": design.artefactsPerKind,
    }


def _blame(lost: Sequence[Row], gateway: Gateway, steps: Steps) -> None:
    """Rows that were given up are told of where they belong, with what the endpoint said to one of them. Answers of no
    use belong to no row: the first document that has questions counts them.
    """
    kind = max(gateway.odd.counts, key=lambda name: gateway.odd.counts[name], default=UNREADABLE)
    for row in lost:
        document = steps.written[row.bundle]
        if gateway.rejections:
            document.rejections.append(gateway.rejections[0])
        else:
            document.odd.add(kind, gateway.odd.examples.get(kind, ""), times=0)
            document.usage.calls += kind not in (ERRORED, INVALID, MISSING)  # an answer of no use is no missing one
        if MISSING in gateway.odd.counts:  # it may have been this row's: the next attempt asks about it again
            document.odd.add(MISSING, gateway.odd.examples.get(MISSING, ""), times=0)
    documents = [steps.written[row.bundle] for row in steps.rows.values()]
    max(documents, key=lambda document: bool(document.pairs)).odd.merge(gateway.odd)


def _tell(context: StageContext, gateway: Gateway) -> None:
    for kind, times in gateway.odd.counts.items():
        example = gateway.odd.examples.get(kind, "")
        context.log("answers are of no use", reason=kind, number=times, result=example)
    for paths in dict.fromkeys(gateway.missing):
        context.log("a section is left out", document=paths, reason=MISSING)
    for said in gateway.rejections[:3]:
        context.log("a section is left out", result=said)


def _kinds(pairs: Sequence[Pair], documents: Sequence[Written]) -> dict[str, Any]:
    """What the questions that are left are like."""
    marks = {name: mark for document in documents for name, mark in document.marks.items()}
    known = [(pair, marks.get(pair.id, {})) for pair in pairs]
    by_criterion: defaultdict[str, list[float]] = defaultdict(list)
    for _, mark in known:
        for name, score in (mark.get("criteria") or {}).items():
            by_criterion[name].append(score)
    return {
        "questionTypes": dict(Counter(pair.type for pair in pairs)),
        "reasoningTypes": dict(Counter(mark.get("reasoning") or "unknown" for _, mark in known).most_common(8)),
        "complexities": dict(sorted(Counter(str(mark.get("complexity") or "unknown") for _, mark in known).items())),
        "hops": dict(sorted(Counter(str(len(pair.passage_ids)) for pair in pairs).items())),
        "judgeScores": {name: round(sum(scores) / len(scores), 2) for name, scores in sorted(by_criterion.items())},
    }
