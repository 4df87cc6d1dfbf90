"""The base model from the Hugging Face Hub, or a mirror that HF_ENDPOINT names, at a pinned commit."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from embedding_stages import trust
from embedding_stages.contract import fingerprint_of
from embedding_stages.encoder.description import QUERY_MAP_FILE
from embedding_stages.encoder.modules import module_folders, modules_in
from embedding_stages.encoder.safetensors_check import INDEX_FILE, SINGLE_FILE, no_weights
from embedding_stages.errors import BadInput, Transient, printable
from embedding_stages.inputs.model import BaseModel, as_base_model, check_small_files, is_wanted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SOURCE_FIELD: Final = "spec.baseModel.source.huggingFace"
TOKEN_FIELD: Final = f"{SOURCE_FIELD}.tokenSecretRef"
REVISION_FIELD: Final = f"{SOURCE_FIELD}.revision"
MIRROR_FIELD: Final = "spec.stages.inputs.env[name=HF_ENDPOINT]"
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
    authorities: Path | None,
    between: Callable[[int, int], None],
) -> None:
    """Put the model's files into `target`; files that an earlier attempt completed there are not fetched again.

    `authorities`: a PEM file of certificates that are trusted beside the system's. `between` is called before every
    file with the number done and the number of all. Raises BadInput `BaseModelNotFound`, `BaseModelForbidden`,
    `CABundleInvalid`, `HubCertificateUntrusted`, and what `describe_model` does; Transient `HubUnreachable`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with _trusting(authorities):
            _fetch(HfApi(endpoint=endpoint, token=token or False), model, target, between)
    except HFValidationError as error:
        raise BadInput(
            "BaseModelNotFound", f"{printable(model.name)} is no repository name", field=NAME_FIELD
        ) from error
    except LocalEntryNotFoundError as error:
        raise _no_answer(error, "does not answer") from error
    except HfHubHTTPError as error:
        raise _http_failure(model, error, has_token=bool(token)) from error
    except Exception as error:
        if _is_network(error):
            raise _no_answer(error, f"cannot be reached: {type(error).__name__}") from error
        raise


def _fetch(hub: HfApi, model: BaseModel, target: Path, between: Callable[[int, int], None]) -> None:
    """The list of files comes from the hub each time: the library's own snapshot function takes a half-filled folder
    for complete when the hub does not answer.
    """
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


@contextmanager
def _trusting(authorities: Path | None) -> Iterator[None]:
    """The library's requests trust `authorities` beside the system's. Raises BadInput `CABundleInvalid`.

    Its client stays as the library makes it but for that. Xet is a client of its own, which knows nothing of these
    authorities; without it the same files come by the requests of this one.
    """
    if authorities is None:
        yield
        return
    from huggingface_hub import constants, get_session, set_client_factory

    with trust.reading_bundle(SOURCE_FIELD):
        trusted = trust.trusting(authorities)
    plain, without_xet = get_session(), constants.HF_HUB_DISABLE_XET

    def client(verify: ssl.SSLContext | bool) -> Any:
        hooks, follows = plain.event_hooks, plain.follow_redirects
        return type(plain)(verify=verify, event_hooks=hooks, follow_redirects=follows, timeout=plain.timeout)

    constants.HF_HUB_DISABLE_XET = True
    set_client_factory(lambda: client(trusted))
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = without_xet
        set_client_factory(lambda: client(True))


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


def _no_answer(error: Exception, said: str) -> BadInput | Transient:
    """The hub, or the place where it sends a file's request, has not answered."""
    fault = trust.certificate_fault(error)
    if fault is not None and not trust.is_out_of_date(fault):
        host = _host_asked(error)
        whose = f"the model hub ({printable(host)})" if host else "the model hub"
        return trust.untrusted(fault, "HubCertificateUntrusted", whose=whose, field=SOURCE_FIELD, address=MIRROR_FIELD)
    detail = f": {fault.verify_message}" if fault is not None else ""
    return Transient("HubUnreachable", f"the model hub {said}{detail}; {_WITHOUT}", field=SOURCE_FIELD)


def _host_asked(error: BaseException) -> str:
    """Empty where the library's client does not tell it. Files may come from elsewhere than the list of them."""
    cause: BaseException | None = error
    while cause is not None:
        if request := trust.request_of(cause):
            return urlsplit(str(request.url)).hostname or ""
        cause = cause.__cause__ or cause.__context__
    return ""


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
