"""The base model from the Hugging Face Hub, or a mirror that HF_ENDPOINT names, at a pinned commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from embedding_stages.contract import fingerprint_of
from embedding_stages.encoder.description import QUERY_MAP_FILE
from embedding_stages.encoder.modules import module_folders, modules_in
from embedding_stages.encoder.safetensors_check import INDEX_FILE, SINGLE_FILE, no_weights
from embedding_stages.errors import BadInput, Transient, printable
from embedding_stages.inputs.model import BaseModel, as_base_model, check_small_files, is_wanted

SOURCE_FIELD: Final = "spec.baseModel.source.huggingFace"
TOKEN_FIELD: Final = f"{SOURCE_FIELD}.tokenSecretRef"
REVISION_FIELD: Final = f"{SOURCE_FIELD}.revision"
NAME_FIELD: Final = "spec.baseModel.name"
_WITHOUT: Final = (
    "where it cannot be reached at all, take the model from a volume or an image (spec.baseModel.source.pvc, image), "
    "or name a mirror or a proxy in spec.stages.inputs.env (HF_ENDPOINT, HTTPS_PROXY)"
)


def download(
    model: BaseModel,
    target: Path,
    *,
    token: str | None,
    endpoint: str | None,
    between: Callable[[int, int], None],
) -> None:
    """Put the model's files into `target`; files that an earlier attempt completed there are not fetched again.

    `between` is called before every file with the number done and the number of all. The list of files comes
    from the hub each time: the library's own snapshot function takes a half-filled folder for complete when the
    hub does not answer. Raises BadInput `BaseModelNotFound`, `BaseModelForbidden`, and what `describe_model` does;
    Transient `HubUnreachable`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    hub = HfApi(endpoint=endpoint, token=token or False)
    try:
        info = hub.model_info(model.name, revision=model.revision, timeout=30)
        names = [str(item.rfilename) for item in info.siblings or []]
        small, weights = _small_files(names), _weights(model, names)
        for number, name in enumerate([*small, *weights]):
            between(number, len(small) + len(weights))
            if number == len(small):  # gigabytes of a model that cannot be used need not come
                others = _of_modules(model, target, names, small)
                for other in others:
                    hub.hf_hub_download(model.name, other, revision=info.sha, local_dir=target)
                with as_base_model(model):
                    check_small_files(model, target, [*small, *others])
            hub.hf_hub_download(model.name, name, revision=info.sha, local_dir=target)
    except HFValidationError as error:
        raise BadInput(
            "BaseModelNotFound", f"{printable(model.name)} is no repository name", field=NAME_FIELD
        ) from error
    except LocalEntryNotFoundError as error:
        raise Transient("HubUnreachable", f"the model hub does not answer; {_WITHOUT}", field=SOURCE_FIELD) from error
    except HfHubHTTPError as error:
        raise _http_failure(model, error, has_token=bool(token)) from error
    except Exception as error:
        if _is_network(error):
            raise Transient(
                "HubUnreachable",
                f"the model hub cannot be reached: {type(error).__name__}; {_WITHOUT}",
                field=SOURCE_FIELD,
            ) from error
        raise


class Downloads:
    """Remembers which frozen folder came of which download: a commit never changes, so it is not fetched twice."""

    def __init__(self, root: Path, model: BaseModel) -> None:
        identity = [model.name, model.revision, dict(model.prefixes or {}), model.prefixes is None, model.max_tokens]
        self._path = root / f"download-{fingerprint_of(identity)[:16]}.json"

    def recall(self) -> tuple[str, str] | None:
        """(folder name, digest) or None."""
        try:
            raw = json.loads(self._path.read_bytes())
            return str(raw["folder"]), str(raw["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, folder: str, digest: str) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps({"folder": folder, "digest": digest}))
        draft.replace(self._path)


def _small_files(names: list[str]) -> list[str]:
    """Configuration and tokenizer, and a query map: the model is refused for it."""
    return sorted(name for name in names if is_wanted(name) or name == QUERY_MAP_FILE)


def _of_modules(model: BaseModel, target: Path, names: list[str], fetched: list[str]) -> list[str]:
    """Configurations of modules in folders with names of their own, which modules.json tells; weights of Dense ones."""
    with as_base_model(model):
        wanted = [f"{folder}/config.json" for folder in module_folders(target)]
        wanted += [f"{folder}/{SINGLE_FILE}" for kind, folder in modules_in(target) if kind == "Dense"]
    return [name for name in wanted if name in names and name not in fetched]


def _weights(model: BaseModel, names: list[str]) -> list[str]:
    """At least one file. Raises BadInput `BaseModelPickled` or `BaseModelIncomplete`."""
    if SINGLE_FILE in names:
        return [SINGLE_FILE]
    if INDEX_FILE in names:
        return [INDEX_FILE, *sorted(name for name in names if "/" not in name and name.endswith(".safetensors"))]
    with as_base_model(model):
        raise no_weights((name for name in names if "/" not in name), field=model.source_field)


def _http_failure(model: BaseModel, error: Exception, *, has_token: bool) -> BadInput | Transient:
    from huggingface_hub.errors import RevisionNotFoundError

    status = int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
    name = printable(model.name)
    if isinstance(error, RevisionNotFoundError):
        return BadInput(
            "BaseModelNotFound",
            f"{name} has no commit {printable(str(model.revision))}; correct it",
            field=REVISION_FIELD,
        )
    if status in (401, 403):
        cure = "the token may not read it: accept its licence or use another token"
        if not has_token:
            cure = "it is private, gated or misspelt: name a Secret with a token, or correct spec.baseModel.name"
        return BadInput("BaseModelForbidden", f"the hub refuses {name} (HTTP {status}): {cure}", field=TOKEN_FIELD)
    if status == 404:
        return BadInput("BaseModelNotFound", f"the hub has no model {name}; correct the name", field=NAME_FIELD)
    return Transient("HubUnreachable", f"the model hub answers HTTP {status}", field=SOURCE_FIELD)


def _is_network(error: Exception) -> bool:
    """Connection and time-out errors of whichever HTTP library the installed huggingface_hub uses."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(
        names
        & {
            "requests.ConnectionError",
            "requests.Timeout",
            "requests.ChunkedEncodingError",
            "httpx.TransportError",
            "httpx2.TransportError",
            "huggingface_hub.OfflineModeIsEnabled",
        }
    )
