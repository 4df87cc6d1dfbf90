"""Requests to an API server, and the only file that knows the client."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import orjson
import urllib3
from kubernetes import client, config

from embedding_operator.cluster.answers import error_of, is_status, says_absent
from embedding_operator.cluster.errors import Unavailable
from embedding_operator.cluster.server_clock import ServerClock
from embedding_operator.cluster.tenure import Tenure, steady_s
from embedding_operator.metrics import METRICS
from embedding_operator.objects.manifests.nim_service import API as NIM_API
from embedding_operator.objects.nim_services import NIM_SERVICE
from embedding_operator.objects.workloads import WORKLOAD
from embedding_operator.resource.api import GROUP, KIND, MANAGER, PLURAL, VERSION

Raw = dict[str, Any]
Body = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
NO_ANSWER: Final = (urllib3.exceptions.HTTPError, client.ApiException, OSError)
_TIMEOUT_S: Final = 15.0
_CONNECT_S: Final = 5.0  # at most, of each of the attempts to connect
_CONNECT_AGAIN: Final = 2
_ADDRESS: Final = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?")  # would make every message another
_OF_OTHERS: Final = (NIM_SERVICE, WORKLOAD)  # kinds whose CRD may not be installed
_PATHS: Final[Mapping[str, tuple[str, str]]] = {  # kind -> (API path, plural)
    KIND: (f"/apis/{GROUP}/{VERSION}", PLURAL),
    "Job": ("/apis/batch/v1", "jobs"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Service": ("/api/v1", "services"),
    "Pod": ("/api/v1", "pods"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Event": ("/api/v1", "events"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Secret": ("/api/v1", "secrets"),
    NIM_SERVICE: (f"/apis/{NIM_API}", "nimservices"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    WORKLOAD: ("/apis/kueue.x-k8s.io/v1beta1", "workloads"),
}


def connected(connections: int) -> client.ApiClient:
    """In a pod with its ServiceAccount, elsewhere with the current kubeconfig."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    settings = client.Configuration.get_default_copy()
    settings.connection_pool_maxsize = connections
    # What cannot be connected is tried again at once; what was sent is the work queue's to repeat, after a pause.
    # urllib3 would answer in the server's place: to a redirect, and to a 413, 429 or 503 with a Retry-After header,
    # by an error without the server's words and seconds.
    settings.retries = urllib3.Retry(
        connect=_CONNECT_AGAIN,
        read=0,
        status=0,
        other=0,
        redirect=0,
        raise_on_redirect=False,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    return client.ApiClient(settings)


class Requests:
    """Sends what is asked while this process leads, and says of each failure what it means."""

    def __init__(self, api: client.ApiClient, tenure: Tenure) -> None:
        self._api, self._tenure, self._clock = api, tenure, ServerClock()

    def close(self) -> None:
        self._api.close()

    def now(self) -> datetime:
        """The server's time. This machine's clock may jump; what runs must not seem to have run for hours then."""
        return self._clock.now(*_moment()).replace(microsecond=0)

    def pages(
        self,
        kind: str,
        namespace: str | None,
        labels: str,
        fields: str,
        most: int,
        *,
        accept: str = "application/json",
        slim: Callable[[Raw], Raw] | None = None,
    ) -> Generator[Raw, None, str]:
        """Object after object. Returns the version of the whole list: a watch from it tells of all that came after.

        `slim` makes what is read of an object: a whole page takes much more while it waits for its reader.
        """
        token = ""
        while True:
            wanted = {"labelSelector": labels, "fieldSelector": fields, "limit": str(most), "continue": token}
            query = {key: value for key, value in wanted.items() if value}
            # Where the CRD is not installed there are none.
            missing_ok = kind in _OF_OTHERS
            page = self.call("list", kind, namespace, "", query=query, missing_ok=missing_ok, accept=accept) or {}
            items, meta = page.get("items") or [], page.get("metadata") or {}
            del page  # the next one is decoded before this name is bound again
            items.reverse()
            if slim is not None:
                items = list(map(slim, items))
            while items:
                yield {**items.pop(), "kind": kind}
            token = meta.get("continue", "")
            if not token:
                return str(meta.get("resourceVersion", ""))

    def call(
        self,
        verb: str,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        body: Body = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        subresource: str = "",
        missing_ok: bool = False,
        accept: str = "application/json",
        ends: float | None = None,
    ) -> Raw | None:
        """`ends`: by when the answer has to be there, on the monotonic clock, where less time is left than usual."""
        timeout_s = _TIMEOUT_S if ends is None else max(0.01, min(_TIMEOUT_S, ends - time.monotonic()))
        base, plural = _PATHS[kind]
        parts = [base, *(("namespaces", namespace) if namespace else ()), plural]
        path = "/".join([*parts, *(part for part in (name, subresource) if part)])
        method = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "update": "PUT"}.get(verb, "DELETE")
        if not name and isinstance(body, Mapping):
            name = (body.get("metadata") or {}).get("name", "")
        where = (kind, namespace or "", name)
        connect_s = _CONNECT_S
        if method != "GET" and kind != "Lease":
            self._tenure.check(verb, *where)
            # Nothing is sent before there is a connection, which must not come when the time is over.
            connect_s = min(connect_s, self._tenure.left_s() / (1 + _CONNECT_AGAIN))
        try:
            status, headers, data = self.send(
                method, path, query or {}, body, content_type, accept=accept, timeout_s=timeout_s, connect_s=connect_s
            )
        except NO_ANSWER as error:
            said = _ADDRESS.sub("", f"{type(error).__name__}: {error}")
            traceback.clear_frames(error.__traceback__)  # urllib3's hold the error, and with it the whole pass
            raise Unavailable(verb, *where, said) from error
        came = _moment()
        answer = _object(data) if status < 300 else None
        if answer is not None or (status >= 300 and is_status(data)):  # the time of a proxy is its own
            self._clock.hear(headers.get("Date", ""), *came)
        if status == 404 and missing_ok and (kind in _OF_OTHERS or says_absent(data)):
            return None
        if status >= 300:
            raise error_of(status, verb, where, headers, data)
        if answer is None:
            words = data[:200].decode(errors="replace")
            raise Unavailable(verb, *where, f"the answer is no JSON object, so it is not the API server's: {words}")
        return answer

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body,
        content_type: str,
        *,
        timeout_s: float,
        accept: str = "application/json",
        connect_s: float = _CONNECT_S,
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": MANAGER}
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        connect_s = max(0.01, min(connect_s, timeout_s / (1 + _CONNECT_AGAIN)))
        # The client sends JSON for every content type that is JSON or YAML, and JSON is YAML.
        try:
            response = self._api.call_api(method, url, headers, body, _request_timeout=(connect_s, timeout_s))
        except NO_ANSWER:
            METRICS.api_answered(method, None)
            raise
        METRICS.api_answered(method, response.status)
        return response.status, response.headers, response.read()


def _moment() -> tuple[datetime, float]:
    """This machine's time, and what its clock that is never set shows."""
    return datetime.now(UTC), steady_s()


def _object(data: bytes) -> Raw | None:
    try:
        found = orjson.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
