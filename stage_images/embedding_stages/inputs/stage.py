"""The inputs stage: documents, base model and labelled set become content-addressed artefacts.

Counts: documents, documentBytes, skippedFiles, skippedBinary, skippedShort, skippedDuplicates, skippedPointers; with a
labelled set also labelledPassages, labelledQueries, and where there are any skippedLabelledQueries (without a relevant
passage), unknownPassages (relevant judgements of passages that the corpus lacks), repeatedJudgements and sharedIds
(queries with the id of a passage that has another text); with guards guardQueries. Details: corpusDigest,
baseModelDigest, labelledSetDigest, guardSetsDigest, tokenizerDigest (of tokenizer.json; fine-tuning keeps it), encoder,
warnings, skipped (by count, the first files that were skipped, and why; absent where none was), drift (of a look at the
sources that found other documents: see drift.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from embedding_stages import contract
from embedding_stages.artefacts import Described
from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import DEFAULT_INCLUDE
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.errors import BadInput
from embedding_stages.formats import documents
from embedding_stages.inputs import hugging_face, safe_files
from embedding_stages.inputs.corpus import Corpus, Limits, write_documents
from embedding_stages.inputs.counts import ROOM_FOR_NAMES, Counts
from embedding_stages.inputs.labelled import LabelledSet
from embedding_stages.inputs.look import look_back
from embedding_stages.inputs.model import BaseModel, check, folder_of, freeze, warnings_about
from embedding_stages.inputs.soundness import prefix_bytes
from embedding_stages.inputs.store import Store
from embedding_stages.runner import StageContext

TOKENIZER_FILE = "tokenizer.json"
# Bytes of JSON: a result has to fit the kubelet's message. Longer prefixes take room from what is said for people,
# which the log has as well.
_ROOM_FOR_WARNINGS: Final = 360
_ROOM_FOR_PREFIXES: Final = 700
HF_ENDPOINT = "HF_ENDPOINT"  # huggingface_hub's own variable: a mirror of the hub


def work(context: StageContext) -> StageResult:
    """Cheapest checks first: is the model one that can be used, then the documents, then what takes longer."""
    store = Store(context.workspace.root)
    store.remove_drafts()
    model = BaseModel.of(context.settings["baseModel"], context.settings.get("training"))
    if model.kind != "huggingFace":
        check(model, folder_of(model, context.sources / contract.SOURCE_MODEL))
    details: dict[str, object] = {}
    counts, warned_of_sets = _sets(context, store)
    read = _corpus(context, store)
    counts |= read.to_json()
    description, warned = _base_model(context, model, store)
    for artefact, kept in context.extra:
        details[f"{artefact.value}Digest"] = kept.digest
        if artefact is Artefact.BASE_MODEL and TOKENIZER_FILE in kept.files:
            details["tokenizerDigest"] = f"sha256:{kept.files[TOKENIZER_FILE]['sha256']}"
    details["encoder"] = asdict(description)
    looked = look_back(context)
    details |= looked
    less = max(0, prefix_bytes(description) - _ROOM_FOR_PREFIXES + len(json.dumps(looked))) // 2
    skipped = read.told(ROOM_FOR_NAMES - less)
    details |= {"skipped": skipped} if skipped else {}
    warnings = [*warned, *warned_of_sets, *read.warnings]
    details["warnings"] = _first(warnings, _ROOM_FOR_WARNINGS - less)
    for warning in warnings:
        context.log("warning", warning=warning)
    return context.result(
        counts=counts, details=details, message=f"{counts['documents']} documents, {description.architecture} model"
    )


def _first(texts: Sequence[str], room: int) -> list[str]:
    """As many of them as fit, and how many do not."""
    kept: list[str] = []
    for text in texts:
        room -= len(json.dumps(text)) + 1
        if room < 0:
            return [*kept, f"and {len(texts) - len(kept)} more"]
        kept.append(text)
    return kept


def _sets(context: StageContext, store: Store) -> tuple[dict[str, int], list[str]]:
    """The labelled set and the guards: their counts, and what may be wrong with them."""
    counts: dict[str, int] = {}
    warnings: list[str] = []
    raw = context.settings.get("labelledSet")
    if raw:
        field = f"spec.evaluation.beir.{raw['kind']}.path"
        labelled = _found(context, raw, contract.SOURCE_BEIR, field)
        with store.draft(Artefact.LABELLED_SET) as draft:
            found = labelled.write(draft)
            context.extra.append((Artefact.LABELLED_SET, store.keep(Artefact.LABELLED_SET, draft)))
        context.log("labelled set frozen", passages=found.passages, queries=found.queries, **found.told())
        counts |= {"labelledPassages": found.passages, "labelledQueries": found.queries, **found.told()}
        warnings += found.warnings(field)
    return counts | _guard_sets(context, store, warnings), warnings


def _found(context: StageContext, raw: Mapping[str, Any], mount: str, field: str) -> LabelledSet:
    """Raises BadInput `LabelledSetNotFound` or `LabelledSetForbidden`."""
    path = str(raw.get("path") or "") if raw["kind"] == "pvc" else ""
    with safe_files.permitted("the labelled set", reason="LabelledSetForbidden", field=field):
        return LabelledSet(
            safe_files.sub_folder(context.sources / mount, path, reason="LabelledSetNotFound", field=field), field
        )


def _guard_sets(context: StageContext, store: Store, warnings: list[str]) -> dict[str, int]:
    """One folder with a set for each guard, by its name; the number of questions in all of them. Adds to `warnings`."""
    guards: Mapping[str, Any] = context.settings.get("guards") or {}
    if not guards:
        return {}
    with store.draft(Artefact.GUARD_SETS) as draft:
        queries = 0
        for name, raw in sorted(guards.items()):
            field = f"spec.evaluation.guards[name={name}].beir.{raw['kind']}.path"
            (draft / name).mkdir()
            found = _found(context, raw, f"{contract.SOURCE_GUARD}{name}", field).write(draft / name)
            context.log("guard set read", guard=name, queries=found.queries, **found.told())
            warnings += found.warnings(field)
            queries += found.queries
        context.extra.append((Artefact.GUARD_SETS, store.keep(Artefact.GUARD_SETS, draft)))
    context.log("guard sets frozen", guards=len(guards), queries=queries)
    return {"guardQueries": queries}


def _corpus(context: StageContext, store: Store) -> Counts:
    raw = context.settings["corpus"]
    corpus = Corpus(
        mount=context.sources / contract.SOURCE_CORPUS,
        kind=str(raw["kind"]),
        path=str(raw.get("path") or ""),
        include=tuple(raw.get("include") or DEFAULT_INCLUDE),
        min_text_length=int(raw.get("minTextLength", 50)),  # NVIDIA embed recipe: min_text_length
        limits=Limits.of(raw.get("limits") or {}),
    )
    with store.draft(Artefact.CORPUS) as draft:
        counts = write_documents(corpus, draft / documents.FILE)
        context.extra.append((Artefact.CORPUS, store.keep(Artefact.CORPUS, draft)))
    context.log("documents frozen", **counts.to_json(), **({"skipped": counts.told()} if counts.told() else {}))
    return counts


def _base_model(context: StageContext, model: BaseModel, store: Store) -> tuple[EncoderDescription, list[str]]:
    """What it is, and what may be wrong with it."""
    if model.kind != "huggingFace":
        kept, description = freeze(model, folder_of(model, context.sources / contract.SOURCE_MODEL), store)
    else:
        kept, description = _downloaded(context, model, store)
    context.extra.append((Artefact.BASE_MODEL, kept))
    context.log("base model frozen", folder=kept.folder.name)
    return description, warnings_about(model, kept.folder, description)


def _described_as_today(model: BaseModel, folder: Path) -> bool:
    """Whether a model that an earlier release froze would be accepted and described so by this one."""
    try:
        return check(model, folder)[2] == EncoderDescription.load(folder)
    except BadInput:
        return False  # the download tells what is wrong with it


def _downloaded(context: StageContext, model: BaseModel, store: Store) -> tuple[Described, EncoderDescription]:
    downloads = hugging_face.Downloads(store.root, model)
    known = downloads.recall()
    if known is not None:
        found = store.recall(*known)
        if found is not None and _described_as_today(model, found.folder):
            context.log("this commit was downloaded before; its files are intact")
            return found, EncoderDescription.load(found.folder)

    def between(done: int, files: int) -> None:
        context.stop_if_asked()
        context.progress(done, files)

    target = context.scratch("download")
    hugging_face.download(
        model,
        target,
        token=context.secret(contract.SECRET_HUGGING_FACE, field=hugging_face.TOKEN_FIELD),
        endpoint=os.environ.get(HF_ENDPOINT),
        authorities=context.authorities(contract.SECRET_HUGGING_FACE),
        between=between,
    )
    kept, description = freeze(model, target, store)
    downloads.remember(kept.folder.name, kept.digest)
    return kept, description
