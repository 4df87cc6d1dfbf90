"""What a look at the sources does besides: it measures the drift, and removes what an earlier look left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import Any, Final

from embedding_stages.artefacts import Described
from embedding_stages.contract import LOOK, Artefact, Stage
from embedding_stages.inputs.drift import measured
from embedding_stages.runner import StageContext

_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")
_CORPUS: Final = re.compile(rf"{Stage.INPUTS.value}/{Artefact.CORPUS.value}-[0-9a-f]{{16}}")


def look_back(context: StageContext) -> dict[str, Any]:
    """What goes into the details of a look; nothing for the inputs stage of a revision."""
    look = context.settings.get(LOOK)
    if not isinstance(look, Mapping):
        return {}
    corpus = next(kept for artefact, kept in context.extra if artefact is Artefact.CORPUS)
    trained = look.get("trained") or {}
    _remove_earlier(context, look.get("before") or {}, corpus, str(trained.get("path", "")))
    if not trained or trained.get("digest") == corpus.digest:
        return {}
    drift = measured(context.workspace.root / str(trained["path"]), corpus.folder)
    if drift is None:
        context.log("the drift is not known: the documents that were trained on cannot be read", **trained)
        return {}
    context.log("drift of the documents", **drift.to_json())
    return {"drift": drift.to_json()}


def _remove_earlier(context: StageContext, before: Mapping[str, Any], corpus: Described, trained: str) -> None:
    """The result of the look before this one, and its documents where neither this look nor the revision has them."""
    root = context.workspace.root
    fingerprint, path = str(before.get("fingerprint", "")), str(before.get("corpus", ""))
    if _FINGERPRINT.fullmatch(fingerprint) and fingerprint != context.request.fingerprint:
        shutil.rmtree(root / Stage.INPUTS.value / fingerprint, ignore_errors=True)
    if _CORPUS.fullmatch(path) and path != trained and root / path != corpus.folder:
        shutil.rmtree(root / path, ignore_errors=True)
